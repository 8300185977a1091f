package netmon

import (
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// readTables asks the kernel for links, addresses, routes and rules. It answers from one moment for each of
// them; what changes in between, it tells of by another message.
func readTables() (tables, error) {
	t := tables{links: make(map[int]link)}
	for _, dump := range []struct {
		what string
		ask  int
		take func([]byte)
	}{
		{"links", unix.RTM_GETLINK, t.addLink},
		{"addresses", unix.RTM_GETADDR, t.addAddress},
		{"routes", unix.RTM_GETROUTE, t.addRoute},
		{"rules", unix.RTM_GETRULE, t.addRule},
	} {
		b, err := syscall.NetlinkRIB(dump.ask, unix.AF_UNSPEC)
		if err != nil && dump.ask == unix.RTM_GETRULE {
			continue // a kernel may be built without them
		}
		if err != nil {
			return tables{}, fmt.Errorf("read %s: %w", dump.what, err)
		}
		messages, err := syscall.ParseNetlinkMessage(b)
		if err != nil {
			return tables{}, fmt.Errorf("read %s: %w", dump.what, err)
		}
		for _, m := range messages {
			if int(m.Header.Type) == dump.ask-2 { // RTM_NEWLINK is two below RTM_GETLINK, and so on
				dump.take(m.Data)
			}
		}
	}
	return t, nil
}

// attributes returns the attributes of a message after a header of n bytes (rtnetlink(7), struct rtattr).
func attributes(b []byte, n int) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for b := b[min(n, len(b)):]; len(b) >= unix.SizeofRtAttr; {
			size := int(binary.NativeEndian.Uint16(b))
			if size < unix.SizeofRtAttr || size > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofRtAttr:size]) {
				return
			}
			b = b[min((size+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1), len(b)):]
		}
	}
}

// number returns the number that an attribute holds, 0 if it is none.
func number(value []byte) uint32 {
	if len(value) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(value)
}

// addLink takes a struct ifinfomsg: family and padding, type (2 bytes each), index, flags, change (4 each).
func (t *tables) addLink(b []byte) {
	if len(b) < unix.SizeofIfInfomsg {
		return
	}
	flags := number(b[8:])
	l := link{loopback: flags&unix.IFF_LOOPBACK != 0}
	waits := flags&unix.IFF_DORMANT != 0 // for something above the carrier, as a Wi-Fi for its keys
	for kind, value := range attributes(b, unix.SizeofIfInfomsg) {
		switch kind {
		case unix.IFLA_LINKMODE:
			waits = waits || len(value) > 0 && value[0] != 0
		case unix.IFLA_MASTER:
			l.master = int(number(value))
		case unix.IFLA_CARRIER_UP_COUNT:
			l.ups = number(value)
		case unix.IFLA_LINKINFO:
			for kind, value := range attributes(value, 0) {
				if kind == unix.IFLA_INFO_KIND {
					l.kind = unix.ByteSliceToString(value)
				}
			}
		}
	}
	// With the carrier a link runs, but the kernel sets IFF_RUNNING up to a second later: it does
	// so for all links of the machine together, once a second. It has the last word on those that wait.
	l.running = flags&unix.IFF_UP != 0 && flags&unix.IFF_LOWER_UP != 0 && (flags&unix.IFF_RUNNING != 0 || !waits)
	t.links[int(number(b[4:]))] = l
}

// addAddress takes a struct ifaddrmsg: family, length of the prefix, flags, scope (1 byte each), index of the link (4).
func (t *tables) addAddress(b []byte) {
	if len(b) < unix.SizeofIfAddrmsg || b[3] == unix.RT_SCOPE_HOST {
		return
	}
	flags := uint32(b[2])
	var ip, local []byte
	for kind, value := range attributes(b, unix.SizeofIfAddrmsg) {
		switch kind {
		case unix.IFA_ADDRESS: // the other end's, of an IPv4 link between two
			ip = value
		case unix.IFA_LOCAL:
			local = value
		case unix.IFA_FLAGS: // all of them
			flags = number(value)
		}
	}
	if local != nil {
		ip = local
	}
	addr, ok := netip.AddrFromSlice(ip)
	// Whether somebody else has a tentative one is not known yet (RFC 4862 section 5.4). An optimistic one may be used meanwhile (RFC 4429).
	tentative := flags&unix.IFA_F_TENTATIVE != 0 && flags&unix.IFA_F_OPTIMISTIC == 0
	if !ok || tentative || flags&unix.IFA_F_DADFAILED != 0 {
		return
	}
	t.addrs = append(t.addrs, address{
		link:       int(number(b[4:])),
		prefix:     netip.PrefixFrom(addr, int(b[1])),
		deprecated: flags&unix.IFA_F_DEPRECATED != 0,
	})
}

// addRoute takes a struct rtmsg: family, lengths of the destination's and the source's prefix, TOS, table, protocol,
// scope, type (1 byte each), flags (4).
func (t *tables) addRoute(b []byte) {
	if len(b) < unix.SizeofRtMsg {
		return
	}
	protocol, kind := b[5], b[7]
	switch {
	case protocol == unix.RTPROT_KERNEL: // it comes and goes with an address
		return
	case kind == unix.RTN_LOCAL, kind == unix.RTN_BROADCAST, kind == unix.RTN_ANYCAST, kind == unix.RTN_MULTICAST:
		return
	}
	r := route{all: kind == unix.RTN_UNICAST && b[1] == 0}
	key := slices.Clone(b[:8])
	for kind, value := range attributes(b, unix.SizeofRtMsg) {
		switch kind {
		case unix.RTA_CACHEINFO, unix.RTA_METRICS:
			continue // lifetimes and use; not where packets go
		case unix.RTA_OIF:
			r.links = append(r.links, int(number(value)))
		case unix.RTA_MULTIPATH:
			r.links = append(r.links, nextHops(value)...)
		}
		key = append(key, byte(kind), byte(len(value)))
		key = append(key, value...)
	}
	if kind != unix.RTN_UNICAST {
		r.links = nil // it forbids; IPv6 has the loopback interface there
	}
	r.key = string(key)
	t.routes = append(t.routes, r)
}

// nextHops returns the links of a list of struct rtnexthop: length (2 bytes), flags, weight (1 each), index of the
// link (4), attributes.
func nextHops(b []byte) (links []int) {
	for len(b) >= unix.SizeofRtNexthop {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtNexthop || size > len(b) {
			break
		}
		links = append(links, int(number(b[4:])))
		b = b[min((size+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1), len(b)):]
	}
	return links
}

// addRule takes a struct fib_rule_hdr, whose first byte is the family. Those of multicast have others.
func (t *tables) addRule(b []byte) {
	if len(b) > 0 && (b[0] == unix.AF_INET || b[0] == unix.AF_INET6) {
		t.routes = append(t.routes, route{key: "rule" + string(b)})
	}
}

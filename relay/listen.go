package relay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// portTries bounds the search for a port that is free for both UDP and TCP. One
// in a few is, even on a busy host.
const portTries = 32

// listen opens UDP and TCP on one port.
func listen(addr string) (*net.UDPConn, *net.TCPListener, error) {
	if addr == "" {
		addr = ":0"
	}
	ua, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: ListenAddr %q: %w", ErrBadOption, addr, err)
	}
	tries := portTries
	if ua.Port != 0 {
		tries = 1
	}
	for range tries {
		var pc *net.UDPConn
		if pc, err = net.ListenUDP("udp", ua); err != nil {
			return nil, nil, fmt.Errorf("listen on %q: %w", addr, err)
		}
		ta := &net.TCPAddr{IP: ua.IP, Port: pc.LocalAddr().(*net.UDPAddr).Port, Zone: ua.Zone}
		var ln *net.TCPListener
		if ln, err = net.ListenTCP("tcp", ta); err == nil {
			return pc, ln, nil
		}
		pc.Close()
	}
	return nil, nil, fmt.Errorf("listen on %q: %w", addr, err)
}

// urlOf returns the URL of a relay that listens on addr. In place of a wildcard
// address it has the machine's first address that others may reach.
func urlOf(s *Server, addr net.Addr) (URL, error) {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return URL{}, fmt.Errorf("%w: listening on %q: %w", ErrBadOption, addr, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return URL{}, fmt.Errorf("%w: listening on %q: %w", ErrBadOption, addr, err)
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		host = machineAddr(ip.Is4()).String()
	}
	return URL{ID: s.id, Host: host, Port: uint16(n)}, nil
}

// machineAddr returns the first address of the machine that is neither loopback nor
// link-local, or 127.0.0.1 if there is none. With only4 it must be of IPv4.
func machineAddr(only4 bool) netip.Addr {
	addrs, _ := net.InterfaceAddrs() // after an error 127.0.0.1 is returned
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err == nil && prefix.Addr().IsGlobalUnicast() && (prefix.Addr().Unmap().Is4() || !only4) {
			return prefix.Addr().Unmap()
		}
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// closeAll closes what is not nil.
func closeAll(pc net.PacketConn, ln net.Listener) error {
	var errs []error
	if pc != nil {
		errs = append(errs, pc.Close())
	}
	if ln != nil {
		errs = append(errs, ln.Close())
	}
	return errors.Join(errs...)
}

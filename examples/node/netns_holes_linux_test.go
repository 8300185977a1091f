package main

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// These tests are about two hosts, each behind a router of its own that masquerades, and a relay
// outside, which is all that their nodes are told of each other. Linux keeps the port of
// a host where that is free, or gives it one of --to-ports for all destinations, and lets in what
// comes from an address and port to which the host has sent. What is asserted is the path that
// they end on and that the stream is still the same; the times in the log are for the reader.

// A home is a host behind a router that masquerades, and a node on it.
type home struct {
	*node
	router netns // a leaf of a star
}

// newHome puts a host with the address behind a leaf of a star, which becomes its router. options
// are those of the MASQUERADE rule.
func newHome(router netns, word, ip string, options []string) home {
	t := router.t
	t.Helper()
	host := newNetns(t, word, ip)
	command(t, "ip", "link", "add", "eth0", "netns", host.name, "type", "veth", "peer", "name", "home", "netns", router.name)
	router.ipBatch("address add 192.168.1.1/24 dev home", "link set home up")
	host.ipBatch("address add "+ip+"/24 dev eth0", "link set eth0 up", "route add default via 192.168.1.1")
	router.within("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
	h := home{node: host.node(), router: router}
	h.listen = ":7001"
	h.masquerade("-A", options)
	return h
}

// masquerade adds the router's rule ("-A") or deletes it ("-D").
func (h home) masquerade(op string, options []string) {
	h.router.t.Helper()
	rule := []string{"iptables", "-w", "-t", "nat", op, "POSTROUTING", "-o", "eth0", "-p", "udp", "-j", "MASQUERADE"}
	h.router.within(slices.Concat(rule, options)...)
}

// guard makes the router drop what comes for itself, as the firewall of a home router does. Where
// none does, a ping of the other side that comes before the host has sent its own counts as
// a connection to the router, and the host's own gets another port than it has for all others.
func (h home) guard() {
	h.router.t.Helper()
	h.router.within("iptables", "-w", "-A", "INPUT", "-i", "eth0", "-p", "udp", "-j", "DROP")
}

// forget makes the router forget all mappings, as the kernel does for an address that is lost,
// and use other options from now on.
func (h home) forget(was, options []string) {
	h.router.t.Helper()
	h.masquerade("-A", options) // first: without any rule packets would pass as they are
	h.masquerade("-D", was)
	outside := h.router.ip + "/24 dev eth0"
	gateway := netip.MustParseAddr(h.router.ip).Prev().String()
	h.router.ipBatch("address delete "+outside, "address add "+outside, "route add default via "+gateway) // the route went with the address
}

// path returns where n's packets to m go, "relay" or "direct", by its last event that says so.
func (n *node) path(m *node) (path string) {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.log {
		if l.has([]string{"msg=event", "peer=" + m.id.Short()}) && l["path"] != "" {
			path = l["path"]
		}
	}
	return path
}

// wantPath fails the test unless both nodes send to each other over a path of that kind.
func wantPath(n, m *node, want string) {
	n.t.Helper()
	if there, back := n.path(m), m.path(n); there != want || back != want {
		n.t.Errorf("one side sends over a %s path, the other one over a %s path, want %s", there, back, want)
	}
}

// meet starts the nodes of both homes, which keep a stream to each other, and waits until they are
// connected through the relay.
func meet(a, b home, relay string) {
	a.t.Helper()
	a.run(slices.Concat(asks, []string{through(b.node, relay), "-relay=" + relay})...)
	b.run(slices.Concat(asks, []string{through(a.node, relay), "-relay=" + relay})...)
	for n, peer := range map[*node]*node{a.node: b.node, b.node: a.node} {
		n.await(0, "msg=event", "kind=connected", "peer="+peer.id.Short(), "path=relay")
	}
}

// newHomes returns two homes, and the URL of a relay outside, which runs. The two networks
// have the same addresses, as those of so many routers have.
func newHomes(t *testing.T, word string, options ...string) (a, b home, relay string) {
	t.Helper()
	return homesOn(newStar(t, word), word, options...)
}

// homesOn is newHomes on a star that is there.
func homesOn(net star, word string, options ...string) (a, b home, relay string) {
	t := net.router.t
	t.Helper()
	r := newRelayProgram(net.relay)
	r.run()
	a = newHome(net.a, word+"-a-home", "192.168.1.2", options)
	b = newHome(net.b, word+"-b-home", "192.168.1.3", options)
	return a, b, r.url
}

func TestPeersBehindNATsBecomeDirect(t *testing.T) {
	skipIfShort(t)
	t.Parallel()
	for _, tc := range []struct {
		name          string
		before, after []string // options of the rule, until the routers forget and then
	}{
		{"ports-kept", nil, nil},
		{"ports-changed", []string{"--to-ports", "40000-40099"}, []string{"--to-ports", "50000-50099"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			a, b, relay := newHomes(t, tc.name, tc.before...)
			a.guard()
			b.guard()
			meet(a, b, relay)
			for n, peer := range map[*node]*node{a.node: b.node, b.node: a.node} {
				connected, from := n.await(0, "msg=event", "kind=connected", "peer="+peer.id.Short())
				direct, _ := n.await(from, "msg=event", "kind=path changed", "peer="+peer.id.Short(), "path=direct")
				t.Logf("direct %v after it was connected", direct.at(t).Sub(connected.at(t)))
			}
			t.Logf("holes punched: a without an answer for %v, b for %v", a.goesOn(b.node, 0), b.goesOn(a.node, 0))
			wantPath(a.node, b.node, "direct")

			aBefore, bBefore, since := a.lines(), b.lines(), time.Now()
			a.forget(tc.before, tc.after)
			b.forget(tc.before, tc.after)
			t.Logf("both NATs forget: a without an answer for %v, b for %v", a.goesOn(b.node, aBefore), b.goesOn(a.node, bBefore))
			// With the same ports, what both send opens the NATs again. With others, they meet at the
			// relay, which sees the new ones and tells them.
			if tc.after != nil {
				for n, want := range map[*node]struct {
					from int
					peer *node
				}{a.node: {aBefore, b.node}, b.node: {bBefore, a.node}} {
					moved := []string{"msg=event", "kind=path changed", "peer=" + want.peer.id.Short()}
					_, relayed := n.await(want.from, append(moved, "path=relay")...)
					direct, _ := n.await(relayed, append(moved, "path=direct")...)
					t.Logf("direct again %v after", direct.at(t).Sub(since).Round(time.Millisecond))
				}
			}
			wantPath(a.node, b.node, "direct")
			wantSameStream(a.node, b.node)
		})
	}
}

func TestPeersBehindNATsThatTellPortsApartKeepTheRelay(t *testing.T) {
	skipIfShort(t)
	t.Parallel()
	a, b, relay := newHomes(t, "apart", "--random-fully")
	a.guard()
	b.guard()
	meet(a, b, relay)
	lastFor(15 * time.Second) // the holes would have been punched long ago
	aBefore, bBefore := a.lines(), b.lines()
	t.Logf("relayed: a without an answer for %v, b for %v", a.goesOn(b.node, aBefore), b.goesOn(a.node, bBefore))
	for _, n := range []*node{a.node, b.node} {
		if moves := n.count("msg=event", "kind=path changed"); moves != 0 {
			t.Errorf("%s has moved %d times", n.id.Short(), moves)
		}
	}
	wantPath(a.node, b.node, "relay")
	wantSameStream(a.node, b.node)
}

// There is a hole between these if the first pings cross on their way, as guard says. Both sides send them at the
// same moment, but for what varies on the way through the relay: less than a ping takes on the Internet of the
// one, which is far on purpose, and more than the microseconds that it takes between namespaces.
func TestStreamGoesOnBetweenRoutersWithoutAFirewall(t *testing.T) {
	skipIfShort(t)
	t.Parallel()
	for _, tc := range []struct {
		name  string
		delay time.Duration // one way
		path  string        // "": either
	}{
		{"far", 300 * time.Millisecond, "direct"},
		{"near", 0, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			word := "open-" + tc.name
			net := newStar(t, word)
			if tc.delay > 0 {
				net.delay(tc.delay)
			}
			a, b, relay := homesOn(net, word)
			meet(a, b, relay)
			lastFor(5 * time.Second) // all pings but those of the rounds are sent
			aBefore, bBefore := a.lines(), b.lines()
			t.Logf("routers without a firewall: a without an answer for %v, b for %v", a.goesOn(b.node, aBefore), b.goesOn(a.node, bBefore))
			t.Logf("they ended on a %s path", a.path(b.node))
			if tc.path == "" {
				tc.path = a.path(b.node)
			}
			wantPath(a.node, b.node, tc.path)
			wantSameStream(a.node, b.node)
		})
	}
}

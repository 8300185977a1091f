package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// A star is three namespaces that reach each other over a fourth one, which
// routes between them and whose firewall decides what passes.
type star struct {
	router, a, b, relay netns
}

func newStar(t *testing.T, word string) star {
	t.Helper()
	s := star{router: newNetns(t, word+"-router", "")}
	// It is a sysctl of the namespace, and off in a fresh one.
	forward := exec.Command("ip", "netns", "exec", s.router.name, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
	if out, err := forward.CombinedOutput(); err != nil {
		t.Skipf("cannot route between namespaces here: %v: %s", err, out)
	}
	for i, leaf := range []*netns{&s.a, &s.b, &s.relay} {
		name := []string{"a", "b", "relay"}[i]
		*leaf = newNetns(t, word+"-"+name, fmt.Sprintf("10.78.%d.2", i))
		gateway := fmt.Sprintf("10.78.%d.1", i)
		command(t, "ip", "link", "add", "eth0", "netns", leaf.name, "type", "veth", "peer", "name", "to-"+name, "netns", s.router.name)
		command(t, "ip", "-n", leaf.name, "address", "add", leaf.ip+"/24", "dev", "eth0")
		command(t, "ip", "-n", leaf.name, "link", "set", "eth0", "up")
		command(t, "ip", "-n", leaf.name, "route", "add", "default", "via", gateway)
		command(t, "ip", "-n", s.router.name, "address", "add", gateway+"/24", "dev", "to-"+name)
		command(t, "ip", "-n", s.router.name, "link", "set", "to-"+name, "up")
	}
	return s
}

// dropUDP makes the router drop the UDP packets between n and all others, or the
// given other one, without a word. letUDP makes it stop.
func (s star) dropUDP(n netns, other ...netns) { s.router.t.Helper(); s.rules("-A", n, other) }
func (s star) letUDP(n netns, other ...netns)  { s.router.t.Helper(); s.rules("-D", n, other) }

func (s star) rules(op string, n netns, other []netns) {
	s.router.t.Helper()
	from, to := []string{"-s", n.ip}, []string{"-d", n.ip}
	if len(other) > 0 {
		from, to = append(from, "-d", other[0].ip), append(to, "-s", other[0].ip)
	}
	for _, match := range [][]string{from, to} {
		rule := append([]string{"ip", "netns", "exec", s.router.name, "iptables", "-w", op, "FORWARD", "-p", "udp"}, match...)
		command(s.router.t, append(rule, "-j", "DROP")...)
	}
}

// A relayProgram is a key and an address, under which the relay program runs once
// or several times.
type relayProgram struct {
	t    *testing.T
	argv []string
	url  string
	*process
}

// newRelayProgram returns the program with a fresh key. It does not run yet.
func newRelayProgram(n netns) *relayProgram {
	t := n.t
	t.Helper()
	keyFile := filepath.Join(t.TempDir(), "relay.key")
	key, err := meshsync.LoadOrCreateKey(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	addr := n.ip + ":7443"
	return &relayProgram{
		t:    t,
		argv: []string{"ip", "netns", "exec", n.name, relayPath, "-key", keyFile, "-listen", addr},
		url:  "relay://" + meshsync.PeerIDFromKey(key).String() + "@" + addr,
	}
}

// run starts the program and waits until it is up.
func (r *relayProgram) run() {
	r.t.Helper()
	r.process = start(r.t, r.argv...)
	r.await(0, "msg=relay is up", "url="+r.url)
}

// at returns when a line was logged.
func (l line) at(t *testing.T) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, l["time"])
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// carriedByTCP returns how many clients the relay has over TCP.
func (r *relayProgram) carriedByTCP(n netns) int {
	r.t.Helper()
	out, err := exec.Command("ip", "netns", "exec", n.name, "ss", "-Htn", "state", "established").Output()
	if err != nil {
		r.t.Fatalf("ss: %v", err)
	}
	return strings.Count(string(out), "\n")
}

// received returns when messages from m arrived, up to the nth after the given
// time, which it waits for.
func (n *node) received(m *node, nth int, after time.Time) (times []time.Time) {
	n.t.Helper()
	for from := 0; nth > 0; {
		var l line
		l, from = n.await(from, "msg=message received", "from="+m.id.Short())
		at := l.at(n.t)
		if times = append(times, at); at.After(after) {
			nth--
		}
	}
	return times
}

// flows waits until n gets messages from m again after something that happened at
// the given time, and logs for how long it did not.
func (n *node) flows(m *node, since time.Time, what string) {
	n.t.Helper()
	const more = 3 // the first one may have been on its way before
	times := n.received(m, more, since)
	var longest time.Duration
	for i := 1; i < len(times); i++ {
		if times[i].After(since) {
			longest = max(longest, times[i].Sub(times[i-1]))
		}
	}
	n.t.Logf("%s: %s got messages, of one a second, with a pause of %.1f s", what, n.id.Short(), longest.Seconds())
}

// What the network does to two nodes and their relay, one thing after another.
// The times in the log are for the reader; what is asserted is that messages flow
// again after each, and that there is one connection.
func TestRelayCarriesWhatTheNetworkDoesNot(t *testing.T) {
	skipIfShort(t)
	t.Parallel()
	if _, err := exec.LookPath("ss"); err != nil {
		t.Skipf("needs ss: %v", err)
	}
	net := newStar(t, "relay")
	r := newRelayProgram(net.relay)
	r.run()
	a := newNode(t, net.a.ip+":7001", "ip", "netns", "exec", net.a.name)
	b := newNode(t, net.b.ip+":7001", "ip", "netns", "exec", net.b.name)
	wantConns := func(n int) {
		t.Helper()
		a.wantConns(b, n)
		b.wantConns(a, n)
	}

	net.dropUDP(net.a, net.b)
	a.run(registers(b), through(b, r.url), "-relay="+r.url)
	b.run(registers(a), through(a, r.url), "-relay="+r.url)
	since := time.Now()
	for n, peer := range map[*node]*node{a: b, b: a} {
		connected, _ := n.await(0, "msg=event", "kind=connected", "peer="+peer.id.Short(), "path=relay", "relay="+r.url)
		t.Logf("connected through the relay %.2f s after the second node was up", connected.at(t).Sub(since).Seconds())
		n.flows(peer, since, "relayed")
	}

	since = time.Now()
	net.dropUDP(net.relay)
	a.flows(b, since, "UDP to the relay dropped")
	b.flows(a, since, "UDP to the relay dropped")
	if n := r.carriedByTCP(net.relay); n != 2 {
		t.Errorf("%d clients use TCP, want 2", n)
	}
	wantConns(1)

	net.letUDP(net.relay)
	r.kill()
	lastFor(3 * time.Second) // less than the idle timeout
	since = time.Now()
	r.run()
	a.flows(b, since, "relay killed, and started again 3 s later")
	b.flows(a, since, "relay killed, and started again 3 s later")
	wantConns(1)

	since = time.Now()
	net.letUDP(net.a, net.b)
	for n, peer := range map[*node]*node{a: b, b: a} {
		direct, _ := n.await(0, "msg=event", "kind=path changed", "peer="+peer.id.Short(), "path=direct", "remote="+peer.addr)
		t.Logf("direct %.2f s after that was possible", direct.at(t).Sub(since).Seconds())
		n.flows(peer, direct.at(t), "direct path")
	}
	wantConns(1)
	for _, n := range []*node{a, b} {
		if failed := n.count("msg=message not sent"); failed != 0 {
			t.Errorf("%s could not send %d messages", n.id.Short(), failed)
		}
	}
}

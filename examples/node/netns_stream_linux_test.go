package main

import (
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// These tests are about one stream, on which a node sends a peer a message every 20 ms
// and gets it back, while something happens to the path under it. What is asserted is
// that the connection and the stream outlive that; the pauses in the log are for the
// reader.

// asks are the flags that make a node keep such a stream to each peer it registers.
var asks = []string{"-echo=20ms"}

const (
	// pauseLimit is for a busy machine: the pauses are a tenth of it, and a connection
	// that stays on a dead path has one of the idle timeout, 15 s.
	pauseLimit = 5 * time.Second
	// Reports come once a second. What has happened shows in the first minReports of
	// them, and it is over when none of the last calmReports has a pause of calmLimit.
	minReports, calmReports = 5, 3
	calmLimit               = time.Second
)

// goesOn waits until m answers n's messages steadily, after something that happened when
// n had logged so many lines. It returns the longest time without an answer since.
func (n *node) goesOn(m *node, from int) (pause time.Duration) {
	n.t.Helper()
	for reports, calm := 0, 0; reports < minReports || calm < calmReports; reports++ {
		var l line
		l, from = n.await(from, "msg=echo", "peer="+m.id.Short())
		longest, err := time.ParseDuration(l["longest"])
		if err != nil {
			n.t.Fatal(err)
		}
		if calm++; longest > calmLimit {
			calm = 0
		}
		pause = max(pause, longest)
	}
	if pause > pauseLimit {
		n.t.Errorf("%s had no answer for %v", n.id.Short(), pause)
	}
	return pause
}

// begins waits until n's stream to m is there, and is answered over a direct path.
func (n *node) begins(m *node) {
	n.t.Helper()
	n.await(0, "msg=event", "peer="+m.id.Short(), "path=direct")
	_, from := n.await(0, "msg=echo", "peer="+m.id.Short())
	n.goesOn(m, from)
}

// wantSameStream fails the test if n and m have had another connection than the first one,
// or if a stream of theirs has ended.
func wantSameStream(n, m *node) {
	n.t.Helper()
	n.wantConns(m, 1)
	m.wantConns(n, 1)
	for _, x := range []*node{n, m} {
		if ended := x.count("msg=echo stream ended"); ended != 0 {
			x.t.Errorf("%s lost %d streams", x.id.Short(), ended)
		}
	}
}

// within runs a command in the namespace and returns what it says.
func (n netns) within(argv ...string) string {
	n.t.Helper()
	argv = append([]string{"netns", "exec", n.name}, argv...)
	out, err := exec.Command("ip", argv...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("ip %s: %v: %s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// ipBatch makes ip(8) do several things in the namespace at once.
func (n netns) ipBatch(lines ...string) {
	n.t.Helper()
	cmd := exec.Command("ip", "-n", n.name, "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n"))
	if out, err := cmd.CombinedOutput(); err != nil {
		n.t.Fatalf("ip %q: %v: %s", lines, err, out)
	}
}

// matched returns how many packets have matched the only rule of a chain.
func (n netns) matched(table, chain string) int {
	n.t.Helper()
	lines := strings.Split(strings.TrimSpace(n.within("iptables", "-w", "-t", table, "-nvxL", chain)), "\n")
	packets, err := strconv.Atoi(strings.Fields(lines[len(lines)-1])[0])
	if err != nil {
		n.t.Fatalf("%v in %q", err, lines)
	}
	return packets
}

func TestStreamGoesOnOverTheRelayWhenTheDirectPathIsCut(t *testing.T) {
	skipIfShort(t)
	t.Parallel()
	net := newStar(t, "cut")
	r := newRelayProgram(net.relay)
	r.run()
	a, b := net.a.node(), net.b.node()
	a.run(slices.Concat(asks, []string{registers(b), through(b, r.url), "-relay=" + r.url})...)
	b.run(slices.Concat(asks, []string{registers(a), through(a, r.url), "-relay=" + r.url})...)
	for n, peer := range map[*node]*node{a: b, b: a} {
		n.await(0, "msg=relay connected")
		n.begins(peer)
	}

	for _, tc := range []struct {
		what string
		do   func(netns, ...netns)
		path string
	}{
		{"direct path cut", net.dropUDP, "path=relay"},
		{"direct path back", net.letUDP, "path=direct"},
	} {
		aBefore, bBefore := a.lines(), b.lines()
		tc.do(net.a, net.b)
		a.await(aBefore, "msg=event", "kind=path changed", "peer="+b.id.Short(), tc.path)
		b.await(bBefore, "msg=event", "kind=path changed", "peer="+a.id.Short(), tc.path)
		t.Logf("%s: a without an answer for %v, b for %v", tc.what, a.goesOn(b, aBefore), b.goesOn(a, bBefore))
		wantSameStream(a, b)
	}
}

// A router whose next link is narrower drops what is too long for that, and the packet is
// dropped as well with which it would say so (RFC 2923 section 2.1).
func TestStreamGoesOnWhenItsPathBecomesNarrow(t *testing.T) {
	skipIfShort(t)
	t.Parallel()
	net := newStar(t, "narrow")
	net.router.within("iptables", "-w", "-A", "OUTPUT", "-p", "icmp", "-j", "DROP")
	a, b := net.a.node(), net.b.node()
	const size = "-echo-size=20000" // 1 MB/s, so most packets are as long as they may be
	a.run(slices.Concat(asks, []string{size, registers(b)})...)
	b.run(slices.Concat(asks, []string{size, registers(a)})...)
	a.begins(b)
	b.begins(a)

	aBefore, bBefore := a.lines(), b.lines()
	net.router.ipBatch("link set to-a mtu 1300", "link set to-b mtu 1300")
	t.Logf("MTU of 1300: a without an answer for %v, b for %v", a.goesOn(b, aBefore), b.goesOn(a, bBefore))
	wantSameStream(a, b)
	if net.router.matched("filter", "OUTPUT") == 0 {
		t.Error("no packet was too long")
	}
}

func TestStreamGoesOnWhenAHostMoves(t *testing.T) {
	skipIfShort(t)
	t.Parallel()
	const elsewhere = "10.77.0.3"
	type who int
	const (
		byHost who = iota
		bySignal
		byNobody
	)
	for _, tc := range []struct {
		name     string
		acceptor bool // else the one that dialed
		told     who  // that its network has changed
		bound    bool // to the address that it loses
	}{
		{"dialer", false, bySignal, false},
		{"acceptor", true, bySignal, false},
		{"dialer-untold", false, byNobody, false},
		{"acceptor-untold", true, byNobody, false},
		{"dialer-bound", false, byHost, true},
		{"acceptor-bound", true, byHost, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			nsA, nsB := wiredNamespaces(t, tc.name)
			a, b := nsA.node(), nsB.node()
			a.listen, b.listen = ":7001", ":7001"
			if tc.bound {
				a.listen, b.listen = nsA.ip+":7001", nsB.ip+":7001"
			}
			monitor := fmt.Sprintf("-no-network-monitor=%t", tc.told != byHost)
			b.run(slices.Concat(asks, []string{monitor})...)
			a.run(slices.Concat(asks, []string{monitor, registers(b)})...)
			a.begins(b)

			moves, stays, ns := a, b, nsA
			if tc.acceptor {
				moves, stays, ns = b, a, nsB
			}
			aBefore, staysBefore := a.lines(), stays.lines()
			ns.ipBatch("address delete "+ns.ip+"/24 dev eth0", "address add "+elsewhere+"/24 dev eth0")
			if tc.told == bySignal {
				moves.signal(syscall.SIGHUP)
			}
			stays.await(staysBefore, "msg=event", "kind=path changed", "peer="+moves.id.Short(), "remote="+elsewhere+":7001")
			t.Logf("%s moved: without an answer for %v", tc.name, a.goesOn(b, aBefore))
			wantSameStream(a, b)
		})
	}
}

func TestStreamGoesOnWhenANATForgets(t *testing.T) {
	skipIfShort(t)
	t.Parallel()
	for _, tc := range []struct{ name, before, after string }{
		{"flushed", "40000-40099", "40000-40099"},
		{"mapped-anew", "40000-40099", "50000-50099"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			net := newStar(t, tc.name)
			masquerade := func(op, ports string) {
				net.router.within("iptables", "-w", "-t", "nat", op, "POSTROUTING", "-o", "to-b", "-p", "udp", "-j", "MASQUERADE", "--to-ports", ports)
			}
			masquerade("-A", tc.before)
			// As from outside any NAT, b cannot reach the address that a has behind this one, which a tells it.
			net.router.within("iptables", "-w", "-A", "FORWARD", "-i", "to-b", "-o", "to-a", "-m", "conntrack", "--ctstate", "NEW", "-j", "DROP")
			a, b := net.a.node(), net.b.node()
			b.run()
			a.run(slices.Concat(asks, []string{registers(b)})...)
			a.begins(b)

			aBefore, bBefore := a.lines(), b.lines()
			masquerade("-A", tc.after) // first: without any rule packets would pass as they are
			masquerade("-D", tc.before)
			// The kernel forgets the mappings to an address that the router loses.
			net.router.ipBatch("address delete 10.78.1.1/24 dev to-b", "address add 10.78.1.1/24 dev to-b")
			t.Logf("NAT %s: without an answer for %v", tc.name, a.goesOn(b, aBefore))
			wantSameStream(a, b)
			if net.router.matched("nat", "POSTROUTING") == 0 {
				t.Error("the NAT has forgotten nothing")
			}
			if tc.before != tc.after {
				changed, _ := b.await(bBefore, "msg=event", "kind=path changed", "peer="+a.id.Short())
				if !strings.HasPrefix(changed["remote"], "10.78.1.1:50") {
					t.Errorf("the peer is at %s now", changed["remote"])
				}
			}
		})
	}
}

package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A netns is a network namespace with one interface, which is wired to that of
// another one.
type netns struct {
	t    *testing.T
	name string
	ip   string
}

// wiredNamespaces returns two namespaces joined by a veth pair, with the word
// in their names. They are gone when the test ends.
func wiredNamespaces(t *testing.T, word string) (a, b netns) {
	t.Helper()
	a, b = newNetns(t, word+"-a", "10.77.0.1"), newNetns(t, word+"-b", "10.77.0.2")
	command(t, "ip", "link", "add", "eth0", "netns", a.name, "type", "veth", "peer", "name", "eth0", "netns", b.name)
	for _, n := range []netns{a, b} {
		command(t, "ip", "-n", n.name, "address", "add", n.ip+"/24", "dev", "eth0")
		command(t, "ip", "-n", n.name, "link", "set", "eth0", "up")
	}
	return a, b
}

// newNetns returns a namespace with the word in its name. ip is for the caller's
// use. It skips the test where there are none, or no firewall in them.
func newNetns(t *testing.T, word, ip string) netns {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	for _, tool := range []string{"ip", "iptables"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: %v", tool, err)
		}
	}
	n := netns{t, fmt.Sprintf("node-%d-%s", os.Getpid(), word), ip}
	if out, err := exec.Command("ip", "netns", "add", n.name).CombinedOutput(); err != nil {
		t.Skipf("cannot make a network namespace here: %v: %s", err, out)
	}
	t.Cleanup(func() { command(t, "ip", "netns", "delete", n.name) })
	if out, err := exec.Command("ip", "netns", "exec", n.name, "iptables", "-w", "-S").CombinedOutput(); err != nil {
		t.Skipf("iptables does not work here: %v: %s", err, out)
	}
	return n
}

// node returns a node in the namespace.
func (n netns) node() *node {
	return newNode(n.t, n.ip+":7001", "ip", "netns", "exec", n.name)
}

// dropUDP makes the namespace's firewall drop the UDP packets of a chain, and
// letUDP makes it stop.
func (n netns) dropUDP(chain string) { n.t.Helper(); n.iptables("-A", chain) }
func (n netns) letUDP(chain string)  { n.t.Helper(); n.iptables("-D", chain) }

func (n netns) iptables(op, chain string) {
	n.t.Helper()
	command(n.t, "ip", "netns", "exec", n.name, "iptables", "-w", op, chain, "-p", "udp", "-j", "DROP")
}

func command(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out)
	}
}

func TestPeerIsConnectedAgainAfterBlackout(t *testing.T) {
	skipIfShort(t)
	t.Parallel()
	for _, tc := range []struct {
		name  string
		drops func(a, b netns, do func(n netns, chain string))
	}{
		// As on a dead link: sending works, and nothing arrives.
		{"silent", func(a, b netns, do func(netns, string)) { do(a, "INPUT"); do(b, "INPUT") }},
		// One side's own firewall: there, sending fails with EPERM.
		{"refused", func(a, _ netns, do func(netns, string)) { do(a, "INPUT"); do(a, "OUTPUT") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			nsA, nsB := wiredNamespaces(t, tc.name)
			a, b := nsA.node(), nsB.node()
			a.run(registers(b))
			b.run(registers(a))
			a.awaitConnected(0, b)
			b.awaitConnected(0, a)

			aBefore, bBefore := a.lines(), b.lines()
			tc.drops(nsA, nsB, netns.dropUDP)
			lastFor(25 * time.Second) // longer than the idle timeout
			a.await(aBefore, "msg=event", "kind=disconnected", "peer="+b.id.Short())
			b.await(bBefore, "msg=event", "kind=disconnected", "peer="+a.id.Short())
			tc.drops(nsA, nsB, netns.letUDP)

			a.awaitConnected(aBefore, b)
			b.awaitConnected(bBefore, a)
			a.wantConns(b, 2)
			b.wantConns(a, 2)
		})
	}
}

// A route that says no, for less than the idle timeout, costs no connection:
// sending fails at once, with EACCES on a prohibit route and EINVAL on a blackhole.
func TestConnectionSurvivesARouteThatSaysNo(t *testing.T) {
	skipIfShort(t)
	t.Parallel()
	for _, kind := range []string{"prohibit", "blackhole"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			nsA, nsB := wiredNamespaces(t, kind)
			a, b := nsA.node(), nsB.node()
			a.run(registers(b))
			b.run(registers(a))
			a.awaitConnected(0, b)
			b.awaitConnected(0, a)

			command(t, "ip", "-n", nsA.name, "route", "add", kind, nsB.ip)
			lastFor(8 * time.Second) // longer than the keep-alives are apart
			command(t, "ip", "-n", nsA.name, "route", "delete", kind, nsB.ip)
			lastFor(12 * time.Second) // the idle timeout is over
			a.wantConns(b, 1)
			b.wantConns(a, 1)
		})
	}
}

package main

import (
	"flag"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// These tests are about what the kernel tells of the host's network: nobody sends SIGHUP.

var (
	monitorRounds = flag.Int("netmon.rounds", 1, "how many links die and return, with and without the monitor")
	monitorAway   = flag.Duration("netmon.away", 4*time.Second, "how long a link is dead")
)

func TestHostTellsOfChanges(t *testing.T) {
	skipIfShort(t)
	t.Parallel()
	net := newStar(t, "tells")
	a, b := net.a.node(), net.b.node()
	command(t, "ip", "link", "add", "eth1", "netns", net.a.name, "type", "veth", "peer", "name", "to-a2", "netns", net.router.name)
	net.router.ipBatch("address add 10.78.9.1/24 dev to-a2", "link set to-a2 up")
	net.a.ipBatch("address add 10.78.9.2/24 dev eth1", "link set eth1 up")
	a.listen = ":7001"
	a.run(slices.Concat(asks, []string{registers(b)})...)
	b.run()
	a.begins(b)

	// Linux drops the default route with the link.
	before := a.lines()
	for _, step := range []struct {
		cause string
		lines []string
	}{
		{"address", []string{"address add 10.78.0.9/24 dev eth0"}},
		{"address", []string{"address delete 10.78.0.9/24 dev eth0"}},
		{"route", []string{"route replace default via 10.78.9.1"}},
		{"route", []string{"route replace default via 10.78.0.1"}},
		{"link", []string{"link set eth0 down"}},
		{"link", []string{"link set eth0 up", "route add default via 10.78.0.1"}},
	} {
		from := a.lines()
		net.a.ipBatch(step.lines...)
		a.await(from, "msg=the host's network has changed", "cause="+step.cause)
	}
	t.Logf("six changes: a without an answer for %v", a.goesOn(b, before))
	wantSameStream(a, b)
}

// ipReady is ipBatch in two parts: ip(8) is there already when do is called.
func (n netns) ipReady(lines ...string) (do func()) {
	n.t.Helper()
	cmd := exec.Command("ip", "-n", n.name, "-batch", "-")
	in, err := cmd.StdinPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	return func() {
		n.t.Helper()
		io.WriteString(in, strings.Join(lines, "\n")) // if it fails, ip does
		in.Close()
		if err := cmd.Wait(); err != nil {
			n.t.Fatalf("ip %q: %v", lines, err)
		}
	}
}

func TestPeerBehindADeadLinkIsBackWithIt(t *testing.T) {
	skipIfShort(t)
	t.Parallel()
	for name, unwatched := range map[string]bool{"watched": false, "unwatched": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timeout := min(15*time.Second, *monitorAway/2) // 15 s is the default
			flags := []string{"-echo=1s",                  // the first at once
				fmt.Sprintf("-idle=%v", timeout), fmt.Sprintf("-keepalive=%v", timeout/3), fmt.Sprintf("-no-network-monitor=%t", unwatched)}
			type pair struct {
				net    star
				a, b   *node
				before int // lines of a's log, until its link died
			}
			pairs := make([]pair, *monitorRounds)
			for i := range pairs {
				net := newStar(t, fmt.Sprint(name, i))
				pairs[i] = pair{net: net, a: net.a.node(), b: net.b.node()}
				pairs[i].b.run()
				pairs[i].a.run(append(flags, registers(pairs[i].b))...)
			}
			for i, p := range pairs {
				p.a.await(0, "msg=echo is answered", "peer="+p.b.id.Short())
				pairs[i].before = p.a.lines()
				p.net.a.ipBatch("link set eth0 down")
			}
			lastFor(*monitorAway)
			var took []time.Duration
			for _, p := range pairs { // one by one: a machine that is busy with the others would be measured
				_, ended := p.a.await(p.before, "msg=event", "kind=disconnected", "peer="+p.b.id.Short())
				restore := p.net.a.ipReady("link set eth0 up", "route add default via 10.78.0.1")
				since := time.Now()
				restore()
				first, _ := p.a.await(ended, "msg=echo is answered", "peer="+p.b.id.Short())
				took = append(took, first.at(t).Sub(since).Round(time.Millisecond))
				if told := p.a.count("msg=the host's network has changed"); (told == 0) != unwatched {
					t.Errorf("the host has told %d times, unwatched: %v", told, unwatched)
				}
			}
			slices.Sort(took)
			t.Logf("link dead for %v, %s: first echo after its return: p50 %v of %v", *monitorAway, name, took[len(took)/2], took)
		})
	}
}

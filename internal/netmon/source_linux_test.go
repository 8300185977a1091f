package netmon

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var setClock = flag.Bool("netmon.clock", false, "set the clock of this machine, as root, by a nanosecond and back")

// inNamespace runs f in a network namespace of its own, with ip for the commands of ip(8). It skips the
// test where there is none.
func inNamespace(t *testing.T, f func(ip func(lines ...string))) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip(err)
	}
	var skip error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine, as it is in another namespace
		if skip = unix.Unshare(unix.CLONE_NEWNET); skip != nil {
			return
		}
		f(func(lines ...string) {
			t.Helper()
			cmd := exec.Command("ip", "-batch", "-") // a child of this thread is in its namespace
			cmd.Stdin = strings.NewReader(strings.Join(lines, "\n"))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("ip %q: %v: %s", lines, err, out)
			}
		})
	}()
	<-done
	if skip != nil {
		t.Skipf("cannot make a network namespace here: %v", skip)
	}
}

// stateNow reads the state of the namespace.
func stateNow(t *testing.T) state {
	t.Helper()
	is, err := readTables()
	if err != nil {
		t.Error(err)
	}
	return is.state()
}

// told does something to the namespace, and looks whenever the kernel has told of anything since, until what
// is awaited is there. A minute without a word is the end.
func told(t *testing.T, do func(), there func() bool) {
	t.Helper()
	src, err := open()
	if err != nil {
		t.Error(err)
		return
	}
	defer src.close()
	defer time.AfterFunc(time.Minute, src.close).Stop()
	do()
	for told := false; !told || !there(); told = true {
		if err := src.waits[0](); err != nil {
			t.Errorf("not told: %v", err)
			return
		}
	}
}

// runs reports whether a link of the calling thread's namespace is up and has a carrier.
func runs(name string) bool {
	link, err := net.InterfaceByName(name)
	return err == nil && link.Flags&net.FlagRunning != 0
}

func TestKernelTellsOfWhatCounts(t *testing.T) {
	inNamespace(t, func(ip func(...string)) {
		ip("link add eth0 type veth peer name far0", "link add eth1 type veth peer name far1",
			"link set far0 up", "link set far1 up", "address add 192.0.2.5/24 dev eth0", "address add 198.51.100.5/24 dev eth1")
		told(t, func() { ip("link set eth0 up", "link set eth1 up") }, func() bool { return runs("eth0") && runs("eth1") })
		ip("route add default via 192.0.2.1")
		for _, step := range []struct {
			lines []string
			want  Cause
			up    string // a link that runs some time later
		}{
			{[]string{"address add 192.0.2.6/24 dev eth0"}, Address, ""},
			{[]string{"address change 192.0.2.6/24 dev eth0 valid_lft 1000 preferred_lft 900"}, none, ""},
			{[]string{"address change 192.0.2.6/24 dev eth0 valid_lft 1000 preferred_lft 0"}, Address, ""}, // deprecated
			{[]string{"address delete 192.0.2.6/24 dev eth0"}, Address, ""},
			{[]string{"address add 2001:db8::5/64 dev eth0 nodad"}, Address, ""},
			{[]string{"route replace default via 198.51.100.1"}, Route, ""},
			{[]string{"route replace default nexthop via 192.0.2.1 nexthop via 198.51.100.1"}, Route, ""},
			{[]string{"route replace default via 192.0.2.1"}, Route, ""},
			{[]string{"route add unreachable 203.0.113.0/24"}, Route, ""},
			{[]string{"route add unreachable 2001:db8:1::/48"}, Route, ""},
			{[]string{"route add 2001:db8:2::/48 via 2001:db8::1 expires 1000"}, Route, ""},
			{[]string{"route change 2001:db8:2::/48 via 2001:db8::1 expires 2000"}, none, ""},
			{[]string{"rule add from 192.0.2.5 lookup 100"}, Route, ""},
			{[]string{"neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev eth0", "link set eth0 mtu 1400"}, none, ""},
			{[]string{"link set eth0 down"}, Link, ""},
			{[]string{"link set eth0 up"}, Link, ""},
			{[]string{"link set eth0 down", "link set eth0 up"}, Link, ""},
			{[]string{"link set far1 down"}, Link, ""}, // its carrier is gone
			{[]string{"link add docker0 type bridge", "link set docker0 up", "address add 172.17.0.1/16 dev docker0"}, none, ""},
			{[]string{"link add port0 type veth peer name inner0", "link set port0 master docker0 up", "link set inner0 up"}, none, "docker0"},
			{[]string{"link add cali0 type veth peer name inner1", "link set cali0 up", "link set inner1 up", "route add 10.244.0.7 dev cali0"}, none, "cali0"},
		} {
			was := stateNow(t)
			do := func() { ip(step.lines...) }
			switch {
			case step.want != none:
				told(t, do, func() bool { return was.change(stateNow(t)) == step.want })
			case step.up != "":
				told(t, do, func() bool { return runs(step.up) })
			default:
				do()
			}
			if got := was.change(stateNow(t)); got != step.want {
				t.Errorf("after %q: %q, want %q", step.lines, got, step.want)
			}
		}
	})
}

// In a namespace in which nothing else happens, so that it is the rule of which the kernel tells.
func TestKernelTellsOfRules(t *testing.T) {
	inNamespace(t, func(func(...string)) {
		for _, rule := range [][]string{{"-4", "rule", "add", "from", "192.0.2.5", "lookup", "100"}, {"-6", "rule", "add", "from", "2001:db8::5", "lookup", "100"}} {
			was := stateNow(t)
			told(t, func() {
				if out, err := exec.Command("ip", rule...).CombinedOutput(); err != nil {
					t.Errorf("ip %q: %v: %s", rule, err, out)
				}
			}, func() bool { return was.change(stateNow(t)) == Route })
		}
	})
}

// An address that somebody else may have is not one to send from, until that is known.
func TestTentativeAddressDoesNotCount(t *testing.T) {
	inNamespace(t, func(ip func(...string)) {
		ip("link add eth0 type veth peer name far0", "link set far0 up", "address add 192.0.2.5/24 dev eth0")
		told(t, func() { ip("link set eth0 up") }, func() bool { return runs("eth0") })
		was, add := stateNow(t), func() { ip("address add 2001:db8::5/64 dev eth0") }
		told(t, add, func() bool { return was.change(stateNow(t)) == Address })
		out, err := exec.Command("ip", "address", "show", "tentative", "to", "2001:db8::5").CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("it counts while it is tentative: %v: %s", err, out)
		}
	})
}

func TestNetlinkGoesOnAfterItsBufferWasFull(t *testing.T) {
	inNamespace(t, func(ip func(...string)) {
		src, err := open()
		if err != nil {
			t.Error(err)
			return
		}
		defer src.close()
		ip("link add eth0 type veth peer name far0", "link set far0 up", "link set eth0 up")
		var lines []string
		for i := range 2000 { // some 700 bytes of the buffer each, of 208 KB
			lines = append(lines, fmt.Sprintf("address add 10.0.%d.%d/32 dev eth0", i/250, i%250+1))
		}
		ip(lines...)
		lost := 0
		for range 2000 {
			if err := src.waits[0](); errors.Is(err, errLost) {
				lost++
				break
			} else if err != nil {
				t.Errorf("failed with %v", err)
				return
			}
		}
		if lost == 0 {
			t.Error("nothing was lost: the test needs more messages")
		}
		ip("address add 192.0.2.5/24 dev eth0")
		if err := src.waits[0](); err != nil {
			t.Errorf("after the loss: %v", err)
		}
	})
}

// A suspend cannot be had in a test, but what the kernel does on resume can: it sets the clock.
func TestTimerWakesWhenTheClockIsSet(t *testing.T) {
	if !*setClock {
		t.Skip("sets the machine's clock: only with -netmon.clock")
	}
	src, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer src.close()
	if len(src.waits) != 2 {
		t.Fatal("there is no timer")
	}
	for _, by := range []int64{1, -1, 1, -1} {
		before := src.asleep()
		step := unix.Timex{Modes: unix.ADJ_SETOFFSET | unix.ADJ_NANO}
		if by < 0 {
			step.Time.Sec, step.Time.Usec = -1, 999_999_999
		} else {
			step.Time.Usec = 1
		}
		if _, err := unix.Adjtimex(&step); err != nil {
			t.Skipf("cannot set the clock: %v", err)
		}
		if err := src.waits[1](); err != nil { // or this test does not end
			t.Error(err)
		}
		if d := src.asleep() - before; d.Abs() >= minSleep {
			t.Errorf("setting the clock counts as a suspend of %v", d)
		}
	}
}

func TestLinkRunsWithItsCarrierUnlessItWaits(t *testing.T) {
	const up = unix.IFF_UP
	for _, tc := range []struct {
		what  string
		flags uint32
		mode  byte // IF_LINK_MODE_DORMANT is 1
		want  bool
	}{
		{"running", up | unix.IFF_LOWER_UP | unix.IFF_RUNNING, 0, true},
		{"carrier just came", up | unix.IFF_LOWER_UP, 0, true},
		{"carrier just gone", up | unix.IFF_RUNNING, 0, false},
		{"no carrier", up, 0, false},
		{"down", unix.IFF_LOWER_UP, 0, false},
		{"Wi-Fi without keys", up | unix.IFF_LOWER_UP, 1, false},
		{"Wi-Fi with keys", up | unix.IFF_LOWER_UP | unix.IFF_RUNNING, 1, true},
		{"dormant", up | unix.IFF_LOWER_UP | unix.IFF_DORMANT, 0, false},
	} {
		b := make([]byte, unix.SizeofIfInfomsg)
		binary.NativeEndian.PutUint32(b[4:], 2)
		binary.NativeEndian.PutUint32(b[8:], tc.flags)
		b = binary.NativeEndian.AppendUint16(b, unix.SizeofRtAttr+1)
		b = binary.NativeEndian.AppendUint16(b, unix.IFLA_LINKMODE)
		is := tables{links: make(map[int]link)}
		is.addLink(append(b, tc.mode))
		if got := is.links[2].running; got != tc.want {
			t.Errorf("%s: runs: %v, want %v", tc.what, got, tc.want)
		}
	}
}

func TestMalformedMessagesAreTolerated(t *testing.T) {
	for n := range 64 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(n * (i + 1))
		}
		is := tables{links: make(map[int]link)}
		is.addLink(b)
		is.addAddress(b)
		is.addRoute(b)
		is.addRule(b)
		nextHops(b)
	}
}

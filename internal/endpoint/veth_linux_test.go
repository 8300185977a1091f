package endpoint

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wire returns the names of two network namespaces joined by a veth pair, of which
// the ends are 10.78.0.1 and 10.78.0.2. They are gone when the test ends. It skips
// the test where there are none.
func wire(t *testing.T) (a, b string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip(err)
	}
	a, b = fmt.Sprintf("endpoint-%d-a", os.Getpid()), fmt.Sprintf("endpoint-%d-b", os.Getpid())
	for _, n := range []string{a, b} {
		if out, err := exec.Command("ip", "netns", "add", n).CombinedOutput(); err != nil {
			t.Skipf("cannot make a network namespace here: %v: %s", err, out)
		}
		t.Cleanup(func() { ip(t, "netns", "delete", n) })
	}
	ip(t, "link", "add", "eth0", "netns", a, "type", "veth", "peer", "name", "eth0", "netns", b)
	for n, addr := range map[string]string{a: "10.78.0.1/24", b: "10.78.0.2/24"} {
		ip(t, "-n", n, "address", "add", addr, "dev", "eth0")
		ip(t, "-n", n, "link", "set", "eth0", "up")
	}
	return a, b
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// within calls f in a network namespace. Sockets that it opens stay there.
func within(t *testing.T, namespace string, f func()) {
	t.Helper()
	runtime.LockOSThread() // for good, unless the thread comes back
	enter := func(path string) error {
		n, err := os.Open(path)
		if err != nil {
			return err
		}
		defer n.Close()
		return unix.Setns(int(n.Fd()), unix.CLONE_NEWNET)
	}
	home, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	if err := enter(filepath.Join("/run/netns", namespace)); err != nil {
		t.Fatal(err)
	}
	f()
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	runtime.UnlockOSThread()
}

// offload turns one thing on or off that an interface does for the system, as
// ethtool -K does.
func offload(t *testing.T, namespace string, what, on uint32) {
	t.Helper()
	within(t, namespace, func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		value := [2]uint32{what, on}
		request := struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}{data: unsafe.Pointer(&value)}
		copy(request.name[:], "eth0")
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
			t.Fatal(errno)
		}
	})
}

// Between hosts all arrives as it was sent, marked as it was, whatever the interface
// can do: segment what is sent, or coalesce what comes.
func TestRunsBetweenHosts(t *testing.T) {
	a, b := wire(t)
	for _, tc := range []struct {
		name      string
		configure func()
		coalesced bool
	}{
		{"as it is", func() {}, true},
		{"without segmentation offload", func() {
			for _, n := range []string{a, b} {
				offload(t, n, unix.ETHTOOL_STXCSUM, 0) // which turns it off as well
			}
		}, false},
		{"segmented before the interface", func() {
			offload(t, a, unix.ETHTOOL_STXCSUM, 1)
			ip(t, "-n", a, "link", "set", "eth0", "gso_max_segs", "1")
		}, false},
		{"coalesced by the interface", func() {
			offload(t, a, unix.ETHTOOL_STSO, 0) // or else the other end of a veth pair does not
			offload(t, b, unix.ETHTOOL_SGRO, 1)
		}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.configure()
			var from, pc *net.UDPConn
			within(t, a, func() { from = listenUDP(t, "udp4", "10.78.0.1:0") })
			within(t, b, func() { pc = listenUDP(t, "udp4", "10.78.0.2:0") })
			tellAll(t, pc)
			s, _ := coalescing(t, pc)
			to := pc.LocalAddr()
			sender := New(Config{PacketConn: from, Key: testKey(1)})
			sent, got := sha256.New(), sha256.New()
			const size, n, rounds = 1400, 30, 20
			for i := range rounds {
				b := bytes.Repeat(padded([]byte{0x40, byte(i)}, size), n)
				marked := i%2 == 1
				if marked {
					writeRun(t, from, b, size, 1, to.(*net.UDPAddr))
				} else if k, err := sender.WriteRun(b, size, to, nil); k != n {
					t.Fatalf("%d of %d are sent: %v", k, n, err)
				}
				sent.Write(b)
				for _, p := range awaitPackets(t, s, n) {
					got.Write(p.packet)
					if (p.ecn == 1) != marked {
						t.Fatalf("round %d: marked %d", i, p.ecn)
					}
				}
			}
			if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
				t.Error("it arrived changed")
			}
			reads := s.counts.reads.Load()
			t.Logf("%d reads for %d datagrams", reads, s.counts.datagrams.Load())
			if tc.coalesced && reads > rounds*2 {
				t.Errorf("%d reads for %d datagrams", reads, rounds*n)
			}
		})
	}
}

// What a slow link has no room for is lost at once: who forwards for many waits for
// none of them.
func TestRunDoesNotWaitForRoom(t *testing.T) {
	a, _ := wire(t)
	if out, err := exec.Command("tc", "-n", a, "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "8kbit", "burst", "3k", "limit", "10m").CombinedOutput(); err != nil {
		t.Skipf("cannot make a slow link here: %v: %s", err, out)
	}
	var from *net.UDPConn
	within(t, a, func() { from = listenUDP(t, "udp4", "10.78.0.1:0") })
	from.SetWriteBuffer(1 << 16)
	e := New(Config{PacketConn: from, Key: testKey(1)})
	const size, n = 1400, 1000 // 20 minutes of the link's
	to := &net.UDPAddr{IP: net.IPv4(10, 78, 0, 2), Port: 9}
	sent, err := e.WriteRun(make([]byte, n*size), size, to, nil)
	if sent == 0 || sent == n || !errors.Is(err, unix.EAGAIN) {
		t.Errorf("%d of %d are sent, %v", sent, n, err)
	}
	if got := e.BytesSent(); got != uint64(sent*size) {
		t.Errorf("%d bytes are counted, want %d", got, sent*size)
	}
	// Neither while another one waits for room.
	waiting := make(chan error)
	go func() {
		var err error
		for err == nil {
			_, err = from.WriteTo(make([]byte, size), to)
		}
		waiting <- err
	}()
	for range 100 {
		e.WriteRun(make([]byte, size), size, to, nil)
		runtime.Gosched()
	}
	from.Close()
	if err := <-waiting; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the other one: %v", err)
	}
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
	"github.com/defenseunicorns/peat-mesh-go/relay"
)

// runCheck runs check and fails the test unless it ends with the code and says all that it should.
func runCheck(t *testing.T, code int, args []string, says ...string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	got := run(t.Context(), nil, append([]string{"check"}, args...), func(string) (string, bool) { return "", false }, &stdout, &stderr)
	text := stdout.String() + stderr.String()
	if got != code {
		t.Errorf("exit code is %d, want %d\n%s", got, code, text)
	}
	for _, want := range says {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
}

// A door is a port of which UDP and TCP go different ways.
type door struct {
	port uint16
	udp  net.PacketConn
}

// newDoor returns a port on which nobody answers over UDP, and which is connected to a TCP
// address, or accepts and says nothing if that is "".
func newDoor(t *testing.T, tcpTo string) *door {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		l.Close()
		t.Skipf("the same port of UDP is taken: %v", err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	conns := []net.Conn{}
	keep := func(c net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		conns = append(conns, c)
	}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			keep(c)
			if tcpTo == "" {
				continue
			}
			to, err := net.Dial("tcp", tcpTo)
			if err != nil {
				c.Close()
				continue
			}
			keep(to)
			wg.Go(func() { io.Copy(to, c); to.Close() })
			wg.Go(func() { io.Copy(c, to); c.Close() })
		}
	})
	t.Cleanup(func() {
		l.Close()
		udp.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return &door{port: uint16(l.Addr().(*net.TCPAddr).Port), udp: udp}
}

// forwardUDP sends what comes in over UDP to an address, and its answers to who sent last.
func (d *door) forwardUDP(t *testing.T, to string) {
	t.Helper()
	out, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var client net.Addr
	wg.Go(func() {
		b := make([]byte, 2048)
		for {
			n, from, err := d.udp.ReadFrom(b)
			if err != nil {
				return
			}
			mu.Lock()
			client = from
			mu.Unlock()
			out.Write(b[:n])
		}
	})
	wg.Go(func() {
		b := make([]byte, 2048)
		for {
			n, err := out.Read(b)
			if err != nil {
				return
			}
			mu.Lock()
			to := client
			mu.Unlock()
			d.udp.WriteTo(b[:n], to)
		}
	})
	t.Cleanup(func() {
		out.Close()
		d.udp.Close()
		wg.Wait()
	})
}

func TestCheckSaysHowARelayIsReached(t *testing.T) {
	t.Parallel()
	u := start(t).url()
	runCheck(t, exitOK, []string{u.String()}, "udp    ok: "+u.HostPort(), "tcp    ok: "+u.HostPort(), "sees 127.0.0.1:", u.ID.String(), "has proven")
}

func TestCheckFindsUDPBlocked(t *testing.T) {
	t.Parallel()
	u := start(t).url()
	u.Port = newDoor(t, u.HostPort()).port
	runCheck(t, exitPartly, []string{"-timeout=1s", u.String()}, "udp    failed", "UDP is blocked", "tcp    ok")
}

func TestCheckFindsTCPBlocked(t *testing.T) {
	t.Parallel()
	u := start(t).url()
	d := newDoor(t, "")
	d.forwardUDP(t, u.HostPort())
	u.Port = d.port
	runCheck(t, exitPartly, []string{"-timeout=2s", u.String()}, "udp    ok", "tcp    failed", "a firewall drops TCP")
}

func TestCheckFindsAnotherIdentity(t *testing.T) {
	t.Parallel()
	u := start(t).url()
	u.ID = newPeer(t).id
	runCheck(t, exitIdentity, []string{u.String()}, "udp    failed", "tcp    failed", "another relay, or one with a new key")
}

func TestCheckGivesUpOnASilentHost(t *testing.T) {
	t.Parallel()
	u := relay.URL{ID: newPeer(t).id, Host: "127.0.0.1", Port: newDoor(t, "").port}
	runCheck(t, exitError, []string{"-timeout=500ms", u.String()}, "udp    failed", "UDP is blocked", "tcp    failed", "nothing came back")
}

func TestCheckFindsThatNothingListens(t *testing.T) {
	t.Parallel()
	p := start(t)
	u := p.url()
	p.kill()
	runCheck(t, exitError, []string{"-timeout=500ms", u.String()}, "udp    failed", "tcp    failed", "nothing listens")
}

func TestCheckTellsAMissingRouteFromAStranger(t *testing.T) {
	for _, errno := range []error{syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EACCES, syscall.EPERM} {
		err := fmt.Errorf("dial relay: %w", &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", errno)})
		if why := likely(relay.CarrierTCP, err); !strings.HasPrefix(why, "there is no route") {
			t.Errorf("%v: %s", err, why)
		}
	}
}

func TestCheckThatIsInterruptedSaysNothingOfTheRelay(t *testing.T) {
	t.Parallel()
	u := relay.URL{ID: newPeer(t).id, Host: "127.0.0.1", Port: newDoor(t, "").port}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out strings.Builder
	if code := check(ctx, []string{u.String()}, &out, io.Discard); code != exitError || strings.Count(out.String(), "interrupted") != 2 {
		t.Errorf("exit code %d:\n%s", code, &out)
	}
}

func TestCheckTellsRefusalFromSilence(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "node.key")
	private, err := identity.LoadOrCreateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	u := start(t, "-allow="+tempFile(t, identity.FromKey(private).String())).url()
	runCheck(t, exitRefused, []string{u.String()}, "udp    failed", "tcp    failed", "allow list lacks")
	runCheck(t, exitOK, []string{"-key=" + key, u.String()}, identity.FromKey(private).String(), "udp    ok", "tcp    ok")
}

func TestCheckOfACertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, cert, key)
	u := start(t, "-cert="+cert, "-cert-key="+key).url()
	u.ID = identity.PeerID{}
	runCheck(t, exitError, []string{u.String()}, "certificate is not accepted")
	runCheck(t, exitOK, []string{"-ca=" + cert, u.String()}, "its certificate is good for 127.0.0.1")
}

func TestCheckRefusesWhatCannotBeChecked(t *testing.T) {
	good := relay.URL{Host: "127.0.0.1", Port: 7}.String()
	for _, tc := range []struct {
		args []string
		says string
	}{
		{nil, "want one URL"},
		{[]string{good, good}, "want one URL"},
		{[]string{"http://127.0.0.1:7"}, "bad relay URL"},
		{[]string{"-timeout=0", good}, "-timeout"},
		{[]string{"-timeout=soon", good}, "-timeout"},
		{[]string{"-key=" + filepath.Join(t.TempDir(), "missing"), good}, "-key: "},
		{[]string{"-ca=" + tempFile(t, "junk"), good}, "no certificate"},
		{[]string{"-nonsense", good}, "-nonsense"},
	} {
		runCheck(t, exitUsage, tc.args, "meshsync-relay check: ", tc.says)
	}
	runCheck(t, exitOK, []string{"-help"}, "check [flags] URL", "-timeout")
}

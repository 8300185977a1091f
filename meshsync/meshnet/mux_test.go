package meshnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

func TestServicesAreToldApart(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		for _, n := range []*node{a, b} { // whoever dialed the connection
			for i := range 3 {
				n.serve(fmt.Sprint("service ", i), func(c net.Conn) {
					fmt.Fprintf(c, "%d of %s", i, n.ID().Short())
					c.Close()
				})
			}
		}
		for from, to := range map[*node]*node{a: b, b: a} {
			for i := range 3 {
				c := from.dial(to, fmt.Sprint("service ", i))
				got, err := io.ReadAll(c)
				if want := fmt.Sprintf("%d of %s", i, to.ID().Short()); string(got) != want || err != nil {
					t.Errorf("%q, %v, want %q", got, err, want)
				}
				c.Close()
			}
		}
	})
}

// Names that cannot be are refused by either side, before anything is sent, and the
// error says what is wrong.
func TestNamesThatCannotBe(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		for name, want := range map[string]string{
			"":                             "empty",
			strings.Repeat("n", maxName+1): "256 bytes, more than 255",
			"w\xffb":                       `not UTF-8: "w\xffb"`,
		} {
			_, err := b.mux.Listen(name)
			if op, ok := err.(*net.OpError); !ok || op.Op != "listen" || !strings.Contains(err.Error(), want) {
				t.Errorf("Listen: %v, want %q", err, want)
			}
			_, err = Dial(context.Background(), a.MeshSyncTransport, b.ID(), name)
			if op, ok := err.(*net.OpError); !ok || op.Op != "dial" || !strings.Contains(err.Error(), want) {
				t.Errorf("Dial: %v, want %q", err, want)
			}
			_, err = Dialer(a.MeshSyncTransport, name)(context.Background(), "tcp", b.ID().String())
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Dialer: %v, want %q", err, want)
			}
		}
		longest := strings.Repeat("n", maxName)
		b.serve(longest, echo)
		if err := a.ask(b, longest); err != nil {
			t.Error(err)
		}
		if _, err := b.mux.Listen(longest); !errors.Is(err, errTaken) {
			t.Errorf("the same twice: %v", err)
		}
	})
}

// The first Read, or a Write, says that there is no such service; nothing else of the
// connection suffers.
func TestUnknownServiceIsRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		b.serve("web", echo)
		check := func(call string, err error) {
			t.Helper()
			var op *net.OpError
			if !errors.As(err, &op) || op.Timeout() || !errors.Is(err, ErrNoService) || errors.Is(err, net.ErrClosed) ||
				!strings.Contains(err.Error(), b.ID().String()) || !strings.Contains(err.Error(), `"wbe"`) {
				t.Errorf("%s: %v", call, err)
			}
		}
		c := a.dial(b, "wbe")
		_, err := c.Read(make([]byte, 1))
		check("Read", err)
		synctest.Wait() // the two directions are refused by a frame each, and Read has seen one
		_, err = c.Write(make([]byte, 1))
		check("Write after it", err)
		c.Close()

		c = a.dial(b, "wbe")
		_, err = c.Write(make([]byte, 64<<20))
		check("a Write that waits", err)
		c.Close()

		c = a.dial(b, "wbe")
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadAll(c)
		check("Read after all was written", err)
		c.Close()
		if err := a.ask(b, "web"); err != nil {
			t.Error(err)
		}
	})
}

// Each code of a refusal has one meaning, and those of a Handler that is no Mux have none.
func TestRefusalsAreToldApart(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		meanings := []error{ErrNoService, meshsync.ErrBusy, meshsync.ErrProtocol, errLate, errPeerClosed}
		for code, want := range map[quic.StreamErrorCode]error{
			codeNoService: ErrNoService,
			codeBusy:      meshsync.ErrBusy,
			codeMalformed: meshsync.ErrProtocol,
			codeLate:      errLate,
			codeClosed:    errPeerClosed,
			0:             nil,
			1:             nil,
			codeLate + 1:  nil,
		} {
			dialed, accepted := connected(a, b)
			accepted.refuse(code)
			dialed.SetDeadline(time.Now().Add(time.Minute))
			_, readErr := dialed.Read(make([]byte, 1))
			synctest.Wait() // the two directions are refused by a frame each, and Read has seen one
			_, writeErr := dialed.Write(make([]byte, 1))
			for call, err := range map[string]error{"Read": readErr, "Write": writeErr} {
				if s, ok := errors.AsType[*quic.StreamError](err); !ok || s.ErrorCode != code {
					t.Errorf("%s after code %#x: %v", call, code, err)
				}
				for _, m := range meanings {
					if errors.Is(err, m) != (m == want) {
						t.Errorf("%s after code %#x: %v, want %v", call, code, err, want)
					}
				}
			}
			dialed.Close()
		}
	})
}

// Only the side that was dialed refuses: what the other one says of its stream is no refusal.
func TestDialingSideCannotRefuse(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		for _, code := range []quic.StreamErrorCode{codeNoService, codeBusy, codeMalformed, codeLate} {
			dialed, accepted := connected(a, b)
			dialed.refuse(code)
			accepted.SetDeadline(time.Now().Add(time.Minute))
			_, err := accepted.Read(make([]byte, 1))
			if s, ok := errors.AsType[*quic.StreamError](err); !ok || s.ErrorCode != code {
				t.Errorf("after code %#x: %v", code, err)
			}
			for _, m := range []error{ErrNoService, meshsync.ErrBusy, meshsync.ErrProtocol, errLate} {
				if errors.Is(err, m) {
					t.Errorf("code %#x of the dialing side means %v", code, err)
				}
			}
			accepted.Close()
		}
	})
}

// Close refuses those that wait, leaves those that were accepted, and makes the name
// free.
func TestListenerClose(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		l := b.listen("web")
		first := a.dial(b, "web")
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		second := a.dial(b, "web")
		time.Sleep(testRTT)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		second.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := second.Read(make([]byte, 1)); !errors.Is(err, ErrNoService) {
			t.Errorf("one that waited: %v", err)
		}
		if _, err := a.dial(b, "web").Read(make([]byte, 1)); !errors.Is(err, ErrNoService) {
			t.Errorf("one that came later: %v", err)
		}
		for call, err := range map[string]error{"Accept": acceptError(l), "Close": l.Close()} {
			if op, ok := err.(*net.OpError); !ok || !errors.Is(op, net.ErrClosed) {
				t.Errorf("%s after Close: %v", call, err)
			}
		}
		go echo(accepted)
		if _, err := first.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(first, make([]byte, 1)); err != nil {
			t.Errorf("one that was accepted: %v", err)
		}
		first.Close()

	})
}

// Close ends every Accept that waits.
func TestListenerCloseEndsEveryAccept(t *testing.T) {
	inWorld(t, func(w *world) {
		l := w.node(1).listen("web")
		ended := make(chan error, 3)
		for range cap(ended) {
			go func() { ended <- acceptError(l) }()
		}
		synctest.Wait()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(ended) != cap(ended) {
			t.Fatalf("%d of %d Accepts have ended", len(ended), cap(ended))
		}
		for range cap(ended) {
			if err := <-ended; !errors.Is(err, net.ErrClosed) {
				t.Errorf("an Accept that waited: %v", err)
			}
		}
	})
}

// A name whose listener was closed can be listened to again, and whatever is done with the
// old listener, the new one keeps the name.
func TestListenAgainAfterClose(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		old := b.listen("web")
		old.Close()
		b.serve("web", echo)
		if err := old.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a second Close: %v", err)
		}
		if err := acceptError(old); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept of the old one: %v", err)
		}
		if _, err := b.mux.Listen("web"); !errors.Is(err, errTaken) {
			t.Errorf("the name is free: %v", err)
		}
		if err := a.ask(b, "web"); err != nil {
			t.Error(err)
		}
	})
}

func acceptError(l net.Listener) error {
	_, err := l.Accept()
	return err
}

// One Mux serves several transports, and a name that is listened to before or after
// they are made.
func TestMuxServesSeveralTransports(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b, c := w.node(1), w.node(2), w.node(3)
		a.join(c)
		b.join(c)
		shared := c.mux
		l, err := shared.Listen("late")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		from := make(map[meshsync.PeerID]bool)
		for _, n := range []*node{a, b} {
			n.dial(c, "late")
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			id, _ := PeerOf(conn.RemoteAddr())
			from[id] = true
		}
		if !from[a.ID()] || !from[b.ID()] {
			t.Errorf("conns come from %v", from)
		}
	})
}

// A peer that comes back has new conns; those of its old connection end, and none of
// them is left to be accepted.
func TestReplacedConnectionLeavesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		l := b.listen("web")
		a.dial(b, "web")
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			a.dial(b, "web") // they wait
		}
		time.Sleep(testRTT)
		if n := b.handling.Load(); n != 1 {
			t.Fatalf("%d connections are handled", n)
		}

		a.crash()
		a.start()
		a.join(b)
		// The new connection takes its place, or the new process says that it does not know it.
		if _, err := accepted.Read(make([]byte, 1)); !errors.Is(err, meshsync.ErrSuperseded) && !errors.Is(err, meshsync.ErrReset) {
			t.Errorf("a conn of the old connection: %v", err)
		}
		synctest.Wait()
		if n := b.handling.Load(); n != 1 {
			t.Errorf("%d connections are handled", n)
		}
		c := a.dial(b, "web")
		if _, err := c.Write([]byte("new")); err != nil {
			t.Fatal(err)
		}
		next, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 3)
		if _, err := io.ReadFull(next, got); err != nil || string(got) != "new" {
			t.Errorf("the next conn: %q, %v", got, err)
		}
		b.Close()
		if n := b.handling.Load(); n != 0 {
			t.Errorf("%d connections are handled after Close", n)
		}
	})
}

// When both sides dial at the same time, one connection remains. The conns of one that had to
// give way fail with ErrSuperseded, and none of them is left to be accepted.
func TestConnsWhileBothSidesDial(t *testing.T) {
	const interleavings = 10
	for i := range interleavings {
		inWorld(t, func(w *world) {
			nodes := [2]*node{w.node(1), w.node(2)}
			var dialed [2][]*conn // from each of the two
			var dialing sync.WaitGroup
			for k, n := range nodes {
				p := nodes[1-k]
				n.serve("web", echo)
				n.listen("slow")
				dialing.Go(func() {
					time.Sleep(time.Duration(k*i) * testRTT / interleavings * 2)
					if err := n.RegisterForReconnect(p.ID(), []string{netip.AddrPortFrom(p.host.Addr(), testPort).String()}, ""); err != nil {
						t.Error(err)
						return
					}
					for range 20 {
						dialed[k] = append(dialed[k], n.dial(p, "slow"))
						if err := n.ask(p, "web"); err != nil && !errors.Is(err, meshsync.ErrSuperseded) {
							t.Errorf("node %d: %v", k, err)
						}
					}
				})
			}
			dialing.Wait()
			time.Sleep(time.Second)
			for k, n := range nodes {
				if h := n.handling.Load(); h != 1 {
					t.Errorf("node %d: %d connections are handled", k, h)
				}
				alive := 0
				for _, c := range dialed[1-k] {
					c.SetReadDeadline(time.Now())
					switch _, err := c.Read(make([]byte, 1)); {
					case errors.Is(err, os.ErrDeadlineExceeded):
						alive++
					case !errors.Is(err, meshsync.ErrSuperseded):
						t.Errorf("a conn of node %d: %v", 1-k, err)
					}
				}
				l := n.mux.lookup([]byte("slow"))
				l.mu.Lock()
				waiting := len(l.backlog)
				l.mu.Unlock()
				if waiting != alive || alive == 0 {
					t.Errorf("at node %d %d conns wait, and %d of the other one's are alive", k, waiting, alive)
				}
			}
		})
	}
}

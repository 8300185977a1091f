package meshsync

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
)

// A reader is a service that reads as many bytes of each stream as it may, and
// then leaves the rest where it is.
type reader struct{ most int64 }

func (r *reader) handle(c *Conn) {
	for {
		s, err := c.AcceptStream(c.Context())
		if err != nil {
			return
		}
		go io.Copy(io.Discard, io.LimitReader(s, r.most))
	}
}

// unread returns how many bytes a peer can send on some streams before nothing
// moves any more.
func (w *world) unread(c *Conn, streams int) int {
	t := w.t
	t.Helper()
	sent := 0
	for range streams {
		s, err := c.OpenStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.SetWriteDeadline(time.Now().Add(time.Minute))
		n, err := s.Write(make([]byte, 32<<20))
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%d bytes were sent: %v", n, err)
		}
		sent += n
	}
	return sent
}

func (n *node) connectTo(to *node) *Conn {
	n.w.t.Helper()
	c, err := n.Connect(n.w.t.Context(), to.ID(), []string{to.addr()}, "")
	if err != nil {
		n.w.t.Fatal(err)
	}
	return c
}

// A peer from a host whose data was never read can make this side keep little,
// however many streams it opens, and one stream leaves room for the control
// stream.
func TestWindowsOfAnUnknownHostAreSmall(t *testing.T) {
	for streams, most := range map[int]int{1: firstStreamWindow, 3: firstConnWindow} {
		inWorld(t, 1, func(w *world) {
			a := w.node(1, func(o *Options) { o.Handler = new(reader).handle })
			b := w.node(2)
			if n := w.unread(b.connectTo(a), streams); n > most || n < most/2 {
				t.Errorf("%d bytes on %d streams are kept for an unknown host, want %d at most", n, streams, most)
			}
		})
	}
}

// Once its data was read, a host's connections begin with windows that slow
// nobody down; so do those that this side dials.
func TestWindowsOfAHostWhoseDataWasReadAreLarge(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		service := &reader{most: 100 << 10}
		a := w.node(1, func(o *Options) { o.Handler = service.handle })
		b := w.node(2, func(o *Options) { o.Handler = new(reader).handle })
		first := b.connectTo(a)
		w.unread(first, 1)
		first.Close()
		service.most = 0
		if n := w.unread(b.connectTo(a), 1); n < openStreamWindow-1000 || n > openStreamWindow {
			t.Errorf("%d bytes at the return of a host whose data was read, want %d", n, openStreamWindow)
		}
		back, _ := a.Conn(b.ID())
		if n := w.unread(back, 1); n < openStreamWindow-1000 || n > openStreamWindow {
			t.Errorf("%d bytes from the peer that was dialed, want %d", n, openStreamWindow)
		}
	})
}

// A host that this side has dialed is no stranger.
func TestWindowsOfAHostThatWasDialedAreLarge(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a := w.node(1, func(o *Options) { o.Handler = new(reader).handle })
		b := w.node(2)
		a.connectTo(b).Close()
		time.Sleep(time.Second)
		if n := w.unread(b.connectTo(a), 1); n < openStreamWindow-1000 {
			t.Errorf("%d bytes, want %d", n, openStreamWindow)
		}
	})
}

func TestWindowsGrowToWhatTheOptionsSay(t *testing.T) {
	const window, read = 100 << 10, 4 << 20
	for name, set := range map[string]func(*Options){
		"stream":     func(o *Options) { o.StreamWindow = window },
		"connection": func(o *Options) { o.ConnWindow = window },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				a := w.node(1, set, func(o *Options) { o.Handler = (&reader{most: read}).handle })
				b := w.node(2)
				if n := w.unread(b.connectTo(a), 1) - read; n > window || n < window/2 {
					t.Errorf("%d bytes are kept of a stream of which much was read, want %d at most", n, window)
				}
			})
		})
	}
	t.Run("at first", func(t *testing.T) {
		inWorld(t, 1, func(w *world) {
			a := w.node(1, func(o *Options) { o.Handler, o.ConnWindow = new(reader).handle, 2000 })
			b := w.node(2)
			if n := w.unread(b.connectTo(a), 2); n > 2000 {
				t.Errorf("%d bytes are kept, want 2000 at most", n)
			}
		})
	})
}

func TestHostsWhoseDataWasReadAreBounded(t *testing.T) {
	w := newWindows(Options{})
	from := func(n int) net.Addr { return &net.UDPAddr{IP: net.IPv4(10, 0, byte(n>>8), byte(n)), Port: 1} }
	for n := range maxReaders + 10 {
		w.inbound(from(n)).AllowConnectionWindowIncrease(nil, 1)
	}
	if len(w.read) != maxReaders {
		t.Errorf("%d hosts are known, want %d", len(w.read), maxReaders)
	}
	if w.inbound(from(maxReaders+9)) != w.direct {
		t.Error("the newest host is not known")
	}
}

// A hub leaves it to the peers that dial it to keep their connections alive.
func TestHubKeepsConnectionsAliveLater(t *testing.T) {
	w := newWindows(Options{KeepAlive: 4 * time.Second})
	known, unknown := &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}, &net.UDPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 1}
	w.inbound(known).AllowConnectionWindowIncrease(nil, 1)
	for peers, want := range map[int64]time.Duration{hubSize - 1: 4 * time.Second, hubSize: 5 * time.Second} {
		w.inboundPeers.Store(peers)
		for _, from := range []net.Addr{known, unknown} {
			if got := w.inbound(from).KeepAlivePeriod; got != want {
				t.Errorf("with %d peers the keep-alive to %v comes after %v, want %v", peers, from, got, want)
			}
		}
	}
}

func TestPeersConnectedByTheirOwnDialingAreCounted(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		hub, a, b := w.node(1), w.node(2), w.node(3)
		for i, peer := range []*node{a, b} {
			peer.connectTo(hub)
			time.Sleep(settled)
			if n := hub.windows.inboundPeers.Load(); n != int64(i+1) {
				t.Errorf("%d peers are counted, want %d", n, i+1)
			}
		}
		a.stop()
		time.Sleep(settled)
		if n := hub.windows.inboundPeers.Load(); n != 1 {
			t.Errorf("%d peers are counted, want the one that is left", n)
		}
		hub.stop()
		b.stop()
	})
}

// A connection that sends more than a hello before it is let in ends at once, and
// not when the time for the hello has passed.
func TestMoreThanAHelloEndsAConnectionAtOnce(t *testing.T) {
	open := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, attack := range map[string]func(*testing.T, *quic.Conn){
		"a second stream": func(t *testing.T, qc *quic.Conn) {
			_, err := qc.OpenStream()
			open(t, err)
			s, err := qc.OpenStream()
			open(t, err)
			s.Write([]byte{1})
		},
		"a stream of one direction": func(t *testing.T, qc *quic.Conn) {
			s, err := qc.OpenUniStream()
			open(t, err)
			s.Write([]byte{1})
		},
		"datagrams": func(t *testing.T, qc *quic.Conn) {
			for range 20 {
				open(t, qc.SendDatagram(make([]byte, 1000)))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				victim, _, check := w.victimAndFriend()
				a := w.attacker(10)
				qc := a.mustDial(victim)
				attack(t, qc)
				if code, err := closeCode(qc, 4*testRTT); err != nil || code != codeProtocol {
					t.Errorf("closed with %v, %v", code, err)
				}
				a.close()
				check()
			})
		})
	}
}

// A hello that comes late, after its dialer has looked for the path's MTU, is as
// good as any other.
func TestALateHelloIsGood(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		victim, _, _ := w.victimAndFriend()
		a := w.attacker(10)
		a.conf.KeepAlivePeriod = time.Second
		qc := a.mustDial(victim)
		time.Sleep(victim.opts.DialTimeout - 500*time.Millisecond)
		s, err := qc.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		s.Write(helloOf(1, 1).frame())
		if m, err := readMessage(s); err != nil || m.kind != kindHello {
			t.Errorf("answered with %v, %v", m, err)
		}
		qc.CloseWithError(0, "")
		a.close()
		synctest.Wait()
	})
}

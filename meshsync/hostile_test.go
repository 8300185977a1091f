package meshsync

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// An attacker speaks QUIC and TLS as it should, and nothing else.
type attacker struct {
	w    *world
	host *testnet.Host
	tr   *quic.Transport
	key  int
	conf *quic.Config
}

func (w *world) attacker(n int) *attacker {
	host := w.node(n).host
	return &attacker{w: w, host: host, tr: &quic.Transport{Conn: w.listenRaw(host)}, key: n + 100,
		conf: &quic.Config{EnableDatagrams: true, MaxIdleTimeout: time.Minute, HandshakeIdleTimeout: 10 * time.Second}}
}

func (a *attacker) close() {
	a.tr.Close()
	a.tr.Conn.Close()
}

func (a *attacker) dial(to *node) (*quic.Conn, error) {
	cert, err := identity.Certificate(testKey(a.key))
	if err != nil {
		a.w.t.Fatal(err)
	}
	return a.tr.Dial(context.Background(), to.sock.LocalAddr(), identity.ClientTLS(cert, alpn, to.ID()), a.conf)
}

func (a *attacker) mustDial(to *node) *quic.Conn {
	a.w.t.Helper()
	qc, err := a.dial(to)
	if err != nil {
		a.w.t.Fatal(err)
	}
	return qc
}

// victimAndFriend are two nodes that are connected, and must stay so.
func (w *world) victimAndFriend(set ...func(*Options)) (victim, friend *node, check func()) {
	victim, friend = w.pair(set...)
	victim.register(friend)
	c := victim.await(friend, time.Second)
	return victim, friend, func() {
		w.t.Helper()
		victim.mustPing(friend, 10*time.Second)
		if now, _ := victim.Conn(friend.ID()); now != c {
			w.t.Error("the friend's connection did not survive")
		}
		time.Sleep(time.Minute)
		if n := victim.endpoint.Unknown.Count(); n != 0 {
			w.t.Errorf("%d unknown connections are left", n)
		}
		victim.stop()
		friend.stop()
		for _, ev := range victim.log.events {
			if ev.Peer != friend.ID() {
				w.t.Errorf("the service was told of the attacker: %v", ev.Kind)
			}
		}
	}
}

func closeCode(qc *quic.Conn, d time.Duration) (quic.ApplicationErrorCode, error) {
	select {
	case <-qc.Context().Done():
	case <-time.After(d):
		return 0, fmt.Errorf("still open after %v", d)
	}
	err := context.Cause(qc.Context())
	app, ok := errors.AsType[*quic.ApplicationError](err)
	if !ok || !app.Remote {
		return 0, err
	}
	return app.ErrorCode, nil
}

func TestAnythingButAHelloEndsThatConnectionOnly(t *testing.T) {
	good := helloOf(1, 1).frame()
	for name, attack := range map[string]func(qc *quic.Conn, s *quic.Stream){
		"silence":              func(*quic.Conn, *quic.Stream) {},
		"half a hello":         func(_ *quic.Conn, s *quic.Stream) { s.Write(good[:10]) },
		"end of stream":        func(_ *quic.Conn, s *quic.Stream) { s.Close() },
		"reset of the stream":  func(_ *quic.Conn, s *quic.Stream) { s.Write(good[:3]); s.CancelWrite(1) },
		"garbage":              func(_ *quic.Conn, s *quic.Stream) { s.Write(make([]byte, 10_000)) },
		"length of 64 KiB":     func(_ *quic.Conn, s *quic.Stream) { s.Write([]byte{0xff, 0xff}) },
		"active without hello": func(_ *quic.Conn, s *quic.Stream) { s.Write(activeFrame(1)) },
		"two hellos":           func(_ *quic.Conn, s *quic.Stream) { s.Write(append(good[:len(good):len(good)], good...)) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				// The victim follows the attacker's key or decides: try both.
				victim, _, check := w.victimAndFriend(func(o *Options) { o.Authorize = nil })
				for n := range 4 {
					a := w.attacker(10 + n)
					qc := a.mustDial(victim)
					s, err := qc.OpenStream()
					if err != nil {
						t.Fatal(err)
					}
					attack(qc, s)
					code, err := closeCode(qc, 6*time.Second)
					if err != nil || code != codeProtocol {
						t.Errorf("closed with code %v, %v; want %v", code, err, codeProtocol)
					}
					a.close()
				}
				if name == "two hellos" { // the first one was good
					return
				}
				check()
			})
		})
	}
}

func TestPeerThatNeverReadsItsControlStreamHoldsNothingUp(t *testing.T) {
	for n := range 4 { // some decide, some follow
		inWorld(t, 1, func(w *world) {
			victim, friend, _ := w.victimAndFriend()
			a := w.attacker(10 + n)
			a.conf.InitialStreamReceiveWindow = 1 // room for one byte of the victim's hello
			a.conf.MaxStreamReceiveWindow = 1
			qc := a.mustDial(victim)
			s, err := qc.OpenStream()
			if err != nil {
				t.Fatal(err)
			}
			s.Write(helloOf(1, 1).frame())
			time.Sleep(20 * time.Second)
			if n := victim.endpoint.Unknown.Count(); n != 0 {
				t.Errorf("%d unknown connections after 20 s", n)
			}
			victim.mustPing(friend, time.Second)
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			defer cancel()
			began := time.Now()
			victim.Shutdown(ctx)
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("Shutdown took %v, its context 3 s", took)
			}
			a.close()
			friend.stop()
		})
	}
}

// Drain messages are answered, so a flood of them from a peer that reads no
// answers must end.
func TestFloodOfControlMessagesIsBounded(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		victim, friend, _ := w.victimAndFriend()
		var a *attacker
		for n := 10; ; n++ { // one for which the victim decides, so that its hello is enough
			if a = w.attacker(n); victim.decides(PeerIDFromKey(testKey(a.key))) {
				break
			}
			a.close()
		}
		a.conf.InitialStreamReceiveWindow = 2048
		a.conf.MaxStreamReceiveWindow = 2048
		qc := a.mustDial(victim)
		s, err := qc.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		s.Write(helloOf(1, 1).frame())
		go func() {
			for {
				if _, err := s.Write(frame(kindDrain, nil)); err != nil {
					return
				}
			}
		}()
		code, err := closeCode(qc, time.Minute)
		if err != nil || code != codeProtocol {
			t.Errorf("closed with %v, %v", code, err)
		}
		a.close()
		victim.mustPing(friend, time.Second)
		victim.stop()
	})
}

func TestPeerThatConnectsInALoopCostsNothingThatStays(t *testing.T) {
	t.Parallel()
	inWorld(t, 1, func(w *world) {
		victim, friend, _ := w.victimAndFriend()
		c, _ := victim.Conn(friend.ID())
		loop := w.node(9)
		for range 300 {
			qc, err := loop.Connect(context.Background(), victim.ID(), []string{victim.addr()}, "")
			if err != nil {
				t.Fatal(err)
			}
			qc.Close()
		}
		a := w.attacker(10)
		var last *quic.Conn
		for seq := range uint64(100) { // each replaces the one before
			last = a.mustDial(victim)
			s, _ := last.OpenStream()
			s.Write(helloOf(1, seq+1).frame())
		}
		time.Sleep(time.Second)
		victim.mustPing(friend, time.Second)
		if now, _ := victim.Conn(friend.ID()); now != c {
			t.Error("the friend's connection did not survive")
		}
		victim.mu.Lock()
		if n := len(victim.peers); n > 2 {
			t.Errorf("%d peers in the table", n)
		}
		victim.mu.Unlock()
		if n := victim.endpoint.Unknown.Count(); n > 1 {
			t.Errorf("%d unknown connections", n)
		}
		last.CloseWithError(0, "")
		a.close()
		loop.stop()
		victim.stop()
	})
}

// A host whose clients never finish their handshakes takes its own share of
// what is unknown, not that of others.
func TestHandshakeFloodFromOneHostLeavesRoomForOthers(t *testing.T) {
	t.Parallel()
	inWorld(t, 1, func(w *world) {
		victim, _, _ := w.victimAndFriend()
		a := w.attacker(10)
		a.host.Blackout(testnet.In) // it sends, and never hears
		ctx, cancel := context.WithCancel(context.Background())
		cert, _ := identity.Certificate(testKey(a.key))
		done := make(chan struct{})
		const flood = 2 * endpoint.MaxUnknownPerHost
		for range flood {
			go func() {
				a.tr.Dial(ctx, victim.sock.LocalAddr(), identity.ClientTLS(cert, alpn, victim.ID()), a.conf)
				done <- struct{}{}
			}()
		}
		time.Sleep(2 * time.Second)
		if n := victim.endpoint.Unknown.Count(); n == 0 || n > endpoint.MaxUnknownPerHost {
			t.Errorf("%d unknown connections of one host, want %d at most", n, endpoint.MaxUnknownPerHost)
		}
		late := w.node(11)
		if _, err := late.Connect(context.Background(), victim.ID(), []string{victim.addr()}, ""); err != nil {
			t.Errorf("an honest host during the flood: %v", err)
		}
		late.Disconnect(victim.ID())
		cancel()
		for range flood {
			<-done
		}
		a.close()
		time.Sleep(time.Minute)
		if n := victim.endpoint.Unknown.Count(); n != 0 {
			t.Errorf("%d unknown connections are left", n)
		}
		victim.stop()
	})
}

func TestWrongKeyAtRegisteredAddressIsRetried(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		impostor := w.node(9)
		if err := a.RegisterForReconnect(b.ID(), []string{impostor.addr()}, ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		st, _ := a.Status(b.ID())
		if !errors.Is(st.LastError, ErrIdentityMismatch) || st.Attempts < 5 {
			t.Errorf("status: %+v", st)
		}
		// The right peer takes the address over.
		impostor.crash()
		b.crash()
		b.host = impostor.host
		b.start()
		a.await(b, 15*time.Second)
		a.stop()
		b.stop()
		if ev := a.log.first(EventDialFailed); !errors.Is(ev.Err, ErrIdentityMismatch) || !ev.WillRetry {
			t.Errorf("event: %+v", ev)
		}
	})
}

func TestFormationKeepsOthersOut(t *testing.T) {
	key, other := []byte("0123456789abcdef"), []byte("fedcba9876543210")
	in := func(id string, key []byte) *Formation { return &Formation{ID: id, Key: key} }
	for name, tc := range map[string]struct {
		a, b *Formation
		ok   bool
	}{
		"same":           {in("alpha", key), in("alpha", key), true},
		"another key":    {in("alpha", key), in("alpha", other), false},
		"another name":   {in("alpha", key), in("beta", key), false},
		"dialer outside": {nil, in("alpha", key), false},
		"dialed outside": {in("alpha", key), nil, false},
		"both in none":   {nil, nil, true},
	} {
		for _, flip := range []bool{false, true} {
			t.Run(fmt.Sprint(name, flip), func(t *testing.T) {
				inWorld(t, 1, func(w *world) {
					a, b := w.node(1), w.node(2)
					if a.decides(b.ID()) == flip {
						a, b = b, a
					}
					a.Close()
					b.Close()
					a.sock.Close()
					b.sock.Close()
					a.opts.Formation, b.opts.Formation = tc.a, tc.b
					a.start()
					b.start()
					_, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, "")
					if tc.ok != (err == nil) || (!tc.ok && !errors.Is(err, ErrFormation)) {
						t.Errorf("Connect: %v", err)
					}
					if !tc.ok {
						a.register(b)
						time.Sleep(time.Minute)
						// Straight to MaxDelay.
						if st, _ := a.Status(b.ID()); st.Attempts > 7 || !errors.Is(st.LastError, ErrFormation) {
							t.Errorf("status: %+v", st)
						}
					}
					a.stop()
					b.stop()
					if !tc.ok && a.log.count(EventConnected)+b.log.count(EventConnected) > 0 {
						t.Error("a service was shown a connection")
					}
				})
			})
		}
	}
}

func TestAuthorizeIsAskedOnBothSides(t *testing.T) {
	for _, side := range []string{"dialer", "acceptor"} {
		for _, flip := range []bool{false, true} {
			t.Run(fmt.Sprint(side, flip), func(t *testing.T) {
				inWorld(t, 1, func(w *world) {
					var banned PeerID
					refuse := func(o *Options) {
						o.Authorize = func(id PeerID) error {
							if id == banned {
								return ErrShutdown // must not be taken for its meaning here
							}
							return nil
						}
					}
					a, b := w.pair(refuse)
					if flip {
						a, b = b, a
					}
					banned = a.ID()
					if side == "dialer" {
						banned = b.ID()
					}
					_, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, "")
					if !errors.Is(err, ErrUnauthorized) || errors.Is(err, ErrShutdown) {
						t.Errorf("Connect: %v, want %v", err, ErrUnauthorized)
					}
					a.stop()
					b.stop()
					if n := a.log.count(EventConnected); n > 0 {
						t.Error("the dialer was shown the connection")
					}
				})
			})
		}
	}
}

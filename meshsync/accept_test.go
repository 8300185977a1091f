package meshsync

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// fewPlaces are bounds that a test can fill.
var fewPlaces = endpoint.Bounds{All: 16, Kept: 2, PerHost: 8, PerNetwork: 8, PerVirtual: 8, Relayed: 8, Dying: 16}

func withFewPlaces(o *Options) { o.unknown = &fewPlaces }

// dialTimeout is how long an inbound connection may take for its handshake, and for
// its hello.
func (n *node) dialTimeout() time.Duration { return n.MeshSyncTransport.opts.DialTimeout }

// hold takes n places of the victim and keeps them, with handshakes that are begun
// again and again. It returns what ends that.
func (a *attacker) hold(victim *node, n int) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	cert, err := identity.Certificate(testKey(a.key))
	if err != nil {
		a.w.t.Fatal(err)
	}
	a.conf.HandshakeIdleTimeout = time.Second
	done := make(chan struct{})
	for i := range n {
		go func() {
			time.Sleep(victim.dialTimeout() * time.Duration(i) / time.Duration(n)) // so that not all end at once
			for ctx.Err() == nil {
				qc, err := a.tr.Dial(ctx, victim.sock.LocalAddr(), identity.ClientTLS(cert, alpn, victim.ID()), a.conf)
				if err != nil {
					time.Sleep(testRTT)
					continue
				}
				select {
				case <-qc.Context().Done():
				case <-ctx.Done():
					qc.CloseWithError(0, "")
				}
			}
			done <- struct{}{}
		}()
	}
	return func() {
		cancel()
		for range n {
			<-done
		}
		a.close()
	}
}

// A breakingOff sends the first packets of each connection only. Its ClientHello takes
// two: after one the other side cannot answer, after two it waits for the rest of the
// handshake.
type breakingOff struct {
	net.PacketConn
	after int
	mu    sync.Mutex
	sent  map[string]int // by the client's connection ID
}

func breakOff(after int) func(*attacker) {
	return func(a *attacker) {
		a.tr.Conn = &breakingOff{PacketConn: a.tr.Conn, after: after, sent: make(map[string]int)}
	}
}

func (c *breakingOff) WriteTo(b []byte, to net.Addr) (int, error) {
	if b[0]&0x80 == 0 { // no long header (RFC 9000 section 17.2)
		return len(b), nil
	}
	source := b[6+b[5]:]
	id := string(source[1 : 1+source[0]])
	c.mu.Lock()
	c.sent[id]++
	n := c.sent[id]
	c.mu.Unlock()
	if n > c.after {
		return len(b), nil
	}
	return c.PacketConn.WriteTo(b, to)
}

// Two hosts take all the places there are for connections that have not introduced
// themselves. Others get in all the same, and so does a registered peer that comes
// back.
func TestFloodOfHandshakesLeavesRoomForOthers(t *testing.T) {
	t.Parallel()
	peers := 40
	if raceEnabled {
		peers = 12
	}
	for name, begin := range map[string]func(*attacker){
		"half of a ClientHello":      breakOff(1),
		"half of a handshake":        breakOff(2),
		"silence instead of a hello": func(*attacker) {},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				victim, friend, _ := w.victimAndFriend(withFewPlaces)
				peer := w.node(3)
				victim.register(peer)
				victim.await(peer, time.Second)
				var ends []func()
				for n := range 2 {
					a := w.attacker(10 + n)
					begin(a)
					ends = append(ends, a.hold(victim, 2*fewPlaces.PerHost))
				}
				time.Sleep(victim.dialTimeout())
				full := 0
				for i := range peers {
					time.Sleep(testRTT * 5) // what gave way before ends meanwhile
					if victim.fillsUp(time.Second) {
						full++
					}
					late := w.node(20 + i)
					began := time.Now()
					_, err := late.Connect(context.Background(), victim.ID(), []string{victim.addr()}, "")
					if took := time.Since(began); err != nil || took > time.Second {
						t.Errorf("honest peer %d after %v: %v", i, took, err)
					}
					late.stop()
				}
				if full < peers/4 {
					t.Errorf("the places were all taken for only %d of %d honest peers: the test proves little", full, peers)
				}
				peer.crash()
				peer.start()
				peer.register(victim)
				peer.await(victim, time.Second)
				peer.stop()
				for _, end := range ends {
					end()
				}
				victim.mustPing(friend, time.Second)
				time.Sleep(time.Minute)
				if n := victim.endpoint.Unknown.Count(); n != 0 {
					t.Errorf("%d unknown connections are left", n)
				}
				victim.stop()
			})
		})
	}
}

// fillsUp waits until all places for unknown connections are taken, for so long at most.
func (n *node) fillsUp(within time.Duration) bool {
	for began := time.Now(); time.Since(began) < within; time.Sleep(testRTT / 10) {
		if n.endpoint.Unknown.Count() >= fewPlaces.All {
			return true
		}
	}
	return false
}

// The connection that gives way ends, also one that is half open, and no other.
func TestTheOldestConnectionOfTheHostWithTheMostIsClosed(t *testing.T) {
	for name, begin := range map[string]func(*attacker){
		"half open": breakOff(2), // to the client it seems complete
		"silent":    func(*attacker) {},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				victim := w.node(1, withFewPlaces)
				attackers := []*attacker{w.attacker(10), w.attacker(11)}
				for _, a := range attackers {
					begin(a)
				}
				var conns []*quic.Conn
				for i := range fewPlaces.All {
					conns = append(conns, attackers[i%2].mustDial(victim))
				}
				honest := w.node(20)
				if _, err := honest.Connect(context.Background(), victim.ID(), []string{victim.addr()}, ""); err != nil {
					t.Error(err)
				}
				time.Sleep(testRTT)
				if n := victim.endpoint.Unknown.Count(); n != fewPlaces.All-1 {
					t.Errorf("%d unknown connections, want %d", n, fewPlaces.All-1)
				}
				var closed []int
				for i, qc := range conns {
					if qc.Context().Err() != nil {
						closed = append(closed, i)
						if err := explain(context.Cause(qc.Context())); !errors.Is(err, ErrBusy) {
							t.Errorf("connection %d was closed with %v", i, err)
						}
					}
				}
				if len(closed) != 1 || closed[0] > 1 {
					t.Errorf("the connections %v were closed, want 0 or 1, the oldest of their hosts", closed)
				}
				for _, a := range attackers {
					a.close()
				}
				victim.stop()
			})
		})
	}
}

// A flood from so many hosts that none of them has more than another leaves room
// for the hosts of registered peers, and for those that were here lately.
func TestPlacesAreKeptForHostsThatAreKnown(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		victim := w.node(1, withFewPlaces)
		registered, visitor, stranger := w.node(2), w.node(3), w.node(4)
		victim.register(registered)
		victim.await(registered, time.Second)
		connect := func(n *node) error {
			_, err := n.Connect(context.Background(), victim.ID(), []string{victim.addr()}, "")
			return err
		}
		if err := connect(visitor); err != nil {
			t.Fatal(err)
		}
		victim.await(visitor, time.Second) // the visitor may know first
		for _, n := range []*node{registered, visitor} {
			n.crash()
		}
		time.Sleep(time.Minute) // both are lost
		victim.host.Blackout(testnet.Out)
		var ends []func()
		for n := range fewPlaces.All {
			ends = append(ends, w.attacker(10+n).hold(victim, 1))
		}
		time.Sleep(victim.dialTimeout() / 10) // each has one place, and none has dialed again
		victim.host.Restore()
		time.Sleep(testRTT)
		if n := victim.endpoint.Unknown.Count(); n != fewPlaces.All {
			t.Errorf("%d unknown connections, want %d", n, fewPlaces.All)
		}
		if err := connect(stranger); !errors.Is(err, ErrBusy) {
			t.Errorf("a stranger: %v", err)
		}
		for _, n := range []*node{registered, visitor} {
			n.start()
			if err := connect(n); err != nil {
				t.Errorf("a host that is known: %v", err)
			}
		}
		for _, end := range ends {
			end()
		}
		victim.stop()
	})
}

// introduce connects to the victim as identity number key, whose hello is enough if
// the victim decides.
func (a *attacker) introduce(victim *node, key int) (*quic.Conn, error) {
	a.key = key
	qc, s := a.offerTo(victim, 1)
	_, err := readMessage(s)
	return qc, explain(err)
}

// Identities cost nothing, addresses do: strangers of one host cannot take all of
// MaxInboundPeers.
func TestStrangersOfOneHostLeaveRoomForOthers(t *testing.T) {
	const most = 10
	for name, tc := range map[string]struct {
		set  func(*Options)
		want int
	}{
		"open":      {func(*Options) {}, most / 2},
		"Authorize": {func(o *Options) { o.Authorize = func(PeerID) error { return nil } }, most},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				victim := w.node(1, tc.set, func(o *Options) { o.MaxInboundPeers = most })
				a := w.attacker(10)
				peer := w.all[len(w.all)-1] // an honest node on the attacker's host
				var mine []*quic.Conn
				for key := 1000; len(mine) < most+2; key++ {
					if !victim.decides(PeerIDFromKey(testKey(key))) {
						continue
					}
					qc, err := a.introduce(victim, key)
					if in := len(mine) < tc.want; (in && err != nil) || (!in && !errors.Is(err, ErrBusy)) {
						t.Errorf("identity %d: %v", len(mine), err)
					}
					mine = append(mine, qc)
				}
				if n := len(victim.ConnectedPeers()); n != tc.want {
					t.Errorf("%d strangers of one host are in, want %d", n, tc.want)
				}
				victim.register(peer)
				victim.await(peer, time.Second)
				if tc.want < most {
					other := w.node(4)
					if _, err := other.Connect(context.Background(), victim.ID(), []string{victim.addr()}, ""); err != nil {
						t.Errorf("a stranger of another host: %v", err)
					}
				}
				// Who leaves makes room for another.
				mine[0].CloseWithError(0, "")
				time.Sleep(time.Second)
				again, err := a.introduce(victim, a.key)
				if err != nil {
					t.Errorf("one has left, and another finds no place: %v", err)
				}
				for _, qc := range append(mine, again) {
					qc.CloseWithError(0, "")
				}
				a.close()
				victim.stop()
				if n := victim.places.Taken(); n != 0 {
					t.Errorf("%d places are taken after the end", n)
				}
			})
		})
	}
}

// Who moves stays a stranger of the host that let it in, or else one host after the
// other could be used to gather them.
func TestStrangersThatMoveKeepTheirPlace(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		victim := w.node(1, func(o *Options) { o.MaxInboundPeers = 4 })
		here, there := w.attacker(10), w.attacker(11)
		var keys []int
		for key := 1000; len(keys) < 6; key++ {
			if victim.decides(PeerIDFromKey(testKey(key))) {
				keys = append(keys, key)
			}
		}
		for _, key := range keys[:2] {
			if _, err := here.introduce(victim, key); err != nil {
				t.Fatal(err)
			}
			if _, err := there.introduce(victim, key); err != nil { // the same, restarted
				t.Fatal(err)
			}
		}
		if _, err := here.introduce(victim, keys[2]); !errors.Is(err, ErrBusy) {
			t.Errorf("the places of those who moved are free again: %v", err)
		}
		if _, err := there.introduce(victim, keys[3]); err != nil {
			t.Errorf("those who moved count twice: %v", err)
		}
		here.close()
		there.close()
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

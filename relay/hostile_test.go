package relay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
	"github.com/quic-go/quic-go"
)

var bothCarriers = []Carrier{CarrierUDP, CarrierTCP}

// Whatever a client says that it must not ends its own connection, with the
// protocol's code, and no other.
func TestMalformedMessagesEndTheirConnection(t *testing.T) {
	id := testID(8)
	message := func(kind uint8, body ...byte) []byte {
		return append(relaywire.AppendHeader(nil, kind, len(body)), body...)
	}
	for name, tc := range map[string]struct {
		bytes   []byte
		greeted bool    // it comes after the hello
		only    Carrier // "": both
	}{
		"empty":                     {bytes: []byte{0, 0}, greeted: true},
		"longer than any":           {bytes: []byte{0xff, 0xff, 1}, greeted: true},
		"unknown kind":              {bytes: message(99), greeted: true},
		"kind 0":                    {bytes: message(0), greeted: true},
		"short watch":               {bytes: message(relaywire.KindWatch, id[:31]...), greeted: true},
		"short ping":                {bytes: message(relaywire.KindPing, 1), greeted: true},
		"long ping":                 {bytes: message(relaywire.KindPing, make([]byte, relaywire.NonceSize+1)...), greeted: true},
		"a close before the hello":  {bytes: message(relaywire.KindClose, 0)},
		"second hello":              {bytes: relaywire.AppendHello(nil), greeted: true},
		"welcome":                   {bytes: relaywire.AppendWelcome(nil, relaywire.Welcome{}), greeted: true},
		"present":                   {bytes: relaywire.AppendPeer(nil, relaywire.KindPresent, id), greeted: true},
		"gone":                      {bytes: relaywire.AppendPeer(nil, relaywire.KindGone, id), greeted: true},
		"observed":                  {bytes: relaywire.AppendObserved(nil, netip.AddrPortFrom(netip.IPv4Unspecified(), 1)), greeted: true},
		"goodbye":                   {bytes: relaywire.AppendGoodbye(nil, 1), greeted: true},
		"close over QUIC":           {bytes: relaywire.AppendClose(nil, relaywire.CodeNormal), greeted: true, only: CarrierUDP},
		"packet on the stream":      {bytes: message(relaywire.KindPacket, append(id[:], 'x')...), greeted: true, only: CarrierUDP},
		"part over TCP":             {bytes: message(relaywire.KindFragment, append(id[:], 0, 0, 0, 'x')...), greeted: true, only: CarrierTCP},
		"empty packet":              {bytes: message(relaywire.KindPacket, id[:]...), greeted: true, only: CarrierTCP},
		"long packet":               {bytes: message(relaywire.KindPacket, append(id[:], make([]byte, relaywire.MaxPacket+1)...)...), greeted: true, only: CarrierTCP},
		"a packet before the hello": {bytes: message(relaywire.KindPacket, append(id[:], 'x')...)},
		"a watch before the hello":  {bytes: relaywire.AppendPeer(nil, relaywire.KindWatch, id)},
		"another version":           {bytes: message(relaywire.KindHello, relaywire.ProtocolVersion-1)},
		"a long hello":              {bytes: message(relaywire.KindHello, 1, 1)},
		"silence":                   {},
	} {
		for _, carrier := range bothCarriers {
			if tc.only != "" && tc.only != carrier {
				continue
			}
			t.Run(fmt.Sprint(name, " over ", carrier), func(t *testing.T) {
				inWorld(t, ServerOptions{}, func(w *world) {
					witness := w.client(1)
					var r *rawClient
					if tc.greeted {
						r = w.greeted(2, carrier)
					} else {
						r = w.raw(2, carrier)
					}
					if tc.bytes == nil && carrier == CarrierUDP {
						r.write([]byte{0}) // or else the relay never hears of the stream
					} else {
						go r.write(tc.bytes) // a pipe blocks until it is read
					}
					if code, err := r.closedWith(2 * helloTimeout); err != nil || code != relaywire.CodeProtocol {
						t.Errorf("closed with %d, %v", code, err)
					}
					time.Sleep(2 * closeTimeout)
					synctest.Wait()
					if witness.Err() != nil || w.relay.Clients() != 1 {
						t.Errorf("%d clients are left, the witness: %v", w.relay.Clients(), witness.Err())
					}
					if n := w.relay.endpoint.Unknown.Count() + w.relay.greeting.Count(); n != 0 {
						t.Errorf("%d slots are still taken", n)
					}
				})
			})
		}
	}
}

func TestMalformedDatagramsEndTheirConnection(t *testing.T) {
	id := testID(1)
	for name, b := range map[string][]byte{
		"empty":        {},
		"a kind alone": {relaywire.KindPacket},
		"no payload":   relaywire.AppendPacket(nil, id, nil),
		"another kind": relaywire.AppendPeer(nil, relaywire.KindWatch, id)[relaywire.LengthSize:],
		"part 2":       relaywire.AppendFragment(nil, id[:], 1, 2, []byte("x")),
		"empty part":   relaywire.AppendFragment(nil, id[:], 1, 0, nil),
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, ServerOptions{}, func(w *world) {
				witness := w.client(1)
				r := w.greeted(2, CarrierUDP)
				if err := r.qc.SendDatagram(b); err != nil {
					t.Fatal(err)
				}
				if code, err := r.closedWith(time.Second); err != nil || code != relaywire.CodeProtocol {
					t.Errorf("closed with %d, %v", code, err)
				}
				if synctest.Wait(); witness.Err() != nil || w.drops(droppedMalformed) != 1 {
					t.Errorf("the witness: %v; %d counted", witness.Err(), w.drops(droppedMalformed))
				}
			})
		})
	}
}

// The source that a packet arrives with is what its sender has proven, whatever
// the sender writes.
func TestSourcesCannotBeForged(t *testing.T) {
	for _, carrier := range bothCarriers {
		inWorld(t, ServerOptions{}, func(w *world) {
			victim := w.client(1)
			w.client(2)
			r := w.greeted(3, carrier)
			frame := relaywire.AppendPacket(nil, testID(1), append(id2(), "I am 2"...))
			if carrier == CarrierUDP {
				r.qc.SendDatagram(frame)
			} else {
				r.write(append(binary.BigEndian.AppendUint16(nil, uint16(len(frame))), frame...))
			}
			victim.expect(received{testID(3), string(append(id2(), "I am 2"...))})
		})
	}
}

func id2() []byte { id := testID(2); return id[:] }

// A client that closes its control stream, or leaves without a word.
func TestClientsThatLeaveWithoutAWordAreForgotten(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		w.client(1).Watch(testID(2))
		udp, tcp := w.greeted(2, CarrierUDP), w.greeted(3, CarrierTCP)
		udp.stream.(*quic.Stream).Close()
		tcp.stream.(interface{ Close() error }).Close()
		w.all[0].hears(notice{testID(2), false}, notice{testID(2), true}, notice{testID(2), false})
		if w.relay.Clients() != 1 {
			t.Errorf("%d clients", w.relay.Clients())
		}
	})
}

// A client that does not read what the relay has to say is closed, and holds
// nobody up meanwhile.
func TestSlowReadersAreClosed(t *testing.T) {
	for _, carrier := range bothCarriers {
		t.Run(string(carrier), func(t *testing.T) {
			inWorld(t, ServerOptions{}, func(w *world) {
				a, b := w.client(1), w.client(2)
				slow := w.greeted(3, carrier)
				// More notices than the windows of QUIC hold, and more than one
				// write: the pings ask for an answer each.
				var watch []byte
				for i := range 2000 {
					watch = relaywire.AppendPeer(watch, relaywire.KindWatch, identity.PeerID{1, byte(i), byte(i >> 8)})
				}
				done := make(chan struct{})
				go func() {
					defer close(done)
					slow.write(watch)
					for {
						if _, err := slow.stream.Write(relaywire.AppendPeer(nil, relaywire.KindWatch, identity.PeerID{1})); err != nil {
							return
						}
						time.Sleep(time.Second / 50)
						for i := range 20 {
							slow.write(relaywire.AppendPeer(nil, relaywire.KindWatch, identity.PeerID{1, byte(i)}))
						}
					}
				}()
				began := time.Now()
				for range 30 {
					time.Sleep(time.Second)
					a.Send(testID(2), []byte("x"))
					if got, _ := b.inbox.take(testRTT); len(got) != 1 {
						t.Fatalf("%d packets arrived after %v", len(got), time.Since(began))
					}
				}
				if w.relay.Clients() != 2 {
					t.Errorf("%d clients after %v", w.relay.Clients(), time.Since(began))
				}
				code, err := slow.closedWith(time.Second)
				if carrier == CarrierUDP && (err != nil || code != relaywire.CodeSlow) {
					t.Errorf("closed with %d, %v", code, err)
				}
				w.closes = append(w.closes, func() { <-done })
			})
		})
	}
}

// A client whose network is gone for a while is not taken for slow.
func TestABlackoutIsNotSlowness(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		a := w.client(1, func(o *relayclient.Options) { o.IdleTimeout = 30 * time.Second })
		for i := range 200 {
			a.Watch(identity.PeerID{1, byte(i)})
		}
		a.Watch(testID(2))
		time.Sleep(time.Second)
		w.net.Cut(a.host, w.host)
		b, flooder := w.client(2), w.client(3)
		for range 100 { // more than QUIC sends without an answer, so that notices wait
			flooder.Send(testID(1), make([]byte, relaywire.MaxPacket))
			time.Sleep(time.Millisecond)
		}
		b.Close()
		w.client(2)
		time.Sleep(slowAfter + time.Second)
		w.net.Restore(a.host, w.host)
		time.Sleep(10 * time.Second)
		if a.Err() != nil {
			t.Errorf("the connection ended: %v", a.Err())
		}
		_, notices := a.inbox.take(0)
		if len(notices) == 0 || notices[len(notices)-1] != (notice{testID(2), true}) {
			t.Errorf("the last of %d notices is not that the peer is there", len(notices))
		}
	})
}

func TestTooManyWatches(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		c := w.client(1)
		watch := func(i int) error { return c.Watch(identity.PeerID{1, byte(i), byte(i >> 8)}) }
		for i := range relaywire.MaxWatches {
			if err := watch(i); err != nil {
				t.Fatalf("watch %d: %v", i, err)
			}
		}
		if err := watch(relaywire.MaxWatches); !errors.Is(err, ErrTooManyWatches) {
			t.Errorf("one too many: %v", err)
		}
		_, notices := c.inbox.take(10 * time.Second)
		if len(notices) != relaywire.MaxWatches {
			t.Errorf("%d answers to %d watches", len(notices), relaywire.MaxWatches)
		}
		c.Unwatch(identity.PeerID{1})
		if err := watch(relaywire.MaxWatches); err != nil {
			t.Errorf("after an Unwatch: %v", err)
		}
		c.hears(notice{identity.PeerID{1, 0, relaywire.MaxWatches >> 8}, false})

		// One that does not keep to it.
		r := w.greeted(2, CarrierUDP)
		go func() {
			for i := range relaywire.MaxWatches + 1 {
				r.write(relaywire.AppendPeer(nil, relaywire.KindWatch, identity.PeerID{2, byte(i), byte(i >> 8)}))
			}
		}()
		if code, err := r.closedWith(time.Minute); err != nil || code != relaywire.CodeProtocol {
			t.Errorf("closed with %d, %v", code, err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if w.relay.table.watches != relaywire.MaxWatches {
			t.Errorf("%d watches are left, want %d", w.relay.table.watches, relaywire.MaxWatches)
		}
	})
}

// A flood of control messages is read slowly, and pings are not all answered.
func TestControlFloodsAreThrottled(t *testing.T) {
	for _, carrier := range bothCarriers {
		t.Run(string(carrier), func(t *testing.T) {
			inWorld(t, ServerOptions{}, func(w *world) {
				a, b := w.client(1), w.client(2)
				r := w.greeted(3, carrier)
				const floods = requestBurst + 50*requestRate
				done := make(chan time.Time, 1)
				began := time.Now()
				go func() {
					for i := range floods {
						r.write(relaywire.AppendNonce(nil, relaywire.KindPing, uint64(i)))
					}
					done <- time.Now()
				}()
				pongs := 0
				r.stream.SetDeadline(time.Now().Add(5 * time.Minute))
				for {
					m, err := r.read()
					if err != nil {
						t.Fatal(err)
					}
					pongs++
					if m.Nonce == floods-1 {
						break
					}
				}
				<-done
				if took := time.Since(began); took < 49*time.Second {
					t.Errorf("%d pings were read within %v", floods, took)
				}
				if pongs > floods {
					t.Errorf("%d pongs for %d pings", pongs, floods)
				}
				a.Send(testID(2), []byte("x"))
				b.expect(received{testID(1), "x"})
			})
		})
	}
}

// A relay that means ill costs its client the connection at most.
func TestClientsSurviveAHostileRelay(t *testing.T) {
	id := testID(7)
	for name, tc := range map[string]struct {
		bytes []byte
		ends  bool
	}{
		"second welcome":         {relaywire.AppendWelcome(nil, relaywire.Welcome{}), true},
		"hello":                  {relaywire.AppendHello(nil), true},
		"watch":                  {relaywire.AppendPeer(nil, relaywire.KindWatch, id), true},
		"garbage":                {[]byte("GET / HTTP/1.1\r\n\r\n"), true},
		"presence of strangers":  {relaywire.AppendPeer(relaywire.AppendPeer(nil, relaywire.KindPresent, id), relaywire.KindGone, id), false},
		"pongs nobody asked for": {relaywire.AppendNonce(relaywire.AppendNonce(nil, relaywire.KindPong, 0), relaywire.KindPong, 1<<63), false},
		"goodbye, twice":         {relaywire.AppendGoodbye(relaywire.AppendGoodbye(nil, 5), 1<<31), false},
		"pings":                  {relaywire.AppendNonce(relaywire.AppendNonce(nil, relaywire.KindPing, 0), relaywire.KindPing, 1<<63), false},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, ServerOptions{}, func(w *world) {
				c := w.client(1)
				w.relay.table.find(testID(1)).Link.(*relaylink.QUIC).Control.Write(tc.bytes)
				_, notices := c.inbox.take(time.Second)
				if len(notices) != 0 {
					t.Errorf("heard %v", notices)
				}
				if tc.ends != errors.Is(c.Err(), ErrProtocol) {
					t.Errorf("the connection ended: %v", c.Err())
				}
				if !tc.ends && c.RTT() > 2*testRTT {
					t.Errorf("RTT %v", c.RTT())
				}
			})
		})
	}
}

// How a client reads what its relay says: so many messages a second and at once, where a ping counts as
// several; and QUIC's window for them.
const (
	messageRate   = 1000
	messageBurst  = 2 * relaywire.MaxWatches
	pingCost      = 64
	controlWindow = 16 << 10
)

// A relay that floods its client with pings, or with news of a peer, is read
// slowly.
func TestAFloodFromTheRelayIsReadSlowly(t *testing.T) {
	for name, flood := range map[string]struct {
		message []byte
		cost    int
	}{
		"pings":   {relaywire.AppendNonce(nil, relaywire.KindPing, 1), pingCost},
		"notices": {relaywire.AppendPeer(nil, relaywire.KindPresent, testID(2)), 1},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, ServerOptions{}, func(w *world) {
				c := w.client(1)
				if err := c.Watch(testID(2)); err != nil {
					t.Fatal(err)
				}
				c.inbox.take(time.Second)
				const seconds = 120
				chunk := bytes.Repeat(flood.message, 100/flood.cost+1)
				control := w.relay.table.find(testID(1)).Link.(*relaylink.QUIC).Control
				began := time.Now()
				sent := 0
				for ; sent < (messageBurst+seconds*messageRate)/flood.cost; sent += len(chunk) / len(flood.message) {
					if _, err := control.Write(chunk); err != nil {
						t.Fatal(err)
					}
				}
				// The last that were written are not read yet: about as many as QUIC's window holds.
				unread := time.Duration(controlWindow/len(flood.message)*flood.cost) * time.Second / messageRate
				if took := time.Since(began); took < seconds*time.Second-unread*11/10-5*time.Second {
					t.Errorf("%d messages were read within %v", sent, took)
				}
				if c.Err() != nil {
					t.Error("the connection ended:", c.Err())
				}
			})
		})
	}
}

// A client hears at once of all the peers it watches, twice.
func TestTheNewsOfAllWatchedPeersIsNoFlood(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		c := w.client(1)
		began := time.Now()
		for i := range relaywire.MaxWatches {
			if err := c.Watch(identity.PeerID{1, byte(i), byte(i >> 8)}); err != nil {
				t.Fatal(err)
			}
		}
		for heard := 0; heard < relaywire.MaxWatches; {
			_, notices := c.inbox.take(testRTT)
			heard += len(notices)
		}
		if took := time.Since(began); took > 60*testRTT {
			t.Errorf("the news of %d peers took %v", relaywire.MaxWatches, took)
		}
	})
}

// Of the two goroutines that read a client one may still be at work when the
// other has taken it out.
func TestAWatchAfterTheEndLeavesNothing(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		w.client(1)
		s := w.relay.table.find(testID(1))
		w.all[0].Close()
		time.Sleep(time.Second)
		if err := w.relay.table.watch(s, testID(2)); !errors.Is(err, ErrClosed) {
			t.Errorf("watch: %v", err)
		}
		if synctest.Wait(); w.relay.table.watches != 0 || len(w.relay.table.watchers) != 0 {
			t.Errorf("%d watches, %d watched", w.relay.table.watches, len(w.relay.table.watchers))
		}
	})
}

// What is to be said about peers that are watched no more is not kept, and so
// neither is more than one notice for each that is.
func TestNoticesAreBoundedByTheWatches(t *testing.T) {
	c := stuckSession(t)
	var table table
	table.init(1)
	for i := range 100 {
		peer := identity.PeerID{1, byte(i)}
		for range 3 {
			if err := table.watch(c, peer); err != nil {
				t.Fatal(err)
			}
		}
		if i%2 == 0 {
			table.unwatch(c, peer)
		}
	}
	if len(c.notices) != 50 || table.watches != 50 || len(table.watchers) != 50 {
		t.Errorf("%d notices, %d watches of %d peers, want 50", len(c.notices), table.watches, len(table.watchers))
	}
	table.remove(c)
	if table.watches != 0 || len(table.watchers) != 0 {
		t.Errorf("%d watches of %d peers are left", table.watches, len(table.watchers))
	}
}

// stuckSession returns a session to which nothing can be written: its send queue waits for the link with its first message.
func stuckSession(t *testing.T) *session {
	t.Helper()
	c, l, wg := &session{}, &stuckLink{free: make(chan struct{})}, new(sync.WaitGroup)
	c.Open(l, relaylink.Callbacks{
		AppendControl: func(b []byte) []byte { return append(b, 0) },
		Failed:        func(error) {},
		Unsent:        func(int) {},
		Sent:          func(int, uint64) {},
	}, new(relaylink.Buffers), wg)
	t.Cleanup(func() {
		close(l.free)
		c.End(nil)
		wg.Wait()
	})
	return c
}

// A stuckLink writes nothing until it is free.
type stuckLink struct {
	relaylink.Link
	free chan struct{}
}

func (l *stuckLink) WriteControl([]byte) error  { <-l.free; return errors.New("the other side is gone") }
func (l *stuckLink) Abort(relaywire.CloseCode)  {}
func (l *stuckLink) Finish(relaywire.CloseCode) {}

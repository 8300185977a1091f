package relay

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
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

func id2() []byte { id := testID(2); return id[:] }

func TestSupersededClientIsNotServed(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		victim := w.client(1)
		r := w.greeted(2, CarrierTCP)
		w.greeted(2, CarrierTCP)
		go func() { // reads, so that the close message gets out
			for {
				if _, err := r.read(); err != nil {
					return
				}
			}
		}()
		time.Sleep(500 * time.Millisecond)
		frame := relaywire.AppendPacket(nil, testID(1), []byte("from the old one"))
		go r.write(append(binary.BigEndian.AppendUint16(nil, uint16(len(frame))), frame...))
		got, _ := victim.inbox.take(time.Second)
		if len(got) != 0 {
			t.Errorf("superseded 500 ms ago, and yet %v", got)
		}
	})
}

// A client that reads well over a saturated link, and whose watched peers come
// and go, is not slow.
func TestReadingClientIsNotSlow(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		hub := w.client(1)
		w.net.SetLinkOneWay(w.host, hub.host, testnet.Link{Latency: testRTT / 2, Rate: 125_000})
		a := w.client(2)
		const edges = 60
		for i := range edges {
			hub.Watch(testID(100 + i))
		}
		time.Sleep(time.Second)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { // 1 Mbit/s link, kept full
			for {
				select {
				case <-stop:
					return
				case <-time.After(4 * time.Millisecond):
					a.Send(testID(1), make([]byte, 1200))
				}
			}
		})
		began := time.Now()
		for i := range edges { // one edge arrives every 250 ms
			w.client(100 + i)
			time.Sleep(250*time.Millisecond - 3*testRTT)
			if hub.Err() != nil {
				break
			}
		}
		if err := hub.Err(); err != nil {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if _, n := hub.inbox.take(0); len(n) < edges {
			t.Errorf("%d notices arrived", len(n))
		}
		close(stop)
		wg.Wait()
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

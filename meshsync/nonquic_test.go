package meshsync

import (
	"context"
	"crypto/hmac"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// listenRaw returns a socket from which a test sends what it likes.
func (w *world) listenRaw(h *testnet.Host) *testnet.Socket {
	w.t.Helper()
	s, err := h.Listen(0)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// read returns the next packet, or nil if none comes within a second.
func readRaw(s *testnet.Socket) []byte {
	s.SetReadDeadline(time.Now().Add(time.Second))
	var b [1500]byte
	n, _, err := s.ReadFrom(b[:])
	if err != nil {
		return nil
	}
	return b[:n]
}

func TestProbeIsAnsweredOnlyByThePeerItNames(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		s := w.listenRaw(b.host)
		n := endpoint.NewNonce()
		to := a.sock.LocalAddr()

		s.WriteTo(endpoint.ProbePacket(endpoint.TypeProbe, a.ID(), n), to)
		if got, want := readRaw(s), endpoint.ProbePacket(endpoint.TypeAnswer, a.ID(), n); !hmac.Equal(got, want) {
			t.Errorf("answer %x, want %x", got, want)
		}
		good := endpoint.ProbePacket(endpoint.TypeProbe, a.ID(), n)
		for name, packet := range map[string][]byte{
			"for another peer": endpoint.ProbePacket(endpoint.TypeProbe, b.ID(), n),
			"cut short":        good[:len(good)-1],
			"too long":         append(good[:len(good):len(good)], 0),
			"unasked answer":   endpoint.ProbePacket(endpoint.TypeAnswer, b.ID(), n),
			"gone of nothing":  append([]byte{endpoint.TypeGone}, good[1:]...),
			"unknown type":     append([]byte{9}, good[1:]...),
		} {
			s.WriteTo(packet, to)
			if got := readRaw(s); got != nil {
				t.Errorf("%s was answered with %x", name, got)
			}
		}
		a.stop()
	})
}

// An answer that nobody but a search waits for, with a tag that is not the
// peer's, changes nothing.
func TestForgedAnswersDoNotMakeTheWatchdogDial(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		b.crash()
		a.register(b)
		time.Sleep(time.Minute)
		s := w.listenRaw(b.host)
		for range 100 {
			s.WriteTo(endpoint.ProbePacket(endpoint.TypeAnswer, b.ID(), endpoint.NewNonce()), a.sock.LocalAddr())
		}
		before := a.dialsSoFar(b)
		time.Sleep(20 * time.Second)
		if n := a.dialsSoFar(b) - before; n > 3 {
			t.Errorf("%d dials in 20 s", n)
		}
		a.stop()
	})
}

// Where small packets pass and large ones do not, the peer answers every probe
// and no handshake. Answers must not make for a dial after the other.
func TestAnswersWithoutHandshakeDoNotSetThePace(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		a.register(b)
		a.await(b, time.Second)
		time.Sleep(settled)
		w.net.SetDefaultLink(testnet.Link{Latency: testRTT / 2, MTU: 1000})
		c, _ := a.Conn(b.ID())
		c.Close()
		time.Sleep(time.Hour)
		// A dial takes 5 s and a wait 8 s at the least; every other one may
		// begin early.
		if n := a.dialsSoFar(b); n > 3600/9 {
			t.Errorf("%d dials in an hour", n)
		}
		w.net.SetDefaultLink(testnet.Link{Latency: testRTT / 2})
		a.await(b, 20*time.Second)
		a.stop()
		b.stop()
	})
}

func TestSearchCostsLessThanHandshakes(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		a.register(b)
		a.await(b, time.Second)
		time.Sleep(settled)
		b.host.Blackout(testnet.Both)
		before := a.host.Stats().Sent
		time.Sleep(10 * time.Minute)
		sent := a.host.Stats().Sent
		t.Logf("in 10 minutes without the peer: %d packets, %d bytes", sent.Packets-before.Packets, sent.Bytes-before.Bytes)
		// 72 packets of a full handshake is what boxo/peering v0.43 sends.
		if got, limit := sent.Bytes-before.Bytes, 72*minPacketSize; got > limit {
			t.Errorf("sent %d bytes, want %d at most", got, limit)
		}
		a.stop()
		b.stop()
	})
}

func TestProbesOfAllWatchdogsTogetherAreBounded(t *testing.T) {
	t.Parallel()
	inWorld(t, 1, func(w *world) {
		a := w.node(0)
		for i := range 2000 {
			if err := a.RegisterForReconnect(PeerIDFromKey(testKey(1000+i)), []string{"10.200.0.1:1"}, ""); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Minute) // every one has been dialed
		before := a.host.Stats().Sent
		time.Sleep(time.Minute)
		sent := a.host.Stats().Sent
		packets, bytes := sent.Packets-before.Packets, sent.Bytes-before.Bytes
		// All but the probes are handshake packets; 64 dials at a time, each of
		// 5 s and ten packets, make 128 a second.
		handshakes := 64 / 5 * 10 * 60
		if probes := packets - handshakes; probes > maxProbeRate*60*12/10 {
			t.Errorf("%d packets, %d bytes in a minute", packets, bytes)
		}
		a.Close() // stop would look at its 2,000 events, which come all at once
	})
}

func TestIdleSideTellsTheOtherThatItIsGone(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		a.register(b)
		c := a.await(b, time.Second)
		time.Sleep(settled)
		b.host.Blackout(testnet.In) // b hears nothing, but a hears b
		if cause := causeOf(t, c, 25*time.Second); cause == nil {
			t.Error("no cause")
		}
		if st, _ := a.Status(b.ID()); st.State == StateConnected {
			t.Error("still connected")
		}
		a.stop()
		b.stop()
	})
}

func FuzzPacketsBesideQUIC(f *testing.F) {
	tr, err := New(Options{PrivateKey: testKey(1), ListenAddr: "127.0.0.1:0"})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { tr.Close() })
	from := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9} // discard
	f.Add(endpoint.ProbePacket(endpoint.TypeProbe, tr.ID(), endpoint.Nonce{1}))
	f.Add(endpoint.ProbePacket(endpoint.TypeAnswer, tr.ID(), endpoint.Nonce{1}))
	f.Add(append([]byte{endpoint.TypeGone}, make([]byte, goneSize)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == endpoint.ProbeSize {
			tr.handlePacket(b, from)
		}
	})
}

// What the probes of one host cost is bounded, and not at the expense of another's.
func TestProbesOfOneHostAreBounded(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a := w.node(1)
		flooder, other := w.listenRaw(w.node(7).host), w.listenRaw(w.node(8).host)
		probe := endpoint.ProbePacket(endpoint.TypeProbe, a.ID(), endpoint.NewNonce())
		const rate = 10_000
		for range 2 * rate { // for two seconds
			flooder.WriteTo(probe, a.sock.LocalAddr())
			time.Sleep(time.Second / rate)
		}
		other.WriteTo(probe, a.sock.LocalAddr())
		if readRaw(other) == nil {
			t.Error("the probe of another host was not answered")
		}
		answered := 0
		for readRaw(flooder) != nil {
			answered++
		}
		if answered < 1000 || answered > 3500 {
			t.Errorf("%d of %d probes were answered", answered, 2*rate)
		}
		// After the flood there is room again.
		time.Sleep(time.Second)
		flooder.WriteTo(probe, a.sock.LocalAddr())
		if readRaw(flooder) == nil {
			t.Error("a probe after the flood was not answered")
		}
		a.stop()
	})
}

// A flood of anything but QUIC changes nothing for the peers that are there.
func TestGarbageDatagramsDisturbNobody(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		a.register(b)
		c := a.await(b, time.Second)
		s := w.listenRaw(w.node(7).host)
		r := rand.New(rand.NewPCG(1, 2))
		for range 10_000 {
			packet := make([]byte, r.IntN(1400))
			for i := range packet {
				packet[i] = byte(r.Uint32())
			}
			s.WriteTo(packet, a.sock.LocalAddr())
		}
		a.mustPing(b, 10*time.Second)
		if now, _ := a.Conn(b.ID()); now != c {
			t.Error("the connection did not survive")
		}
		time.Sleep(time.Minute)
		if n := a.endpoint.Unknown.Count(); n != 0 {
			t.Errorf("%d unknown connections are left", n)
		}
		a.stop()
		b.stop()
	})
}

// A peer whose connections keep dying of silence is dialed less and less often
// (ReconnectPolicy.StableAfter), also if it answers probes.
func TestProbesDoNotUndoTheBackoffOfAFlappingPeer(t *testing.T) {
	dials := make(map[bool]int)
	for _, probes := range []bool{true, false} {
		inWorld(t, 1, func(w *world) {
			a, b := w.pair(func(o *Options) { o.Reconnect = ConservativeReconnect() })
			b.restart(func() { // what b sends on a connection vanishes a second after the handshake
				b.wrap = func(pc net.PacketConn) net.PacketConn {
					var mu sync.Mutex
					began := make(map[[4]byte]time.Time) // by the beginning of a's connection ID
					return &faultyConn{PacketConn: pc, drop: func(p []byte) bool {
						if p[0]&0xc0 != 0x40 {
							return false
						}
						mu.Lock()
						defer mu.Unlock()
						id := [4]byte(p[1:])
						if began[id].IsZero() {
							began[id] = time.Now()
						}
						return time.Since(began[id]) > time.Second
					}}
				}
			})
			var drop atomic.Bool
			drop.Store(!probes)
			a.dropProbes(&drop)
			a.register(b)
			time.Sleep(time.Hour)
			a.Close()
			<-a.log.done
			dials[probes] = a.log.count(EventDialing)
		})
	}
	if dials[true] > 2*dials[false] || dials[false] < 10 {
		t.Errorf("%d dials in an hour, %d without probes: more than twice the policy's pace", dials[true], dials[false])
	}
}

// A peer that answers probes when it is there is not dialed while it does not, but every four minutes; and what is told of as a
// dial is one.
func TestSilentPeerIsLeftToProbes(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		a.register(b)
		a.await(b, time.Second)
		time.Sleep(settled)
		b.host.Blackout(testnet.Both)
		a.awaitState(b, StateWaiting, time.Minute)
		st, _ := a.Status(b.ID())
		time.Sleep(time.Until(st.NextAttempt) + time.Second)
		a.stop()
		b.stop()

		lost, failed := a.log.first(EventDisconnected).Time, a.log.first(EventDialFailed)
		if failed.Time.Add(failed.Retry) != st.NextAttempt {
			t.Errorf("a dial failed at %v and is to be repeated in %v, and the status says at %v", failed.Time, failed.Retry, st.NextAttempt)
		}
		var dials []time.Duration // after the loss
		for _, ev := range a.log.events {
			if ev.Kind == EventDialing && !ev.Time.Before(lost) {
				dials = append(dials, ev.Time.Sub(lost))
			}
		}
		if len(dials) != 2 || dials[1]-dials[0] != blindAfter {
			t.Errorf("dials %v after the loss, want two that are %v apart", dials, blindAfter)
		}
	})
}

// A name whose lookup takes longer than MaxDelay is followed all the same while its peer is left to probes.
func TestSlowLookupOfAPeerThatIsLeftToProbes(t *testing.T) {
	z := &zone{records: make(map[string][]netip.Addr)}
	slow := func(ctx context.Context, host string) ([]netip.Addr, error) {
		select {
		case <-time.After(3 * time.Second):
			return z.lookup(ctx, host)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	inWorld(t, 1, func(w *world) {
		a, b := w.pair(func(o *Options) { o.Reconnect, o.resolve = AggressiveReconnect(), slow })
		z.set("b.example", b.host.Addr())
		if err := a.RegisterForReconnect(b.ID(), []string{fmt.Sprintf("b.example:%d", testPort)}, ""); err != nil {
			t.Fatal(err)
		}
		a.await(b, 10*time.Second)
		time.Sleep(settled)
		b.crash()
		time.Sleep(40 * time.Second)
		b.host.SetAddr(netip.MustParseAddr("10.9.9.9"))
		z.set("b.example", b.host.Addr())
		b.start()
		a.awaitEcho(b, 20*time.Second)
		a.stop()
		b.stop()
	})
}

// A peer whose connections do not last is dialed at NextAttempt at the latest, also if it is left to probes.
func TestFlappingPeerIsDialedAtNextAttempt(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		a.register(b)
		for range 3 {
			a.await(b, time.Minute)
			time.Sleep(time.Second)
			b.restart(func() {})
		}
		a.await(b, time.Minute)
		time.Sleep(time.Second)
		b.stop()
		time.Sleep(150 * time.Millisecond)
		st, _ := a.Status(b.ID())
		if st.State != StateWaiting {
			t.Fatalf("the peer is %v", st.State)
		}
		next := st.NextAttempt
		time.Sleep(time.Until(next) - time.Millisecond)
		if st, _ := a.Status(b.ID()); st.State != StateWaiting || !st.NextAttempt.Equal(next) {
			t.Errorf("a moment before the next dial the peer is %v, and it is due in %v", st.State, time.Until(st.NextAttempt))
		}
		time.Sleep(time.Second)
		a.stop()
		if ev := a.log.last(EventDialing); ev.Time.Before(next) {
			t.Errorf("no dial at NextAttempt, the last one was %v before", next.Sub(ev.Time))
		}
	})
}

// Where dials are counted until the peer is given up, it is not left to probes.
func TestPeerWithMaxAttemptsIsGivenUpInTime(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair(func(o *Options) { o.Reconnect.MaxAttempts = 3 })
		a.register(b)
		a.await(b, time.Second)
		time.Sleep(settled)
		b.host.Blackout(testnet.Both)
		a.awaitState(b, StateGaveUp, time.Minute)
		a.stop()
		b.stop()
	})
}

// RetryNow dials, also a peer that is left to probes.
func TestRetryNowDialsAPeerThatIsLeftToProbes(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		var drop atomic.Bool
		a.dropProbes(&drop)
		a.register(b)
		a.await(b, time.Second)
		time.Sleep(settled)
		drop.Store(true)
		b.host.Blackout(testnet.Both)
		time.Sleep(time.Minute)
		a.awaitState(b, StateWaiting, time.Minute)
		b.host.Restore()
		if err := a.RetryNow(b.ID()); err != nil {
			t.Fatal(err)
		}
		a.await(b, time.Second)
		a.stop()
		b.stop()
	})
}

// A search that is under way takes in addresses that come later.
func TestSearchFollowsNewAddresses(t *testing.T) {
	z := &zone{records: make(map[string][]netip.Addr)}
	inWorld(t, 1, func(w *world) {
		a, b := w.pair(func(o *Options) { o.resolve = z.lookup })
		z.set("b.example", netip.MustParseAddr("10.7.7.7"))
		b.crash()
		if err := a.RegisterForReconnect(b.ID(), []string{fmt.Sprintf("b.example:%d", testPort)}, ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		z.set("b.example", netip.MustParseAddr("10.7.7.7"), b.host.Addr())
		time.Sleep(time.Minute) // at least one dial has resolved the name again
		b.start()
		if took := a.awaitEcho(b, time.Minute); took > 2*time.Second {
			t.Errorf("first echo after %v", took)
		}
		a.stop()
		b.stop()
	})
}

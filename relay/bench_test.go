package relay

import (
	"context"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// loopbackServer returns a relay on real sockets.
func loopbackServer(t testing.TB, o ServerOptions) *Server {
	t.Helper()
	o.ListenAddr, o.PrivateKey = "127.0.0.1:0", testKey(0)
	s, err := NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// loopbackTransport returns what clients dial from on real sockets.
func loopbackTransport(t testing.TB) *quic.Transport {
	t.Helper()
	pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: pc}
	t.Cleanup(func() { tr.Close(); pc.Close() })
	return tr
}

// loopbackClient returns client number n.
func loopbackClient(t testing.TB, s *Server, tr *quic.Transport, n int, set ...func(*relayclient.Options)) *relayclient.Client {
	t.Helper()
	u, err := ParseURL(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	o := relayclient.Options{URL: u, PrivateKey: testKey(n), QUIC: tr, DialTimeout: 30 * time.Second}
	for _, f := range set {
		f(&o)
	}
	c, err := relayclient.Dial(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// BenchmarkIdleClients tells what an idle client costs. The clients are in the
// same process, so the relay's share is what is left without theirs: about half.
func BenchmarkIdleClients(b *testing.B) {
	for name, set := range map[string][]func(*relayclient.Options){"udp": nil, "tcp": {overTCP}} {
		b.Run(name, func(b *testing.B) {
			const clients = 500
			s := loopbackServer(b, ServerOptions{})
			tr := loopbackTransport(b)
			loopbackClient(b, s, tr, 1_000_000, set...) // what is made once
			measure := func() (heap, stack uint64, goroutines int) {
				runtime.GC()
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				return m.HeapAlloc, m.StackInuse, runtime.NumGoroutine()
			}
			heap, stack, goroutines := measure()
			for i := range clients {
				loopbackClient(b, s, tr, i+1, set...)
			}
			heap2, stack2, goroutines2 := measure()
			b.ReportMetric(float64(heap2-heap+stack2-stack)/clients, "bytes/client+relay")
			b.ReportMetric(float64(goroutines2-goroutines)/clients, "goroutines/client+relay")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkForward sends as fast as packets arrive, from one client to another.
func BenchmarkForward(b *testing.B) {
	for name, sets := range carrierSets {
		b.Run(name, func(b *testing.B) {
			s := loopbackServer(b, ServerOptions{BytesPerSecond: 10_000_000_000})
			var arrived atomic.Int64
			wake := make(chan struct{}, 1)
			receive := func(o *relayclient.Options) {
				o.Receive = func(identity.PeerID, []byte) {
					arrived.Add(1)
					select {
					case wake <- struct{}{}:
					default:
					}
				}
			}
			from := loopbackClient(b, s, loopbackTransport(b), 1, sets[0]...)
			loopbackClient(b, s, loopbackTransport(b), 2, append(sets[1][:len(sets[1]):len(sets[1])], receive)...)
			const size, window = 1200, 100 // more would overrun quic-go's queue
			packet, peer := make([]byte, size), testID(2)
			b.SetBytes(size)
			b.ReportAllocs()
			b.ResetTimer()
			stuck := time.NewTicker(100 * time.Millisecond)
			defer stuck.Stop()
			sent, lost, before := int64(0), int64(0), int64(0)
			for arrived.Load() < int64(b.N) {
				for sent-lost-arrived.Load() < window {
					from.Send(peer, packet)
					sent++
				}
				select {
				case <-wake:
				case <-stuck.C: // nothing came for a while: what has not is lost
					if before == arrived.Load() {
						lost = sent - before
					}
					before = arrived.Load()
				}
			}
			b.ReportMetric(float64(lost)/float64(sent), "lost/op")
		})
	}
}

// BenchmarkSend is what Send costs who calls it.
func BenchmarkSend(b *testing.B) {
	s := loopbackServer(b, ServerOptions{})
	c := loopbackClient(b, s, loopbackTransport(b), 1)
	packet, peer := make([]byte, 1200), testID(2)
	b.ReportAllocs()
	for b.Loop() {
		c.Send(peer, packet)
	}
}

package meshsync

import (
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/relay"
)

// relayed returns two transports on the loopback interface and a relay, and the
// connections between the two: a direct one of the first pair, a relayed one of
// the second.
func openRelayed(t testing.TB) (direct, relayed *Conn) {
	t.Helper()
	r, err := relay.NewServer(relay.ServerOptions{ListenAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	connect := func(through string) *Conn {
		a := open(t, Options{ListenAddr: "127.0.0.1:0"})
		o := Options{ListenAddr: "127.0.0.1:0"}
		if through != "" {
			o.Relays = []string{through}
		}
		b := open(t, o)
		addrs := []string{b.Addr().String()}
		if through != "" {
			addrs = nil
			for n := 0; n < 100 && r.Clients() == 0; n++ { // b has to arrive there
				time.Sleep(20 * time.Millisecond)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		c, err := a.Connect(ctx, b.ID(), addrs, through)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	return connect(""), connect(r.URL())
}

// goodput returns the bytes per second of n echoed bytes, checked by their hash.
func goodput(t testing.TB, c *Conn, n int64) float64 {
	t.Helper()
	s, err := c.OpenStream(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	sent, got := sha256.New(), sha256.New()
	failed := make(chan error, 1)
	go func() {
		src := io.LimitReader(rand.NewChaCha8([32]byte{1}), n)
		_, err := io.Copy(io.MultiWriter(s, sent), src)
		s.Close()
		failed <- err
	}()
	if m, err := io.Copy(got, s); err != nil || m != n {
		t.Fatalf("%d of %d bytes came back: %v", m, n, err)
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	if string(sent.Sum(nil)) != string(got.Sum(nil)) {
		t.Fatal("they came back changed")
	}
	return float64(n) / time.Since(began).Seconds()
}

// BenchmarkPaths measures a stream that is echoed, and a small message and its
// echo, on a direct and on a relayed connection over the loopback interface, in
// turns.
func BenchmarkPaths(b *testing.B) {
	direct, relayed := openRelayed(b)
	const size = 64 << 20
	var rates [2]float64
	var trips [2]time.Duration
	const messages = 1000
	for range b.N {
		for i, c := range []*Conn{direct, relayed} {
			rates[i] += goodput(b, c, size)
			began := time.Now()
			for range messages {
				if err := ping(context.Background(), c, "a message of a hundred bytes"+strings.Repeat(".", 72)); err != nil {
					b.Fatal(err)
				}
			}
			trips[i] += time.Since(began) / messages
		}
	}
	n := float64(b.N)
	b.ReportMetric(rates[0]/n/1e6, "direct-MB/s")
	b.ReportMetric(rates[1]/n/1e6, "relayed-MB/s")
	b.ReportMetric(rates[1]/rates[0], "ratio")
	b.ReportMetric(float64(trips[0].Microseconds())/n, "direct-µs/trip")
	b.ReportMetric(float64(trips[1].Microseconds())/n, "relayed-µs/trip")
}

// A gibibyte through a relay, there and back.
func TestGibibyteThroughRelay(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("takes a minute")
	}
	_, relayed := openRelayed(t)
	if p := relayed.Path(); p.Kind != PathRelay {
		t.Fatalf("path is %+v", p)
	}
	t.Logf("%.0f MB/s", goodput(t, relayed, 1<<30)/1e6)
}

// A direct connection beside a relay keeps what the system offers.
func TestSegmentationOffloadBesideRelay(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("segmentation offload is Linux's")
	}
	direct, relayed := openRelayed(t)
	if !direct.qc.ConnectionState().GSO {
		t.Error("no segmentation offload")
	}
	if err := ping(context.Background(), relayed, strings.Repeat("x", 100_000)); err != nil {
		t.Error(err)
	}
}

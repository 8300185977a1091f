package meshsync

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// Shutdown delivers what was written on a connection that retires, too.
func TestShutdownDrainsARetiringConnection(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		r := w.relay(1)
		a, b := w.pair(home(r), func(o *Options) { o.Handler = nil })
		w.net.Cut(a.host, b.host)
		a.registerVia(b, r, b.addr())
		relayed := a.awaitPath(b, PathRelay, 5*time.Second)
		theirs := b.await(a, time.Second)
		type reading struct {
			n   int64
			err error
		}
		read := make(chan reading, 1)
		go func() {
			s, err := theirs.AcceptUniStream(context.Background())
			if err != nil {
				read <- reading{0, err}
				return
			}
			n, err := io.Copy(io.Discard, s)
			read <- reading{n, err}
		}()
		s, err := relayed.OpenUniStream(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		s.Write(make([]byte, 10))
		w.net.Restore(a.host, b.host)
		a.awaitPath(b, PathDirect, 5*time.Second)
		time.Sleep(time.Second)
		w.net.SetDefaultLink(testnet.Link{Latency: testRTT / 2, Loss: 0.1}) // what is lost must be sent again
		if _, err := s.Write(make([]byte, 50_000)); err != nil {
			t.Fatal(err)
		}
		s.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := a.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if got := <-read; got.err != nil || got.n != 50_010 {
			t.Errorf("%d of 50_010 bytes arrived, %v", got.n, got.err)
		}
		b.stop()
	})
}

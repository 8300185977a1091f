package meshnet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// Dial waits for a peer that is away as long as its context allows.
func TestDialWaitsForThePeer(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		b.serve("web", echo)
		b.host.Blackout(testnet.Both)
		time.Sleep(time.Minute) // the connection has ended

		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := Dial(ctx, a.MeshSyncTransport, b.ID(), "web")
		op, ok := err.(*net.OpError)
		if !ok || !op.Timeout() || !errors.Is(err, meshsync.ErrNotConnected) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while the peer is away: %v", err)
		}
		cancelled, cancel := context.WithCancel(context.Background())
		cancel()
		_, err = Dial(cancelled, a.MeshSyncTransport, b.ID(), "web")
		if op, ok := err.(*net.OpError); !ok || op.Timeout() || !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}

		done := make(chan error)
		go func() { done <- a.ask(b, "web") }()
		time.Sleep(time.Second)
		b.host.Restore()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// While there are as many conns as the peer allows, Dial waits for the end of one, as long
// as its context allows.
func TestDialWaitsForRoom(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		b.serve("web", echo)
		var conns []*conn
		var full error
		for full == nil {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			began := time.Now()
			c, err := Dial(ctx, a.MeshSyncTransport, b.ID(), "web")
			cancel()
			if err == nil {
				if conns = append(conns, c.(*conn)); len(conns)%100 == 0 {
					time.Sleep(testRTT) // they are accepted, and none is refused
				}
				continue
			}
			full = err
			if d := time.Since(began); d != time.Second {
				t.Errorf("Dial took %v, with a context of a second", d)
			}
		}
		op, ok := full.(*net.OpError)
		if len(conns) != 1023 || !ok || !op.Timeout() || !errors.Is(full, context.DeadlineExceeded) || errors.Is(full, meshsync.ErrNotConnected) {
			t.Errorf("beside %d conns: %v", len(conns), full)
		}
		done := make(chan error)
		go func() { done <- a.ask(b, "web") }()
		time.Sleep(time.Second)
		conns[500].Close()
		if err := <-done; err != nil {
			t.Errorf("after one was closed: %v", err)
		}
	})
}

// Neither the end of Dial's context nor the time that the name had touch the conn.
func TestConnLastsUnused(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		b.serve("web", echo)
		ctx, cancel := context.WithCancel(context.Background())
		c, err := Dial(ctx, a.MeshSyncTransport, b.ID(), "web")
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		time.Sleep(2 * nameTimeout)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		c.Close()
	})
}

func TestDialerTakesAPeerIDWithOrWithoutPort(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		b.serve("web", echo)
		dial := Dialer(a.MeshSyncTransport, "web")
		for _, addr := range []string{b.ID().String(), b.ID().String() + ":80", connectedAddr(a, b)} {
			c, err := dial(context.Background(), "tcp", addr)
			if err != nil {
				t.Errorf("%s: %v", addr, err)
				continue
			}
			if id, _ := PeerOf(c.RemoteAddr()); id != b.ID() {
				t.Errorf("%s leads to %s", addr, id.Short())
			}
			c.Close()
		}
		for _, addr := range []string{"", ":80", "example.com:80", b.ID().Short() + ":80", strings.Repeat("0", 64) + ":80"} {
			_, err := dial(context.Background(), "tcp", addr)
			if op, ok := err.(*net.OpError); !ok || op.Op != "dial" || !strings.Contains(err.Error(), addr) {
				t.Errorf("%q: %v", addr, err)
			}
		}
		if _, err := dial(context.Background(), "tcp", a.ID().String()); !errors.Is(err, meshsync.ErrSelf) {
			t.Errorf("itself: %v", err)
		}
	})
}

// connectedAddr returns the text of the address of b that a conn has.
func connectedAddr(a, b *node) string {
	c, _ := connected(a, b)
	return c.RemoteAddr().String()
}

// A client and a server of net/http know nothing of it, and what they are told of
// failures is what it was.
func TestHTTPOverConns(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.pair()
		l := b.listen("web")
		server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			io.WriteString(rw, r.RemoteAddr+" asks for "+r.URL.Path)
		})}
		served := make(chan error, 1)
		go func() { served <- server.Serve(l) }()
		client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: Dialer(a.MeshSyncTransport, "web")}}
		get := func() (string, error) {
			r, err := client.Get("http://" + b.ID().String() + "/status")
			if err != nil {
				return "", err
			}
			defer r.Body.Close()
			body, err := io.ReadAll(r.Body)
			return string(body), err
		}
		for range 3 {
			if got, err := get(); got != a.ID().String()+" asks for /status" || err != nil {
				t.Fatalf("%q, %v", got, err)
			}
		}
		if err := server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != http.ErrServerClosed {
			t.Error(err)
		}
		time.Sleep(testRTT)
		if _, err := get(); !errors.Is(err, ErrNoService) {
			t.Errorf("without a server: %v", err)
		}
		client.CloseIdleConnections()
	})
}

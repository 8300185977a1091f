package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
	"github.com/defenseunicorns/peat-mesh-go/relay"
)

// A peer is an identity that connects to relays.
type peer struct {
	t   *testing.T
	key ed25519.PrivateKey
	id  identity.PeerID
	tls *tls.Config // roots; nil: the system's
}

func newPeer(t *testing.T) *peer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &peer{t: t, key: key, id: identity.FromKey(key)}
}

// tryDial connects to a relay over one carrier. The connection is closed when the
// test ends, if not before.
func (p *peer) tryDial(u relay.URL, carrier relay.Carrier) (*relayclient.Client, error) {
	p.t.Helper()
	o := relayclient.Options{URL: u, PrivateKey: p.key, TLS: p.tls, DialTimeout: patience}
	if carrier == relay.CarrierUDP {
		o.QUIC, o.UDPOnly = newQUIC(p.t), true
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := relayclient.Dial(ctx, o)
	if err != nil {
		return nil, err
	}
	p.t.Cleanup(func() { c.Close() })
	if c.Carrier() != carrier {
		p.t.Errorf("connected over %s, want %s", c.Carrier(), carrier)
	}
	return c, nil
}

func (p *peer) dial(u relay.URL, carrier relay.Carrier) *relayclient.Client {
	p.t.Helper()
	c, err := p.tryDial(u, carrier)
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

// newQUIC returns a socket to dial from.
func newQUIC(t *testing.T) *quic.Transport {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: pc}
	t.Cleanup(func() {
		tr.Close()
		pc.Close()
	})
	return tr
}

// write makes a file with the given text, or gives it that.
func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func tempFile(t *testing.T, text string) string {
	t.Helper()
	return write(t, filepath.Join(t.TempDir(), "file"), text)
}

// get returns what the program answers.
func get(t *testing.T, addr any, path string) (code int, body string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Get("http://" + addr.(string) + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}

// wantHealth fails the test unless the program answers so.
func wantHealth(t *testing.T, addr any, path string, code int, want health) {
	t.Helper()
	gotCode, body := get(t, addr, path)
	var got health
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatalf("GET %s: %v: %s", path, err, body)
	}
	if gotCode != code || got != want {
		t.Errorf("GET %s: %d %+v, want %d %+v", path, gotCode, got, code, want)
	}
}

func await(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("no %s within %v", what, patience)
	}
}

func wantError(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("error is %v, want %v", got, want)
	}
}

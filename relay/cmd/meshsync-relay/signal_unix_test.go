//go:build unix

package main

import (
	"context"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/relay"
)

func TestAllowListIsReadAgainAtSIGHUP(t *testing.T) {
	t.Parallel()
	first, second := newPeer(t), newPeer(t)
	list := tempFile(t, first.id.String()+"\n")
	p := start(t, "-allow="+list)
	stays := first.dial(p.url(), relay.CarrierUDP)
	_, err := second.tryDial(p.url(), relay.CarrierUDP)
	wantError(t, err, relay.ErrUnauthorized)

	write(t, list, second.id.String()+"\n")
	p.signal(syscall.SIGHUP)
	p.logged("allow list read again", 1)
	second.dial(p.url(), relay.CarrierUDP)
	_, err = first.tryDial(p.url(), relay.CarrierTCP)
	wantError(t, err, relay.ErrUnauthorized)
	if err := stays.Err(); err != nil {
		t.Errorf("a client that is no longer allowed lost its connection: %v", err)
	}

	write(t, list, "nonsense\n")
	p.signal(syscall.SIGHUP)
	if r := p.logged("allow list not read again", 1); r["level"] != "ERROR" {
		t.Errorf("logged as %v", r)
	}
	second.dial(p.url(), relay.CarrierTCP)
}

func TestSIGHUPWithoutFilesDoesNothing(t *testing.T) {
	t.Parallel()
	p := start(t)
	u := p.url()
	p.signal(syscall.SIGHUP)
	newPeer(t).dial(u, relay.CarrierTCP)
}

func TestCertificateIsReadAgainAtSIGHUP(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	old := writeCertificate(t, cert, key)
	p := start(t, "-cert="+cert, "-cert-key="+key)
	u := p.url()
	pinned := u
	u.ID = [32]byte{}
	before, after := newPeer(t), newPeer(t)
	before.tls = old
	for _, carrier := range []relay.Carrier{relay.CarrierUDP, relay.CarrierTCP} {
		before.dial(u, carrier)
		before.dial(pinned, carrier)
	}

	after.tls = writeCertificate(t, cert, key)
	p.signal(syscall.SIGHUP)
	p.logged("certificate read again", 1)
	after.dial(u, relay.CarrierTCP)
	if _, err := before.tryDial(u, relay.CarrierTCP); err == nil {
		t.Error("the old certificate is still shown")
	}

	write(t, cert, "nonsense")
	p.signal(syscall.SIGHUP)
	p.logged("certificate not read again", 1)
	after.dial(u, relay.CarrierTCP)
}

func TestSIGTERMDrains(t *testing.T) {
	t.Parallel()
	for _, carrier := range []relay.Carrier{relay.CarrierUDP, relay.CarrierTCP} {
		t.Run(string(carrier), func(t *testing.T) {
			t.Parallel()
			p := start(t, "-metrics=127.0.0.1:0", "-drain=10m")
			addr := p.logged("relay is up", 1)["metrics"]
			c := newPeer(t).dial(p.url(), carrier)

			p.signal(syscall.SIGTERM)
			await(t, "goodbye", c.Leaving())
			wantHealth(t, addr, "/readyz", 503, health{Clients: 1, Draining: true})
			wantHealth(t, addr, "/healthz", 200, health{Clients: 1, Draining: true})
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := c.Flush(ctx); err != nil {
				t.Errorf("the relay does not serve its clients while it drains: %v", err)
			}
			if _, err := newPeer(t).tryDial(p.url(), carrier); err == nil {
				t.Error("the relay took a new client while it drained")
			}
			c.Close()
			if code := p.awaitExit(); code != exitOK {
				t.Errorf("exit code is %d, want %d", code, exitOK)
			}
		})
	}
}

func TestClientThatStaysIsLeftBehind(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		drain string
		want  []error
	}{
		{"300ms", []error{relay.ErrGoodbye, relay.ErrShutdown}},
		{"0", []error{relay.ErrShutdown}},
	} {
		t.Run(tc.drain, func(t *testing.T) {
			t.Parallel()
			p := start(t, "-drain="+tc.drain)
			c := newPeer(t).dial(p.url(), relay.CarrierUDP)
			p.signal(syscall.SIGTERM)
			if code := p.awaitExit(); code != exitOK {
				t.Errorf("exit code is %d, want %d", code, exitOK)
			}
			await(t, "the end of the connection", c.Context().Done())
			for _, want := range tc.want {
				wantError(t, c.Err(), want)
			}
		})
	}
}

func TestSecondSignalKills(t *testing.T) {
	t.Parallel()
	p := start(t, "-drain=10m")
	c := newPeer(t).dial(p.url(), relay.CarrierUDP)
	p.signal(syscall.SIGTERM)
	await(t, "goodbye", c.Leaving())
	// The first one's handler may not be gone yet, so there may be a third.
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	limit := time.After(patience)
	for {
		select {
		case <-p.exited:
			status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
			if !status.Signaled() || status.Signal() != syscall.SIGTERM {
				t.Errorf("the program ended with %v", p.cmd.ProcessState)
			}
			return
		case <-again.C:
			p.cmd.Process.Signal(syscall.SIGTERM) // fails if it is just gone
		case <-limit:
			t.Fatalf("still running after %v", patience)
		}
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

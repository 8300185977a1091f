package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/defenseunicorns/peat-mesh-go/relay"
)

func TestURLOnStdoutCanBeDialed(t *testing.T) {
	t.Parallel()
	p := start(t)
	for _, carrier := range []relay.Carrier{relay.CarrierUDP, relay.CarrierTCP} {
		newPeer(t).dial(p.url(), carrier)
	}
	p.kill()
	if len(p.stdout) != 1 {
		t.Errorf("stdout has %d lines, want the URL alone: %q", len(p.stdout), p.stdout)
	}
}

// The relay says once that it has started, with all there is to know.
func TestStartIsOneLineOfTheLog(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.url()
	p.kill()
	var said []string
	for _, line := range p.log {
		if strings.Contains(line, `"msg":"relay `) { // QUIC may have something to say of buffers
			said = append(said, line)
		}
	}
	if len(said) != 1 || !strings.Contains(said[0], "relay is up") {
		t.Errorf("the log of the start is %q", said)
	}
}

func TestURLHasTheHostThatIsWanted(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"relay.example", "2001:db8::1"} {
		p := start(t, "-url-host="+host)
		if got := p.url(); got.Host != host || got.ID.IsZero() || got.Port == 0 {
			t.Errorf("URL is %v, want the host %s", got, host)
		}
	}
}

func TestKeyIsMadeOnce(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "made.key")
	first := start(t, "-key="+key)
	id := first.url().ID
	first.kill()
	st, err := os.Stat(key)
	if err != nil {
		t.Fatal(err)
	}
	if mode := st.Mode(); mode != 0o600 && runtime.GOOS != "windows" {
		t.Errorf("the key file has mode %v, want 0600", mode)
	}
	if again := start(t, "-key="+key).url().ID; again != id {
		t.Errorf("the relay is %v, and was %v", again.Short(), id.Short())
	}
}

func TestKilledRelayIsThereAgainUnderItsURL(t *testing.T) {
	t.Parallel()
	key := "-key=" + filepath.Join(t.TempDir(), "relay.key")
	p := start(t, key)
	u := p.url()
	overUDP, overTCP := newPeer(t), newPeer(t)
	overUDP.dial(u, relay.CarrierUDP)
	overTCP.dial(u, relay.CarrierTCP)

	p.kill()
	again := start(t, key, "-listen="+net.JoinHostPort(u.Host, strconv.Itoa(int(u.Port))))
	if again.url() != u {
		t.Errorf("URL is %v, and was %v", again.url(), u)
	}
	overUDP.dial(u, relay.CarrierUDP)
	overTCP.dial(u, relay.CarrierTCP)
}

func TestMetricsAndHealth(t *testing.T) {
	t.Parallel()
	p := start(t, "-metrics=127.0.0.1:0")
	newPeer(t).dial(p.url(), relay.CarrierUDP)
	addr := p.logged("relay is up", 1)["metrics"]

	wantHealth(t, addr, "/healthz", 200, health{Clients: 1})
	wantHealth(t, addr, "/readyz", 200, health{Clients: 1})
	code, metrics := get(t, addr, "/metrics")
	if code != 200 {
		t.Errorf("GET /metrics: %d", code)
	}
	for _, want := range []string{"\nmeshsync_relay_clients 1\n", "\ngo_goroutines "} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %q:\n%s", want, metrics)
		}
	}
	if code, _ := get(t, addr, "/"); code != 404 {
		t.Errorf("GET /: %d, want 404", code)
	}
}

func TestBytesPerSecondIsPassedOn(t *testing.T) {
	t.Parallel()
	p := start(t, "-bytes-per-second=1000", "-metrics=127.0.0.1:0")
	c, absent := newPeer(t).dial(p.url(), relay.CarrierTCP), newPeer(t)
	for range 600 { // 840 kB: more than passes as a burst
		c.Send(absent.id, make([]byte, 1400))
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	_, metrics := get(t, p.logged("relay is up", 1)["metrics"], "/metrics")
	if !regexp.MustCompile(`relay_dropped_total{reason="rate"} [1-9]`).MatchString(metrics) {
		t.Errorf("nothing was dropped for its rate:\n%s", metrics)
	}
}

func TestMaxClientsIsPassedOn(t *testing.T) {
	t.Parallel()
	p := start(t, "-max-clients=1")
	newPeer(t).dial(p.url(), relay.CarrierTCP)
	_, err := newPeer(t).tryDial(p.url(), relay.CarrierTCP)
	wantError(t, err, relay.ErrFull)
}

package meshsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/relay"
)

// A logBuffer is what was logged at Info and above.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// logTo makes a node log to b.
func logTo(b *logBuffer) func(*Options) {
	return func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(b, nil)) }
}

// about returns the level and the message of each line about relays, in order.
func (b *logBuffer) about() (told []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range strings.Lines(b.buf.String()) {
		_, rest, _ := strings.Cut(line, "level=")
		level, rest, _ := strings.Cut(rest, " ")
		_, rest, _ = strings.Cut(rest, "msg=\"")
		message, _, _ := strings.Cut(rest, "\"")
		if strings.HasPrefix(message, "relay ") {
			told = append(told, level+" "+message)
		}
	}
	return told
}

func (b *logBuffer) expect(t *testing.T, want ...string) {
	t.Helper()
	if got := b.about(); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("the log tells %q, want %q", got, want)
	}
}

// relayStatus returns the status of the only relay.
func (n *node) relayStatus() RelayStatus {
	n.w.t.Helper()
	all := n.Relays()
	if len(all) != 1 {
		n.w.t.Fatalf("%d relays: %+v", len(all), all)
	}
	return all[0]
}

// What happens with a home relay is told once each, however long it lasts.
func TestRelayStatusTellsOfAnOutage(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		var log logBuffer
		r := w.relay(1)
		started := time.Now()
		a := w.node(1, home(r), logTo(&log))
		st := a.relayStatus()
		if st.State != RelayDialing || !st.Home || st.URL != r.url() || st.Since != started || st.LastError != nil || st.Carrier != "" {
			t.Errorf("at first: %+v", st)
		}
		time.Sleep(time.Second)
		st = a.relayStatus()
		want := RelayStatus{URL: r.url(), Home: true, State: RelayConnected, Carrier: relay.CarrierUDP, Observed: netip.MustParseAddrPort(a.addr()), Since: started.Add(2 * testRTT)}
		if st.Since.Sub(want.Since).Abs() > testRTT {
			t.Errorf("connected since %v after the start", st.Since.Sub(started))
		}
		if want.Since = st.Since; st != want {
			t.Errorf("connected: %+v, want %+v", st, want)
		}

		r.host.Blackout(testnet.Both)
		time.Sleep(time.Minute)
		down := a.relayStatus()
		if down.State != RelayUnreachable || !errors.Is(down.LastError, context.DeadlineExceeded) || down.Carrier != "" || down.Observed.IsValid() {
			t.Errorf("in the outage: %+v", down)
		}
		time.Sleep(time.Hour)
		if st = a.relayStatus(); st.State != RelayUnreachable || st.Since != down.Since {
			t.Errorf("after an hour: %+v, unreachable since %v", st, down.Since)
		}
		r.host.Restore()
		time.Sleep(30 * time.Second)
		if st = a.relayStatus(); st.State != RelayConnected || st.LastError != nil {
			t.Errorf("after the outage: %+v", st)
		}
		log.expect(t, "INFO relay connected", "INFO relay lost", "WARN relay is unreachable", "INFO relay connected")
		a.stop()
		if all := a.Relays(); len(all) != 0 {
			t.Errorf("a closed transport has %+v", all)
		}
	})
}

// A relay that does not answer is silent before it is unreachable.
func TestRelayStatusTellsOfSilence(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		var log logBuffer
		r := w.relay(1)
		a, b := w.apart(r)
		a.restart(func() { logTo(&log)(&a.opts) })
		a.registerVia(b, r)
		a.awaitPath(b, PathRelay, 5*time.Second)
		s := a.serve(b)
		r.host.Blackout(testnet.Both)
		time.Sleep(4 * time.Second)
		if st := a.relayStatus(); st.State != RelaySilent || st.Carrier != relay.CarrierUDP || st.LastError != nil {
			t.Errorf("in silence: %+v", st)
		}
		time.Sleep(10 * time.Second)
		s.end()
		if st := a.relayStatus(); st.State != RelayUnreachable {
			t.Errorf("later: %+v", st)
		}
		log.expect(t, "INFO relay connected", "INFO relay does not answer", "WARN relay is unreachable")
		a.stop()
		b.stop()
	})
}

// awaitFailure waits for the end of the next dial to a relay that does not let it in: the one after it is
// seconds away.
func (n *node) awaitFailure(r *relayNode) {
	l := n.link(r)
	dialing := func() bool {
		n.relays.mu.Lock()
		defer n.relays.mu.Unlock()
		return l.dialing
	}
	for !dialing() {
		time.Sleep(time.Millisecond)
	}
	for dialing() {
		time.Sleep(time.Millisecond)
	}
}

// A relay that refuses is told of with its reason, and again if that changes.
func TestRelayStatusTellsOfRefusals(t *testing.T) {
	t.Parallel()
	inWorld(t, 1, func(w *world) {
		var log logBuffer
		r := w.relay(1)
		r.crash()
		r.opts = relay.ServerOptions{Authorize: func(PeerID) error { return errors.New("not on the list") }}
		r.start()
		a := w.node(1, home(r), logTo(&log))
		refused := func(want error) {
			t.Helper()
			time.Sleep(time.Hour)
			if st := a.relayStatus(); st.State != RelayRefused || !errors.Is(st.LastError, want) {
				t.Errorf("%+v, want %v", st, want)
			}
		}
		refused(relay.ErrUnauthorized)
		a.awaitFailure(r) // a dial that runs would find nobody there, or come before the other one
		r.crash()
		r.opts = relay.ServerOptions{MaxClients: 1}
		r.start()
		other := w.node(2, home(r)) // takes the place before a comes again
		refused(relay.ErrFull)
		other.stop()
		time.Sleep(time.Minute)
		log.expect(t, "WARN relay refuses", "WARN relay refuses", "INFO relay connected")
		a.stop()
	})
}

// At a relay's address somebody else answers.
func TestRelayStatusTellsOfAnotherIdentity(t *testing.T) {
	t.Parallel()
	inWorld(t, 1, func(w *world) {
		var log logBuffer
		r := w.relay(1)
		url := fmt.Sprintf("relay://%s@%s:%d", PeerIDFromKey(testKey(5)), r.host.Addr(), testPort)
		a := w.node(1, noTCP, logTo(&log), func(o *Options) { o.Relays = []string{url} })
		time.Sleep(time.Hour)
		if st := a.relayStatus(); st.State != RelayRefused || st.URL != url || !errors.Is(st.LastError, ErrIdentityMismatch) {
			t.Errorf("%+v", st)
		}
		log.expect(t, "WARN relay refuses")
		a.stop()
	})
}

func TestRelaysListsThoseInUse(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		reg := prometheus.NewRegistry()
		first, second, third := w.relay(1), w.relay(2), w.relay(3)
		second.crash()
		b := w.node(2, home(third))
		a := w.node(1, home(second, first), func(o *Options) { o.Registerer = reg })
		a.registerVia(b, third)
		time.Sleep(time.Minute)
		list := func(want ...string) {
			t.Helper()
			var got []string
			for _, st := range a.Relays() {
				got = append(got, fmt.Sprint(st.URL, " ", st.Home, " ", st.State))
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("relays %q, want %q", got, want)
			}
		}
		list(second.url()+" true unreachable", first.url()+" true connected", third.url()+" false connected")
		expect(t, "with three", gather(t, reg), map[string]float64{
			"relays{home=true}{state=unreachable}": 1, "relays{home=true}{state=connected}": 1, "relays{home=true}{state=refused}": 0,
			"relays{home=false}{state=connected}": 1, "relays{home=false}{state=unreachable}": 0,
		})
		if err := a.Disconnect(b.ID()); err != nil {
			t.Fatal(err)
		}
		list(second.url()+" true unreachable", first.url()+" true connected")
		expect(t, "with two", gather(t, reg), map[string]float64{"relays{home=true}{state=connected}": 1, "relays{home=false}{state=connected}": 0})
		a.stop()
		b.stop()
	})
}

func TestRelayMetrics(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		reg := prometheus.NewRegistry()
		r := w.relay(1)
		a, b := w.pair(home(r), func(o *Options) { o.Registerer = reg })
		w.net.Cut(a.host, b.host)
		a.registerVia(b, r, b.addr())
		a.awaitPath(b, PathRelay, 5*time.Second)
		a.mustPing(b, time.Second)
		got := gather(t, reg)
		expect(t, "connected", got, map[string]float64{
			"connections{path=relay}":                                  2,
			"dials_total{outcome=connected}{path=relay}":               1,
			"relay_client_connections{carrier=udp}":                    2,
			"relay_client_connections{carrier=tcp}":                    0,
			"relay_client_dials_total{outcome=connected}":              2,
			"connections_opened_total{direction=outbound}{path=relay}": 1,
			"connections_opened_total{direction=inbound}{path=relay}":  1,
			"relay_client_dropped_total":                               0,
		})
		packets, bytes := got["meshsync_relay_client_packets_total{direction=sent}"], got["meshsync_relay_client_bytes_total{direction=received}"]
		if packets < 4 || bytes < 2000 {
			t.Errorf("%v packets sent, %v bytes received", packets, bytes)
		}
		a.stop()
		if after := gather(t, reg)["meshsync_relay_client_packets_total{direction=sent}"]; after < packets {
			t.Errorf("packets sent fell from %v to %v with the end of a transport", packets, after)
		}
		b.stop()
	})
}

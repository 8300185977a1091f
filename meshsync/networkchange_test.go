package meshsync

import (
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/defenseunicorns/peat-mesh-go/internal/netmon"
	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// A fakeWatch tells a transport of changes that a test makes up.
type fakeWatch struct {
	changes chan netmon.Cause
	failed  error
	closed  atomic.Int32
}

func (f *fakeWatch) Changes() <-chan netmon.Cause { return f.changes }
func (f *fakeWatch) Err() error                   { return f.failed }
func (f *fakeWatch) Close()                       { f.closed.Add(1) }

func newFakeWatch() *fakeWatch { return &fakeWatch{changes: make(chan netmon.Cause)} }

func (f *fakeWatch) use(o *Options) { o.watchHost = func() (hostWatch, error) { return f, nil } }

func TestChangeOfTheHostsNetworkIsActedOn(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		reg := prometheus.NewRegistry()
		watch := newFakeWatch()
		var log strings.Builder
		a := w.node(1, watch.use, func(o *Options) {
			o.Registerer, o.Logger = reg, slog.New(slog.NewTextHandler(&log, nil))
		})
		b := w.node(2)
		a.register(b)
		a.await(b, time.Second)
		b.host.Blackout(testnet.Both)
		a.awaitState(b, StateWaiting, time.Minute)
		time.Sleep(10 * time.Minute)
		b.host.Restore()
		watch.changes <- netmon.Link
		a.await(b, 5*testRTT)
		a.NetworkChanged()
		expect(t, "afterwards", gather(t, reg), map[string]float64{
			"network_changes_total{cause=link}": 1, "network_changes_total{cause=told}": 1,
		})
		a.Close()
		if n := watch.closed.Load(); n != 1 {
			t.Errorf("the subscription was closed %d times", n)
		}
		if want := `level=INFO msg="the host's network has changed"`; strings.Count(log.String(), want) != 1 || !strings.Contains(log.String(), "cause=link") {
			t.Errorf("want one line with %s and the cause in\n%s", want, log.String())
		}
	})
}

// What changes after the socket was bound is told, so the watch begins before.
func TestHostIsWatchedBeforeTheSocketIsOpened(t *testing.T) {
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.LocalAddr().String()
	free.Close()
	watch := newFakeWatch()
	o := Options{ListenAddr: addr, watchHost: func() (hostWatch, error) {
		pc, err := net.ListenPacket("udp", addr)
		if err != nil {
			t.Errorf("the socket is open already: %v", err)
			return watch, nil
		}
		return watch, pc.Close()
	}}
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	failed := newFakeWatch()
	failed.use(&o)
	if b, err := New(o); err == nil {
		b.Close()
		t.Fatal("two sockets at one address")
	}
	if n := failed.closed.Load(); n != 1 {
		t.Errorf("the watch of a transport that cannot listen was closed %d times", n)
	}
}

func TestTransportWorksWithoutAWatch(t *testing.T) {
	broken := errors.New("not permitted")
	for name, set := range map[string]func(*Options){
		"cannot start": func(o *Options) { o.watchHost = func() (hostWatch, error) { return nil, broken } },
		"fails later": func(o *Options) {
			f := newFakeWatch()
			f.failed = broken
			close(f.changes)
			f.use(o)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				var log strings.Builder
				a := w.node(1, set, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
				b := w.node(2)
				a.register(b)
				a.await(b, time.Second)
				a.Close()
				if n := strings.Count(log.String(), broken.Error()); n != 1 || strings.Count(log.String(), "level=WARN") != 1 {
					t.Errorf("want one warning with %q in\n%s", broken, log.String())
				}
			})
		})
	}
}

func TestOnlyTheHostsOwnNetworkIsWatched(t *testing.T) {
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, tc := range []struct {
		name string
		opts Options
		want bool
	}{
		{"default", Options{}, true},
		{"address", Options{ListenAddr: "127.0.0.1:0"}, true},
		{"UDP socket of the service", Options{PacketConn: udp}, true},
		{"another packet connection", Options{PacketConn: struct{ net.PacketConn }{udp}}, false},
		{"turned off", Options{NoNetworkMonitor: true}, false},
	} {
		o, err := tc.opts.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		if got := o.watchHost != nil; got != tc.want {
			t.Errorf("%s: watched: %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestNetworkChangedRestartsDialsThatUseTheOldNetwork(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		b.host.Blackout(testnet.Both)
		a.register(b)
		time.Sleep(time.Hour + 2*time.Second)
		b.host.Restore()
		a.NetworkChanged()
		changed := time.Now()
		a.await(b, time.Second)
		if took := time.Since(changed); took > 3*testRTT {
			t.Errorf("connected %v after NetworkChanged", took)
		}
		a.stop()
		b.stop()
	})
}

// A dial that began on the old network is of no use on the new one.
func TestNetworkChangedRestartsADialUnderWay(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		b.host.Blackout(testnet.Both)
		a.register(b)
		time.Sleep(3100 * time.Millisecond) // its first dial: the next packet is due at 6.2 s
		if st, _ := a.Status(b.ID()); st.State != StateDialing || st.Attempts != 0 {
			t.Fatalf("not in its first dial: %+v", st)
		}
		b.host.Restore()
		a.NetworkChanged()
		a.await(b, 3*testRTT)
		a.stop()
		b.stop()
	})
}

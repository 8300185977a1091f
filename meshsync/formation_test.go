package meshsync

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/internal/collision"
)

var (
	oldSecret = []byte("0123456789abcdef")
	newSecret = []byte("fedcba9876543210")
)

func TestFormationProofIsBoundToConnectionRoleAndKey(t *testing.T) {
	ours := &Formation{ID: "alpha", Key: oldSecret}
	both := &Formation{ID: "alpha", Key: oldSecret, NextKey: newSecret}
	binding := []byte("this connection")
	proof := func(f *Formation, k formationKey) hello {
		return hello{formation: f.ID, proof: f.prove(k, roleDialer, binding)}
	}
	for name, tc := range map[string]struct {
		ours *Formation
		h    hello
		want formationKey
	}{
		"current key":                {ours, proof(ours, currentKey), currentKey},
		"both in none":               {nil, hello{}, noKey},
		"current key, two are taken": {both, proof(ours, currentKey), currentKey},
		"next key, two are taken":    {both, proof(both, nextKey), nextKey},
	} {
		if got, err := checkFormation(tc.ours, tc.h, roleDialer, binding, tc.ours.keys()); err != nil || got != tc.want {
			t.Errorf("%s: %v key, %v, want %v", name, got, err, tc.want)
		}
	}

	otherKey := &Formation{ID: "alpha", Key: []byte("0123456789abcdeX")}
	otherID := &Formation{ID: "beta", Key: ours.Key}
	current, next := []formationKey{currentKey}, []formationKey{nextKey}
	for name, tc := range map[string]struct {
		ours    *Formation
		h       hello
		r       role
		binding string
		taken   []formationKey
	}{
		"another connection":                {ours, proof(ours, currentKey), roleDialer, "that connection", current},
		"sent back":                         {ours, proof(ours, currentKey), roleAcceptor, "this connection", current},
		"another key":                       {ours, proof(otherKey, currentKey), roleDialer, "this connection", current},
		"another formation":                 {ours, proof(otherID, currentKey), roleDialer, "this connection", current},
		"renamed":                           {ours, hello{formation: "alpha", proof: proof(otherID, currentKey).proof}, roleDialer, "this connection", current},
		"peer in none":                      {ours, hello{}, roleDialer, "this connection", current},
		"we in none":                        {nil, proof(ours, currentKey), roleDialer, "this connection", current},
		"no proof":                          {ours, hello{formation: "alpha"}, roleDialer, "this connection", current},
		"no proof, two are taken":           {both, hello{formation: "alpha"}, roleDialer, "this connection", both.keys()},
		"next key, another connection":      {both, proof(both, nextKey), roleDialer, "that connection", both.keys()},
		"next key, sent back":               {both, proof(both, nextKey), roleAcceptor, "this connection", both.keys()},
		"another key, two are taken":        {both, proof(otherKey, currentKey), roleDialer, "this connection", both.keys()},
		"current key where next was proven": {both, proof(both, currentKey), roleDialer, "this connection", next},
		"next key where current was proven": {both, proof(both, nextKey), roleDialer, "this connection", current},
	} {
		if k, err := checkFormation(tc.ours, tc.h, tc.r, []byte(tc.binding), tc.taken); !errors.Is(err, ErrFormation) || k != noKey {
			t.Errorf("%s: %v key, %v, want %v", name, k, err, ErrFormation)
		}
	}
}

// The error is the same whichever key a wrong proof came near to.
func TestFormationErrorTellsNoKey(t *testing.T) {
	both := &Formation{ID: "alpha", Key: oldSecret, NextKey: newSecret}
	said := make(map[string]bool)
	for _, k := range formationKeys {
		h := hello{formation: "alpha", proof: both.prove(k, roleDialer, []byte("here"))}
		h.proof[0] ^= 1
		_, err := checkFormation(both, h, roleDialer, []byte("here"), both.keys())
		said[fmt.Sprint(err)] = true
	}
	if len(said) != 1 {
		t.Errorf("errors: %v", said)
	}
}

// The bytes were computed by another program: versions that know of no next key send and expect them.
func TestHelloWithFormationIsWhatItWas(t *testing.T) {
	f := &Formation{ID: "alpha", Key: oldSecret}
	tr := &MeshSyncTransport{instance: collision.Instance{1, 2, 3}, opts: Options{Formation: f}}
	got := hex.EncodeToString(tr.hello(7, roleDialer, f.keys()[0], []byte("binding")).frame())
	if want := "004101010102030000000000000000000000000000000000000000070005616c706861229271694ae85327a2809416ebb83c9c1d62b732641cd3192004b30306fd53d4"; got != want {
		t.Errorf("hello is %s, want %s", got, want)
	}
}

func TestNodesOfAllStagesOfRotationConnect(t *testing.T) {
	old := &Formation{ID: "alpha", Key: oldSecret}
	both := &Formation{ID: "alpha", Key: oldSecret, NextKey: newSecret}
	new := &Formation{ID: "alpha", Key: newSecret}
	handshake := 2 * testRTT // and hellos
	for _, tc := range []struct {
		name           string
		dialer, dialed *Formation
		a, b           formationKey // noKey: they do not connect
		takes          time.Duration
	}{
		{"old old", old, old, currentKey, currentKey, handshake},
		{"old both", old, both, currentKey, currentKey, handshake},
		{"old new", old, new, noKey, noKey, 0},
		{"both old", both, old, currentKey, currentKey, 2 * handshake},
		{"both both", both, both, nextKey, nextKey, handshake},
		{"both new", both, new, nextKey, currentKey, handshake},
		{"new old", new, old, noKey, noKey, 0},
		{"new both", new, both, currentKey, nextKey, handshake},
		{"new new", new, new, currentKey, currentKey, handshake},
	} {
		for _, flip := range []bool{false, true} {
			t.Run(fmt.Sprint(tc.name, flip), func(t *testing.T) {
				inWorld(t, 1, func(w *world) {
					a, b := w.pair()
					if flip {
						a, b = b, a
					}
					a.restart(func() { a.opts.Formation = tc.dialer })
					b.restart(func() { b.opts.Formation = tc.dialed })
					began := time.Now()
					c, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, "")
					if tc.a == noKey {
						if !errors.Is(err, ErrFormation) {
							t.Errorf("Connect: %v, want %v", err, ErrFormation)
						}
					} else {
						if err != nil {
							t.Fatal(err)
						}
						if took := time.Since(began); took != tc.takes {
							t.Errorf("it took %v, want %v", took, tc.takes)
						}
						if got := b.await(a, time.Second).proven; c.proven != tc.a || got != tc.b {
							t.Errorf("proven are the %v key and the %v key, want %v and %v", c.proven, got, tc.a, tc.b)
						}
						a.mustPing(b, time.Second)
					}
					a.stop()
					b.stop()
				})
			})
		}
	}
}

// Each node is away for no longer than a restart takes, and each has connections to all others before the next.
func TestFleetRotatesItsKeyInTwoRounds(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		var nodes []*node
		for n := range 4 {
			nodes = append(nodes, w.node(n, func(o *Options) {
				o.Formation = &Formation{ID: "alpha", Key: oldSecret}
				o.Registerer = prometheus.NewRegistry()
			}))
		}
		join := func(n *node) {
			for _, other := range nodes {
				if other != n {
					n.register(other)
				}
			}
		}
		connected := func(when string) {
			t.Helper()
			time.Sleep(time.Second)
			for _, n := range nodes {
				for _, other := range nodes {
					if other != n {
						n.await(other, time.Second)
						n.mustPing(other, time.Second)
					}
				}
			}
			if t.Failed() {
				t.Fatal(when)
			}
		}
		counts := func(when string, n *node, current, next float64) {
			t.Helper()
			expect(t, when, gather(t, n.opts.Registerer.(*prometheus.Registry)), map[string]float64{
				"formation_connections{key=current}": current, "formation_connections{key=next}": next,
			})
		}
		for _, n := range nodes {
			join(n)
		}
		connected("at first")
		for i, n := range nodes {
			n.restart(func() { n.opts.Formation = &Formation{ID: "alpha", Key: oldSecret, NextKey: newSecret} })
			join(n)
			connected("in the first round")
			counts("restarted", n, float64(len(nodes)-1-i), float64(i))
		}
		for _, n := range nodes {
			counts("after the first round", n, 0, 3)
		}
		for _, n := range nodes {
			n.restart(func() { n.opts.Formation = &Formation{ID: "alpha", Key: newSecret} })
			join(n)
			connected("in the second round")
		}
		for _, n := range nodes {
			counts("after the second round", n, 3, 0)
			n.stop()
		}
	})
}

func TestLogSaysWhichKeyOfTheFormationIsInUse(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		var log logBuffer
		a, b := w.pair(func(o *Options) { o.Formation = &Formation{ID: "alpha", Key: oldSecret} })
		a.restart(func() {
			a.opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
			a.opts.Formation = &Formation{ID: "alpha", Key: oldSecret, NextKey: newSecret}
		})
		a.register(b)
		time.Sleep(time.Second)
		a.await(b, time.Second)
		b.restart(func() {})
		time.Sleep(time.Second)
		a.await(b, time.Second)
		b.restart(func() { b.opts.Formation = a.opts.Formation })
		time.Sleep(time.Second)
		a.await(b, time.Second)
		b.restart(func() {})
		time.Sleep(time.Second)
		a.await(b, time.Second)
		a.stop()
		b.stop()
		var keys []string
		changes := 0
		for line := range strings.Lines(log.text()) {
			if strings.Contains(line, `msg="peer connected"`) {
				_, key, _ := strings.Cut(line, "formation_key=")
				keys = append(keys, strings.Fields(key)[0])
			}
			if strings.Contains(line, "another key of the formation") {
				changes++
			}
		}
		if got, want := strings.Join(keys, " "), "current current next next"; got != want || changes != 1 {
			t.Errorf("keys %q, want %q, and %d lines about a change, want 1, in:\n%s", got, want, changes, log.text())
		}
		for _, secret := range [][]byte{oldSecret, newSecret} {
			if s := log.text(); strings.Contains(s, string(secret)) || strings.Contains(s, hex.EncodeToString(secret)) {
				t.Error("a secret is in the log")
			}
		}
	})
}

// text returns all that was logged.
func (b *logBuffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestFormationKeepsOthersOut(t *testing.T) {
	key, other := []byte("0123456789abcdef"), []byte("fedcba9876543210")
	in := func(id string, key []byte) *Formation { return &Formation{ID: id, Key: key} }
	for name, tc := range map[string]struct {
		a, b *Formation
		ok   bool
	}{
		"same":           {in("alpha", key), in("alpha", key), true},
		"another key":    {in("alpha", key), in("alpha", other), false},
		"another name":   {in("alpha", key), in("beta", key), false},
		"dialer outside": {nil, in("alpha", key), false},
		"dialed outside": {in("alpha", key), nil, false},
		"both in none":   {nil, nil, true},
	} {
		for _, flip := range []bool{false, true} {
			t.Run(fmt.Sprint(name, flip), func(t *testing.T) {
				inWorld(t, 1, func(w *world) {
					a, b := w.node(1), w.node(2)
					if a.decides(b.ID()) == flip {
						a, b = b, a
					}
					a.Close()
					b.Close()
					a.sock.Close()
					b.sock.Close()
					a.opts.Formation, b.opts.Formation = tc.a, tc.b
					a.start()
					b.start()
					_, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, "")
					if tc.ok != (err == nil) || (!tc.ok && !errors.Is(err, ErrFormation)) {
						t.Errorf("Connect: %v", err)
					}
					if !tc.ok {
						a.register(b)
						time.Sleep(time.Minute)
						// Straight to MaxDelay.
						if st, _ := a.Status(b.ID()); st.Attempts > 7 || !errors.Is(st.LastError, ErrFormation) {
							t.Errorf("status: %+v", st)
						}
					}
					a.stop()
					b.stop()
					if !tc.ok && a.log.count(EventConnected)+b.log.count(EventConnected) > 0 {
						t.Error("a service was shown a connection")
					}
				})
			})
		}
	}
}

package meshsync

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

func TestOptionsRefuseNonsense(t *testing.T) {
	key := []byte("0123456789abcdef")
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	for name, tc := range map[string]struct {
		o     Options
		names string
	}{
		"key of another length":   {Options{PrivateKey: make([]byte, 32)}, "32"},
		"formation without ID":    {Options{Formation: &Formation{Key: key}}, "Formation.ID"},
		"formation ID too long":   {Options{Formation: &Formation{ID: strings.Repeat("x", 65), Key: key}}, "65"},
		"formation key too short": {Options{Formation: &Formation{ID: "alpha", Key: key[:15]}}, "15"},
		"next key too short":      {Options{Formation: &Formation{ID: "alpha", Key: key, NextKey: key[:15]}}, "Formation.NextKey of \"alpha\" has 15 bytes"},
		"empty next key":          {Options{Formation: &Formation{ID: "alpha", Key: key, NextKey: []byte{}}}, "NextKey"},
		"the same key twice":      {Options{Formation: &Formation{ID: "alpha", Key: key, NextKey: key}}, "is equal to Formation.Key"},
		"negative KeepAlive":      {Options{KeepAlive: -time.Second}, "KeepAlive"},
		"negative IdleTimeout":    {Options{IdleTimeout: -time.Second}, "IdleTimeout"},
		"negative DialTimeout":    {Options{DialTimeout: -time.Second}, "DialTimeout"},
		"negative dials":          {Options{MaxConcurrentDials: -1}, "MaxConcurrentDials"},
		"negative peers":          {Options{MaxInboundPeers: -1}, "MaxInboundPeers"},
		"negative stream window":  {Options{StreamWindow: -1}, "StreamWindow"},
		"negative window":         {Options{ConnWindow: -1}, "ConnWindow"},
		"two sockets":             {Options{PacketConn: pc, ListenAddr: "127.0.0.1:0"}, "PacketConn"},
		"malformed home relay":    {Options{Relays: []string{"relay://"}}, "relay://"},
		"home relay without port": {Options{Relays: []string{"relay://r.example"}}, "r.example"},
		"policy":                  {Options{Reconnect: ReconnectPolicy{Jitter: 2}}, "Jitter"},
	} {
		tr, err := New(tc.o)
		if !errors.Is(err, ErrBadOption) || !strings.Contains(err.Error(), tc.names) {
			t.Errorf("%s: %v, want %v naming %q", name, err, ErrBadOption, tc.names)
		}
		if tr != nil {
			tr.Close()
		}
	}
	if _, err := New(Options{ListenAddr: "nonsense"}); !errors.Is(err, ErrBadAddress) {
		t.Errorf("ListenAddr: %v, want %v", err, ErrBadAddress)
	}
	if _, err := New(Options{ListenAddr: pc.LocalAddr().String()}); err == nil || !strings.Contains(err.Error(), pc.LocalAddr().String()) {
		t.Errorf("an address in use: %v", err)
	}
}

// A KeepAlive above the idle timeout that the two sides agree on does not let a silent connection end: it counts
// as half of that.
func TestKeepAliveAboveTheIdleTimeoutKeepsAConnection(t *testing.T) {
	for name, idle := range map[string]time.Duration{"of this side": 15 * time.Second, "of the other side": 5 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				a := w.node(1, func(o *Options) { o.KeepAlive, o.IdleTimeout = 2*time.Minute, idle })
				b := w.node(2, func(o *Options) { o.KeepAlive, o.IdleTimeout = 2*time.Minute, 15*time.Second })
				c := a.connectTo(b)
				time.Sleep(time.Hour)
				if err := c.Context().Err(); err != nil {
					t.Errorf("a silent connection has ended: %v", context.Cause(c.Context()))
				}
				a.stop()
				b.stop()
			})
		})
	}
}

func TestZeroOptionsWork(t *testing.T) {
	a, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if a.ID() == b.ID() || a.ID().IsZero() {
		t.Error("no fresh identities")
	}
}

// A PacketConn that New cannot use stays open.
func TestPacketConnStaysTheCallersIfNewFails(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	reg := &brokenRegisterer{}
	if _, err := New(Options{PacketConn: pc, Registerer: reg}); !errors.Is(err, errBroken) {
		t.Fatalf("New: %v", err)
	}
	if _, err := pc.WriteTo([]byte("x"), pc.LocalAddr()); err != nil {
		t.Errorf("the PacketConn is closed: %v", err)
	}
}

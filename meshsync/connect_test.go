package meshsync

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

func TestConnectTakesTwoRoundTrips(t *testing.T) {
	for _, dialer := range []string{"decider", "follower"} {
		t.Run(dialer, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				a, b := w.pair()
				if dialer == "follower" {
					a, b = b, a
				}
				began := time.Now()
				c, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, "")
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took != 2*testRTT {
					t.Errorf("connected after %v, want 2 RTT", took)
				}
				if c.Peer() != b.ID() || !c.Initiator() || c.Path() != (Path{Kind: PathDirect, Remote: b.addr()}) {
					t.Errorf("connection: peer %s, initiator %v, path %+v", c.Peer().Short(), c.Initiator(), c.Path())
				}
				if err := ping(context.Background(), c, "x"); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took != 3*testRTT {
					t.Errorf("first echo after %v, want 3 RTT", took)
				}
				if s := c.Stats(); s.RTT < testRTT || s.MinRTT < testRTT || s.BytesSent == 0 || s.BytesReceived == 0 || s.PacketsSent == 0 || s.PacketsReceived == 0 {
					t.Errorf("stats: %+v", s)
				}
				again, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, "")
				if err != nil || again != c {
					t.Errorf("a second Connect: another connection, or %v", err)
				}
				a.stop()
				b.stop()
			})
		})
	}
}

func TestEachConnectHasItsOwnContext(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		b.host.Blackout(testnet.Both)
		short, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		patient := make(chan error, 1)
		go func() {
			_, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, "")
			patient <- err
		}()
		synctest.Wait()
		if _, err := a.Connect(short, b.ID(), []string{b.addr()}, ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the impatient caller: %v", err)
		}
		b.host.Restore()
		if err := <-patient; err != nil {
			t.Errorf("the patient caller: %v", err)
		}
		a.stop()
		b.stop()
	})
}

func TestConnectThatNobodyWaitsForIsCalledOff(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		b.host.Blackout(testnet.Both)
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		defer cancel()
		a.Connect(ctx, b.ID(), []string{b.addr()}, "")
		a.mustStayQuiet(t)
		// The next caller starts afresh.
		b.host.Restore()
		if _, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, ""); err != nil {
			t.Error(err)
		}
		a.stop()
		b.stop()
	})
}

// A caller that joined a dial to addresses that lead nowhere has its own tried.
func TestConnectTriesEachCallersAddresses(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		go a.Connect(context.Background(), b.ID(), []string{"10.7.7.7:1"}, "")
		synctest.Wait()
		if _, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, ""); err != nil {
			t.Error(err)
		}
		a.stop()
		b.stop()
	})
}

func TestBadInputIsRefusedAtOnceAndChangesNothing(t *testing.T) {
	tr, err := New(Options{PrivateKey: testKey(1), ListenAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	peer := PeerIDFromKey(testKey(2))
	good := []string{"127.0.0.1:9"}
	relayID := peer.String()
	tooMany := make([]string, maxAddrs+1)
	for i := range tooMany {
		tooMany[i] = good[0]
	}
	for name, tc := range map[string]struct {
		peer  PeerID
		addrs []string
		relay string
		want  error
		names string
	}{
		"zero peer":           {PeerID{}, good, "", ErrBadPeer, PeerID{}.String()},
		"peer without secret": {PeerID{1}, good, "", ErrBadPeer, PeerID{1}.String()},
		"own peer":            {tr.ID(), good, "", ErrSelf, tr.ID().String()},
		"no address":          {peer, nil, "", ErrNoRoute, ""},
		"no port":             {peer, []string{"127.0.0.1"}, "", ErrBadAddress, "127.0.0.1"},
		"port 0":              {peer, []string{"127.0.0.1:0"}, "", ErrBadAddress, "127.0.0.1:0"},
		"port too large":      {peer, []string{"h:65536"}, "", ErrBadAddress, "h:65536"},
		"port by name":        {peer, []string{"h:https"}, "", ErrBadAddress, "https"},
		"no host":             {peer, []string{":9"}, "", ErrBadAddress, ":9"},
		"bare IPv6":           {peer, []string{"fe80::1"}, "", ErrBadAddress, "fe80::1"},
		"second address bad":  {peer, []string{good[0], "x"}, "", ErrBadAddress, "x"},
		"empty address":       {peer, []string{""}, "", ErrBadAddress, `""`},
		"too many":            {peer, tooMany, "", ErrBadAddress, "33"},
		"relay: no host":      {peer, nil, "relay://" + relayID + "@:443", ErrBadAddress, ":443"},
		"relay: other scheme": {peer, good, "https://r.example:443", ErrBadAddress, "https"},
		"relay: no port":      {peer, good, "relay://r.example", ErrBadAddress, "r.example"},
		"relay: bad ID":       {peer, good, "relay://abc@r.example:443", ErrBadAddress, "abc"},
		"relay: a path":       {peer, good, "relay://r.example:443/x", ErrBadAddress, "/x"},
		"relay: no secret":    {peer, nil, "relay://" + PeerID{1}.String() + "@r.example:443", ErrBadAddress, "small order"},
		"relay: no URL":       {peer, good, "relay://%zz", ErrBadAddress, "%zz"},
	} {
		err := tr.RegisterForReconnect(tc.peer, tc.addrs, tc.relay)
		if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.names) {
			t.Errorf("%s: RegisterForReconnect: %v, want %v naming %q", name, err, tc.want, tc.names)
		}
		_, err = tr.Connect(context.Background(), tc.peer, tc.addrs, tc.relay)
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: Connect: %v, want %v", name, err, tc.want)
		}
	}
	for name, err := range map[string]error{
		"Disconnect zero": tr.Disconnect(PeerID{}), "Unregister unknown": tr.Unregister(peer), "RetryNow unknown": tr.RetryNow(peer),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if len(tr.Peers()) != 0 || len(tr.peers) != 0 {
		t.Errorf("something was recorded: %+v", tr.Peers())
	}
}

func TestOpenStreamWaitsForThePeer(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		b.crash()
		a.register(b)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_, err := a.MeshSyncTransport.OpenStream(ctx, b.ID())
		if !errors.Is(err, ErrNotConnected) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a peer that is down: %v", err)
		}
		var dial *DialError
		if !errors.As(err, &dial) {
			t.Errorf("the reason is missing: %v", err)
		}
		go func() {
			time.Sleep(time.Minute)
			b.start()
		}()
		a.mustPing(b, 2*time.Minute)
		a.stop()
		b.stop()
	})
}

// A Connect that is under way does not take an operator's later decision back.
func TestConnectUnderWayDoesNotUndoDisconnect(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		b.host.Blackout(testnet.Both)
		failed := make(chan error, 2)
		for _, addrs := range [][]string{{b.addr()}, {b.addr(), "10.7.7.7:1"}} { // the second would try its own
			go func() {
				_, err := a.Connect(context.Background(), b.ID(), addrs, "")
				failed <- err
			}()
			synctest.Wait()
		}
		b.host.Restore()
		if err := a.Disconnect(b.ID()); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := <-failed; !errors.Is(err, ErrDisconnected) {
				t.Errorf("Connect: %v, want %v", err, ErrDisconnected)
			}
		}
		time.Sleep(time.Minute)
		if _, ok := a.Conn(b.ID()); ok || !a.refuses(b.ID()) {
			t.Error("the operator's decision was undone")
		}
		a.stop()
		b.stop()
	})
}

// One waiter that gives up takes nothing from another.
func TestWaitersForOnePeerDoNotDisturbEachOther(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		patient := make(chan error, 1)
		go func() {
			_, err := a.WaitConn(context.Background(), b.ID())
			patient <- err
		}()
		synctest.Wait()
		short, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := a.WaitConn(short, b.ID()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the impatient one: %v", err)
		}
		if _, err := b.Connect(context.Background(), a.ID(), []string{a.addr()}, ""); err != nil {
			t.Fatal(err)
		}
		if err := <-patient; err != nil {
			t.Errorf("the patient one: %v", err)
		}
		a.stop()
		b.stop()
	})
}

func TestDisconnectEndsWaiting(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		waiting := make(chan error, 1)
		go func() {
			_, err := a.WaitConn(context.Background(), b.ID())
			waiting <- err
		}()
		synctest.Wait()
		a.Disconnect(b.ID())
		if err := <-waiting; !errors.Is(err, ErrDisconnected) {
			t.Errorf("WaitConn: %v, want %v", err, ErrDisconnected)
		}
		a.stop()
	})
}

// The wait for a peer that only its own dialing can bring says so when it ends.
func TestWaitForAnUnregisteredPeerSaysThatNobodyDials(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		b.host.Blackout(testnet.Both)
		waits := func() map[string]error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			errs := make(map[string]error)
			_, errs["WaitConn"] = a.WaitConn(ctx, b.ID())
			_, errs["OpenStream"] = a.MeshSyncTransport.OpenStream(ctx, b.ID())
			return errs
		}
		check := func(when string, unregistered bool) {
			t.Helper()
			for call, err := range waits() {
				if !errors.Is(err, ErrNotConnected) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), b.ID().Short()) {
					t.Errorf("%s, %s: %v", when, call, err)
				}
				if errors.Is(err, ErrNotRegistered) != unregistered {
					t.Errorf("%s, %s: %v matches ErrNotRegistered: %v", when, call, err, !unregistered)
				}
			}
		}
		check("unknown", true)
		connecting := make(chan struct{})
		go func() {
			defer close(connecting)
			a.Connect(context.Background(), b.ID(), []string{b.addr()}, "")
		}()
		synctest.Wait()
		check("during a Connect", false)
		<-connecting
		a.register(b)
		check("registered", false)
		a.Unregister(b.ID())
		check("unregistered", true)
		a.stop()
		b.stop()
	})
}

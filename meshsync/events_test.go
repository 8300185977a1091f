package meshsync

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

func TestEventsTellTheStoryInOrder(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		a.register(b)
		c := a.await(b, time.Second)
		time.Sleep(settled)
		b.host.Blackout(testnet.Both)
		time.Sleep(22 * time.Second) // lost after 15 to 20 s, and one dial of 5 s
		b.host.Restore()
		a.await(b, time.Minute)
		if err := a.Unregister(b.ID()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		a.stop()
		b.stop()
		var kinds []EventKind
		for _, ev := range a.log.events {
			kinds = append(kinds, ev.Kind)
			if ev.Peer != b.ID() || ev.Time.IsZero() {
				t.Errorf("event %+v", ev)
			}
		}
		want := []EventKind{EventRegistered, EventDialing, EventConnected, EventHealthChanged, EventDisconnected, EventDialing, EventDialFailed, EventDialing, EventConnected, EventUnregistered, EventDisconnected}
		if !slices.Equal(kinds, want) {
			t.Errorf("events %v, want %v", kinds, want)
		}
		if ev := a.log.first(EventDisconnected); ev.Conn != c || !ev.WillRetry || ev.Err == nil {
			t.Errorf("loss: %+v", ev)
		}
		if ev := a.log.last(EventDisconnected); ev.WillRetry {
			t.Errorf("end of an ad hoc connection promises a retry: %+v", ev)
		}
	})
}

func TestSlowSubscriberMissesEventsAndBlocksNobody(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		reg := prometheus.NewRegistry()
		a := w.node(1, func(o *Options) { o.Registerer = reg })
		slow := a.Subscribe(context.Background())
		peer, addrs := PeerIDFromKey(testKey(50)), []string{"10.7.7.7:1"}
		const published = eventBuffer + 300
		for range published {
			a.events.publish(Event{Kind: EventRegistered, Peer: peer})
		}
		for range eventBuffer {
			if ev := <-slow; ev.Missed != 0 {
				t.Fatalf("missed %d before anything was lost", ev.Missed)
			}
		}
		if err := a.RegisterForReconnect(peer, addrs, ""); err != nil {
			t.Fatal(err)
		}
		if ev := <-slow; ev.Missed != published-eventBuffer {
			t.Errorf("missed is %d, want %d", ev.Missed, published-eventBuffer)
		}
		if ev := <-slow; ev.Missed != 0 {
			t.Errorf("the next event counts %d as missed again", ev.Missed)
		}
		missed := gather(t, reg)["meshsync_events_missed_total"]
		if missed < published-eventBuffer {
			t.Errorf("events_missed_total is %v", missed)
		}
		a.Close()
	})
}

func TestSubscriptionEndsWithContextOrTransport(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a := w.node(1)
		ctx, cancel := context.WithCancel(context.Background())
		byContext, byClose := a.Subscribe(ctx), a.Subscribe(context.Background())
		cancel()
		synctest.Wait()
		if _, ok := <-byContext; ok {
			t.Error("an event after the end of the context")
		}
		a.Close()
		if _, ok := <-byClose; ok {
			t.Error("an event after Close")
		}
		if _, ok := <-a.Subscribe(context.Background()); ok {
			t.Error("a subscription to a closed transport")
		}
	})
}

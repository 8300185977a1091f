package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// inWorld runs f in a bubble with two nodes of a rival that are connected.
func inWorld(t *testing.T, v rival, f func(a, b *place)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(v, 1)
		defer w.close()
		a, b, app, err := w.connectedPair()
		if err != nil {
			t.Fatal(err)
		}
		app.close()
		f(a, b)
	})
}

// eachRival runs a test for each of the rivals of the virtual suites.
func eachRival(t *testing.T, f func(t *testing.T, v rival)) {
	for _, v := range reconnectors() {
		t.Run(v.name, func(t *testing.T) { f(t, v) })
	}
}

// What an echo returns has been over the network, whole, there and back.
func TestRivalTransfersWhatIsCounted(t *testing.T) {
	eachRival(t, func(t *testing.T, v rival) {
		inWorld(t, v, func(a, b *place) {
			const size = 300_000
			msg := make([]byte, size)
			rand.NewChaCha8([32]byte{1}).Read(msg)
			there, back := a.host.Stats().Sent.Bytes, b.host.Stats().Sent.Bytes
			got, err := a.echo(context.Background(), b.site.contact(), msg)
			if err != nil {
				t.Fatal(err)
			}
			if sha256.Sum256(got) != sha256.Sum256(msg) {
				t.Error("the echo has another hash")
			}
			for what, n := range map[string]int{"there": a.host.Stats().Sent.Bytes - there, "back": b.host.Stats().Sent.Bytes - back} {
				if n < size || n > size*5/4 {
					t.Errorf("%d bytes went %s, want %d and what QUIC adds", n, what, size)
				}
			}
		})
	})
}

// A rival notices a blackout that is longer than its idle timeout, has no echo
// then, and comes back by itself.
func TestRivalLosesAndRegainsItsConnection(t *testing.T) {
	eachRival(t, func(t *testing.T, v rival) {
		inWorld(t, v, func(a, b *place) {
			to := b.site.contact()
			b.host.Blackout(testnet.Both)
			time.Sleep(time.Minute)
			synctest.Wait()
			if a.connected(to) {
				t.Error("connected after a minute of blackout")
			}
			if err := a.check(context.Background(), to, 1); err == nil {
				t.Error("an echo came through a blackout")
			}
			b.host.Restore()
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			if !a.connected(to) {
				t.Error("not connected two minutes after it")
			}
			if err := a.check(context.Background(), to, 1); err != nil {
				t.Error(err)
			}
		})
	})
}

// A crash is silent: the peer's host sends nothing that tells of it.
func TestCrashIsSilent(t *testing.T) {
	eachRival(t, func(t *testing.T, v rival) {
		inWorld(t, v, func(a, b *place) {
			time.Sleep(settled)
			sent := b.host.Stats().Sent.Packets
			b.crash()
			time.Sleep(time.Minute)
			if n := b.host.Stats().Sent.Packets - sent; n != 0 {
				t.Errorf("the crashed host has sent %d packets", n)
			}
			if err := b.boot(); err != nil {
				t.Error(err)
			}
		})
	})
}

// hermit is a rival that never connects, or loses its connection for good.
type hermit struct {
	node
	forgets bool
	began   time.Time
}

func (h *hermit) keep(to contact) {
	if h.forgets {
		h.node.keep(to)
	}
}

func (h *hermit) connected(to contact) bool {
	return time.Since(h.began) < 30*time.Second && h.node.connected(to)
}

func (h *hermit) echo(ctx context.Context, to contact, msg []byte) ([]byte, error) {
	if !h.connected(to) {
		return nil, errNoConn
	}
	return h.node.echo(ctx, to, msg)
}

// A rival is never measured while it is not connected: there is no figure then.
func TestUnconnectedRivalHasNoFigure(t *testing.T) {
	for _, forgets := range []bool{false, true} {
		mesh := meshRivals()[0]
		v := rival{name: "hermit", start: func(s site) (node, error) {
			n, err := mesh.start(s)
			return &hermit{n, forgets, time.Now()}, err
		}}
		synctest.Test(t, func(t *testing.T) {
			if _, err := recoverOnce(v, 1, outageKind{length: time.Minute}); err == nil {
				t.Errorf("recovery of a rival without a connection (forgets: %v) has a figure", forgets)
			}
		})
		synctest.Test(t, func(t *testing.T) {
			if _, err := restartOnce(v, 1, restartKind{down: time.Second}); err == nil {
				t.Errorf("restart of a rival without a connection (forgets: %v) has a figure", forgets)
			}
		})
		synctest.Test(t, func(t *testing.T) {
			if _, err := neighboursOnce(v, 1, true, 2, 1); !errors.Is(err, errNoConn) {
				t.Errorf("neighbours of a rival without a connection (forgets: %v): %v", forgets, err)
			}
		})
	}
}

// An echo that differs from what was sent does not count.
func TestWrongEchoDoesNotCount(t *testing.T) {
	inWorld(t, meshRivals()[0], func(a, b *place) {
		a.node = liar{a.node}
		if err := a.check(context.Background(), b.site.contact(), 10); err == nil || !strings.Contains(err.Error(), "differs") {
			t.Error("a wrong echo counts:", err)
		}
	})
}

type liar struct{ node }

func (l liar) echo(ctx context.Context, to contact, msg []byte) ([]byte, error) {
	got, err := l.node.echo(ctx, to, msg)
	if len(got) > 0 {
		got[0]++
	}
	return got, err
}

// The model of peat-node dials one dead peer after another: a peer that is back
// waits for the tries of those that are gone.
func TestPeatNodeModelDialsInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(peatNodeRival(), 1)
		defer w.close()
		a, err := w.place()
		if err != nil {
			t.Fatal(err)
		}
		gone := w.ground()
		began := time.Now()
		if err := a.node.(*peatNode).dial(gone.site.contact()); err == nil {
			t.Fatal("connected to nobody")
		}
		if took := time.Since(began).Round(100 * time.Millisecond); took != 3*5*time.Second+2*200*time.Millisecond {
			t.Errorf("a dial of a gone peer took %v, want three timeouts and two gaps", took)
		}
	})
}

// A relayed connection in the connect suite has no other way, and works.
func TestConnectorsReachTheFirstByte(t *testing.T) {
	for _, c := range connectors() {
		t.Run(c.path+"/"+c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, err := c.once(1)
				if err != nil {
					t.Fatal(err)
				}
				trips := 2 * worldRTT // the handshake and the echo
				if c.path != pathDirect {
					trips *= 2
				}
				if s.took < trips || s.packets == 0 {
					t.Errorf("took %v with %d packets, less than a handshake and an echo", s.took, s.packets)
				}
			})
		})
	}
}

// QUIC hangs in a bubble whose clock is behind the start of the process: see
// testnet.SleepPastToday.
func TestWorldIsAheadOfTheProcess(t *testing.T) {
	now := time.Now()
	synctest.Test(t, func(t *testing.T) {
		defer newWorld(rival{}, 1).close()
		if !time.Now().After(now) {
			t.Errorf("the world's clock says %v, the process began before %v", time.Now(), now)
		}
	})
}

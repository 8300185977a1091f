package main

import (
	"context"
	"sync"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// The policy of peat-node's watchdog, as its node.rs has it (RECONNECT_* and
// CONNECT_RETRY_*).
const (
	peatTick       = 5 * time.Second
	peatBackoffMin = 5 * time.Second
	peatBackoffMax = 120 * time.Second
	peatTries      = 3
	peatTryGap     = 200 * time.Millisecond
)

// peatNodeRival is a model of what peat-node does: its policy, on this project's
// transport with its default timeouts, through Connect, which redials nothing.
// peat-node itself is Rust on iroh, whose idle timeout is 30 s.
func peatNodeRival() rival {
	return rival{
		name:  "peat-node (model)",
		about: "a model of peat-node's watchdog over our own ad-hoc Connect: a tick of 5 s, one loop over the dead peers in turn, 3 tries 200 ms apart, backoff 5 s doubling to 120 s",
		start: startPeatNode,
	}
}

// peatNode is a transport with peat-node's loop above it.
type peatNode struct {
	*meshNode
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup // the loop and the first dials

	mu    sync.Mutex
	peers []*peatPeer
}

// peatPeer is peat-node's PeerRegistration. The loop alone uses it once it is
// in peers.
type peatPeer struct {
	contact     contact
	nextAttempt time.Time
	backoff     time.Duration
}

func startPeatNode(s site) (node, error) {
	mesh, err := startMesh(s, meshsync.ReconnectPolicy{}, "")
	if err != nil {
		return nil, err
	}
	n := &peatNode{meshNode: mesh}
	n.ctx, n.stop = context.WithCancel(context.Background())
	n.wg.Go(n.watch)
	return n, nil
}

// keep is peat-node's connect_peer, which dials and puts the peer on the list
// only if that succeeds. Here it goes on the list either way, which spares the
// model that defect: without it a peer that is down at first is never tried
// again.
func (n *peatNode) keep(to contact) {
	n.wg.Go(func() {
		n.dial(to)
		n.mu.Lock()
		defer n.mu.Unlock()
		n.peers = append(n.peers, &peatPeer{contact: to, nextAttempt: time.Now(), backoff: peatBackoffMin})
	})
}

// watch is the reconnect watchdog: at each tick it dials the peers that are not
// connected and whose time has come, one after another. A tick that is missed
// meanwhile counts once, as with tokio's MissedTickBehavior::Skip.
func (n *peatNode) watch() {
	tick := time.NewTicker(peatTick)
	defer tick.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		for _, p := range n.dead(now) {
			if n.dial(p.contact) == nil {
				p.backoff, p.nextAttempt = peatBackoffMin, now
			} else {
				p.backoff = min(2*p.backoff, peatBackoffMax)
				p.nextAttempt = now.Add(p.backoff)
			}
		}
	}
}

// dead returns the peers to dial at a tick.
func (n *peatNode) dead(now time.Time) (dead []*peatPeer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.peers {
		if !n.connected(p.contact) && !p.nextAttempt.After(now) {
			dead = append(dead, p)
		}
	}
	return dead
}

// dial is peat-node's dial_and_attach: up to three tries, each with the
// transport's dial timeout.
func (n *peatNode) dial(to contact) (err error) {
	for try := range peatTries {
		if try > 0 {
			select {
			case <-time.After(peatTryGap):
			case <-n.ctx.Done():
				return n.ctx.Err()
			}
		}
		_, err = n.Connect(n.ctx, meshsync.PeerID(to.key), []string{to.addr.String()}, "")
		if err == nil {
			return nil
		}
	}
	return err
}

func (n *peatNode) Close() error {
	n.stop()
	n.wg.Wait()
	return n.meshNode.Close()
}

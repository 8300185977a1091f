package meshsync

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// lines returns the lines with all of the given texts.
func (b *logBuffer) lines(texts ...string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
line:
	for _, l := range strings.Split(b.buf.String(), "\n") {
		for _, text := range texts {
			if !strings.Contains(l, text) {
				continue line
			}
		}
		n++
	}
	return n
}

// A peer that connects in a loop does not fill the log, nor does it keep others
// out of it.
func TestLinesAboutAPeerAreBounded(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		log := new(logBuffer)
		a := w.node(1, logTo(log))
		loop, friend := w.node(2), w.node(3)
		began := time.Now()
		for range 100 {
			c := loop.connectTo(a)
			time.Sleep(testRTT) // or else the side that follows never sees it
			c.Close()
		}
		took := time.Since(began)
		time.Sleep(time.Second)
		synctest.Wait()
		about := loop.ID().Short()
		if n, most := log.lines(about), peerLineBurst+int(took.Seconds()*peerLineRate)+1; n > most || n < peerLineBurst {
			t.Errorf("%d lines about a peer that connected 100 times in %v, want %d at most", n, took, most)
		}
		friend.connectTo(a)
		time.Sleep(testRTT)
		if n := log.lines("peer connected", friend.ID().Short(), "unlogged=0"); n != 1 {
			t.Errorf("%d lines about another peer, want 1", n)
		}
		time.Sleep(time.Minute)
		loop.connectTo(a)
		time.Sleep(testRTT)
		if n := log.lines("peer connected", about); n < 2 || log.lines(about, "unlogged=0") == log.lines(about) {
			t.Error("no line says how many were left out")
		}
		for _, n := range w.all {
			n.stop()
		}
	})
}

// Identities are free, so the lines about all of them together are bounded.
func TestLinesAboutAllPeersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, n := newLineLimit(), 0
		for range 2 { // so that each peer has lines that were left out
			for i := range 4 * lineBurst {
				if ok, _ := l.allow(PeerID{byte(i), byte(i >> 8), byte(i >> 16)}); ok {
					n++
				}
			}
		}
		if n > lineBurst || len(l.peers) > maxLinePeers {
			t.Errorf("%d lines, %d peers are counted", n, len(l.peers))
		}
		time.Sleep(time.Hour)
		if ok, _ := l.allow(PeerID{1, 2, 3, 4}); !ok || len(l.peers) > 1 {
			t.Errorf("a new peer is logged: %v; %d peers are counted", ok, len(l.peers))
		}
	})
}

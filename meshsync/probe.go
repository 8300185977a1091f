package meshsync

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"sync"
)

// A probe asks whether a peer can be reached at all. It takes 25 bytes where a
// QUIC handshake that nobody answers takes ten packets of 1,200, so a watchdog
// can afford many of them and notices the return of a link, or of a peer, soon:
//
//	probe   type uint8 = 1, nonce [8]byte, tag [16]byte
//	answer  type uint8 = 2, nonce [8]byte, tag [16]byte
//
// The first two bits of the type are 0, which no QUIC packet has (RFC 9443
// section 3), so both pass through the same socket. The tag is HMAC-SHA256
// under the PeerID of the one that is asked, cut to 16 bytes, over the type and
// the nonce: a peer answers only those who know its PeerID, and an answer comes
// from the peer that was meant and not from who has its address now. That is
// all it says. It proves nothing, and all it can bring about is one dial,
// which does. An answer is as long as the probe, so nothing is amplified.
const (
	typeProbe  = 1
	typeAnswer = 2

	nonceSize = 8
	tagSize   = 16
	probeSize = 1 + nonceSize + tagSize
)

type nonce [nonceSize]byte

func newNonce() (n nonce) {
	rand.Read(n[:])
	return n
}

// probePacket returns a probe of, or an answer by, the peer id.
func probePacket(kind uint8, id PeerID, n nonce) []byte {
	b := make([]byte, 0, probeSize)
	b = append(b, kind)
	b = append(b, n[:]...)
	mac := hmac.New(sha256.New, id[:])
	mac.Write(b)
	return append(b, mac.Sum(nil)[:tagSize]...)
}

// parseProbe returns the type and nonce of what may be a probe or an answer;
// whether its tag is good is for isProbe.
func parseProbe(b []byte) (kind uint8, n nonce, ok bool) {
	if len(b) != probeSize || (b[0] != typeProbe && b[0] != typeAnswer) {
		return 0, nonce{}, false
	}
	return b[0], nonce(b[1 : 1+nonceSize]), true
}

// probes passes the answers to the watchdogs that wait for them.
type probes struct {
	mu      sync.Mutex
	waiting map[nonce]*watchdog
}

func newProbes() *probes { return &probes{waiting: make(map[nonce]*watchdog)} }

// expect makes the answer to n wake w, until forget.
func (p *probes) expect(n nonce, w *watchdog) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting[n] = w
}

func (p *probes) forget(n nonce) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, n)
}

func (p *probes) waiter(n nonce) *watchdog {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting[n]
}

func (p *probes) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting)
}

// probeLoop answers probes and hears answers until the transport closes.
// quic-go queues 32 such packets and drops the rest.
func (t *MeshSyncTransport) probeLoop() {
	var b [probeSize + 1]byte // one more, to tell what is too long
	for {
		size, from, err := t.quic.ReadNonQUICPacket(t.ctx, b[:])
		if err != nil {
			return
		}
		kind, n, ok := parseProbe(b[:size])
		if !ok {
			continue
		}
		switch kind {
		case typeProbe:
			if hmac.Equal(b[:size], probePacket(typeProbe, t.id, n)) {
				t.quic.WriteTo(probePacket(typeAnswer, t.id, n), from) // lost is lost
			}
		case typeAnswer:
			w := t.probes.waiter(n)
			if w != nil && hmac.Equal(b[:size], probePacket(typeAnswer, w.peer, n)) {
				signal(w.answers)
			}
		}
	}
}

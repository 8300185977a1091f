package meshsync

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"net"
	"sync"
)

// Three small packets travel beside those of QUIC, through the same socket. The
// first two bits of their type are 0, which no QUIC packet has (RFC 9443
// section 3):
//
//	probe    type uint8 = 1, nonce [8]byte, tag [16]byte
//	answer   type uint8 = 2, nonce [8]byte, tag [16]byte
//	gone     type uint8 = 3, token [24]byte
//
// A probe asks whether a peer can be reached at all, and an answer says yes. A
// probe takes 25 bytes where a QUIC handshake that nobody answers takes ten
// packets of 1,200, so a watchdog can afford many of them and notices the
// return of a link, or of a peer, soon. The tag is HMAC-SHA256 under the PeerID
// of the one that is asked, cut to 16 bytes, over the type and the nonce: a peer
// answers only those who know its PeerID, and the answer comes from the peer
// that was meant and not from who has its address now. That is all it says. It
// proves nothing, and all it can bring about is one dial, which does. An answer
// is as long as the probe, so nothing is amplified.
//
// Gone says that the sender has given up a connection because it heard nothing
// for the idle timeout. QUIC does so in silence (RFC 9000 section 10.1), and
// the other side, if it did hear something, would hold on to a dead connection
// for as long again. The token comes from the connection's TLS exporter, so
// only its two ends know it.
const (
	typeProbe  = 1
	typeAnswer = 2
	typeGone   = 3

	nonceSize  = 8
	tagSize    = 16
	goneSize   = nonceSize + tagSize
	packetSize = 1 + nonceSize + tagSize

	goneLabel = "EXPORTER-meshsync/1 gone"
)

type nonce [nonceSize]byte

func newNonce() (n nonce) {
	rand.Read(n[:])
	return n
}

// probePacket returns a probe of, or an answer by, the peer id.
func probePacket(kind uint8, id PeerID, n nonce) []byte {
	b := make([]byte, 0, packetSize)
	b = append(b, kind)
	b = append(b, n[:]...)
	mac := hmac.New(sha256.New, id[:])
	mac.Write(b)
	return append(b, mac.Sum(nil)[:tagSize]...)
}

type goneToken [goneSize]byte

// goneToken returns the token with which either side gives up c.
func (c *Conn) goneToken() (token goneToken, err error) {
	cs := c.qc.ConnectionState().TLS
	b, err := cs.ExportKeyingMaterial(goneLabel, nil, goneSize)
	copy(token[:], b)
	return token, err
}

// A waitList is who waits for which packet: watchdogs for answers, and
// connections for the end of the other side.
type waitList struct {
	mu    sync.Mutex
	dogs  map[nonce]*watchdog
	conns map[goneToken]*Conn
}

func newWaitList() *waitList {
	return &waitList{dogs: make(map[nonce]*watchdog), conns: make(map[goneToken]*Conn)}
}

// expectAnswer makes the answer to n wake w, until forgetAnswer.
func (l *waitList) expectAnswer(n nonce, w *watchdog) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dogs[n] = w
}

func (l *waitList) forgetAnswer(n nonce) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.dogs, n)
}

// expectGone makes a gone packet end c, until forgetGone.
func (l *waitList) expectGone(token goneToken, c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[token] = c
}

func (l *waitList) forgetGone(token goneToken) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, token)
}

func (l *waitList) dog(n nonce) *watchdog {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dogs[n]
}

func (l *waitList) conn(token goneToken) *Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conns[token]
}

// packetLoop reads the packets beside QUIC until the transport closes. quic-go
// queues 32 of them and drops the rest.
func (t *MeshSyncTransport) packetLoop() {
	var b [packetSize + 1]byte // one more, to tell what is too long
	for {
		size, from, err := t.quic.ReadNonQUICPacket(t.ctx, b[:])
		if err != nil {
			return
		}
		if size == packetSize {
			t.handlePacket(b[:size], from)
		}
	}
}

// handlePacket takes a packet of packetSize bytes, from anybody.
func (t *MeshSyncTransport) handlePacket(b []byte, from net.Addr) {
	n := nonce(b[1:])
	switch b[0] {
	case typeProbe:
		if hmac.Equal(b, probePacket(typeProbe, t.id, n)) {
			t.quic.WriteTo(probePacket(typeAnswer, t.id, n), from) // lost is lost
		}
	case typeAnswer:
		if w := t.waits.dog(n); w != nil && hmac.Equal(b, probePacket(typeAnswer, w.peer, n)) {
			w.hear(from)
		}
	case typeGone:
		if c := t.waits.conn(goneToken(b[1:])); c != nil {
			c.close(ErrReset)
		}
	}
}

// sayGone tells the other side of c that this side has given it up.
func (t *MeshSyncTransport) sayGone(c *Conn, token goneToken) {
	t.quic.WriteTo(append([]byte{typeGone}, token[:]...), c.qc.RemoteAddr()) // lost is lost
}

package meshsync

import (
	"net"
	"sync"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
)

// Of the small packets that travel beside those of QUIC (see package endpoint),
// gone says that the sender has given up a connection because it heard nothing
// for the idle timeout. QUIC itself does so without telling the other side (RFC 9000
// section 10.1), which, if it did hear something, would keep the dead connection
// for another idle timeout. The packet's token comes from the connection's TLS
// exporter, so only the two ends of the connection know it.
const (
	goneSize  = endpoint.ProbeSize - 1
	goneLabel = "EXPORTER-meshsync/1 gone"
)

type goneToken [goneSize]byte

// goneToken returns the token with which either side gives up c.
func (c *Conn) goneToken() (token goneToken, err error) {
	cs := c.qc.ConnectionState().TLS
	b, err := cs.ExportKeyingMaterial(goneLabel, nil, goneSize)
	copy(token[:], b)
	return token, err
}

// A waitList says who waits for which packet: searches wait for answers, and
// connections for the gone packet of the other side.
type waitList struct {
	mu       sync.Mutex
	searches map[endpoint.Nonce]*prober
	conns    map[goneToken]*Conn
}

func newWaitList() *waitList {
	return &waitList{searches: make(map[endpoint.Nonce]*prober), conns: make(map[goneToken]*Conn)}
}

// expectAnswer makes p hear the answer to n, until forgetAnswer.
func (l *waitList) expectAnswer(n endpoint.Nonce, p *prober) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.searches[n] = p
}

func (l *waitList) forgetAnswer(n endpoint.Nonce) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.searches, n)
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

func (l *waitList) search(n endpoint.Nonce) *prober {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.searches[n]
}

// hearGone ends the connection with a token, if there is one. It does not wait for
// the end, because QUIC must be able to read until then. As the connection still waits
// for the token, its goroutine still runs, so wg cannot have become zero yet.
func (l *waitList) hearGone(token goneToken) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.conns[token]; c != nil {
		delete(l.conns, token)
		c.transport.wg.Go(func() { c.close(ErrReset) })
	}
}

// handlePacket handles a packet of endpoint.ProbeSize bytes, from anybody. It does not
// block, because QUIC gets no packet until it returns.
func (t *MeshSyncTransport) handlePacket(b []byte, from net.Addr) {
	switch b[0] {
	case endpoint.TypeAnswer:
		if p := t.waits.search(endpoint.NonceOf(b)); p != nil && endpoint.IsProbePacket(b, endpoint.TypeAnswer, p.id) {
			p.hear(from, probeAnswer{})
		}
	case endpoint.TypeBusy:
		if p := t.waits.search(endpoint.NonceOf(b)); p != nil {
			if wait, ok := endpoint.ParseBusy(b, p.id); ok {
				p.hear(from, probeAnswer{busy: true, wait: wait})
			}
		}
	case endpoint.TypeGone:
		t.waits.hearGone(goneToken(b[1:]))
	}
}

// sayGone tells the other side of c that this side has given c up, on the path that c
// used last.
func (t *MeshSyncTransport) sayGone(c *Conn, token goneToken) {
	packet := append([]byte{endpoint.TypeGone}, token[:]...)
	if c.paths == nil {
		t.quic.WriteTo(packet, c.qc.RemoteAddr()) // a packet may be lost
	} else {
		c.paths.SendBeside(packet)
	}
}

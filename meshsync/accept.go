package meshsync

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/internal/collision"
)

// acceptLoop accepts inbound connections, before their handshakes are complete,
// until the transport closes. Each has a goroutine of its own for handshake and
// hellos, so none waits for another.
func (t *MeshSyncTransport) acceptLoop() {
	for {
		qc, err := t.listener.Accept(t.ctx)
		if err != nil {
			break
		}
		t.wg.Go(func() { t.welcome(qc) })
	}
	t.listener.Close()
	for { // refuses those that came in before the listener closed
		qc, err := t.listener.Accept(context.Background())
		if err != nil {
			return
		}
		qc.CloseWithError(codeShutdown, "")
	}
}

// hastyPause is how long a connection of a peer whose dials replace each other too
// often is kept open before it is refused, so that a peer that dials in a loop does
// not cost a handshake in each round trip. A dialer waits for a second at the least.
const hastyPause = 500 * time.Millisecond

// welcome takes an inbound connection through its handshake and its hello.
// Whatever goes wrong ends this connection and nothing else.
func (t *MeshSyncTransport) welcome(qc *quic.Conn) {
	slot := endpoint.SlotOf(qc)
	defer slot.Release()
	var c *Conn
	err := ErrBusy
	// The function is only called while the connection has its slot, which is
	// before this goroutine ends; so wg is not zero then.
	if slot.Bind(func() { t.wg.Go(func() { qc.CloseWithError(codeBusy, "") }) }) {
		if err = endpoint.AwaitHandshake(t.ctx, qc); err == nil {
			c, err = t.answerHello(qc, slot)
		}
	}
	if err == nil {
		return
	}
	if errors.Is(err, errHasty) {
		select {
		case <-time.After(hastyPause):
		case <-qc.Context().Done():
		case <-t.ctx.Done():
		}
	}
	if t.ctx.Err() != nil {
		err = ErrClosed
	}
	t.log.Debug("inbound connection refused", "remote", qc.RemoteAddr().String(), "error", err)
	if c != nil {
		c.close(err)
		return
	}
	qc.CloseWithError(codeFor(err), "")
}

// answerHello returns when the connection is shown to the service, or with the
// reason to close it. It gives the slot back before the connection is shown: from
// then on that is not closed to make room for another.
func (t *MeshSyncTransport) answerHello(qc *quic.Conn, slot *endpoint.Slot) (*Conn, error) {
	ctx, cancel := context.WithTimeout(t.ctx, t.opts.DialTimeout)
	defer cancel()
	greeting := endpoint.Greet(qc, codeProtocol)
	defer greeting.End()
	c, h, binding, err := t.receiveHello(ctx, qc, greeting)
	if err != nil {
		return c, err
	}
	if t.decides(c.peer) && !slot.Release() {
		return c, ErrBusy
	}
	greeting.End() // from here on the peer is let in
	active, err := t.sendAnswer(ctx, c, h, binding)
	if err != nil || active {
		return c, err
	}
	defer t.withdraw(c)
	m, err := c.awaitMessage(ctx, kindActive)
	if err != nil {
		return c, t.lateOr(ctx, err)
	}
	if !slot.Release() {
		return c, ErrBusy
	}
	return c, t.underPresentRules(c, func() error { return t.confirm(c, m.seq) })
}

// receiveHello waits for the dialer's hello, and checks it. It also returns the binding, which only the two sides have. If it fails after
// it has made a Conn, it returns that with the error, for the caller to close.
func (t *MeshSyncTransport) receiveHello(ctx context.Context, qc *quic.Conn, greeting *endpoint.Greeting) (c *Conn, h hello, binding []byte, err error) {
	id, err := identity.PeerOf(qc.ConnectionState().TLS)
	if err != nil {
		return nil, hello{}, nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if id == t.id {
		return nil, hello{}, nil, fmt.Errorf("%w: %w", ErrUnauthorized, ErrSelf)
	}
	if t.refuses(id) { // saves the work below; offer checks it again, with certainty
		return nil, hello{}, nil, ErrDisconnected
	}
	s, err := greeting.AcceptControl(ctx)
	if err != nil {
		return nil, hello{}, nil, t.lateOr(ctx, err)
	}
	if c, err = t.newConn(qc, newControlStream(s), id, false); err != nil {
		return nil, hello{}, nil, err
	}
	m, err := c.awaitMessage(ctx, kindHello)
	if err != nil {
		return c, hello{}, nil, t.lateOr(ctx, err)
	}
	if m.hello.active {
		return c, hello{}, nil, fmt.Errorf("%w: active in the dialer's hello", ErrProtocol)
	}
	binding, err = t.checkHello(c, m.hello, roleDialer, t.opts.Formation.keys())
	return c, m.hello, binding, err
}

// sendAnswer answers a hello as the table decides, and reports whether the answer makes the connection count.
func (t *MeshSyncTransport) sendAnswer(ctx context.Context, c *Conn, to hello, binding []byte) (active bool, err error) {
	var seq uint64
	err = t.underPresentRules(c, func() (err error) {
		seq, active, err = t.offer(c, to)
		return err
	})
	if err != nil {
		return false, err
	}
	h := t.hello(seq, roleAcceptor, c.proven, binding) // a dialer with two keys learns which one this side has
	h.active = active
	if err := c.send(h.frame(), t.opts.DialTimeout); err != nil {
		t.withdraw(c)
		return false, t.lateOr(ctx, err)
	}
	close(c.greeted)
	endpoint.Introduced(c.qc) // the decider's active message takes another round trip
	return active, nil
}

// hello returns this side's hello for a connection with the given binding, which proves the given key.
func (t *MeshSyncTransport) hello(seq uint64, r role, k formationKey, binding []byte) hello {
	h := hello{offer: collision.Offer{Instance: t.instance, Seq: seq}}
	if f := t.opts.Formation; f != nil {
		h.formation = f.ID
		h.proof = f.prove(k, r, binding)
	}
	return h
}

// binding returns what both ends of this connection share and no other
// connection has.
func (c *Conn) binding() ([]byte, error) {
	cs := c.qc.ConnectionState().TLS
	return cs.ExportKeyingMaterial(exporterLabel, nil, exporterSize)
}

// checkHello checks, without the table, the hello of the side with role r: its formation,
// of which it must prove one of the taken keys, and Authorize. It returns the binding.
func (t *MeshSyncTransport) checkHello(c *Conn, h hello, r role, taken []formationKey) (binding []byte, err error) {
	if binding, err = c.binding(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if c.proven, err = checkFormation(t.opts.Formation, h, r, binding, taken); err != nil {
		return nil, err
	}
	return binding, t.authorize(c)
}

// awaitMessage reads one message of the given kind. It gives up when ctx ends.
func (c *Conn) awaitMessage(ctx context.Context, kind uint8) (message, error) {
	// A deadline in the past wakes a blocked read.
	stop := context.AfterFunc(ctx, func() { c.control.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	m, err := readMessage(c.control)
	if err != nil {
		return message{}, err
	}
	if m.kind != kind {
		return message{}, fmt.Errorf("%w: message kind %d, want %d", ErrProtocol, m.kind, kind)
	}
	if !stop() {
		return message{}, context.Cause(ctx) // the deadline is set, or soon will be
	}
	return m, nil
}

// lateOr turns err into ErrClosed or a timeout if that is why the hellos failed.
func (t *MeshSyncTransport) lateOr(ctx context.Context, err error) error {
	switch {
	case t.ctx.Err() != nil:
		return ErrClosed
	case ctx.Err() != nil:
		return fmt.Errorf("%w: no hello within %v", ErrProtocol, t.opts.DialTimeout)
	default:
		return explain(err)
	}
}

// refuses reports whether Disconnect turned id away.
func (t *MeshSyncTransport) refuses(id PeerID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[id]
	return p != nil && p.refused
}

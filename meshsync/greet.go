package meshsync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"
)

// greet introduces this side on a connection it dialed. It returns the connection
// that counts then: this one, or another that was faster, in which case this one is
// closed, as it is on an error. It proves the given key of the formation. Once it is its turn, the hellos may take as long as
// within says.
func (t *MeshSyncTransport) greet(ctx context.Context, qc *quic.Conn, id PeerID, k formationKey, within time.Duration) (*Conn, error) {
	t.awaitPaths(ctx, id)
	seq, beside, c, err := t.takeTurn(ctx, id)
	if err != nil || c != nil {
		qc.CloseWithError(codeFor(cmp.Or(err, errDuplicate)), "")
		return c, err
	}
	defer t.giveBackTurn(id)
	if beside {
		// From here on the peer may let the suspect connection go: to call this one off
		// would leave the two without any, which only an operator wants.
		called := ctx
		var refuse context.CancelFunc
		ctx, refuse = context.WithCancel(t.ctx)
		defer refuse()
		defer context.AfterFunc(called, func() {
			if t.refuses(id) {
				refuse()
			}
		})()
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()

	c, err = t.sayHello(ctx, qc, id, k, seq)
	if err == nil && c.qc == qc {
		return c, nil
	}
	qc.CloseWithError(codeFor(cmp.Or(err, errDuplicate)), "")
	return c, err
}

// sayHello exchanges the hellos. It returns the connection that counts then.
func (t *MeshSyncTransport) sayHello(ctx context.Context, qc *quic.Conn, id PeerID, k formationKey, seq uint64) (*Conn, error) {
	s, err := qc.OpenStream() // the first one: it cannot be refused
	if err != nil {
		return nil, explain(err)
	}
	c, err := t.newConn(qc, newControlStream(s), id, true)
	if err != nil {
		return nil, err
	}
	binding, err := c.binding()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if err := c.send(t.hello(seq, roleDialer, k, binding).frame(), t.opts.DialTimeout); err != nil {
		return nil, orCause(ctx, err)
	}
	m, err := c.awaitMessage(ctx, kindHello)
	if err != nil {
		return t.afterDuplicate(ctx, id, orCause(ctx, err))
	}
	if _, err := t.checkHello(c, m.hello, roleAcceptor, []formationKey{k}); err != nil {
		return nil, err
	}
	if m.hello.active == t.decides(id) {
		return nil, fmt.Errorf("%w: active is %v in the acceptor's hello", ErrProtocol, m.hello.active)
	}

	var shown *Conn
	var tell uint64
	err = t.underPresentRules(c, func() (err error) {
		shown, tell, err = t.dialed(ctx, c, m.hello)
		return err
	})
	if err != nil || shown != c {
		return shown, err
	}
	if t.decides(id) {
		if err := c.send(activeFrame(tell), t.opts.DialTimeout); err != nil {
			return nil, orCause(ctx, err) // serve takes it out of the table
		}
	}
	close(c.greeted)
	return c, nil
}

// afterDuplicate returns the connection that won if err says that there is one:
// it is on its way, or here.
func (t *MeshSyncTransport) afterDuplicate(ctx context.Context, id PeerID, err error) (*Conn, error) {
	if !errors.Is(err, errDuplicate) {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		p := t.peers[id] // there while the turn is ours
		switch {
		case p.holds():
			return p.conn(), nil
		case p.pair.Awaiting() == nil:
			return nil, err
		}
		if err := t.await(ctx, p); err != nil {
			return nil, err
		}
	}
}

// orCause returns ctx's cause if ctx has ended, and else err explained.
func orCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return explain(err)
}

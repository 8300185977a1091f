package meshsync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"
)

// greet exchanges the hellos on a connection that this side dialed, and proves the given
// key of the formation. It returns the connection that counts then: this one, or another
// that was faster. In that case, and on an error, it closes this one. It waits for its
// turn first; from then on the hellos may take as long as within says.
func (t *MeshSyncTransport) greet(ctx context.Context, qc *quic.Conn, id PeerID, k formationKey, within time.Duration) (*Conn, error) {
	t.awaitPaths(ctx, id)
	seq, beside, c, err := t.takeTurn(ctx, id)
	if err != nil || c != nil {
		qc.CloseWithError(codeFor(cmp.Or(err, errDuplicate)), "")
		return c, err
	}
	defer t.giveBackTurn(id)
	if beside {
		// From here on the peer may replace the suspect connection by this one. To call this
		// off could leave the two without any, so only a Disconnect of the peer does.
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
			return nil, orCause(ctx, err) // serve takes c out of the table
		}
	}
	close(c.greeted)
	return c, nil
}

// afterDuplicate returns the connection that won if err says that there is one. It
// waits for that if it is not in the table yet.
func (t *MeshSyncTransport) afterDuplicate(ctx context.Context, id PeerID, err error) (*Conn, error) {
	if !errors.Is(err, errDuplicate) {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		p := t.peers[id] // exists as long as this side has the turn
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

// orCause returns ctx's cause if ctx has ended, and otherwise err, explained.
func orCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return explain(err)
}

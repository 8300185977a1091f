package endpoint

import (
	"context"
	"crypto/tls"
	"net"

	"github.com/quic-go/quic-go"
)

// An inbound connection and its Slot:
//
//	its first packet comes     admit takes the slot, or refuses the connection
//	the ClientHello is whole   the EarlyListener's Accept returns it
//	                           Slot.Bind says how to close it if it has to give way
//	the handshake is complete  AwaitHandshake returns
//	it has said who it is      Slot.Release
//
// Before Bind nobody has the connection, and quic-go has no other way to end it than
// its timeouts. To give way then means that its context ends: so TLS fails with
// whatever the client says next (crypto/tls looks at the context each time it has
// waited for data), and quic-go does not hand it to Accept if it has not already.

type slotKey struct{}

// admit takes a place for an inbound connection, whose context is ctx, and returns the
// context that it is to have.
func (l *Limit) admit(ctx context.Context, from net.Addr) (context.Context, error) {
	own, cancel := context.WithCancelCause(ctx)
	slot, err := l.Take(from, func() { cancel(errGaveWay) })
	if err != nil {
		cancel(err)
		return nil, err
	}
	context.AfterFunc(ctx, func() { slot.Release() }) // the connection has ended
	return context.WithValue(own, slotKey{}, slot), nil
}

// Listen begins to take connections. Accept returns them before their handshakes
// are complete, so that they can be closed if they have to give way: see Slot.Bind
// and AwaitHandshake.
func (e *Endpoint) Listen(t *tls.Config, c *quic.Config) (*quic.EarlyListener, error) {
	return e.QUIC.ListenEarly(t, c)
}

// SlotOf returns the slot that an accepted connection has. It is given back once
// the connection has introduced itself, or failed to.
func SlotOf(qc *quic.Conn) *Slot {
	return qc.Context().Value(slotKey{}).(*Slot)
}

// AwaitHandshake waits until the handshake of an accepted connection is complete.
// It returns the cause if the connection, or ctx, ends before.
func AwaitHandshake(ctx context.Context, qc *quic.Conn) error {
	select {
	case <-qc.HandshakeComplete():
		return nil
	case <-qc.Context().Done():
		return context.Cause(qc.Context())
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

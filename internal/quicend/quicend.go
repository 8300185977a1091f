// Package quicend says what the end of a QUIC connection means to a protocol on top of it.
package quicend

import (
	"errors"
	"fmt"

	"github.com/quic-go/quic-go"
)

// Meanings are the errors that a protocol has for the ways in which a connection ends.
type Meanings struct {
	// Idle is that nothing was heard for the idle timeout (RFC 9000 section 10.1).
	Idle error
	// Reset is that the other side does not know the connection any more (RFC 9000 section 10.3).
	Reset error
	// TurnedAway is that the other side had no room: it refused at the first packet, or gave way to another during the
	// handshake, when the code of an application that closes is not sent (RFC 9000 section 10.2.3).
	TurnedAway error
	// Code returns what the other side's application error code says; nil: nothing that is known.
	Code func(quic.ApplicationErrorCode) error
}

// Of returns the protocol's error for one of QUIC's, with that in its chain, and err itself where there is none.
func (m Meanings) Of(err error) error {
	if meaning := m.of(err); meaning != nil {
		return fmt.Errorf("%w (%w)", meaning, err)
	}
	return err
}

func (m Meanings) of(err error) error {
	if app, ok := errors.AsType[*quic.ApplicationError](err); ok && app.Remote {
		return m.Code(app.ErrorCode)
	}
	if _, ok := errors.AsType[*quic.IdleTimeoutError](err); ok {
		return m.Idle
	}
	if _, ok := errors.AsType[*quic.StatelessResetError](err); ok {
		return m.Reset
	}
	if te, ok := errors.AsType[*quic.TransportError](err); ok && te.Remote &&
		(te.ErrorCode == quic.ConnectionRefused || te.ErrorCode == quic.ApplicationErrorErrorCode) {
		return m.TurnedAway
	}
	return nil
}

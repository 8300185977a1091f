package relaylink

import (
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/quic-go/quic-go"
)

// Explain turns an error of QUIC or TCP into one of this package where there is
// one for it, and keeps the original in the chain.
func Explain(err error) error {
	if err == nil {
		return nil
	}
	if app, ok := errors.AsType[*quic.ApplicationError](err); ok && app.Remote {
		if app.ErrorCode > 0xff {
			return fmt.Errorf("%w (%w)", relaywire.ErrProtocol, err)
		}
		return fmt.Errorf("%w (%w)", relaywire.ReasonOf(relaywire.CloseCode(app.ErrorCode)), err)
	}
	if _, ok := errors.AsType[*quic.IdleTimeoutError](err); ok {
		return fmt.Errorf("%w (%w)", relaywire.ErrIdle, err)
	}
	if _, ok := errors.AsType[*quic.StatelessResetError](err); ok {
		return fmt.Errorf("%w (%w)", relaywire.ErrReset, err)
	}
	// Refused at the first packet, or during the handshake, when the code of the
	// application is not sent (RFC 9000 section 10.2.3).
	if te, ok := errors.AsType[*quic.TransportError](err); ok && te.Remote && (te.ErrorCode == quic.ConnectionRefused || te.ErrorCode == quic.ApplicationErrorErrorCode) {
		return fmt.Errorf("%w (%w)", relaywire.ErrFull, err)
	}
	if isOtherVersion(err) {
		return fmt.Errorf("%w, this side speaks version %d (%w)", relaywire.ErrVersion, relaywire.ProtocolVersion, err)
	}
	return err
}

// isOtherVersion reports whether a handshake ended because the other side does not
// speak this version's ALPN (RFC 7301 section 3.2).
func isOtherVersion(err error) bool {
	const noApplicationProtocol = tls.AlertError(120)
	if te, ok := errors.AsType[*quic.TransportError](err); ok {
		return te.ErrorCode == 0x100+quic.TransportErrorCode(noApplicationProtocol) // RFC 9001 section 4.8
	}
	alert, ok := errors.AsType[tls.AlertError](err)
	return ok && alert == noApplicationProtocol
}

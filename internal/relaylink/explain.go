package relaylink

import (
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/quicend"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
)

// Explain turns an error of QUIC or TCP into one of relaywire where there is
// one for it, and keeps the original in the chain.
func Explain(err error) error {
	if isOtherVersion(err) {
		return fmt.Errorf("%w, this side speaks version %d (%w)", relaywire.ErrVersion, relaywire.ProtocolVersion, err)
	}
	return endings.Of(err)
}

// endings are what the ends of a connection between a relay and a client mean.
var endings = quicend.Meanings{
	Idle: relaywire.ErrIdle, Reset: relaywire.ErrReset, TurnedAway: relaywire.ErrFull,
	Code: func(code quic.ApplicationErrorCode) error {
		if code > 0xff {
			return relaywire.ErrProtocol
		}
		return relaywire.ReasonOf(relaywire.CloseCode(code))
	},
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

package relaywire

import (
	"errors"
	"fmt"
)

// CloseCode tells the other side why a connection ends: over QUIC as the
// application error code (RFC 9000 section 20.2), over TCP in a close message.
type CloseCode uint8

const (
	CodeNormal       CloseCode = 0
	CodeShutdown     CloseCode = 1 // the relay goes away
	CodeSuperseded   CloseCode = 2 // a newer connection of the same identity
	CodeUnauthorized CloseCode = 3 // Authorize refused
	CodeProtocol     CloseCode = 4 // malformed, late or out of order
	CodeFull         CloseCode = 5 // MaxClients, or the watches of all clients
	CodeSlow         CloseCode = 6 // does not read its control stream
	CodeVersion      CloseCode = 7 // speaks a version that is not spoken any more
)

// closeReasons pairs each close code with what it means on both sides.
var closeReasons = [...]struct {
	code CloseCode
	err  error
}{
	{CodeNormal, ErrClosedByOther},
	{CodeShutdown, ErrShutdown},
	{CodeSuperseded, ErrSuperseded},
	{CodeUnauthorized, ErrUnauthorized},
	{CodeProtocol, ErrProtocol},
	{CodeFull, ErrFull},
	{CodeSlow, ErrSlow},
	{CodeVersion, ErrVersion},
}

// CodeFor returns the close code that tells the other side about err.
func CodeFor(err error) CloseCode {
	if err == nil || errors.Is(err, ErrClosed) {
		return CodeNormal
	}
	for _, r := range closeReasons {
		if errors.Is(err, r.err) {
			return r.code
		}
	}
	return CodeNormal
}

// ReasonOf returns the error that a close code of the other side stands for.
func ReasonOf(code CloseCode) error {
	for _, r := range closeReasons {
		if r.code == code {
			return r.err
		}
	}
	return fmt.Errorf("%w: unknown close code %d", ErrProtocol, code)
}

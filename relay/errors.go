package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/quic-go/quic-go"
)

// The errors of this package; test for them with errors.Is.
var (
	// ErrBadURL says that a relay URL is malformed.
	ErrBadURL = errors.New("bad relay URL")
	// ErrBadOption says that a field of ClientOptions or ServerOptions cannot
	// be used.
	ErrBadOption = errors.New("bad option")
	// ErrClosed says that this side closed the connection, or the server.
	ErrClosed = errors.New("relay connection is closed")
	// ErrGoodbye says that the relay announced its end before the connection
	// ended. It comes as a *GoodbyeError.
	ErrGoodbye = errors.New("relay said goodbye")
	// ErrShutdown says that the relay went away on purpose.
	ErrShutdown = errors.New("relay shut down")
	// ErrSuperseded says that a newer connection of the same identity took this
	// one's place.
	ErrSuperseded = errors.New("superseded by a newer connection to the relay")
	// ErrUnauthorized says that the relay does not serve this identity.
	ErrUnauthorized = errors.New("relay does not authorize this client")
	// ErrProtocol says that one side broke the rules of the protocol.
	ErrProtocol = errors.New("relay protocol violation")
	// ErrVersion says that the two sides speak different versions of the protocol.
	ErrVersion = errors.New("other version of the relay protocol")
	// ErrFull says that the relay has as many clients, or watches, as it may.
	ErrFull = errors.New("relay is full")
	// ErrSlow says that this side did not read what the relay had to tell it.
	ErrSlow = errors.New("too slow for the relay")
	// ErrIdle says that nothing was heard from the other side for the idle
	// timeout.
	ErrIdle = errors.New("nothing heard from the relay")
	// ErrReset says that the relay no longer knows the connection: it restarted
	// (a stateless reset, RFC 9000 section 10.3).
	ErrReset = errors.New("relay lost the connection")
	// ErrTooManyWatches says that a client watches as many peers as the relay
	// lets it.
	ErrTooManyWatches = errors.New("too many watched peers")
)

// errClosedByOther is the cause of an ordinary close by the other side.
var errClosedByOther = errors.New("closed by the relay")

// closeCode tells the other side why a connection ends: over QUIC as the
// application error code (RFC 9000 section 20.2), over TCP in a close message.
type closeCode uint8

const (
	codeNormal       closeCode = 0
	codeShutdown     closeCode = 1 // the relay goes away
	codeSuperseded   closeCode = 2 // a newer connection of the same identity
	codeUnauthorized closeCode = 3 // Authorize refused
	codeProtocol     closeCode = 4 // malformed, late or out of order
	codeFull         closeCode = 5 // MaxClients, or the watches of all clients
	codeSlow         closeCode = 6 // does not read its control stream
	codeVersion      closeCode = 7 // speaks a version that is not spoken any more
)

// closeReasons pairs each close code with what it means on both sides.
var closeReasons = [...]struct {
	code closeCode
	err  error
}{
	{codeNormal, errClosedByOther},
	{codeShutdown, ErrShutdown},
	{codeSuperseded, ErrSuperseded},
	{codeUnauthorized, ErrUnauthorized},
	{codeProtocol, ErrProtocol},
	{codeFull, ErrFull},
	{codeSlow, ErrSlow},
	{codeVersion, ErrVersion},
}

// codeFor returns the close code that tells the other side about err.
func codeFor(err error) closeCode {
	if err == nil || errors.Is(err, ErrClosed) {
		return codeNormal
	}
	for _, r := range closeReasons {
		if errors.Is(err, r.err) {
			return r.code
		}
	}
	return codeNormal
}

// reasonOf returns the error that a close code of the other side stands for.
func reasonOf(code closeCode) error {
	for _, r := range closeReasons {
		if r.code == code {
			return r.err
		}
	}
	return fmt.Errorf("%w: unknown close code %d", ErrProtocol, code)
}

// explain turns an error of QUIC or TCP into one of this package where there is
// one for it, and keeps the original in the chain.
func explain(err error) error {
	if err == nil {
		return nil
	}
	if app, ok := errors.AsType[*quic.ApplicationError](err); ok && app.Remote {
		if app.ErrorCode > 0xff {
			return fmt.Errorf("%w (%w)", ErrProtocol, err)
		}
		return fmt.Errorf("%w (%w)", reasonOf(closeCode(app.ErrorCode)), err)
	}
	if _, ok := errors.AsType[*quic.IdleTimeoutError](err); ok {
		return fmt.Errorf("%w (%w)", ErrIdle, err)
	}
	if _, ok := errors.AsType[*quic.StatelessResetError](err); ok {
		return fmt.Errorf("%w (%w)", ErrReset, err)
	}
	// Refused at the first packet, or during the handshake, when the code of the
	// application is not sent (RFC 9000 section 10.2.3).
	if te, ok := errors.AsType[*quic.TransportError](err); ok && te.Remote && (te.ErrorCode == quic.ConnectionRefused || te.ErrorCode == quic.ApplicationErrorErrorCode) {
		return fmt.Errorf("%w (%w)", ErrFull, err)
	}
	if isOtherVersion(err) {
		return fmt.Errorf("%w, this side speaks version %d (%w)", ErrVersion, protocolVersion, err)
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

// A GoodbyeError says that the relay announced that it would close, and asked
// its clients to come back after Delay. It is an ErrGoodbye, and unwraps to
// what then ended the connection.
type GoodbyeError struct {
	Delay time.Duration
	Err   error
}

// Error tells the delay and the end.
func (e *GoodbyeError) Error() string {
	return fmt.Sprintf("%v, come back after %v: %v", ErrGoodbye, e.Delay, e.Err)
}

// Is reports whether target is ErrGoodbye.
func (e *GoodbyeError) Is(target error) bool { return target == ErrGoodbye }

// Unwrap returns what ended the connection.
func (e *GoodbyeError) Unwrap() error { return e.Err }

// A DialError says why Dial failed: each candidate that was tried, with its own
// error. It unwraps to all of them.
type DialError struct {
	URL        URL
	Candidates []CandidateError
}

// A CandidateError is what became of one candidate of a Dial.
type CandidateError struct {
	Carrier Carrier // "" if the host did not resolve
	// Addr is the address as it was tried (IP:port), or the URL's host:port.
	Addr string
	Err  error
}

// Error lists the candidates in the order in which they failed.
func (e *DialError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "dial relay %s: ", e.URL.HostPort())
	if len(e.Candidates) == 0 {
		b.WriteString("nothing to try")
	}
	for i, c := range e.Candidates {
		if i > 0 {
			b.WriteString("; ")
		}
		if c.Carrier != "" {
			fmt.Fprintf(&b, "%s ", c.Carrier)
		}
		fmt.Fprintf(&b, "%s: %v", c.Addr, c.Err)
	}
	return b.String()
}

// Unwrap returns the candidates' errors.
func (e *DialError) Unwrap() []error {
	errs := make([]error, len(e.Candidates))
	for i, c := range e.Candidates {
		errs[i] = c.Err
	}
	return errs
}

// A noAnswerError is a candidate's error if its time ran out in silence. It is
// a context.DeadlineExceeded.
type noAnswerError struct{ within time.Duration }

func (e noAnswerError) Error() string        { return fmt.Sprintf("no answer within %v", e.within) }
func (e noAnswerError) Is(target error) bool { return target == context.DeadlineExceeded }

// isTimeout reports whether err only says that time ran out.
func isTimeout(err error) bool {
	nerr, ok := errors.AsType[net.Error](err)
	return (ok && nerr.Timeout()) || errors.Is(err, context.DeadlineExceeded)
}

package relaywire

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// The errors of this package; test for them with errors.Is.
var (
	// ErrBadURL says that a relay URL is malformed.
	ErrBadURL = errors.New("bad relay URL")
	// ErrBadOption says that an option cannot be used.
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

// ErrClosedByOther is the cause of an ordinary close by the other side.
var ErrClosedByOther = errors.New("closed by the relay")

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

// A DialError says why a relay could not be reached: each candidate that was tried, with its own
// error. It unwraps to all of them.
type DialError struct {
	URL        URL
	Candidates []CandidateError
}

// A CandidateError is what became of one candidate of a dial.
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

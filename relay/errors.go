package relay

import "github.com/defenseunicorns/peat-mesh-go/internal/relaywire"

// What a connection to a relay, or an attempt at one, can end with; test with errors.Is.
// A transport's status and its errors of dials have them in their chains.
var (
	// ErrBadURL says that a relay URL is malformed.
	ErrBadURL = relaywire.ErrBadURL
	// ErrBadOption says that a field of ServerOptions cannot be used.
	ErrBadOption = relaywire.ErrBadOption
	// ErrClosed says that this side closed the connection, or the server.
	ErrClosed = relaywire.ErrClosed
	// ErrGoodbye says that the relay announced its end before the connection
	// ended. It comes as a *GoodbyeError.
	ErrGoodbye = relaywire.ErrGoodbye
	// ErrShutdown says that the relay went away on purpose.
	ErrShutdown = relaywire.ErrShutdown
	// ErrSuperseded says that a newer connection of the same identity took this
	// one's place.
	ErrSuperseded = relaywire.ErrSuperseded
	// ErrUnauthorized says that the relay does not serve this identity.
	ErrUnauthorized = relaywire.ErrUnauthorized
	// ErrProtocol says that one side broke the rules of the protocol.
	ErrProtocol = relaywire.ErrProtocol
	// ErrVersion says that the two sides speak different versions of the protocol.
	ErrVersion = relaywire.ErrVersion
	// ErrFull says that the relay has as many clients, or watches, as it may.
	ErrFull = relaywire.ErrFull
	// ErrSlow says that this side did not read what the relay had to tell it.
	ErrSlow = relaywire.ErrSlow
	// ErrIdle says that nothing was heard from the other side for the idle
	// timeout.
	ErrIdle = relaywire.ErrIdle
	// ErrReset says that the relay no longer knows the connection: it restarted
	// (a stateless reset, RFC 9000 section 10.3).
	ErrReset = relaywire.ErrReset
	// ErrTooManyWatches says that a client watches as many peers as the relay
	// lets it.
	ErrTooManyWatches = relaywire.ErrTooManyWatches
)

type (
	// A GoodbyeError says that the relay announced that it would close. It is an
	// ErrGoodbye, and unwraps to what then ended the connection. Its fields are Delay, a
	// time.Duration after which the relay asked its clients to come back, and Err, what
	// ended the connection.
	GoodbyeError = relaywire.GoodbyeError
	// A DialError says why a relay could not be reached: each candidate that was tried,
	// with its own error. It unwraps to all of them. Its fields are URL, the relay's, and
	// Candidates, a []CandidateError in the order in which they failed.
	DialError = relaywire.DialError
	// A CandidateError is what became of one candidate of a dial. Its fields are Carrier,
	// "" if the host did not resolve, Addr, the address as it was tried (IP:port) or the URL's
	// host:port, and Err.
	CandidateError = relaywire.CandidateError
)

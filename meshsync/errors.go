package meshsync

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/quicend"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// The errors of this package; test for them with errors.Is.
var (
	// ErrClosed is returned by every call on a transport that was closed or
	// shut down, and is the cause with which its connections end.
	ErrClosed = errors.New("transport is closed")
	// ErrSocketClosed says that the transport's socket, or Options.PacketConn,
	// was closed by somebody else. The transport can reach nobody any more; close
	// it, and make a new one.
	ErrSocketClosed = errors.New("the socket was closed underneath the transport")
	// ErrNotRegistered is returned for a peer that is not registered.
	ErrNotRegistered = errors.New("peer is not registered")
	// ErrNotConnected says that there is no connection to the peer.
	ErrNotConnected = errors.New("peer is not connected")
	// ErrNoRoute says that neither an address nor a relay was given.
	ErrNoRoute = errors.New("no address and no relay")
	// ErrSelf says that the peer is this transport itself.
	ErrSelf = errors.New("peer is this transport itself")
	// ErrBadPeer says that a PeerID names nobody: it is zero, or a key for which
	// anybody can sign.
	ErrBadPeer = errors.New("bad peer ID")
	// ErrBadAddress says that an address is not host:port, or that a relay
	// URL is malformed.
	ErrBadAddress = errors.New("bad address")
	// ErrBadOption says that a field of Options cannot be used.
	ErrBadOption = errors.New("bad option")
	// ErrAbsent says that a relay is connected and the peer is not there.
	ErrAbsent = errors.New("peer is not connected to the relay")
	// ErrIdentityMismatch says that another peer than the wanted one answers
	// at an address, or another relay than the one whose ID the URL has.
	ErrIdentityMismatch = identity.ErrIdentityMismatch
	// ErrFormation says that the two sides do not prove the same formation.
	ErrFormation = errors.New("formation does not match")
	// ErrUnauthorized says that Options.Authorize of one side refused the
	// other.
	ErrUnauthorized = errors.New("peer is not authorized")
	// ErrDisconnected says that an operator of one side ended the connection
	// and refuses new ones, with Disconnect.
	ErrDisconnected = errors.New("disconnected by an operator")
	// ErrShutdown says that the peer went away on purpose, with Shutdown or
	// Close.
	ErrShutdown = errors.New("peer shut down")
	// ErrSuperseded says that a newer connection to the same peer took this
	// one's place.
	ErrSuperseded = errors.New("superseded by a newer connection")
	// ErrIdle says that nothing was heard from the peer for IdleTimeout.
	ErrIdle = errors.New("nothing heard from the peer")
	// ErrReset says that the peer no longer knows the connection: it
	// restarted (a stateless reset, RFC 9000 section 10.3), or heard nothing
	// for its idle timeout.
	ErrReset = errors.New("peer lost the connection")
	// ErrProtocol says that one side broke the rules of the protocol.
	ErrProtocol = errors.New("protocol violation")
	// ErrBusy says that the peer holds as many connections as it may, or that
	// this side's dials replace each other too often there; of a conn of package
	// meshnet, that too many wait there to be accepted.
	ErrBusy = errors.New("peer has no room for another connection")
)

// errHasty turns away a connection of a peer whose dials replace each other.
var errHasty = fmt.Errorf("%w: dials that replace each other too often", ErrBusy)

// errDuplicate ends the loser of two simultaneous dials. No service sees it
// unless the winner is lost in the same instant.
var errDuplicate = errors.New("another connection to the peer won")

// errClosedByPeer and errClosedHere are the causes of an ordinary close.
var (
	errClosedByPeer = errors.New("closed by the peer")
	errClosedHere   = errors.New("closed by this side")
)

// Close codes: the QUIC application error codes (RFC 9000 section 20.2) that
// tell the other side why a connection ends.
const (
	codeNormal       quic.ApplicationErrorCode = 0x00 // the service closed it
	codeShutdown     quic.ApplicationErrorCode = 0x01 // this transport goes away
	codeDisconnected quic.ApplicationErrorCode = 0x02 // an operator's Disconnect
	codeDuplicate    quic.ApplicationErrorCode = 0x03 // lost against a simultaneous dial
	codeSuperseded   quic.ApplicationErrorCode = 0x04 // a newer connection is there
	codeFormation    quic.ApplicationErrorCode = 0x05 // the formation does not match
	codeUnauthorized quic.ApplicationErrorCode = 0x06 // Authorize refused
	codeProtocol     quic.ApplicationErrorCode = 0x07 // malformed, late or out of order
	codeBusy         quic.ApplicationErrorCode = 0x08 // no room: MaxInboundPeers, or others have come, or dials replace each other too often
)

// closeReasons pairs each close code with what it means on the side that
// receives it, and with the reason label of connections_closed_total.
var closeReasons = []struct {
	code  quic.ApplicationErrorCode
	err   error
	label string
}{
	{codeNormal, errClosedByPeer, "normal"},
	{codeShutdown, ErrShutdown, "shutdown"},
	{codeDisconnected, ErrDisconnected, "disconnected"},
	{codeDuplicate, errDuplicate, "duplicate"},
	{codeSuperseded, ErrSuperseded, "superseded"},
	{codeFormation, ErrFormation, "formation"},
	{codeUnauthorized, ErrUnauthorized, "unauthorized"},
	{codeProtocol, ErrProtocol, "protocol"},
	{codeBusy, ErrBusy, "busy"},
}

// codeFor returns the close code that tells the other side about err.
func codeFor(err error) quic.ApplicationErrorCode {
	if errors.Is(err, ErrClosed) {
		return codeShutdown
	}
	for _, r := range closeReasons {
		if errors.Is(err, r.err) {
			return r.code
		}
	}
	if errors.Is(err, errClosedHere) {
		return codeNormal
	}
	return codeProtocol
}

// closeLabel returns the reason label for a connection that ended with cause.
func closeLabel(cause error) string {
	for _, r := range closeReasons {
		if errors.Is(cause, r.err) {
			return r.label
		}
	}
	switch {
	case errors.Is(cause, ErrClosed):
		return "shutdown"
	case errors.Is(cause, errClosedHere):
		return "normal"
	case errors.Is(cause, ErrIdle):
		return "idle"
	case errors.Is(cause, ErrReset):
		return "reset"
	default:
		return "error"
	}
}

// explain turns an error of QUIC into one of this package where there is one
// for it, and keeps the original in the chain.
func explain(err error) error {
	if err == nil {
		return nil
	}
	if op, ok := errors.AsType[*net.OpError](err); errors.Is(err, quic.ErrTransportClosed) || ok && errors.Is(op, net.ErrClosed) {
		return fmt.Errorf("%w (%w)", ErrSocketClosed, err)
	}
	return endings.Of(err)
}

// endings are what the ends of a connection to a peer mean.
var endings = quicend.Meanings{Idle: ErrIdle, Reset: ErrReset, TurnedAway: ErrBusy, Code: func(code quic.ApplicationErrorCode) error {
	for _, r := range closeReasons {
		if r.code == code {
			return r.err
		}
	}
	return nil
}}

// isRefusal reports whether err is the peer's own decision not to talk to us,
// which no other address and no quick retry will change.
func isRefusal(err error) bool {
	return errors.Is(err, ErrDisconnected) || errors.Is(err, ErrFormation) || errors.Is(err, ErrUnauthorized)
}

// unanswered reports whether an error of a dial, or the cause of a connection's
// end, says nothing of the peer: time ran out, a name did not resolve, a packet
// could not even be sent, or somebody else answered. Only the peer's own word, on
// a connection on which it has proven who it is, says that it is there.
func unanswered(err error) bool {
	if dial, ok := errors.AsType[*DialError](err); ok {
		return !slices.ContainsFunc(dial.Candidates, func(c CandidateError) bool { return !unanswered(c.Err) })
	}
	if _, ok := errors.AsType[*relayError](err); ok {
		return true // whatever the relay said, the peer said nothing
	}
	if app, ok := errors.AsType[*quic.ApplicationError](err); ok && app.Remote {
		return false
	}
	// What this side says of what the peer said, or has decided itself.
	return !isRefusal(err) && !errors.Is(err, ErrProtocol) && !errors.Is(err, ErrReset) && !errors.Is(err, errDuplicate) &&
		!errors.Is(err, errClosedHere)
}

// mayBeBack reports whether a peer whose connection ended with the given cause
// has gone, and may be back at any moment.
func mayBeBack(cause error) bool {
	return unanswered(cause) || errors.Is(cause, ErrShutdown) || errors.Is(cause, ErrReset)
}

// A relayError is a relay's own failure. It says nothing about the peer.
type relayError struct{ err error }

func (e *relayError) Error() string { return e.err.Error() }
func (e *relayError) Unwrap() error { return e.err }

// A DialError says why a dial failed: each candidate that was tried, with its
// own error. It unwraps to all of them.
type DialError struct {
	Peer       PeerID
	Candidates []CandidateError
}

// A CandidateError is what became of one candidate of a dial.
type CandidateError struct {
	// Addr is the address as it was tried (IP:port), the given host:port if
	// its name did not resolve, or the URL of a relay.
	Addr string
	Err  error
}

// Error lists the candidates in the order in which they failed.
func (e *DialError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "dial peer %s: ", e.Peer.Short())
	if len(e.Candidates) == 0 {
		b.WriteString("no candidate")
	}
	for i, c := range e.Candidates {
		if i > 0 {
			b.WriteString("; ")
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

// An endedError is what a call on a connection, or on a stream of it, fails with
// because the connection has ended. It is a net.Error, as what QUIC said may be.
type endedError struct {
	peer  PeerID
	cause error // that of Conn.Context
	said  error // what QUIC said to the call
}

func (e *endedError) Error() string {
	return fmt.Sprintf("connection to peer %s ended: %v", e.peer.Short(), e.cause)
}

func (e *endedError) Unwrap() []error { return []error{e.cause, e.said} }

// Is says, as net does, that what is used is closed.
func (e *endedError) Is(target error) bool { return target == net.ErrClosed }

// Timeout reports whether the peer fell silent.
func (e *endedError) Timeout() bool { return errors.Is(e.cause, ErrIdle) }

// Temporary is what net.Error still asks for; this connection will not come back.
func (e *endedError) Temporary() bool { return false }

// errNoRoom ends the wait for a stream while the peer allows no more.
var errNoRoom = errors.New("peer allows no more streams at a time")

// peerError names the peer in an error, once.
func peerError(what string, peer PeerID, err error) error {
	return fmt.Errorf("%s %s: %w", what, peer.Short(), err)
}

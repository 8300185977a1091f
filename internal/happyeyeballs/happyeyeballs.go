// Package happyeyeballs is what all dials of this module have in common that try several addresses
// (Happy Eyeballs version 2, RFC 8305): in which order, with which head start, and for how long one of
// them may hold up the others. The dials themselves differ: one of a peer ends with whichever connection
// counts, one of a relay has TCP beside UDP.
package happyeyeballs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

const (
	// AttemptDelay is the head start of each address before the next one is
	// tried beside it (RFC 8305 section 5, Connection Attempt Delay).
	AttemptDelay = 250 * time.Millisecond
	// MaxRecords bounds how many of a name's records are used.
	MaxRecords = 16

	// MinHello is what the hellos have at the least.
	MinHello   = time.Second
	helloShare = 3
)

// Addresses returns what a name with the given records stands for, but for those that
// are not usable, with IPv6 and IPv4 taking turns (RFC 8305 section 4). At most MaxRecords
// of the records count.
func Addresses(records []netip.Addr, port uint16, usable func(netip.Addr) bool) []netip.AddrPort {
	var v6, v4 []netip.AddrPort
	for _, ip := range records[:min(len(records), MaxRecords)] {
		switch ip = ip.Unmap(); {
		case !usable(ip):
		case ip.Is4():
			v4 = append(v4, netip.AddrPortFrom(ip, port))
		default:
			v6 = append(v6, netip.AddrPortFrom(ip, port))
		}
	}
	all := make([]netip.AddrPort, 0, len(v6)+len(v4))
	for len(v6)+len(v4) > 0 {
		if len(v6) > 0 {
			all, v6 = append(all, v6[0]), v6[1:]
		}
		if len(v4) > 0 {
			all, v4 = append(all, v4[0]), v4[1:]
		}
	}
	return all
}

// HelloTimeout is how long the hellos may take over an address at which the handshake, which
// was a round trip too, took so long: one that falls silent in between must not hold
// up the others, of which only one at a time can say hello.
func HelloTimeout(handshake time.Duration) time.Duration { return max(MinHello, helloShare*handshake) }

// A NoAnswerError is what became of an attempt whose time ran out in silence. It is a
// context.DeadlineExceeded.
type NoAnswerError struct {
	Within time.Duration
}

// Error says how long there was no answer.
func (e NoAnswerError) Error() string { return fmt.Sprintf("no answer within %v", e.Within) }

// Is reports whether target is context.DeadlineExceeded.
func (e NoAnswerError) Is(target error) bool { return target == context.DeadlineExceeded }

// IsTimeout reports whether err only says that time ran out.
func IsTimeout(err error) bool {
	nerr, ok := errors.AsType[net.Error](err)
	return (ok && nerr.Timeout()) || errors.Is(err, context.DeadlineExceeded)
}

// Silence returns a NoAnswerError for an error of a dial with the given context that only says that
// time ran out, and any other as it is.
func Silence(ctx context.Context, err error, within time.Duration) error {
	if IsTimeout(err) || (ctx.Err() != nil && errors.Is(err, context.Cause(ctx))) {
		return NoAnswerError{within}
	}
	return err
}

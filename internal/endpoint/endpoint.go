// Package endpoint is what every QUIC endpoint of this project stands on: a
// packet connection that outlives what networks do to it, stateless resets of
// every connection that is not known, also by a restarted process, a bound on
// connections that have not yet said who they are, and one on the small packets
// that anybody can send.
package endpoint

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net"

	"github.com/quic-go/quic-go"
)

// Config says what an endpoint is made of.
type Config struct {
	// PacketConn carries its packets. Close closes it.
	PacketConn net.PacketConn
	// Key is the endpoint's identity, from which secrets are derived that a
	// restarted process finds again, and Protocol keeps those of two protocols
	// with one key apart.
	Key      ed25519.PrivateKey
	Protocol string
	Log      *slog.Logger
	// Divert takes what is sent to virtual addresses: packets of size bytes one
	// after another in b, of which the last may be shorter. nil drops them. It is
	// called from several goroutines, must not block, and must not keep b. Its error
	// is what QUIC is told, as if the socket had said it: ErrTooLong makes the
	// discovery of the path's MTU (RFC 8899) go lower.
	Divert func(b []byte, size int, to *net.UDPAddr) error
	// Forward, for a relay, takes the forwarded packets (TypeForwarded) that one read
	// brought from one address: datagrams of size bytes one after another, the last
	// of which may be shorter. Each is of that kind and longer than ForwardedHeader.
	// It is called from the goroutine that reads, may change b, must not keep it, and
	// must not block. nil: see Unwrap.
	Forward func(b []byte, size int, from *net.UDPAddr)
	// Unwrap, for a client of relays, says what a forwarded packet, which is longer
	// than ForwardedHeader, holds, and from which virtual address QUIC is to see it
	// come; as == nil drops it. packet is part of b. It is called from the goroutine
	// that reads, must not block, and must not keep b. nil drops them all.
	Unwrap func(b []byte, from *net.UDPAddr) (packet []byte, as *net.UDPAddr)
	// Small takes the packets of ProbeSize beside QUIC that the endpoint does not
	// answer itself: TypeAnswer, TypeGone and TypeBusy, from anybody, but of one host
	// not more than smallPerHost a second. It is called from the goroutine that
	// reads, must not block, and must not keep b. nil drops them.
	Small func(b []byte, from net.Addr)
	// Admitted, if set, is told of each inbound connection that begins, with a
	// context that ends with it. It must not block.
	Admitted func(ctx context.Context, from net.Addr)
	// Refused, if set, is told of each inbound connection for which there is no
	// place. It must not block.
	Refused func(from net.Addr, err error)
	// Known tells for whom places are kept when room is short; nil: for nobody.
	Known *Known
	// Bounds are those of Unknown; nil: the usual ones.
	Bounds *Bounds
}

// An Endpoint is one quic.Transport over one packet connection.
type Endpoint struct {
	// QUIC is for listening and dialing. Close closes it.
	QUIC *quic.Transport
	// Unknown bounds the inbound connections that are not introduced yet.
	Unknown *Limit

	socket  socket
	inviter *inviter
}

// New returns an endpoint. It sends and reads nothing before its QUIC is used.
func New(c Config) *Endpoint {
	resets := &resetter{key: deriveKey(c.Key, c.Protocol+" stateless reset")}
	if c.Known == nil {
		c.Known = NewKnown()
	}
	bounds := quicBounds
	if c.Bounds != nil {
		bounds = *c.Bounds
	}
	invites := newInviter()
	e := &Endpoint{Unknown: NewLimit(bounds, c.Known), socket: newSocket(c, resets, invites), inviter: invites}
	e.QUIC = &quic.Transport{
		Conn:                e.socket,
		ConnectionIDLength:  connIDLength,
		StatelessResetKey:   &resets.key,
		Tracer:              resets,
		ConnContext:         e.admitter(c),
		VerifySourceAddress: e.Unknown.underLoad,
	}
	return e
}

// admitter returns quic.Transport's ConnContext.
func (e *Endpoint) admitter(c Config) func(context.Context, *quic.ClientInfo) (context.Context, error) {
	return func(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
		slotted, err := e.Unknown.admit(ctx, info)
		if err != nil {
			if c.Refused != nil {
				c.Refused(info.RemoteAddr, err)
			}
			return nil, err
		}
		if c.Admitted != nil {
			c.Admitted(ctx, info.RemoteAddr)
		}
		host, _ := hostOf(info.RemoteAddr)
		return e.inviter.begin(slotted, host), nil
	}
}

// deriveKey returns a key for one purpose that a restarted process finds again.
func deriveKey(k ed25519.PrivateKey, purpose string) [32]byte {
	mac := hmac.New(sha256.New, k.Seed())
	mac.Write([]byte(purpose))
	return [32]byte(mac.Sum(nil))
}

// LocalAddr returns the packet connection's.
func (e *Endpoint) LocalAddr() net.Addr { return e.socket.LocalAddr() }

// BytesSent counts the UDP payload that was sent.
func (e *Endpoint) BytesSent() uint64 { return e.socket.traffic().sent.Load() }

// BytesReceived counts the UDP payload that came in.
func (e *Endpoint) BytesReceived() uint64 { return e.socket.traffic().received.Load() }

// Reads counts the reads from the system that brought something, and Datagrams the
// datagrams that they brought: many for each read where coalescing works.
func (e *Endpoint) Reads() uint64 { return e.socket.traffic().reads.Load() }

// Datagrams: see Reads.
func (e *Endpoint) Datagrams() uint64 { return e.socket.traffic().datagrams.Load() }

// WriteRun sends datagrams of size bytes one after another in b, of which the last
// may be shorter, in as few calls as the system allows: on Linux many at once
// (UDP_SEGMENT, udp(7)), where the interface can; elsewhere, and on a packet
// connection that is no socket of the system, one by one. On Linux it does not wait
// for room in the socket's buffer.
//
// local, if it is not nil and the socket is bound to the unspecified address, is the
// address to send from, of which only the IP counts. It returns how many datagrams
// the system took. The first error ends the run, and what was not taken is lost;
// that there was no room is an error, too.
func (e *Endpoint) WriteRun(b []byte, size int, to, local net.Addr) (sent int, err error) {
	if size <= 0 || size > len(b) {
		size = len(b)
	}
	return e.socket.writeRun(b, size, to, local)
}

// Inject makes QUIC read a packet of up to MaxPacket bytes that seems to come
// from a virtual address. It does not keep b. It returns false if the packet is
// too long, or too many wait.
func (e *Endpoint) Inject(b []byte, from *net.UDPAddr) bool { return e.socket.inject(b, from) }

// Lost reports whether the packet connection was closed by somebody else: QUIC is
// closed then, too.
func (e *Endpoint) Lost() bool { return e.socket.isLost() }

// Close ends everything and closes the packet connection.
func (e *Endpoint) Close() error { return errors.Join(e.Release(), e.socket.Close()) }

// Release ends everything but leaves the packet connection open.
func (e *Endpoint) Release() error {
	e.socket.beginClose()
	err := e.QUIC.Close() // waits for the goroutine that reads
	e.socket.detach()
	return err
}

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
	// Divert takes the packets for virtual addresses; nil drops them. It is
	// called from several goroutines, must not block, and must not keep b.
	Divert func(b []byte, to *net.UDPAddr)
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
	return e.QUIC.Close()
}

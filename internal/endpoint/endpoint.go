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
	"net/netip"

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
	// Redirect says where the packets go that QUIC sends to an address, and whatever is
	// sent to a virtual one: packets of size bytes one after another in b, of which the
	// last may be shorter. It returns the address to send them to, which must be a real
	// one; to itself, the same pointer, leaves everything as QUIC wants it, and what goes
	// elsewhere leaves from whichever of the host's addresses the system chooses. Or it
	// returns nil if it has taken the packets, and the error that QUIC is told then, as if
	// the socket had said it: ErrTooLong makes the discovery of the path's MTU (RFC
	// 8899) go lower. Packets beside QUIC (see TypeProbe) to a real address go there. It
	// is called from several goroutines, must not block, and must not keep b. nil drops
	// what is sent to virtual addresses, and leaves the rest as it is.
	Redirect func(b []byte, size int, to *net.UDPAddr) (via *net.UDPAddr, err error)
	// Arrive is shown the packets of QUIC that come in, and those of paths (TypePath,
	// TypeFragment). It returns the packet that QUIC is to be shown, which need not be the
	// one that came, and the address from which QUIC is to see it come: from itself, the
	// same pointer, if that is as it was; nil if there is nothing for QUIC. packet is the
	// next of total bytes that one read brought from that address. Of those with a short
	// header in them only the first is shown to Arrive: QUIC sees the others come from
	// the same address, or not at all if that is nil. It is called from the goroutine that
	// reads, must not block, and must not keep packet. nil shows QUIC its packets as they
	// came, and drops those of paths.
	Arrive func(packet []byte, total int, from *net.UDPAddr) (shown []byte, as *net.UDPAddr)
	// Stands returns the address as which a virtual one counts: the real one for which it
	// stands or, if it stands for a peer behind a relay, one virtual one that is always the
	// same for that; false if it stands for nothing. It is called from several goroutines and must
	// not block. nil: each counts as itself.
	Stands func(virtual *net.UDPAddr) (real netip.AddrPort, ok bool)
	// Forward, for a relay, takes the forwarded packets (TypeForwarded) that one read
	// brought from one address: datagrams of size bytes one after another, the last
	// of which may be shorter. Each is of that kind and longer than ForwardedHeader.
	// It is called from the goroutine that reads, may change b, must not keep it, and
	// must not block. nil: see Unwrap.
	Forward func(b []byte, size int, from *net.UDPAddr)
	// Unwrap, for a client of relays, says what a forwarded packet, which is longer
	// than ForwardedHeader, holds, which need not be part of b, and from which address
	// QUIC is to see it come; as == nil drops it. What answers a packet beside QUIC goes to
	// as, which for these must be virtual. It is called from the goroutine that reads, must
	// not block, and must not keep b. nil drops them all.
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
	stands  func(virtual *net.UDPAddr) (real netip.AddrPort, ok bool)
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
	e := &Endpoint{Unknown: NewLimit(bounds, c.Known), socket: newSocket(c, resets, invites), inviter: invites, stands: c.Stands}
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
		from := e.Real(info.RemoteAddr)
		slotted, err := e.Unknown.admit(ctx, from)
		if err != nil {
			if c.Refused != nil {
				c.Refused(info.RemoteAddr, err)
			}
			return nil, err
		}
		if c.Admitted != nil {
			c.Admitted(ctx, info.RemoteAddr)
		}
		host, _ := hostOf(from)
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

package meshnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// Dial returns a conn to a service of a peer. It waits for the peer as
// MeshSyncTransport.OpenStream does, until ctx ends, but not for an answer: the name of
// the service is on its way when Dial returns, so that the other side may speak first,
// and whether there is such a service the first Read tells, or a Write (see ErrNoService).
// When Dial has returned, ctx has no more influence on the conn. It lasts as long as the connection
// to the peer that it is on: one that is replaced in that moment, as when both sides have just dialed,
// takes its conns with it, which fail with meshsync.ErrSuperseded at the first Read.
//
// The name is 1 to 255 bytes of UTF-8. Dial fails with a *net.OpError, which matches
// what OpenStream fails with, and whose Timeout is true if the deadline of ctx has passed.
func Dial(ctx context.Context, t *meshsync.MeshSyncTransport, peer meshsync.PeerID, service string) (net.Conn, error) {
	if err := checkName(service); err != nil {
		return nil, dialError(peerAddr{peer}, err)
	}
	c := &conn{service: service}
	c.header.set(service)
	for {
		var err error
		if c.stream, err = t.OpenStream(ctx, peer); err != nil {
			if ctx.Err() == context.DeadlineExceeded { // err also matches that if a dial has had no answer
				err = timeoutError{err}
			}
			return nil, dialError(peerAddr{peer}, err)
		}
		_, err = c.stream.Write(c.header.text) // less than a packet: it is buffered, and never waits
		if err == nil {
			return c, nil
		}
		if _, ok := errors.AsType[*quic.StreamError](err); ok { // a stream that the peer cannot know of yet
			c.refuse(codeClosed)
			return nil, c.explain("dial", err)
		}
		// The connection was lost in between. OpenStream waits for the next one, or
		// says that ctx has ended.
		select {
		case <-c.stream.Conn().Context().Done():
		case <-ctx.Done():
		}
	}
}

// Dialer returns a function that dials a service as Dial does, for the DialContext of
// an http.Transport and its like. It takes any network; the address is a PeerID, as its
// String has it, and a port after it is ignored.
//
// An http.Transport does not end its dial when the request that began it is given up (Go 1.26): each request that times
// out while the peer is away leaves one that waits until the peer is back, or the transport is closed. Set
// http.Transport.MaxConnsPerHost where requests are many.
func Dialer(t *meshsync.MeshSyncTransport, service string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, _, addr string) (net.Conn, error) {
		id, _, _ := strings.Cut(addr, ":")
		peer, err := meshsync.ParsePeerID(id)
		if err != nil {
			return nil, dialError(nil, fmt.Errorf("address %q: %w", addr, err))
		}
		return Dial(ctx, t, peer, service)
	}
}

func dialError(to net.Addr, err error) error {
	return &net.OpError{Op: "dial", Net: network, Addr: to, Err: err}
}

// A timeoutError is the end of Dial's wait by the deadline of its context.
type timeoutError struct{ error }

func (e timeoutError) Unwrap() error   { return e.error }
func (e timeoutError) Timeout() bool   { return true }
func (e timeoutError) Temporary() bool { return true }

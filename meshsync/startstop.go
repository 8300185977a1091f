package meshsync

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"

	"github.com/quic-go/quic-go"
	"golang.org/x/sync/errgroup"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/paths"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// New returns a transport that listens. Peers may be connected, and their Handlers
// run, before it returns: see Options.Handler. It fails with ErrBadOption or
// ErrBadAddress for what it cannot use, and with the system's error if it cannot
// listen.
func New(o Options) (_ *MeshSyncTransport, err error) {
	opts, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	cert, err := identity.Certificate(opts.PrivateKey)
	if err != nil {
		return nil, err
	}
	t := &MeshSyncTransport{
		opts:      opts,
		id:        identity.FromKey(opts.PrivateKey),
		cert:      cert,
		windows:   newWindows(opts),
		dialQueue: newDialQueue(opts.MaxConcurrentDials),
		events:    newEventHub(),
		lines:     newLineLimit(),
		waits:     newWaitList(),
		probes:    &probeBudget{fastest: 2 * opts.Reconnect.MinDelay},
		lookups:   make(chan struct{}, maxLookups),
		known:     endpoint.NewKnown(),
		finished:  make(chan struct{}),
		peers:     make(map[PeerID]*peer),
		places:    endpoint.NewPlaces(opts.MaxInboundPeers),
	}
	rand.Read(t.instance[:])
	t.log = opts.Logger.With("transport", t.id.Short())
	t.ctx, t.stop = context.WithCancel(context.Background())
	t.drains, t.stopDrains = context.WithCancel(context.Background())

	host := t.openHostWatch() // before anything looks at the network: whatever changes after that is told
	defer func() {
		if err != nil && host != nil {
			host.Close()
		}
	}()
	pc, err := t.openSocket()
	if err != nil {
		t.stop()
		return nil, err
	}
	t.buildLayers(pc)
	if err := t.listen(); err != nil {
		return nil, errors.Join(err, t.abandon())
	}
	if t.metrics, err = newMetrics(t); err != nil {
		return nil, errors.Join(err, t.abandon())
	}
	t.relays.start(opts.homes)
	t.wg.Go(t.acceptLoop)
	if host != nil {
		t.wg.Go(func() { t.watchHost(host) })
	}
	return t, nil
}

// buildLayers puts the layers on top of a socket: endpoint, paths and relays.
func (t *MeshSyncTransport) buildLayers(pc net.PacketConn) {
	t.book = newAddressBook(t)
	t.relays = newRelays(t)
	t.paths = paths.NewLayer(t.relays)
	t.endpoint = endpoint.New(endpoint.Config{
		PacketConn: pc, Key: t.opts.PrivateKey, Protocol: alpn, Log: t.log, Known: t.known, Bounds: t.opts.unknown,
		Redirect: t.paths.Redirect, Arrive: t.paths.ArriveFrom, Stands: t.paths.Stands, Admitted: t.paths.Pin,
		Unwrap: t.relays.unwrap, Small: t.handlePacket,
	})
	t.quic = t.endpoint.QUIC
}

// openSocket returns the packet connection that the options ask for.
func (t *MeshSyncTransport) openSocket() (net.PacketConn, error) {
	o := &t.opts
	if o.PacketConn != nil {
		return o.PacketConn, nil
	}
	addr, err := net.ResolveUDPAddr("udp", o.ListenAddr)
	if err != nil {
		return nil, fmt.Errorf("%w: ListenAddr %q: %w", ErrBadAddress, o.ListenAddr, err)
	}
	pc, err := net.ListenUDP("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", o.ListenAddr, err)
	}
	t.local = newLocalAddr(pc.LocalAddr(), addr.Port)
	return pc, nil
}

func (t *MeshSyncTransport) listen() error {
	conf := t.windows.direct.Clone()
	conf.GetConfigForClient = func(client *quic.ClientInfo) (*quic.Config, error) {
		return t.windows.inbound(t.endpoint.Real(client.RemoteAddr)), nil
	}
	var err error
	t.listener, err = t.endpoint.Listen(identity.ServerTLS(t.cert, alpn), conf)
	if err != nil {
		return fmt.Errorf("listen on %v: %w", t.endpoint.LocalAddr(), err)
	}
	return nil
}

// abandon undoes what New has done so far.
func (t *MeshSyncTransport) abandon() error {
	t.stop()
	if t.opts.PacketConn != nil {
		return t.endpoint.Release()
	}
	return t.endpoint.Close()
}

// Shutdown goes away in order. It stops dialing and accepting, and tells each
// connected peer, whose watchdog, if it has one, then dials again at once.
// What has been written on streams is delivered first, as far as it arrives
// before ctx ends; streams that the service has not closed do not hold it up.
// Then it does what Close does. Give ctx a deadline: a peer that is slow, or
// means ill, takes all the time there is.
//
// It returns ctx's error if ctx ended before everything was delivered, and
// ErrClosed if the transport was closed already.
func (t *MeshSyncTransport) Shutdown(ctx context.Context) error {
	conns, first := t.beginClose()
	if !first {
		return ErrClosed
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(t.drains, func() { cancel(ErrClosed) })()
	var drains errgroup.Group
	for _, c := range conns {
		drains.Go(func() error {
			if err := c.drain(ctx, t.opts.DialTimeout); err != nil && ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return nil // a connection that ended has nothing more to deliver
		})
	}
	err := drains.Wait()
	return errors.Join(err, t.finishClose(conns))
}

// Close ends every connection, with the code that tells the peers that this
// transport goes away, and every goroutine, and waits for them and for the
// Handlers to return. What was written and not yet delivered is lost: see
// Shutdown, which Close cuts short. A second Close waits for the first and
// returns nil.
func (t *MeshSyncTransport) Close() error {
	conns, first := t.beginClose()
	t.stopDrains()
	if !first {
		<-t.finished
		return nil
	}
	return t.finishClose(conns)
}

// beginClose ends dialing and accepting. It returns the connections that count, and
// whether this was the first call.
func (t *MeshSyncTransport) beginClose() (conns []*Conn, first bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, false
	}
	t.closed = true
	for _, p := range t.peers {
		if p.conn() != nil {
			conns = append(conns, p.conn())
		}
	}
	t.stop()
	return conns, true
}

func (t *MeshSyncTransport) finishClose(conns []*Conn) error {
	for _, c := range conns {
		c.close(ErrClosed)
	}
	t.wg.Wait()
	t.relays.close()
	err := t.endpoint.Close()
	t.paths.Close()
	t.events.close()
	t.metrics.detach(t)
	close(t.finished)
	return err
}

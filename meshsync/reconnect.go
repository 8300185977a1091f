package meshsync

import "slices"

// RegisterForReconnect declares that this side wants a connection to the peer,
// always: it is dialed at addrs (each host:port; names are resolved again for
// each dial, and all their records used) until there is one, and again whenever
// it is lost, as Options.Reconnect says. It returns at once, whether the peer
// is up or not. A connection that exists, whoever dialed, is adopted.
//
// relay is the URL of a relay at which the peer can be reached as well, or "".
// With one, the transport stays connected to that relay, asks it and the home
// relays whether the peer is there, dials when it arrives, and dials through
// them a little after the addresses. Whatever the connection began with, its packets
// then take the best of all these paths, and another one when that dies: streams go on.
//
// Called again for the same peer with other addresses, or another relay, it
// replaces them, starts the backoff anew and dials now if there is no connection.
// With the same ones, in whatever order, it changes nothing, so it may be called
// as often as one likes; but it revives a watchdog that gave up. It ends the
// refusal of an earlier Disconnect.
//
// It fails with ErrSelf, ErrBadPeer, ErrNoRoute, ErrBadAddress or ErrClosed, and
// then changes nothing.
func (t *MeshSyncTransport) RegisterForReconnect(id PeerID, addrs []string, relay string) error {
	if err := t.checkPeer(id); err != nil {
		return err
	}
	if err := checkRoute(addrs, relay); err != nil {
		return peerError("register peer", id, err)
	}
	for {
		ending, err := t.register(id, slices.Clone(addrs), relay)
		if ending == nil {
			return err
		}
		<-ending // the watchdog of a registration that another call ends
	}
}

// register records the intent. If a watchdog of the peer is just ending, it
// returns what to wait for instead.
func (t *MeshSyncTransport) register(id PeerID, addrs []string, relay string) (ending <-chan struct{}, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, ErrClosed
	}
	p := t.peerFor(id)
	w := p.watchdog
	if w != nil && w.stopping {
		return w.done, nil
	}
	t.admitAgain(p)
	if w != nil && w.relay == relay && sameAddrs(w.addrs, addrs) && w.state != StateGaveUp {
		w.addrs = addrs // the order may be another
		return nil, nil
	}
	t.events.publish(Event{Kind: EventRegistered, Peer: id})
	if w != nil {
		w.addrs, w.relay = addrs, relay
		signal(w.updates)
		return nil, nil
	}
	w = newWatchdog(t, id)
	w.addrs, w.relay = addrs, relay
	w.setState(StateDisconnected)
	if p.conn != nil {
		w.setState(StateConnected)
	}
	p.watchdog = w
	t.seat(p)
	t.wg.Go(w.run)
	return nil, nil
}

// sameAddrs reports whether two lists name the same addresses.
func sameAddrs(a, b []string) bool {
	within := func(a, b []string) bool {
		return !slices.ContainsFunc(a, func(addr string) bool { return !slices.Contains(b, addr) })
	}
	return within(a, b) && within(b, a)
}

// Unregister ends a registration. When it returns, no dial for the peer is
// running or will start, but for a Connect of the service's own; a connection
// lives on, as an ad hoc one. It fails with ErrNotRegistered or ErrClosed.
func (t *MeshSyncTransport) Unregister(id PeerID) error {
	t.mu.Lock()
	w, err := t.watchdogOf(id)
	if err == nil {
		w.halt()
	}
	t.mu.Unlock()
	if err != nil {
		return err
	}
	<-w.done
	return nil
}

// RetryNow dials a registered peer at once, if it is neither connected nor
// being dialed, and starts its backoff anew; also if the watchdog gave up. It
// fails with ErrNotRegistered or ErrClosed.
func (t *MeshSyncTransport) RetryNow(id PeerID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	w, err := t.watchdogOf(id)
	if err == nil {
		signal(w.retries)
	}
	return err
}

// NetworkChanged tells the transport that the host's network changed: another
// address, another uplink, one that is back. Every registered peer that is not
// connected is dialed at once, with its backoff started anew; dials under way,
// which use the old network, are started again. So are the connections to
// relays, which carry on until the new ones stand. Connections to peers stay: every path of
// each is tried from where the host is now, which tells the peer as well. If
// Options.ListenAddr names an address and the host has lost that, the socket is bound to
// another one of the same interface, and keeps its port.
func (t *MeshSyncTransport) NetworkChanged() {
	t.bindAnew()
	t.book.refresh()
	for _, c := range t.conns() {
		c.paths.Probe()
	}
	t.relays.networkChanged()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tellAll(true)
	for _, p := range t.peers {
		if p.watchdog != nil {
			signal(p.watchdog.network)
		}
	}
}

// watchdogOf returns the watchdog of a registered peer. mu is held.
func (t *MeshSyncTransport) watchdogOf(id PeerID) (*watchdog, error) {
	if t.closed {
		return nil, ErrClosed
	}
	p := t.peers[id]
	if p == nil || p.watchdog == nil {
		return nil, peerError("peer", id, ErrNotRegistered)
	}
	return p.watchdog, nil
}

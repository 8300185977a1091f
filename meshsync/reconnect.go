package meshsync

// Register declares that this side wants a connection to the peer, always: it is
// dialed as cfg says until there is one, and again whenever it is lost. It returns at
// once, whether the peer is up or not. A connection that exists, whoever dialed, is
// adopted. Whatever the connection began with, its packets then take the best of all
// paths, and another one when that dies: streams go on.
//
// Called again for the same peer with other addresses, relays, or another policy, it
// replaces them, starts the backoff anew and dials now if there is no connection; another
// name is just used from then on. With the same configuration, its addresses and relays in whatever order, it
// changes nothing, so it may be called as often as one likes; but it revives a watchdog that gave
// up. It ends the refusal of an earlier Disconnect.
//
// It fails with ErrSelf, ErrBadPeer, ErrNoRoute, ErrBadAddress, ErrBadOption (the policy or the
// name) or ErrClosed, and then changes nothing.
func (t *MeshSyncTransport) Register(id PeerID, cfg PeerConfig) error {
	if err := t.checkPeer(id); err != nil {
		return err
	}
	r, err := t.registrationOf(cfg)
	if err != nil {
		return peerError("register peer", id, err)
	}
	for {
		ending, err := t.register(id, r)
		if ending == nil {
			return err
		}
		<-ending // the watchdog of a registration that another call ends
	}
}

// RegisterForReconnect is Register of addresses and one relay, or none if that is "", with
// Options.Reconnect and without a name: what Register said of the peer is taken back by it.
func (t *MeshSyncTransport) RegisterForReconnect(id PeerID, addrs []string, relay string) error {
	return t.Register(id, PeerConfig{Addrs: addrs, Relays: relaysOf(relay)})
}

// register records the intent. If a watchdog of the peer is just ending, it
// returns what to wait for instead.
func (t *MeshSyncTransport) register(id PeerID, r registration) (ending <-chan struct{}, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, ErrClosed
	}
	p := t.peerFor(id)
	w := p.watchdog
	if w != nil && w.status.stopping {
		return w.done, nil
	}
	t.admitAgain(p)
	if w == nil {
		w = newWatchdog(t, id, r)
		w.status.enter(StateDisconnected)
		if p.conn() != nil {
			w.status.enter(StateConnected)
		}
		p.watchdog = w
		w.status.series = t.newSeriesEntry(r.name, p.conn() == nil)
		t.publish(Event{Kind: EventRegistered, Peer: id})
		t.seat(p)
		t.wg.Go(w.run)
		return nil, nil
	}
	was := w.status.registration
	w.status.registration = r // the order of addresses may be another
	w.status.series.rename(r.name)
	same := r.dialsAs(was)
	if !same || r.name != was.name || w.status.state == StateGaveUp {
		t.publish(Event{Kind: EventRegistered, Peer: id})
	}
	if !same || w.status.state == StateGaveUp {
		signal(w.updates)
	}
	return nil, nil
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

package meshsync

import (
	"fmt"
	"log/slog"
	"slices"
	"unicode"
	"unicode/utf8"
)

// A PeerConfig is what a service says of a peer that it registers.
type PeerConfig struct {
	// Addrs are the addresses at which the peer is dialed, each host:port, 32 at most.
	// Names are resolved again for each dial, and all their records used.
	Addrs []string
	// Relays are the URLs of relays at which the peer can be reached as well, 8 at most. With one or
	// more, the transport stays connected to them, asks them and the home relays
	// whether the peer is there, dials when it arrives, and dials through them a little
	// after the addresses.
	Relays []string
	// Reconnect says how the peer is dialed again; nil: as Options.Reconnect does.
	Reconnect *ReconnectPolicy
	// Name is for people: logs, events and status have it beside the ID. It is valid
	// UTF-8 of 64 bytes at most, without control characters. It need not be unique, and proves
	// nothing.
	Name string
}

// maxName bounds a name, which is in every log line about the peer.
const maxName = 64

// A registration is a PeerConfig that was checked. It is never changed in place.
type registration struct {
	route
	relayURLs []string         // of the route, as the service has written them
	policy    *ReconnectPolicy // with its defaults
	name      string
}

// Validate returns the error for which Register would refuse cfg: ErrNoRoute, ErrBadAddress or ErrBadOption.
func (cfg PeerConfig) Validate() error {
	_, err := cfg.check()
	return err
}

// check returns where the peer is to be dialed, or what is wrong with cfg.
func (cfg PeerConfig) check() (route, error) {
	to, err := parseRoute(cfg.Addrs, cfg.Relays)
	if err != nil {
		return route{}, err
	}
	if cfg.Reconnect != nil {
		if err := cfg.Reconnect.validate(); err != nil {
			return route{}, err
		}
	}
	return to, checkName(cfg.Name)
}

// registrationOf returns what a service says of a peer, or what is wrong with it.
func (t *MeshSyncTransport) registrationOf(cfg PeerConfig) (registration, error) {
	to, err := cfg.check()
	if err != nil {
		return registration{}, err
	}
	r := registration{route: to, policy: &t.opts.Reconnect, name: cfg.Name}
	for _, u := range cfg.Relays {
		if !slices.Contains(r.relayURLs, u) {
			r.relayURLs = append(r.relayURLs, u)
		}
	}
	if cfg.Reconnect != nil {
		policy := cfg.Reconnect.withDefaults()
		r.policy = &policy
	}
	return r, nil
}

// addrTexts returns the addresses as the service has written them.
func (r registration) addrTexts() []string {
	var texts []string
	for _, a := range r.addrs {
		texts = append(texts, a.String())
	}
	return texts
}

func checkName(name string) error {
	switch {
	case len(name) > maxName:
		return fmt.Errorf("%w: Name has %d bytes, at most %d", ErrBadOption, len(name), maxName)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: Name %q is not UTF-8", ErrBadOption, name)
	}
	for _, r := range name {
		if unicode.IsControl(r) {
			return fmt.Errorf("%w: Name %q has a control character", ErrBadOption, name)
		}
	}
	return nil
}

// nameOf returns the name of a registered peer, "" if it has none. mu is held.
func (t *MeshSyncTransport) nameOf(id PeerID) string {
	if p := t.peers[id]; p != nil && p.watchdog != nil {
		return p.watchdog.status.registration.name
	}
	return ""
}

// logOf returns the log for lines about a peer.
func (t *MeshSyncTransport) logOf(id PeerID) *slog.Logger {
	t.mu.Lock()
	name := t.nameOf(id)
	t.mu.Unlock()
	if name == "" {
		return t.log.With("peer", id.Short())
	}
	return t.log.With("peer", id.Short(), "name", name)
}

// dialsAs reports whether the peer is dialed in the same way: at the same addresses and relays, in whatever
// order, and as often.
func (r registration) dialsAs(other registration) bool {
	return sameSet(r.addrs, other.addrs) && sameSet(r.relayURLs, other.relayURLs) && *r.policy == *other.policy
}

// sameSet reports whether two lists have the same elements.
func sameSet[E comparable](a, b []E) bool {
	within := func(a, b []E) bool {
		return !slices.ContainsFunc(a, func(s E) bool { return !slices.Contains(b, s) })
	}
	return within(a, b) && within(b, a)
}

// relaysOf returns the list of one relay, or of none if its URL is "".
func relaysOf(url string) []string {
	if url == "" {
		return nil
	}
	return []string{url}
}

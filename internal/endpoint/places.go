package endpoint

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// Places counts those who are in by their own coming, and says who else may come
// in. Anybody can make up identities, as many as he likes, but not addresses: so
// strangers of one host, and of one network, have a share of the places and no
// more. Whoever owns a Places guards it with a lock.
//
// A share is a sixteenth of all places for a host, and a quarter for an IPv6 /48,
// but not less than minShare, and of few places not more than half; strangers
// through relays, whose own addresses are not known here, share a half.
type Places struct {
	most                         int
	perHost, perNetwork, relayed int

	taken    int
	hosts    map[netip.Prefix]int
	networks map[netip.Prefix]int
}

// minShare is for those whom a NAT hides: a fleet of 512 behind one gateway, and as
// many again. Whose fleet is larger raises the number of all places, or names its
// peers.
const minShare = 1024

// NewPlaces returns most places.
func NewPlaces(most int) *Places {
	half := max(most/2, 1)
	return &Places{
		most:       most,
		relayed:    half,
		perHost:    min(max(most/16, minShare), half),
		perNetwork: min(max(most/4, minShare), half),
		hosts:      make(map[netip.Prefix]int),
		networks:   make(map[netip.Prefix]int),
	}
}

// A Place is one that is taken. It stays the host's that it was taken from, also if
// who has it goes elsewhere, or else strangers could be brought in from many hosts
// and gathered at one. The zero Place is none.
type Place struct {
	host, network netip.Prefix
	taken         bool
}

// ErrNoPlace says that there is no place left, or none for that host.
var ErrNoPlace = errors.New("no place")

// Check returns why somebody at an address may not come in, an ErrNoPlace. Who is
// no stranger may whenever there is any place.
func (p *Places) Check(from net.Addr, stranger bool) error {
	if p.taken >= p.most {
		return fmt.Errorf("%w: all %d are taken", ErrNoPlace, p.most)
	}
	if !stranger {
		return nil
	}
	host, network := hostOf(from)
	perHost, perNetwork := p.perHost, p.perNetwork
	if network == virtualPrefix {
		perNetwork = p.relayed
	}
	if n := p.hosts[host]; n >= perHost {
		return fmt.Errorf("%w: %d strangers of %v have one", ErrNoPlace, n, host)
	}
	if n := p.networks[network]; n >= perNetwork {
		return fmt.Errorf("%w: %d strangers of %v have one", ErrNoPlace, n, network)
	}
	return nil
}

// Take takes a place, whether there is one or not.
func (p *Places) Take(from net.Addr) Place {
	host, network := hostOf(from)
	p.taken++
	p.hosts[host]++
	p.networks[network]++
	return Place{host, network, true}
}

// Give gives a place back.
func (p *Places) Give(place Place) {
	if !place.taken {
		return
	}
	p.taken--
	if p.hosts[place.host]--; p.hosts[place.host] == 0 {
		delete(p.hosts, place.host)
	}
	if p.networks[place.network]--; p.networks[place.network] == 0 {
		delete(p.networks, place.network)
	}
}

// Taken returns how many are taken.
func (p *Places) Taken() int { return p.taken }

// IsTaken reports whether there is a place to give back.
func (place Place) IsTaken() bool { return place.taken }

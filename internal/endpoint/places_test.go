package endpoint

import (
	"errors"
	"fmt"
	"net"
	"testing"
)

// come lets n strangers in, one after another, and returns their places and how
// many found one.
func come(p *Places, n int, from func(i int) net.Addr) (in []Place) {
	for i := range n {
		if p.Check(from(i), true) == nil {
			in = append(in, p.Take(from(i)))
		}
	}
	return in
}

func at(a net.Addr) func(int) net.Addr { return func(int) net.Addr { return a } }

func TestStrangersHaveAShareOfThePlaces(t *testing.T) {
	v64 := func(i int) net.Addr { return v6(fmt.Sprintf("2001:db8:0:1::%x", i)) }
	v48 := func(i int) net.Addr { return v6(fmt.Sprintf("2001:db8:0:%x::1", i)) }
	relayed := func(i int) net.Addr { return VirtualAddr(uint64(i)) }
	for most, want := range map[int]struct{ host, network, relayed int }{
		10_000: {1024, 2500, 5000},
		80_000: {5000, 20_000, 40_000},
		3000:   {1024, 1024, 1500}, // a fleet behind one gateway
		600:    {300, 300, 300},    // of few places half stays for others
		2:      {1, 1, 1},
		1:      {1, 1, 1},
	} {
		for name, tc := range map[string]struct {
			from func(int) net.Addr
			want int
		}{"IPv4": {at(host(1)), want.host}, "/64": {v64, want.host}, "/48": {v48, want.network}, "relayed": {relayed, want.relayed}} {
			p := NewPlaces(most)
			in := come(p, 50_000, tc.from)
			if len(in) != tc.want {
				t.Errorf("of %d places, %d strangers of one %s have one, want %d", most, len(in), name, tc.want)
			}
			err := p.Check(host(2), true)
			if most > 1 && err != nil || most == 1 && !errors.Is(err, ErrNoPlace) {
				t.Errorf("another host, with %d places: %v", most, err)
			}
			for _, place := range in {
				p.Give(place)
			}
			if p.taken+len(p.hosts)+len(p.networks) != 0 {
				t.Errorf("something is left: %+v", p)
			}
		}
	}
}

func TestThoseWhoWereNamedHaveAnyPlace(t *testing.T) {
	p := NewPlaces(100)
	come(p, 100, at(host(1)))
	for range 50 {
		if err := p.Check(host(1), false); err != nil {
			t.Fatal(err)
		}
		p.Take(host(1))
	}
	if err := p.Check(host(1), false); !errors.Is(err, ErrNoPlace) {
		t.Errorf("one too many in all: %v", err)
	}
}

package endpoint

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func hostNumber(n int) net.Addr {
	return &net.UDPAddr{IP: net.IPv4(10, byte(n>>16), byte(n>>8), byte(n)), Port: n}
}

// allowed returns how many of n packets of a host get through.
func (r *smallRate) allowed(host net.Addr, n int) (through int) {
	for range n {
		if r.allow(host) {
			through++
		}
	}
	return through
}

func TestEachHostHasAShareOfSmallPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newSmallRate()
		if n := r.allowed(hostNumber(1), 10*smallPerHost); n != smallPerHost {
			t.Errorf("%d at once, want %d", n, smallPerHost)
		}
		time.Sleep(100 * time.Millisecond)
		if n := r.allowed(hostNumber(1), 10*smallPerHost); n != smallPerHost/10 {
			t.Errorf("%d a tenth of a second later, want %d", n, smallPerHost/10)
		}
		if n := r.allowed(hostNumber(2), 100); n != 100 {
			t.Errorf("%d of another host, want all 100", n)
		}
		time.Sleep(time.Hour)
		if n := r.allowed(hostNumber(1), 10*smallPerHost); n != smallPerHost {
			t.Errorf("%d after an hour, want %d", n, smallPerHost)
		}
	})
}

func TestAllHostsTogetherAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newSmallRate()
		through := 0
		for host := range 100_000 {
			through += r.allowed(hostNumber(host), 1)
		}
		if through != smallInAll {
			t.Errorf("%d of 100,000 hosts at once, want %d", through, smallInAll)
		}
	})
}

// What one host sends too much takes nothing from the others.
func TestOneHostDoesNotUseUpWhatAllShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newSmallRate()
		r.allowed(hostNumber(0), 10*smallInAll)
		through := 0
		for host := range smallInAll {
			through += r.allowed(hostNumber(1+host), 1)
		}
		// A few share a bucket with the flooder.
		if want := smallInAll - smallPerHost - smallInAll/100; through < want {
			t.Errorf("%d of %d others, want %d", through, smallInAll, want)
		}
	})
}

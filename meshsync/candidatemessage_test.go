package meshsync

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

var testTold = []told{
	{},
	{relays: []string{"relay://relay.example:1"}},
	{addrs: []candidate{
		{hostCandidate, netip.MustParseAddrPort("192.168.0.1:4242")},
		{observedCandidate, netip.MustParseAddrPort("[2001:db8::1]:1")},
		{observedCandidate, netip.MustParseAddrPort("0.0.0.0:0")},
	}},
	fullTold(),
}

// fullTold returns as much as one message holds.
func fullTold() (m told) {
	for i := range maxTold {
		m.addrs = append(m.addrs, candidate{hostCandidate, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 2, byte(i)}), 1)})
	}
	for range maxToldRelays {
		m.relays = append(m.relays, strings.Repeat("x", maxToldURL))
	}
	return m
}

func TestCandidatesSurviveTheWire(t *testing.T) {
	for _, want := range testTold {
		m, err := readMessage(bytes.NewReader(want.frame()))
		if err != nil || m.kind != kindCandidates || !reflect.DeepEqual(m.told, want) {
			t.Errorf("got %+v, %v, want %+v", m.told, err, want)
		}
	}
	if n := len(fullTold().frame()); n != 2+maxMessage {
		t.Errorf("the longest message has %d bytes, want %d", n, 2+maxMessage)
	}
}

func TestMalformedCandidatesAreRefused(t *testing.T) {
	good := testTold[2].frame()[3:]
	change := func(i int, b byte) []byte {
		c := bytes.Clone(good)
		c[i] = b
		return c
	}
	for name, body := range map[string][]byte{
		"empty":                    {},
		"no relays":                good[:len(good)-1],
		"more addresses than said": change(0, 2),
		"less addresses than said": change(0, 4),
		"33 addresses":             append([]byte{maxTold + 1}, make([]byte, 33*candidateSize+1)...),
		"kind 0":                   change(1, 0),
		"kind 3":                   change(1, 3),
		"a relay is missing":       change(len(good)-1, 1),
		"five relays":              {0, 5, 0, 0, 0, 0, 0},
		"half a relay":             {0, 1, 3, 'a', 'b'},
		"bytes after the relays":   {0, 1, 1, 'a', 'b'},
	} {
		if m, err := readMessage(bytes.NewReader(frame(kindCandidates, body))); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %+v, %v", name, m.told, err)
		}
	}
}

// Which addresses are told and tried, and which cannot be a peer's.
func TestCandidatesThatCannotBeAPeersAreNone(t *testing.T) {
	for addr, want := range map[string]bool{
		"192.168.0.1:4242": true, "8.8.8.8:1": true, "100.64.0.1:1": true, "[2001:db8::1]:1": true, "[fd00::1]:1": true,
		"192.168.0.1:0": false, "0.0.0.0:1": false, "0.1.2.3:1": false, "[::]:1": false, "224.0.0.1:1": false,
		"[ff02::1]:1": false, "255.255.255.255:1": false, "240.0.0.1:1": false, "169.254.1.1:1": false, "[fe80::1]:1": false,
		"[fe80::1%eth0]:1": false, "[100::1]:1": false, "[::ffff:10.0.0.1]:1": false, "127.0.0.1:1": false, "[::1]:1": false,
	} {
		if got := isCandidate(netip.MustParseAddrPort(addr), false); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
	for _, addr := range []string{"127.0.0.1:1", "[::1]:1", "127.8.8.8:1"} {
		if !isCandidate(netip.MustParseAddrPort(addr), true) {
			t.Errorf("%s is none on loopback", addr)
		}
	}
	lan := netip.MustParsePrefix("192.168.7.5/24")
	for addr, want := range map[string]bool{"192.168.7.255": true, "192.168.7.0": true, "192.168.7.1": false, "192.168.8.255": false, "fd00::": false} {
		if got := isBroadcast(netip.MustParseAddr(addr), lan); got != want {
			t.Errorf("%s is broadcast in %v: %v", addr, lan, got)
		}
	}
	if isBroadcast(netip.MustParseAddr("10.0.0.1"), netip.MustParsePrefix("10.0.0.0/31")) {
		t.Error("a network of two hosts has no broadcast address")
	}
}

package relay

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
)

func TestMessagesComeBackAsTheyWere(t *testing.T) {
	w := welcome{maxWatches: 7, bytesPerSecond: 1 << 40, observed: netip.MustParseAddrPort("192.0.2.1:55")}
	v6 := netip.MustParseAddrPort("[2001:db8::1]:55")
	for name, tc := range map[string]struct {
		b    []byte
		want message
	}{
		"hello":          {appendHello(nil), message{kind: kindHello}},
		"welcome":        {appendWelcome(nil, w), message{kind: kindWelcome, welcome: w}},
		"welcome, blind": {appendWelcome(nil, welcome{}), message{kind: kindWelcome}},
		"watch":          {appendPeer(nil, kindWatch, testID(1)), message{kind: kindWatch, peer: testID(1)}},
		"unwatch":        {appendPeer(nil, kindUnwatch, testID(1)), message{kind: kindUnwatch, peer: testID(1)}},
		"present":        {appendPeer(nil, kindPresent, testID(1)), message{kind: kindPresent, peer: testID(1)}},
		"gone":           {appendPeer(nil, kindGone, testID(1)), message{kind: kindGone, peer: testID(1)}},
		"ping":           {appendNonce(nil, kindPing, 1<<63), message{kind: kindPing, nonce: 1 << 63}},
		"pong":           {appendNonce(nil, kindPong, 5), message{kind: kindPong, nonce: 5}},
		"goodbye":        {appendGoodbye(nil, 1500), message{kind: kindGoodbye, delay: 1500}},
		"close":          {appendClose(nil, codeSlow), message{kind: kindClose, code: codeSlow}},
		"observed":       {appendObserved(nil, w.observed), message{kind: kindObserved, observed: w.observed}},
		"observed, IPv6": {appendObserved(nil, v6), message{kind: kindObserved, observed: v6}},
		"blind":          {appendObserved(nil, netip.AddrPort{}), message{kind: kindObserved}},
	} {
		r := bytes.NewReader(append(bytes.Clone(tc.b), 0xff))
		b, err := readFrame(r, new([lengthSize]byte), make([]byte, maxControl))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, err := parseMessage(b); err != nil || got != tc.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if r.Len() != 1 {
			t.Errorf("%s: %d bytes are left of what followed", name, r.Len())
		}
		for cut := 1; cut < len(tc.b); cut++ {
			if _, err := readFrame(bytes.NewReader(tc.b[:cut]), new([lengthSize]byte), make([]byte, maxControl)); err == nil {
				t.Errorf("%s: %d of %d bytes were enough", name, cut, len(tc.b))
			}
		}
	}
}

func FuzzReadMessage(f *testing.F) {
	f.Add(appendHello(nil))
	f.Add(appendWelcome(nil, welcome{observed: netip.MustParseAddrPort("[2001:db8::1]:55")}))
	f.Add(appendPeer(nil, kindWatch, testID(1)))
	f.Add(appendNonce(nil, kindPing, 1))
	f.Add(appendClose(appendGoodbye(nil, 1), codeFull))
	f.Add(appendChannel(appendChannel(nil, kindReceive, testID(1), 77), kindSend, testID(2), 0))
	f.Add(appendFits(appendReady(nil, 1<<63), 1452))
	f.Add(appendTakes(nil, testID(3), 1300))
	f.Add(appendObserved(nil, netip.MustParseAddrPort("192.0.2.1:55")))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		var header [lengthSize]byte
		var buf [maxControl]byte
		for {
			before := r.Len()
			frame, err := readFrame(r, &header, buf[:])
			if err != nil {
				return
			}
			if got := before - r.Len(); got != lengthSize+len(frame) {
				t.Fatalf("%d bytes read for a message of %d", got, len(frame))
			}
			m, err := parseMessage(frame)
			if err != nil {
				if !errors.Is(err, ErrProtocol) {
					t.Fatalf("%x: %v", frame, err)
				}
				return
			}
			if back := encode(m); !bytes.Equal(back[lengthSize:], frame) && m.kind != kindWelcome && m.observed.IsValid() == (m.kind == kindObserved) {
				t.Fatalf("%x came back as %x", frame, back)
			}
		}
	})
}

// encode undoes parseMessage.
func encode(m message) []byte {
	switch m.kind {
	case kindHello:
		return appendHello(nil)
	case kindWelcome:
		return appendWelcome(nil, m.welcome)
	case kindReceive, kindSend:
		return appendChannel(nil, m.kind, m.peer, m.number)
	case kindReady:
		return appendReady(nil, m.number)
	case kindTakes:
		return appendTakes(nil, m.peer, m.size)
	case kindFits:
		return appendFits(nil, m.size)
	case kindPing, kindPong:
		return appendNonce(nil, m.kind, m.nonce)
	case kindGoodbye:
		return appendGoodbye(nil, m.delay)
	case kindClose:
		return appendClose(nil, m.code)
	case kindObserved:
		return appendObserved(nil, m.observed)
	default:
		return appendPeer(nil, m.kind, m.peer)
	}
}

func TestDatagramsAreBounded(t *testing.T) {
	id := testID(1)
	for name, tc := range map[string]struct {
		b    []byte
		good bool
	}{
		"longest packet":  {appendPacket(nil, id, make([]byte, MaxPacket)), true},
		"too long packet": {appendPacket(nil, id, make([]byte, MaxPacket+1)), false},
		"longest part":    {appendPart(nil, id[:], 1, 0, make([]byte, maxPart)), true},
		"too long part":   {appendPart(nil, id[:], 1, 0, make([]byte, maxPart+1)), false},
	} {
		if _, err := parseDatagram(tc.b); tc.good != (err == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseDatagram(f *testing.F) {
	id := testID(1)
	f.Add(appendPacket(nil, id, []byte("x")))
	f.Add(appendPacket(nil, id, make([]byte, MaxPacket)))
	f.Add(appendPart(nil, id[:], 77, 1, make([]byte, maxPart)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := parseDatagram(b)
		if err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Fatal(err)
			}
			return
		}
		back := appendPacket(nil, d.peer, d.payload)
		most := MaxPacket
		if d.kind == kindPart {
			back = appendPart(nil, d.peer[:], d.id, d.index, d.payload)
			most = maxPart
		}
		if !bytes.Equal(back, b) || len(d.payload) == 0 || len(d.payload) > most || d.index > 1 {
			t.Fatalf("%x is %+v", b, d)
		}
	})
}

package relaywire

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

func TestMessagesComeBackAsTheyWere(t *testing.T) {
	w := Welcome{MaxWatches: 7, BytesPerSecond: 1 << 40, Observed: netip.MustParseAddrPort("192.0.2.1:55")}
	v6 := netip.MustParseAddrPort("[2001:db8::1]:55")
	for name, tc := range map[string]struct {
		b    []byte
		want Message
	}{
		"hello":          {AppendHello(nil), Message{Kind: KindHello}},
		"welcome":        {AppendWelcome(nil, w), Message{Kind: KindWelcome, Welcome: w}},
		"welcome, blind": {AppendWelcome(nil, Welcome{}), Message{Kind: KindWelcome}},
		"watch":          {AppendPeer(nil, KindWatch, identity.PeerID{1}), Message{Kind: KindWatch, Peer: identity.PeerID{1}}},
		"unwatch":        {AppendPeer(nil, KindUnwatch, identity.PeerID{1}), Message{Kind: KindUnwatch, Peer: identity.PeerID{1}}},
		"present":        {AppendPeer(nil, KindPresent, identity.PeerID{1}), Message{Kind: KindPresent, Peer: identity.PeerID{1}}},
		"gone":           {AppendPeer(nil, KindGone, identity.PeerID{1}), Message{Kind: KindGone, Peer: identity.PeerID{1}}},
		"ping":           {AppendNonce(nil, KindPing, 1<<63), Message{Kind: KindPing, Nonce: 1 << 63}},
		"pong":           {AppendNonce(nil, KindPong, 5), Message{Kind: KindPong, Nonce: 5}},
		"goodbye":        {AppendGoodbye(nil, 1500), Message{Kind: KindGoodbye, Delay: 1500}},
		"close":          {AppendClose(nil, CodeSlow), Message{Kind: KindClose, Code: CodeSlow}},
		"observed":       {AppendObserved(nil, w.Observed), Message{Kind: KindObserved, Observed: w.Observed}},
		"observed, IPv6": {AppendObserved(nil, v6), Message{Kind: KindObserved, Observed: v6}},
		"blind":          {AppendObserved(nil, netip.AddrPort{}), Message{Kind: KindObserved}},
	} {
		r := bytes.NewReader(append(bytes.Clone(tc.b), 0xff))
		b, err := ReadFrame(r, new([LengthSize]byte), make([]byte, MaxControl))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, err := ParseMessage(b); err != nil || got != tc.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if r.Len() != 1 {
			t.Errorf("%s: %d bytes are left of what followed", name, r.Len())
		}
		for cut := 1; cut < len(tc.b); cut++ {
			if _, err := ReadFrame(bytes.NewReader(tc.b[:cut]), new([LengthSize]byte), make([]byte, MaxControl)); err == nil {
				t.Errorf("%s: %d of %d bytes were enough", name, cut, len(tc.b))
			}
		}
	}
}

func FuzzReadMessage(f *testing.F) {
	f.Add(AppendHello(nil))
	f.Add(AppendWelcome(nil, Welcome{Observed: netip.MustParseAddrPort("[2001:db8::1]:55")}))
	f.Add(AppendPeer(nil, KindWatch, identity.PeerID{1}))
	f.Add(AppendNonce(nil, KindPing, 1))
	f.Add(AppendClose(AppendGoodbye(nil, 1), CodeFull))
	f.Add(AppendChannel(AppendChannel(nil, KindReceive, identity.PeerID{1}, 77), KindSend, identity.PeerID{2}, 0))
	f.Add(AppendFits(AppendReady(nil, 1<<63), 1452))
	f.Add(AppendTakes(nil, identity.PeerID{3}, 1300))
	f.Add(AppendObserved(nil, netip.MustParseAddrPort("192.0.2.1:55")))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		var header [LengthSize]byte
		var buf [MaxControl]byte
		for {
			before := r.Len()
			frame, err := ReadFrame(r, &header, buf[:])
			if err != nil {
				return
			}
			if got := before - r.Len(); got != LengthSize+len(frame) {
				t.Fatalf("%d bytes read for a message of %d", got, len(frame))
			}
			m, err := ParseMessage(frame)
			if err != nil {
				if !errors.Is(err, ErrProtocol) {
					t.Fatalf("%x: %v", frame, err)
				}
				return
			}
			if back := encode(m); !bytes.Equal(back[LengthSize:], frame) && m.Kind != KindWelcome && m.Observed.IsValid() == (m.Kind == KindObserved) {
				t.Fatalf("%x came back as %x", frame, back)
			}
		}
	})
}

// encode undoes ParseMessage.
func encode(m Message) []byte {
	switch m.Kind {
	case KindHello:
		return AppendHello(nil)
	case KindWelcome:
		return AppendWelcome(nil, m.Welcome)
	case KindReceive, KindSend:
		return AppendChannel(nil, m.Kind, m.Peer, m.Number)
	case KindReady:
		return AppendReady(nil, m.Number)
	case KindTakes:
		return AppendTakes(nil, m.Peer, m.Size)
	case KindFits:
		return AppendFits(nil, m.Size)
	case KindPing, KindPong:
		return AppendNonce(nil, m.Kind, m.Nonce)
	case KindGoodbye:
		return AppendGoodbye(nil, m.Delay)
	case KindClose:
		return AppendClose(nil, m.Code)
	case KindObserved:
		return AppendObserved(nil, m.Observed)
	default:
		return AppendPeer(nil, m.Kind, m.Peer)
	}
}

func TestDatagramsAreBounded(t *testing.T) {
	id := identity.PeerID{1}
	for name, tc := range map[string]struct {
		b    []byte
		good bool
	}{
		"longest packet":  {AppendPacket(nil, id, make([]byte, MaxPacket)), true},
		"too long packet": {AppendPacket(nil, id, make([]byte, MaxPacket+1)), false},
		"longest part":    {AppendFragment(nil, id[:], 1, 0, make([]byte, MaxFragment)), true},
		"too long part":   {AppendFragment(nil, id[:], 1, 0, make([]byte, MaxFragment+1)), false},
	} {
		if _, err := ParseDatagram(tc.b); tc.good != (err == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseDatagram(f *testing.F) {
	id := identity.PeerID{1}
	f.Add(AppendPacket(nil, id, []byte("x")))
	f.Add(AppendPacket(nil, id, make([]byte, MaxPacket)))
	f.Add(AppendFragment(nil, id[:], 77, 1, make([]byte, MaxFragment)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ParseDatagram(b)
		if err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Fatal(err)
			}
			return
		}
		back := AppendPacket(nil, d.Peer, d.Payload)
		most := MaxPacket
		if d.Kind == KindFragment {
			back = AppendFragment(nil, d.Peer[:], d.ID, d.Index, d.Payload)
			most = MaxFragment
		}
		if !bytes.Equal(back, b) || len(d.Payload) == 0 || len(d.Payload) > most || d.Index > 1 {
			t.Fatalf("%x is %+v", b, d)
		}
	})
}

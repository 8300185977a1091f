package meshsync

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/internal/collision"
)

var testHellos = []hello{
	{offer: collision.Offer{Instance: collision.Instance{1, 2}, Seq: 1}},
	{offer: collision.Offer{Instance: collision.Instance{3}, Seq: 1<<64 - 1}, active: true},
	{offer: collision.Offer{Instance: collision.Instance{4}, Seq: 7}, formation: "alpha", proof: [proofSize]byte{9}},
	{offer: collision.Offer{Instance: collision.Instance{5}}, active: true, formation: strings.Repeat("x", maxFormationID), proof: [proofSize]byte{1}},
}

func TestHelloSurvivesTheWire(t *testing.T) {
	for _, h := range testHellos {
		var stream bytes.Buffer
		stream.Write(h.frame())
		stream.WriteString("what follows stays")
		m, err := readMessage(&stream)
		if err != nil || m.kind != kindHello || !reflect.DeepEqual(m.hello, h) {
			t.Errorf("got %+v, %v, want %+v", m, err, h)
		}
		if stream.String() != "what follows stays" {
			t.Errorf("%q is left", stream.String())
		}
	}
}

func TestMalformedMessagesAreRefused(t *testing.T) {
	good := testHellos[2].frame()
	change := func(i int, b byte) []byte {
		c := bytes.Clone(good)
		c[i] = b
		return c
	}
	short := func(f []byte, n int) []byte { // n bytes less, with a length that fits
		c := bytes.Clone(f[:len(f)-n])
		binary.BigEndian.PutUint16(c, uint16(len(c)-2))
		return c
	}
	for name, b := range map[string][]byte{
		"length 0":                   {0, 0},
		"length above the maximum":   {0xff, 0xff, 1},
		"unknown kind":               frame(99, nil),
		"kind 0":                     frame(0, []byte("abc")),
		"hello that is empty":        frame(kindHello, nil),
		"another version":            change(3, 2),
		"unknown flags":              change(3+25, 0x82),
		"formation longer than said": change(3+26, 4),
		"formation shorter":          change(3+26, 6),
		"formation length 0":         change(3+26, 0),
		"formation length 255":       change(3+26, 255),
		"proof cut short":            short(good, 1),
		"no proof":                   short(good, proofSize),
		"fixed part cut short":       short(testHellos[0].frame(), 1),
		"active without seq":         frame(kindActive, nil),
		"active with more":           frame(kindActive, make([]byte, 9)),
		"drain with a body":          frame(kindDrain, []byte{1}),
		"drained with a body":        frame(kindDrained, []byte{1}),
	} {
		if m, err := readMessage(bytes.NewReader(b)); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: got %+v, %v", name, m, err)
		}
	}
	if _, err := readMessage(bytes.NewReader(good[:len(good)-1])); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("stream that ends within a message: %v", err)
	}
}

func FuzzReadMessage(f *testing.F) {
	for _, h := range testHellos {
		f.Add(h.frame())
	}
	f.Add(activeFrame(5))
	f.Add(frame(kindDrain, nil))
	f.Add(frame(kindDrained, nil))
	for _, m := range testTold {
		f.Add(m.frame())
	}
	f.Add([]byte{0xff, 0xff, 1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		m, err := readMessage(r)
		read := len(b) - r.Len()
		if read > 2+maxMessage {
			t.Fatalf("read %d bytes of one message", read)
		}
		if err != nil {
			return
		}
		// What is accepted has one form only.
		var again []byte
		switch m.kind {
		case kindHello:
			again = m.hello.frame()
		case kindActive:
			again = activeFrame(m.seq)
		case kindCandidates:
			again = m.told.frame()
		default:
			again = frame(m.kind, nil)
		}
		if !bytes.Equal(again, b[:read]) {
			t.Fatalf("accepted %x, which is written %x", b[:read], again)
		}
	})
}

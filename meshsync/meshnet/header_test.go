package meshnet

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
)

func TestHeaderCarriesTheName(t *testing.T) {
	for _, name := range []string{"x", "web", "söben/β", strings.Repeat("n", 46), strings.Repeat("n", 47), strings.Repeat("n", maxName)} {
		if err := checkName(name); err != nil {
			t.Fatal(err)
		}
		var sent, got header
		sent.set(name)
		rest := strings.NewReader(string(sent.text) + "data")
		read, err := got.read(iotest.OneByteReader(rest))
		if err != nil || string(read) != name {
			t.Errorf("%.20q...: %q, %v", name, read, err)
		}
		if data, _ := io.ReadAll(rest); string(data) != "data" {
			t.Errorf("%.20q...: %q is left of the data", name, data)
		}
	}
}

// A name that has come in halfway when a deadline passes is not lost.
func TestHeaderGoesOnAfterADeadline(t *testing.T) {
	const text = "\x01\x03web"
	for cut := range len(text) {
		var h header
		if name, err := h.read(io.MultiReader(strings.NewReader(text[:cut]), iotest.ErrReader(os.ErrDeadlineExceeded))); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes: %q, %v", cut, name, err)
		}
		if name, err := h.read(strings.NewReader(text[cut:])); err != nil || string(name) != "web" {
			t.Errorf("%d bytes, and the others: %q, %v", cut, name, err)
		}
	}
}

func TestMalformedHeadersAreRefused(t *testing.T) {
	for what, b := range map[string]string{
		"nothing":         "",
		"half a prefix":   "\x01",
		"a prefix alone":  "\x01\x03",
		"another version": "\x02\x03web",
		"no name":         "\x01\x00web",
		"not UTF-8":       "\x01\x03w\xffb",
		"half a name":     "\x01\x04web",
		"HTTP":            "GET / HTTP/1.1\r\n\r\n",
	} {
		for _, r := range []io.Reader{strings.NewReader(b), iotest.DataErrReader(strings.NewReader(b))} {
			var h header
			if name, err := h.read(r); !errors.Is(err, errBadHeader) {
				t.Errorf("%s: %q, %v", what, name, err)
			}
		}
	}
}

// A header is read to its last byte and no further, whatever it is and however it comes
// in, and what is read is what would have been written.
func FuzzReadHeader(f *testing.F) {
	f.Add([]byte("\x01\x03web and data"))
	f.Add([]byte("\x01\x00"))
	f.Add([]byte("\x02\x03web"))
	f.Add([]byte("\x01\x04\xf0\x9f\x90\x99"))
	f.Add(append([]byte("\x01\xff"), bytes.Repeat([]byte("n"), maxName)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		name, err := new(header).read(r)
		for how, slow := range map[string]io.Reader{
			"byte by byte":     iotest.OneByteReader(bytes.NewReader(b)),
			"with its end":     iotest.DataErrReader(bytes.NewReader(b)),
			"half of it first": iotest.HalfReader(bytes.NewReader(b)),
		} {
			again, errAgain := new(header).read(slow)
			if !bytes.Equal(again, name) || (err == nil) != (errAgain == nil) {
				t.Fatalf("%q, %v at once and %q, %v %s", name, err, again, errAgain, how)
			}
		}
		if err != nil {
			if !errors.Is(err, errBadHeader) {
				t.Fatal(err)
			}
			return
		}
		if err := checkName(string(name)); err != nil {
			t.Fatal(err)
		}
		var written header
		written.set(string(name))
		if !bytes.HasPrefix(b, written.text) || r.Len() != len(b)-len(written.text) {
			t.Fatalf("%q was read of %q, and %d bytes are left", name, b, r.Len())
		}
	})
}

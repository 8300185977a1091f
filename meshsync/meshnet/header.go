package meshnet

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// What travels first on a stream of a service, from the side that opened it:
//
//	version  1 byte   headerVersion
//	length   1 byte   of the name, 1 to 255
//	name     length   UTF-8
//
// The stream's data follow at once; nothing is sent back.
const (
	headerVersion = 1
	headerPrefix  = 2   // bytes before the name
	maxName       = 255 // bytes: what one byte of length can say
)

// The codes of STOP_SENDING and RESET_STREAM (RFC 9000 section 20.2) that end a
// stream of a service before its time. They begin with "mn", so that a peer whose
// Handler is no Mux, and cancels streams with codes of its own, is not understood to
// say one of these.
const (
	codeClosed    quic.StreamErrorCode = 0x6d6e00 // the conn was closed: nobody reads what is still sent
	codeNoService quic.StreamErrorCode = 0x6d6e01 // nobody listens under the name
	codeBusy      quic.StreamErrorCode = 0x6d6e02 // too many wait to be accepted
	codeMalformed quic.StreamErrorCode = 0x6d6e03 // not a header, or one of another version
	codeLate      quic.StreamErrorCode = 0x6d6e04 // the header was not complete in time
)

// ErrNoService says that the peer has no such service: nobody listens there under
// the name, or the listener was closed before it accepted the conn.
var ErrNoService = errors.New("peer has no such service")

var (
	errPeerClosed = errors.New("closed by the peer")
	errLate       = errors.New("peer did not get the name of the service in time")
	errBadHeader  = errors.New("malformed name of a service")
)

// meanings pairs each code with what it means on the side that receives it.
var meanings = []struct {
	code quic.StreamErrorCode
	err  error
}{
	{codeClosed, errPeerClosed},
	{codeNoService, ErrNoService},
	{codeBusy, meshsync.ErrBusy},
	{codeMalformed, meshsync.ErrProtocol},
	{codeLate, errLate},
}

// codeFor returns the code that tells the other side about err.
func codeFor(err error) quic.StreamErrorCode {
	for _, m := range meanings {
		if errors.Is(err, m.err) {
			return m.code
		}
	}
	return codeMalformed
}

// checkName says what is wrong with the name of a service.
func checkName(service string) error {
	switch {
	case service == "":
		return errors.New("the name of the service is empty")
	case len(service) > maxName:
		return fmt.Errorf("the name of the service has %d bytes, more than %d; it begins with %.20q", len(service), maxName, service)
	case !utf8.ValidString(service):
		return fmt.Errorf("the name of the service is not UTF-8: %q", service)
	}
	return nil
}

// A header is what travels first, as far as it has been read, or to be written.
type header struct {
	// text is in inline, unless the name is longer than usual: then it has an array
	// of its own.
	text   []byte
	inline [48]byte
}

// set makes h the header of a service, whose name has been checked.
func (h *header) set(service string) {
	h.text = append(h.inline[:0], headerVersion, byte(len(service)))
	h.text = append(h.text, service...)
}

// read reads the header, and no byte more, and returns the name. It fails with
// errBadHeader, and with what Read fails with; it may be called again after a deadline,
// and goes on where it was.
func (h *header) read(r io.Reader) (name []byte, err error) {
	if h.text == nil {
		h.text = h.inline[:0]
	}
	missing, err := h.missing()
	for err == nil && missing > 0 {
		got := len(h.text)
		h.text = slices.Grow(h.text, missing)
		n, readErr := r.Read(h.text[got : got+missing])
		h.text = h.text[:got+n]
		if missing, err = h.missing(); err == nil && missing > 0 && readErr != nil {
			return nil, cutShort(readErr)
		}
	}
	if err != nil {
		return nil, err
	}
	if name = h.text[headerPrefix:]; !utf8.Valid(name) {
		return nil, fmt.Errorf("%w: it is not UTF-8", errBadHeader)
	}
	return name, nil
}

// missing returns how many bytes are to be read, as far as that is known: at first those
// of the prefix. It is zero when the header is complete.
func (h *header) missing() (int, error) {
	got := len(h.text)
	if got < headerPrefix {
		return headerPrefix - got, nil
	}
	version, length := h.text[0], int(h.text[1])
	if version != headerVersion {
		return 0, fmt.Errorf("%w: version %d, want %d", errBadHeader, version, headerVersion)
	}
	if length == 0 {
		return 0, fmt.Errorf("%w: it is empty", errBadHeader)
	}
	return headerPrefix + length - got, nil
}

// cutShort says what an error in the middle of a header means: its end does not
// belong there.
func cutShort(err error) error {
	if err == io.EOF {
		return fmt.Errorf("%w: %w", errBadHeader, io.ErrUnexpectedEOF)
	}
	return err
}

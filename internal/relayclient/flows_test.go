package relayclient

import (
	"encoding/binary"
	"testing"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
)

// Whatever comes beside the connection under whatever number, a client takes only what its relay announced.
func FuzzUnwrap(f *testing.F) {
	f.Add([]byte{5, 0, 0, 0, 0, 0, 0, 0, 1, 0x40, 'x'})
	f.Add([]byte{5, 0, 0, 0, 0, 0, 0, 0, 1, 0})
	f.Add([]byte{5, 0, 0, 0, 0, 0, 0, 0, 2, 'x'})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		c := new(Client)
		c.conn.Open(new(closedLink), relaylink.Callbacks{AppendControl: c.appendControl, Unsent: func(int) {}}, &c.buffers, &c.wait)
		c.Close() // nothing is to be written
		c.channels.setReceive(testID(1), 1)
		from, packet, ok := c.Unwrap(b)
		mine := len(b) > endpoint.ForwardedHeader && binary.BigEndian.Uint64(b[1:]) == 1 && b[endpoint.ForwardedHeader] != 0
		if ok != mine || (ok && (from != testID(1) || len(packet) != len(b)-endpoint.ForwardedHeader)) {
			t.Fatalf("%x is taken: %v", b, ok)
		}
	})
}

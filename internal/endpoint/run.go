package endpoint

import (
	"net"
)

// writeEach sends datagrams of the given size, the last of which may be shorter, one
// by one, until one cannot be sent.
func (d *socketBase) writeEach(b []byte, size int, write func(p []byte) error) (sent int, err error) {
	for rest := (arrival{b: b, size: size}); len(rest.b) > 0; sent++ {
		p := rest.next()
		if err := write(p); err != nil {
			return sent, err
		}
		d.counts.sent.Add(uint64(len(p)))
	}
	return sent, nil
}

func (s *packetSocket) writeRun(b []byte, size int, to, _ net.Addr) (sent int, err error) {
	return s.writeEach(b, size, func(p []byte) error {
		_, err := s.pc.WriteTo(p, to)
		return err
	})
}

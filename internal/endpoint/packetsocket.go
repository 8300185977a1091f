package endpoint

import "net"

// packetSocket is any other packet connection.
type packetSocket struct {
	net.PacketConn
	*socketBase
}

// SetReadBuffer passes on quic-go's wish for a larger buffer.
func (s *packetSocket) SetReadBuffer(bytes int) error {
	if c, ok := s.PacketConn.(interface{ SetReadBuffer(int) error }); ok {
		return c.SetReadBuffer(bytes)
	}
	return nil // what has no buffer has none that is too small
}

// SetWriteBuffer does the same for what is sent.
func (s *packetSocket) SetWriteBuffer(bytes int) error {
	if c, ok := s.PacketConn.(interface{ SetWriteBuffer(int) error }); ok {
		return c.SetWriteBuffer(bytes)
	}
	return nil
}

func (s *packetSocket) ReadFrom(b []byte) (int, net.Addr, error) { return s.readFrom(b) }

func (s *packetSocket) WriteTo(b []byte, addr net.Addr) (int, error) { return s.writeTo(b, addr) }

func (s *packetSocket) detach() {}

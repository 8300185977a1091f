package relay

import "github.com/defenseunicorns/peat-mesh-go/internal/endpoint"

// answerProbes tells those who look for this relay that it is there, without a
// handshake, until the server closes. quic-go queues 32 probes and drops the
// rest.
func (s *Server) answerProbes() {
	var b [endpoint.ProbeSize + 1]byte // one more, to tell what is too long
	for {
		n, from, err := s.endpoint.QUIC.ReadNonQUICPacket(s.ctx, b[:])
		if err != nil {
			return
		}
		if answer := s.endpoint.AnswerProbe(b[:n], from, s.id); answer != nil {
			s.endpoint.QUIC.WriteTo(answer, from) // lost is lost
		}
	}
}

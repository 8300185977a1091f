package relaywire

// A Carrier is what carries a connection to a relay.
type Carrier string

// The carriers.
const (
	CarrierUDP Carrier = "udp" // QUIC
	CarrierTCP Carrier = "tcp" // TLS over TCP, where UDP is blocked
)

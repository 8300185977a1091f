package relay

import "github.com/defenseunicorns/peat-mesh-go/internal/relaywire"

// A URL names a relay: relay://<id>@host:port, whose key is pinned, or
// relay://host:port, whose certificate the authorities of the web vouch for.
//
// Its fields are ID, an identity.PeerID that is zero if any relay will do that has a
// certificate for Host; Host, a name or an IP address, without brackets; and Port, a
// uint16. String returns it as ParseURL takes it, HostPort host:port with an IPv6 address
// in brackets.
type URL = relaywire.URL

// ParseURL reads a relay URL. It fails with ErrBadURL for anything but the two
// forms of URL: IPv6 addresses stand in brackets, the port is 1 to 65535, and
// there is no password, path, query or fragment.
func ParseURL(s string) (URL, error) { return relaywire.ParseURL(s) }

// A Carrier is what carries a connection to a relay, a string: "udp" or "tcp".
type Carrier = relaywire.Carrier

// The carriers.
const (
	CarrierUDP = relaywire.CarrierUDP // QUIC
	CarrierTCP = relaywire.CarrierTCP // TLS over TCP, where UDP is blocked
)

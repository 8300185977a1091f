package relaywire

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

const urlScheme = "relay"

// A URL names a relay: relay://<id>@host:port, whose key is pinned, or
// relay://host:port, whose certificate the authorities of the web vouch for.
type URL struct {
	// ID is the relay's identity; zero: any that has a certificate for Host.
	ID   identity.PeerID
	Host string // a name or an IP address, without brackets
	Port uint16
}

// maxURL bounds what ParseURL looks at: a DNS name has at most 253 characters
// (RFC 1035 section 2.3.4), an identity 64.
const maxURL = 512

// ParseURL reads a relay URL. It fails with ErrBadURL for anything but the two
// forms of URL: IPv6 addresses stand in brackets, the port is 1 to 65535, and
// there is no password, path, query or fragment.
func ParseURL(s string) (URL, error) {
	bad := func(format string, args ...any) (URL, error) {
		return URL{}, fmt.Errorf("%w %q: %w", ErrBadURL, clip(s), fmt.Errorf(format, args...))
	}
	if len(s) > maxURL {
		return bad("%d characters, at most %d", len(s), maxURL)
	}
	u, err := url.Parse(s)
	if err != nil {
		if inner, ok := err.(*url.Error); ok {
			err = inner.Err // the URL is quoted already
		}
		return bad("%w", err)
	}
	// url.Parse loses an empty query or fragment, so those are looked for here.
	if u.Scheme != urlScheme || u.Opaque != "" || u.Path != "" || strings.ContainsAny(s, "?#") {
		return bad("want relay://<id>@host:port or relay://host:port")
	}
	var out URL
	if u.User != nil {
		if _, has := u.User.Password(); has {
			return bad("a password has no place in it")
		}
		if out.ID, err = identity.Parse(u.User.Username()); err != nil {
			return bad("%w", err)
		}
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		return bad("%w", err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return bad("port %q is not 1 to 65535", clip(port))
	}
	out.Host, out.Port = host, uint16(n)
	if err := CheckURL(out); err != nil {
		return bad("%w", err)
	}
	return out, nil
}

// CheckURL reports what is wrong with the fields of a URL that was not read by ParseURL.
func CheckURL(u URL) error {
	switch {
	case u.Host == "" || len(u.Host) > maxURL || strings.ContainsAny(u.Host, " /@[]?#\x00"):
		return fmt.Errorf("host %q cannot be one", clip(u.Host))
	case u.Port == 0:
		return errors.New("port 0 is not 1 to 65535")
	}
	return nil
}

// AddrOf returns where the relay is if the URL's host is an IP address.
func AddrOf(u URL) (ap netip.AddrPort, ok bool) {
	ip, err := netip.ParseAddr(u.Host)
	return netip.AddrPortFrom(ip.Unmap(), u.Port), err == nil
}

// clip keeps a refused value from flooding the error that names it.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// String returns the URL as ParseURL takes it.
func (u URL) String() string {
	// An IPv6 zone's percent sign is escaped in a URL (RFC 6874 section 2).
	hostPort := strings.ReplaceAll(u.HostPort(), "%", "%25")
	if u.ID.IsZero() {
		return urlScheme + "://" + hostPort
	}
	return urlScheme + "://" + u.ID.String() + "@" + hostPort
}

// HostPort returns host:port, with an IPv6 address in brackets.
func (u URL) HostPort() string {
	return net.JoinHostPort(u.Host, strconv.Itoa(int(u.Port)))
}

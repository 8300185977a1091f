package statuspage

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/netip"
	"strings"
)

// canonicalHost returns a host name in the form in which names are compared: in lower case, without the dot of
// the root and the brackets of an IPv6 address.
func canonicalHost(h string) string {
	h = strings.TrimSuffix(strings.ToLower(h), ".")
	if strings.HasPrefix(h, "[") && strings.HasSuffix(h, "]") {
		h = h[1 : len(h)-1]
	}
	return h
}

// isIP reports whether a host is an address. No name can be made to resolve to this host and be one.
func isIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// isForeign reports whether another web site makes the request, or a frame, and not a person who opens the page
// (Fetch Metadata, https://www.w3.org/TR/fetch-metadata/). What is no browser, and one from before 2023, does not say; those
// browsers do not let a site read what another one answers, as no header here allows it.
func isForeign(r *http.Request) bool {
	h := r.Header
	switch h.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return h.Get("Sec-Fetch-Dest") != "" && isEmbedded(h.Get("Sec-Fetch-Dest"))
	default: // same-site is another service, which may be anybody's
		return h.Get("Sec-Fetch-Mode") != "navigate" || h.Get("Sec-Fetch-Dest") != "document"
	}
}

// isEmbedded reports whether what is fetched is to be shown within another page.
func isEmbedded(dest string) bool {
	switch dest {
	case "iframe", "frame", "embed", "object":
		return true
	default:
		return false
	}
}

// contentPolicy allows the page its own script and style by their hashes, the JSON of the same origin and the icon, and
// nothing else (https://www.w3.org/TR/CSP3/).
func contentPolicy() string {
	return strings.Join([]string{
		"default-src 'none'",
		"script-src '" + hashOf(wordsScript+pageScript) + "'",
		"style-src '" + hashOf(style) + "'",
		"connect-src 'self'",
		"img-src data:",
		"base-uri 'none'",
		"form-action 'none'",
		"frame-ancestors 'none'",
	}, "; ")
}

func hashOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// setHeaders sets what every answer has.
func (p *Page) setHeaders(h http.Header) {
	h.Set("Content-Security-Policy", p.policy)
	h.Set("X-Frame-Options", "DENY") // for browsers without frame-ancestors
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Vary", "Accept-Encoding")
}

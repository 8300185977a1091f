// Package statuspage shows people how a mesh is: an http.Handler that a service mounts where
// it likes.
//
//	page, err := statuspage.New(t, statuspage.Options{})
//	if err != nil { ... }
//	defer page.Close()
//	http.Handle("/status", page)
//
// The page has the node, its relays, and each peer with its state, health, paths and outages, those
// in trouble first, and a timeline of the last eight hours. It refreshes itself. The same is JSON
// under ?format=json: fields may be added to it, and none is removed or changes its meaning.
//
// # Who may see it
//
// The page tells who the peers are and where: addresses, relays, IDs, names, and why connections
// ended. It has no key and no secret, and nothing of the formation. It asks nobody for a password: serve it on
// loopback or a management network, or put the service's own authentication before it.
//
// What it defends against itself are the other web pages that an operator's browser has open. It answers GET and
// HEAD only, and changes nothing. A name in the Host header that it does not know gets nothing (DNS rebinding); an
// IP address, localhost, and Options.Hosts are known. A request that another site makes gets nothing unless it
// is a person's following a link (Fetch Metadata, Sec-Fetch-Site), and no site may frame the page. Nothing is
// loaded from elsewhere.
//
// Behind a reverse proxy, list the name that the proxy passes on as Host, which is its own public name if it keeps the
// header. X-Forwarded-Host is not looked at. A service whose authentication a browser does not bring along by itself for another
// name, as it does not with cookies and passwords, may allow every name: Hosts: []string{"*"}.
//
// # What it costs
//
// All who look share one look at the transport in a second, and none is taken while nobody looks. What is kept of a
// peer is less than 2 KB: see Page.
package statuspage

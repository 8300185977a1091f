// Package interop is nothing but tests: servers and clients of others, as they are, over
// the conns of package meshnet. It is a module of its own, so that what they require is
// required of nobody else.
package interop

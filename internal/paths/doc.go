// Package paths holds what belongs to the paths of one connection, between the
// transport above and the socket (package endpoint) below. QUIC sees one
// connection with one remote address; its packets go over whichever path is the
// best now, and only this package knows.
//
//	ping.go       the authenticated questions and answers that prove a path
//	replay.go     each of them is taken once
//	choice.go     which path is best
//	path.go       one path's life: what happens to it
//	role.go       where it leads, and what it is for
//	advance.go    what it asks for, and when
//	silence.go    when silence is suspicious
//	intake.go     what comes and says nothing, because QUIC refuses it
//	width.go      how long packets may be on it
//	fragment.go   packets that are longer than that
//	binding.go    what belongs to one connection, and where its packets go
//	known.go      which paths it knows of
//	settle.go     when it moves to another path
//	tail.go       the last packets that it has sent
//	resend.go     and when these are sent again
//	loss.go       when it leaves one that loses too much
//	candidate.go  the addresses that the other side tells, and what may be sent there
//
// Nothing in these reads a clock, starts a goroutine, sets a timer or sends a packet:
// the caller says what has happened and what time it is, and is told what to send
// and when to come again. So nothing there is safe for concurrent use either. The caller
// is in four files more, which know of no rule above:
//
//	layer.go      the names that QUIC knows, and the ways that they stand for
//	bound.go      a binding with a lock, an alarm, and names
//	status.go     how things stand with its paths
//	pass.go       each packet of QUIC, out and in
package paths

package netmon

// A Cause is what has changed. Of several it is the greatest.
type Cause int

const (
	// Unknown: messages of the system were lost, or the state could not be read.
	Unknown Cause = iota + 1
	// Route: packets may go another way. A rule that chooses between tables of routes counts as well.
	Route
	// Address: one came, went, or is not for new packets any more.
	Address
	// Link: one with addresses has come up, has gone down, or both.
	Link
	// Resume: the machine was suspended.
	Resume
)

// Causes are all there are.
var Causes = []Cause{Unknown, Route, Address, Link, Resume}

// none is the cause of no change.
const none Cause = 0

// String returns the cause in a word in lower case, as logs and metrics have it.
func (c Cause) String() string {
	switch c {
	case Unknown:
		return "unknown"
	case Route:
		return "route"
	case Address:
		return "address"
	case Link:
		return "link"
	case Resume:
		return "resume"
	default:
		return "none"
	}
}

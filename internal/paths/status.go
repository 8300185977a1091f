package paths

import "time"

// A Status is how things stand with a path.
type Status struct {
	Route     Route
	State     State
	Active    bool
	RTT       time.Duration // smoothed; 0: not measured
	LastHeard time.Time     // zero: nothing has come over it
}

// Paths returns all paths, the active one first.
func (b *Bound) Paths() []Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]Status, 1, len(b.binding.paths))
	for _, p := range b.binding.paths {
		s := Status{Route: p.route, State: p.state, RTT: p.srtt, LastHeard: p.heard}
		if s.Active = p == b.binding.active; s.Active {
			all[0] = s
		} else {
			all = append(all, s)
		}
	}
	return all
}

package paths

import (
	"slices"
	"time"
)

// Know adds routes that may lead to the peer, to be tried at once.
func (b *Binding) Know(routes []Route, now time.Time) Out {
	for _, r := range routes {
		p := b.path(r)
		if p == nil {
			p = b.add(r, now)
		}
		p.Named()
	}
	return b.Advance(now)
}

// Replace is Know for all addresses that this side names from now on: others are not named any more.
func (b *Binding) Replace(addrs []Route, now time.Time) Out {
	for _, p := range b.paths {
		p.named = p.named && p.route.Kind != Direct
	}
	return b.Know(addrs, now)
}

// forget drops paths that nobody names and that do not work, while a direct path is in use.
func (b *Binding) forget(now time.Time) {
	if b.active.route.Kind != Direct {
		return
	}
	before := len(b.paths)
	b.paths = slices.DeleteFunc(b.paths, func(p *Path) bool {
		return !p.named && !p.offered && (p.state == Unproven || p.state == Failed) && now.Sub(p.since) >= forgetAfter
	})
	b.replaced = b.replaced || len(b.paths) < before
}

// add adds a path. If there are too many, it drops one that this side does not name, and of those the one that
// was proven longest ago, or never. So a peer cannot push out the addresses of a registration.
func (b *Binding) add(route Route, now time.Time) *Path {
	if len(b.paths) == MaxPaths {
		oldest := -1
		for i, p := range b.paths {
			if p != b.active && (oldest < 0 || p.isWorthLess(b.paths[oldest])) {
				oldest = i
			}
		}
		b.paths = slices.Delete(b.paths, oldest, oldest+1)
		b.replaced = true
	}
	p := NewPath(route, now)
	p.Want(b.longest)
	b.paths = append(b.paths, p)
	return p
}

func (b *Binding) path(route Route) *Path {
	for _, p := range b.paths {
		if p.route == route {
			return p
		}
	}
	return nil
}

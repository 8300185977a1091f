package meshsync

import (
	"fmt"
	"strings"
	"time"
)

// String tells of an event in a line for people, which may change from version to version.
func (ev Event) String() string {
	var b strings.Builder
	b.WriteString(ev.Peer.Short())
	if ev.Name != "" {
		fmt.Fprintf(&b, " (%s)", ev.Name)
	}
	b.WriteString(": " + ev.Kind.String())
	for _, part := range ev.parts() {
		b.WriteString(", " + part)
	}
	if ev.Err != nil {
		b.WriteString(": " + ev.Err.Error())
	}
	return b.String()
}

// parts returns what is particular to the kind of event.
func (ev Event) parts() (parts []string) {
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	switch ev.Kind {
	case EventConnected:
		add("path %s", ev.Path.Kind)
		if ev.Outage > 0 {
			add("outage %v", ev.Outage.Round(time.Millisecond))
		}
	case EventDisconnected:
		add("after %v", ev.Connected.Round(time.Millisecond))
		if ev.WillRetry {
			add("will retry")
		}
	case EventDialing, EventDialFailed, EventGaveUp:
		add("attempt %d", ev.Attempt)
		if ev.WillRetry {
			add("retry in %v", ev.Retry.Round(time.Millisecond))
		}
	case EventPathChanged:
		add("from %s %s to %s %s", ev.OldPath.Kind, ev.OldPath.name(), ev.Path.Kind, ev.Path.name())
	case EventHealthChanged:
		add("health %s", ev.Health)
	}
	if ev.Missed > 0 {
		add("%d events missed before", ev.Missed)
	}
	return parts
}

package happyeyeballs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"
)

func addrs(t *testing.T, all ...string) (ips []netip.Addr) {
	t.Helper()
	for _, s := range all {
		ips = append(ips, netip.MustParseAddr(s))
	}
	return ips
}

func TestIPv6AndIPv4TakeTurns(t *testing.T) {
	records := addrs(t, "10.0.0.1", "10.0.0.2", "::ffff:10.0.0.3", "2001:db8::1", "2001:db8::9")
	usable := func(ip netip.Addr) bool { return ip != netip.MustParseAddr("2001:db8::9") }
	got := fmt.Sprint(Addresses(records, 7, usable))
	if want := "[[2001:db8::1]:7 10.0.0.1:7 10.0.0.2:7 10.0.0.3:7]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestNoMoreThanMaxRecordsCount(t *testing.T) {
	var records []netip.Addr
	for i := range byte(MaxRecords + 5) {
		records = append(records, netip.AddrFrom4([4]byte{10, 0, 0, i}))
	}
	if n := len(Addresses(records, 7, func(netip.Addr) bool { return true })); n != MaxRecords {
		t.Errorf("%d of %d records are used, want %d", n, len(records), MaxRecords)
	}
}

func TestHellosHaveSomeRoundTrips(t *testing.T) {
	for handshake, want := range map[time.Duration]time.Duration{0: time.Second, 300 * time.Millisecond: time.Second, time.Second: 3 * time.Second} {
		if got := HelloTimeout(handshake); got != want {
			t.Errorf("after a handshake of %v they have %v, want %v", handshake, got, want)
		}
	}
}

func TestSilenceIsTold(t *testing.T) {
	refused, called := errors.New("connection refused"), errors.New("called off")
	over, cancel := context.WithCancelCause(t.Context())
	cancel(called)
	for _, tc := range []struct {
		ctx    context.Context
		err    error
		silent bool
	}{
		{t.Context(), os.ErrDeadlineExceeded, true},
		{t.Context(), fmt.Errorf("read: %w", context.DeadlineExceeded), true},
		{t.Context(), refused, false},
		{t.Context(), called, false},
		{over, called, true},
		{over, refused, false},
	} {
		err := Silence(tc.ctx, tc.err, time.Minute)
		if silent := errors.Is(err, context.DeadlineExceeded) && err.Error() == "no answer within 1m0s"; silent != tc.silent || (!silent && err != tc.err) {
			t.Errorf("%v became %v", tc.err, err)
		}
	}
}

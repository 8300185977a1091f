package endpoint

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"testing"
)

// host returns the n-th of many IPv4 addresses.
func host(n int) *net.UDPAddr {
	return &net.UDPAddr{IP: net.IPv4(10, byte(n>>16), byte(n>>8), byte(n)), Port: 1}
}

func v6(s string) *net.UDPAddr { return &net.UDPAddr{IP: net.ParseIP(s), Port: 1} }

// A waitingRoom takes places in a Limit and remembers who had to give way.
type waitingRoom struct {
	t *testing.T
	*Limit
	known  *Known
	slots  []*Slot
	ousted []string // what take was called with
}

func newWaitingRoom(t *testing.T, b Bounds) *waitingRoom {
	known := NewKnown()
	return &waitingRoom{t: t, Limit: NewLimit(b, known), known: known}
}

func (r *waitingRoom) take(name string, from net.Addr) error {
	s, err := r.Take(from, func() { r.ousted = append(r.ousted, name) })
	if err == nil {
		r.slots = append(r.slots, s)
	}
	return err
}

func (r *waitingRoom) mustTake(name string, from net.Addr) {
	r.t.Helper()
	if err := r.take(name, from); err != nil {
		r.t.Fatalf("%s: %v", name, err)
	}
}

func (r *waitingRoom) fill(n int, name string, from net.Addr) {
	r.t.Helper()
	for i := range n {
		r.mustTake(fmt.Sprint(name, i), from)
	}
}

// hasOusted checks who had to give way since the last call.
func (r *waitingRoom) hasOusted(want ...string) {
	r.t.Helper()
	if fmt.Sprint(r.ousted) != fmt.Sprint(want) {
		r.t.Errorf("%v gave way, want %v", r.ousted, want)
	}
	r.ousted = nil
}

// empty gives every slot back, and checks that nothing is left.
func (r *waitingRoom) empty() {
	r.t.Helper()
	for _, s := range r.slots {
		s.Release()
		s.Release()
	}
	if n := r.Count(); n != 0 || r.dying != 0 {
		r.t.Errorf("%d slots are taken, %d are dying", n, r.dying)
	}
	for i := range r.pools {
		if p := &r.pools[i]; len(p.members)+len(p.order) != 0 {
			r.t.Errorf("%d networks are left in pool %d", len(p.members), i)
		}
	}
}

var smallBounds = Bounds{All: 12, Kept: 2, PerHost: 5, PerNetwork: 8, PerVirtual: 2, Relayed: 6, Dying: 100}

func TestAHostHasNoMoreThanItsBound(t *testing.T) {
	r := newWaitingRoom(t, smallBounds)
	r.fill(5, "a", host(1))
	if err := r.take("a", host(1)); !errors.Is(err, ErrTooMany) {
		t.Errorf("one too many: %v", err)
	}
	r.mustTake("b", host(2))
	r.hasOusted() // its own handshakes neither
	r.empty()
}

func TestAnIPv6HostIsA64AndItsNetworkA48(t *testing.T) {
	r := newWaitingRoom(t, smallBounds)
	for i := range 5 {
		r.mustTake("a", v6(fmt.Sprintf("2001:db8:0:1::%d", i)))
	}
	if err := r.take("a", v6("2001:db8:0:1::ffff")); err == nil {
		t.Error("another address of the same /64 was let in")
	}
	r.mustTake("b0", v6("2001:db8:0:2::1"))
	r.mustTake("b1", v6("2001:db8:0:3::1"))
	r.mustTake("b2", v6("2001:db8:0:4::1"))
	r.hasOusted()
	r.mustTake("b3", v6("2001:db8:0:5::1")) // the /48 is full: its fullest /64 makes room
	r.hasOusted("a")
	r.mustTake("c", v6("2001:db8:1::1"))
	r.hasOusted()
	r.empty()
}

func TestWhenRoomIsShortTheOldestOfTheHostWithTheMostGivesWay(t *testing.T) {
	r := newWaitingRoom(t, smallBounds)
	r.fill(4, "a", host(1))
	r.fill(5, "b", host(2))
	r.fill(3, "c", host(3))
	r.mustTake("d", host(4))
	r.hasOusted("b0")
	r.mustTake("e", host(5)) // a and b have 4
	r.mustTake("f", host(6))
	if len(r.ousted) != 2 || r.ousted[0][0] == r.ousted[1][0] {
		t.Errorf("%v gave way, want one of a and one of b", r.ousted)
	}
	r.empty()
}

// A network of many hosts is not better off than one host.
func TestTheNetworkWithTheMostGivesWayFirst(t *testing.T) {
	r := newWaitingRoom(t, smallBounds)
	r.fill(4, "a", host(1))
	for i := range 8 {
		r.mustTake("n", v6(fmt.Sprintf("2001:db8:0:%d::1", i)))
	}
	r.mustTake("b", host(2))
	r.hasOusted("n")
	r.empty()
}

// A newcomer gets the place of nobody who would then have less: or else a crowd would throw
// away one handshake for another, without end.
func TestHostsWithTheSameDoNotOustEachOther(t *testing.T) {
	r := newWaitingRoom(t, smallBounds)
	for i := range 6 {
		r.fill(2, fmt.Sprint(i, "."), host(i))
	}
	for i := range 6 {
		if err := r.take("again", host(i)); !errors.Is(err, ErrTooMany) {
			t.Errorf("host %d got a third: %v", i, err)
		}
	}
	r.hasOusted()
	for i := range 6 {
		r.mustTake("new", host(10+i)) // in place of one of two
	}
	if len(r.ousted) != 6 {
		t.Errorf("%d gave way, want 6", len(r.ousted))
	}
	if err := r.take("late", host(20)); !errors.Is(err, ErrTooMany) || len(r.ousted) != 6 {
		t.Errorf("all have one, and another gets: %v; %d gave way", err, len(r.ousted))
	}
	r.empty()
}

func TestKnownHostsHavePlacesThatStrangersCannotTake(t *testing.T) {
	r := newWaitingRoom(t, smallBounds)
	for i := range 10 {
		r.known.Note(host(100+i), false)
		r.known.Note(host(200+i), true)
	}
	for i := range 12 { // so many hosts that none has more than another
		r.mustTake("stranger", host(i))
	}
	if err := r.take("stranger", host(12)); !errors.Is(err, ErrTooMany) {
		t.Errorf("a stranger: %v", err)
	}
	for i := range 3 {
		if err := r.take("known", host(100+i)); (err == nil) != (i < 2) {
			t.Errorf("known host %d: %v", i, err)
		}
	}
	for i := range 3 {
		if err := r.take("named", host(200+i)); (err == nil) != (i < 2) {
			t.Errorf("named host %d: %v", i, err)
		}
	}
	r.hasOusted()
	r.empty()
}

// Who can make up identities can make hosts known, but not displace named ones.
func TestAKnownHostIsForgottenForNewerOnesOfItsKindOnly(t *testing.T) {
	k := NewKnown()
	k.Note(host(0), true)
	for i := range maxKnown + 1 {
		k.Note(host(1+i), false)
	}
	for n, want := range map[int]standing{0: named, 1: stranger, 2: authenticated, maxKnown + 1: authenticated, maxKnown + 2: stranger} {
		p, _ := hostOf(host(n))
		if got := k.standing(p); got != want {
			t.Errorf("host %d: standing %d, want %d", n, got, want)
		}
	}
	if n := k.others.hosts.Len(); n != maxKnown || len(k.others.elements) != n {
		t.Errorf("%d and %d hosts are remembered", n, len(k.others.elements))
	}
}

func TestWhatGaveWayAndHasNotEndedIsBounded(t *testing.T) {
	b := smallBounds
	b.Dying = 2
	r := newWaitingRoom(t, b)
	r.fill(5, "a", host(1))
	r.fill(5, "b", host(2))
	r.fill(2, "c", host(3))
	r.mustTake("d", host(4))
	r.mustTake("e", host(5))
	if err := r.take("f", host(6)); !errors.Is(err, ErrTooMany) {
		t.Errorf("with two that have not ended: %v", err)
	}
	for _, s := range r.slots {
		if s.state == slotLost {
			if s.Release() {
				t.Error("one that gave way was told that it has its slot")
			}
			break
		}
	}
	r.mustTake("f", host(6))
	r.empty()
}

func TestASlotIsBoundUntilItIsReleased(t *testing.T) {
	r := newWaitingRoom(t, Bounds{All: 4, PerHost: 4, PerNetwork: 4, Dying: 4})
	r.fill(4, "a", host(1))
	closed := 0
	if !r.slots[0].Bind(func() { closed++ }) {
		t.Fatal("a slot that is held cannot be bound")
	}
	r.mustTake("b", host(2))
	if r.hasOusted(); closed != 1 {
		t.Errorf("closed %d times", closed)
	}
	if r.slots[0].Bind(func() {}) || r.slots[0].Release() {
		t.Error("a slot that was lost can be bound or released")
	}
	for range 2 {
		if !r.slots[1].Release() {
			t.Error("a slot that was held was lost")
		}
	}
	if r.slots[1].Bind(func() {}) {
		t.Error("a slot that was released can be bound")
	}
	r.empty()
}

// Over QUIC: address validation when there are many, and the slot ends with its
// connection.
func TestInboundLimitsAndRetry(t *testing.T) {
	l := NewLimit(quicBounds, NewKnown())
	ctx, cancel := context.WithCancel(context.Background())
	for i := range maxUnknown {
		if l.underLoad(nil) != (i > retryAbove) {
			t.Fatalf("with %d unknown connections: address validation is %v", i, l.underLoad(nil))
		}
		if _, err := l.admit(ctx, host(i)); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	if _, err := l.admit(ctx, host(maxUnknown)); !errors.Is(err, ErrTooMany) {
		t.Errorf("one too many: %v", err)
	}
	cancel()
	for l.Count() > 0 { // released in goroutines of the context's
		runtime.Gosched()
	}
}

// Nobody has accepted it yet: its context ends, and so will its handshake.
func TestAConnectionThatGivesWayBeforeItIsAcceptedFailsItsHandshake(t *testing.T) {
	l := NewLimit(Bounds{All: 3, PerHost: 3, PerNetwork: 3, Dying: 3}, NewKnown())
	ctx, cancel := context.WithCancel(context.Background())
	var conns []context.Context
	for range 3 {
		own, err := l.admit(ctx, host(1))
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, own)
	}
	if _, err := l.admit(ctx, host(2)); err != nil {
		t.Fatal(err)
	}
	if context.Cause(conns[0]) != errGaveWay || conns[1].Err() != nil {
		t.Errorf("the oldest ended with %v, the next one with %v", context.Cause(conns[0]), conns[1].Err())
	}
	cancel()
	for l.Count() > 0 {
		runtime.Gosched()
	}
}

// A virtual address is one peer, and all of them leave room for the network.
func TestInboundLimitsOfVirtualAddresses(t *testing.T) {
	r := newWaitingRoom(t, quicBounds)
	for n := range uint64(quicBounds.Relayed / quicBounds.PerVirtual) {
		r.fill(quicBounds.PerVirtual, "", VirtualAddr(n))
		if err := r.take("", VirtualAddr(n)); !errors.Is(err, ErrTooMany) {
			t.Fatalf("one too many of address %d: %v", n, err)
		}
	}
	r.mustTake("new", VirtualAddr(1<<40)) // among themselves they have the same rules
	if len(r.ousted) != 1 || r.Count() != quicBounds.Relayed {
		t.Errorf("%d gave way, %d are left", len(r.ousted), r.Count())
	}
	r.mustTake("", host(1))
	r.empty()
}

package meshsync

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A door is an Authorize that refuses one peer, once it is told which.
type door struct {
	refused atomic.Pointer[PeerID]
	slow    time.Duration // how long an answer is on its way
	asked   chan struct{} // takes one element for each question, if it has room
}

func newDoor() *door { return &door{asked: make(chan struct{}, 1)} }

func (d *door) refuse(id PeerID) { d.refused.Store(&id) }

func (d *door) authorize(id PeerID) error {
	refused := d.refused.Load()
	signal(d.asked)
	time.Sleep(d.slow)
	if refused != nil && *refused == id {
		return errors.New("not on the list")
	}
	return nil
}

func TestReauthorizeEndsTheConnectionsThatAreRefusedNow(t *testing.T) {
	for _, dials := range []string{"this side", "the other side"} {
		t.Run(dials, func(t *testing.T) {
			inWorld(t, 1, func(w *world) {
				d := newDoor()
				a := w.node(1, func(o *Options) { o.Authorize = d.authorize })
				b, friend := w.node(2), w.node(3)
				a.register(friend)
				if dials == "this side" {
					a.register(b)
				} else {
					b.register(a)
				}
				mine, kept := a.await(b, time.Second), a.await(friend, time.Second)
				theirs := b.await(a, time.Second)
				if n := a.Reauthorize(); n != 0 || mine.Context().Err() != nil {
					t.Errorf("it ended %d connections, though nothing has changed", n)
				}

				d.refuse(b.ID())
				if n := a.Reauthorize(); n != 1 {
					t.Errorf("it ended %d connections, want 1", n)
				}
				if _, ok := a.Conn(b.ID()); ok || !errors.Is(context.Cause(mine.Context()), ErrUnauthorized) {
					t.Errorf("the connection is there (%v), its cause is %v", ok, context.Cause(mine.Context()))
				}
				time.Sleep(testRTT)
				if err := context.Cause(theirs.Context()); !errors.Is(err, ErrUnauthorized) {
					t.Errorf("the peer learned %v, want %v", err, ErrUnauthorized)
				}
				if kept.Context().Err() != nil {
					t.Error("the connection of another peer has ended")
				}

				// Straight to MaxDelay, as after any refusal, and in again when the answer is another one.
				registrant, other := a, b
				if dials == "the other side" {
					registrant, other = b, a
				}
				time.Sleep(time.Minute)
				if st, _ := registrant.Status(other.ID()); !st.Registered || st.Attempts < 3 || st.Attempts > 7 || !errors.Is(st.LastError, ErrUnauthorized) {
					t.Errorf("status: %+v", st)
				}
				d.refuse(PeerID{})
				registrant.await(other, 15*time.Second)
				a.stop()
				b.stop()
			})
		})
	}
}

func TestReauthorizeWithoutAuthorizeDoesNothing(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		a, b := w.pair()
		a.register(b)
		c := a.await(b, time.Second)
		if n := a.Reauthorize(); n != 0 || c.Context().Err() != nil {
			t.Errorf("it ended %d connections", n)
		}
		a.Close()
		if n := a.Reauthorize(); n != 0 {
			t.Errorf("after Close it ended %d connections", n)
		}
		a.stop()
		b.stop()
	})
}

// What was asked before Reauthorize is not what lets a connection in afterwards, on
// whichever side and at whatever moment of its making.
func TestReauthorizeReachesConnectionsThatAreBeingMade(t *testing.T) {
	for _, side := range []string{"dialer", "acceptor"} {
		for _, decides := range []bool{false, true} {
			for _, slow := range []time.Duration{0, 20 * time.Millisecond} {
				t.Run(fmt.Sprint(side, " decides ", decides, " answers after ", slow), func(t *testing.T) {
					inWorld(t, 1, func(w *world) {
						d := newDoor()
						d.slow = slow
						asks, other := w.pair()
						if !decides {
							asks, other = other, asks
						}
						asks.restart(func() { asks.opts.Authorize = d.authorize })
						from, to := asks, other
						if side == "acceptor" {
							from, to = other, asks
						}
						dialed := make(chan *Conn, 1)
						go func() {
							c, _ := from.Connect(context.Background(), to.ID(), []string{to.addr()}, "")
							dialed <- c
						}()
						<-d.asked
						if slow == 0 {
							synctest.Wait() // as far as it gets without another packet
						}
						d.refuse(other.ID())
						asks.Reauthorize()
						time.Sleep(time.Second)
						if c, ok := asks.Conn(other.ID()); ok {
							t.Errorf("there is a connection: %v", c.Path())
						}
						if c := <-dialed; c != nil && !errors.Is(context.Cause(c.Context()), ErrUnauthorized) {
							t.Errorf("the dialer's connection ended with %v, want %v", context.Cause(c.Context()), ErrUnauthorized)
						}
						asks.stop()
						other.stop()
						if n := asks.log.count(EventConnected); slow > 0 && n > 0 {
							t.Error("the service was shown the connection")
						}
					})
				})
			}
		}
	}
}

func TestAuthorizeIsAskedOnBothSides(t *testing.T) {
	for _, side := range []string{"dialer", "acceptor"} {
		for _, flip := range []bool{false, true} {
			t.Run(fmt.Sprint(side, flip), func(t *testing.T) {
				inWorld(t, 1, func(w *world) {
					var banned PeerID
					refuse := func(o *Options) {
						o.Authorize = func(id PeerID) error {
							if id == banned {
								return ErrShutdown // must not be taken for its meaning here
							}
							return nil
						}
					}
					a, b := w.pair(refuse)
					if flip {
						a, b = b, a
					}
					banned = a.ID()
					if side == "dialer" {
						banned = b.ID()
					}
					_, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, "")
					if !errors.Is(err, ErrUnauthorized) || errors.Is(err, ErrShutdown) {
						t.Errorf("Connect: %v, want %v", err, ErrUnauthorized)
					}
					a.stop()
					b.stop()
					if n := a.log.count(EventConnected); n > 0 {
						t.Error("the dialer was shown the connection")
					}
				})
			})
		}
	}
}

package main

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// failoverOf returns the case of that name.
func failoverOf(t *testing.T, name string) failover {
	t.Helper()
	for _, kind := range failovers() {
		if kind.String() == name {
			return kind
		}
	}
	t.Fatalf("no case %q", name)
	return failover{}
}

// pathRivalOf returns the rival of that name.
func pathRivalOf(t *testing.T, name string) pathRival {
	t.Helper()
	for _, v := range pathRivals() {
		if v.name == name {
			return v
		}
	}
	t.Fatalf("no rival %q", name)
	return pathRival{}
}

// What the suite's event is for a rival: it keeps its stream, loses it, or has no
// answer any more; and whether it is on the direct path in the end.
func TestFailoverDoesToARivalWhatItIs(t *testing.T) {
	const relayed = relayedRTT
	for _, tc := range []struct {
		kind, rival string
		lost        int
		over        bool
		rtt         time.Duration // 0 if there is none
	}{
		{"direct path dies, sending", "meshsync", 0, true, relayed},
		{"direct path dies, sending", "libp2p, circuit v2", 1, true, relayed},
		{"direct path dies, sending", "quic-go loop", 1, false, 0},
		{"direct path dies, sending", "quic-go, migration by hand", 0, true, relayed},
		{"direct path returns, sending", "meshsync", 0, true, worldRTT},
		{"direct path returns, sending", "libp2p, circuit v2", 0, true, relayed},
		{"direct path returns, sending", "quic-go loop", 0, true, worldRTT},
		{"direct path returns, sending", "quic-go, migration by hand", 0, true, worldRTT},
		{"acceptor's address changes, sending", "meshsync", 0, true, worldRTT},
		{"acceptor's address changes, sending", "quic-go loop", 1, true, worldRTT},
		{"acceptor's address changes, sending", "quic-go, migration by hand", 1, true, worldRTT},
		{"dialer's address changes, sending", "meshsync", 0, true, worldRTT},
		{"dialer's address changes, sending", "quic-go, migration by hand", 0, true, worldRTT},
		{"NAT forgets, idle", "meshsync", 0, true, worldRTT},
		{"direct path dies, idle", "meshsync", 0, true, relayed},
	} {
		t.Run(tc.kind+"/"+tc.rival, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, err := failOver(pathRivalOf(t, tc.rival), 1, failoverOf(t, tc.kind))
				if err != nil {
					t.Fatal(err)
				}
				if (s.longest != never) != tc.over || s.lost != tc.lost {
					t.Errorf("silent for %v, %d streams lost", s.longest, s.lost)
				}
				if tc.rtt != 0 && s.rtt != tc.rtt {
					t.Errorf("the last answer took %v, want %v", s.rtt, tc.rtt)
				}
				if strings.Contains(tc.kind, "address") && tc.lost == 0 && s.longest >= migrationPatience {
					t.Errorf("silent for %v, as if nobody had told the node that it has moved", s.longest)
				}
				if tc.over == (s.bytes < askSize) {
					t.Errorf("%.0f bytes an answer", s.bytes)
				}
			})
		})
	}
}

// A rival that never connects has no figure.
func TestUnconnectedRivalHasNoSilence(t *testing.T) {
	mesh := pathRivals()[0]
	never := pathRival{name: "never", prepare: func(at site) (func(site) (node, error), func() error, error) {
		start, end, err := mesh.prepare(at)
		return func(s site) (node, error) {
			n, err := start(s)
			return deaf{n.(streamer)}, err
		}, end, err
	}}
	synctest.Test(t, func(t *testing.T) {
		if s, err := failOver(never, 1, failovers()[0]); err == nil {
			t.Errorf("it was silent for %v", s.longest)
		}
	})
}

// deaf keeps nobody.
type deaf struct{ streamer }

func (deaf) keep(contact) {}

// pipes is a rival whose streams are pipes to an echo service.
type pipes struct {
	streamer
	mu     sync.Mutex
	opened []*pipeStream
	spoil  bool // echoes differ from what was sent
}

func (p *pipes) open(context.Context, contact) (duplex, error) {
	there, toThere := io.Pipe()
	back, toBack := io.Pipe()
	s := &pipeStream{Reader: back, Writer: toThere, ends: []io.Closer{there, toThere, back, toBack}}
	p.mu.Lock()
	p.opened = append(p.opened, s)
	p.mu.Unlock()
	go func() { // ends with the stream
		b := make([]byte, askSize)
		for {
			if _, err := io.ReadFull(there, b); err != nil {
				return
			}
			if p.spoil {
				b[7] += 5
			}
			if _, err := toBack.Write(bytes.Clone(b)); err != nil {
				return
			}
		}
	}()
	return s, nil
}

func (p *pipes) first() *pipeStream {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opened[0]
}

type pipeStream struct {
	io.Reader
	io.Writer
	ends []io.Closer
}

func (*pipeStream) CloseWrite() error           { return nil }
func (*pipeStream) SetDeadline(time.Time) error { return nil }
func (*pipeStream) finish()                     {}
func (s *pipeStream) abandon() {
	for _, end := range s.ends {
		end.Close()
	}
}

// The longest time without an answer is between two answers, or from the event to
// the first one; who is silent still is not out of it.
func TestSilenceIsTheLongestGap(t *testing.T) {
	event := time.Now().Add(-time.Hour)
	at := func(ms ...int) *streamAsker {
		a := &streamAsker{}
		for _, m := range ms {
			a.answers = append(a.answers, event.Add(time.Duration(m)*time.Millisecond))
		}
		return a
	}
	for _, tc := range []struct {
		answers []int
		longest int
		over    bool
	}{
		{[]int{-500, -20, 40, 60, 3_599_900}, 3_599_840, true},
		{[]int{-500, 3_599_000, 3_599_950}, 3_599_000, true},
		{[]int{-500, -20}, 0, false},
		{[]int{-20, 10, 400}, 390, false},
	} {
		longest, over := at(tc.answers...).silence(event, time.Minute)
		if longest != time.Duration(tc.longest)*time.Millisecond || over != tc.over {
			t.Errorf("%v: %v, over: %v", tc.answers, longest, over)
		}
	}
}

// A stream that fails is counted, and what was not answered is asked on the next.
func TestStreamAskerAsksAgainOnAnotherStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{}
		app := newStreamAsker(p, contact{})
		defer app.close()
		app.ask()
		time.Sleep(time.Second)
		p.first().ends[0].Close() // the echo service is gone
		app.ask()
		time.Sleep(time.Second)
		app.close()
		if app.err != nil || app.lost != 1 || len(app.answers) != 2 || len(p.opened) != 2 {
			t.Errorf("%d streams opened, %d lost, %d answers, %v", len(p.opened), app.lost, len(app.answers), app.err)
		}
	})
}

func TestStreamAskerFindsWrongAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app := newStreamAsker(&pipes{spoil: true}, contact{})
		defer app.close()
		app.ask()
		time.Sleep(time.Second)
		app.close()
		if app.err == nil {
			t.Error("a message that was not sent counts")
		}
	})
}

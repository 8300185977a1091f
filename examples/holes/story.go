package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/meshsync"
	"github.com/defenseunicorns/peat-mesh-go/relay"
)

const (
	limit = 10 * time.Second // of whatever the story waits for: far above what that should take
	calm  = time.Second      // how long it goes on when it is clear how the pair ends
)

// A story is what happens to a pair.
type story struct {
	pair
	ctx      context.Context
	out      io.Writer
	began    time.Time
	relayURL string
	a, b     *node

	met      time.Time // when the first of the nodes was connected
	messages messages
}

// tellStory lets a pair meet and look for a direct path, and returns how that ended.
// It fails if that is not as it has to be.
func tellStory(ctx context.Context, out io.Writer, p pair) (ending, error) {
	fmt.Fprintf(out, "\n--- %s: %s\n", p.name, p.about)
	net := testnet.New(1)
	defer net.Close()
	net.SetDefaultLink(testnet.Link{Latency: relayLatency})
	r, err := newRelay(net)
	if err != nil {
		return ending{pair: p.name}, err
	}
	defer r.Close()

	s := &story{pair: p, out: out, began: time.Now(), relayURL: r.URL()}
	defer s.close()
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithCancel(ctx)
	defer cancel()
	a, b := p.hosts(net)
	if s.a, err = newNode(a, b, s.relayURL); err != nil {
		return ending{pair: p.name}, err
	}
	if s.b, err = newNode(b, a, s.relayURL); err != nil {
		return ending{pair: p.name}, err
	}
	for _, scene := range []func() error{s.arrive, s.meet, s.look, s.finish} {
		if err = scene(); err != nil {
			break
		}
	}
	return s.sumUp(), err
}

// close ends the nodes, and with them the stream, as far as they have begun.
func (s *story) close() {
	for _, n := range []*node{s.a, s.b} {
		if n != nil {
			n.Close()
		}
	}
	s.messages.receiver.Wait()
}

// newRelay starts a relay on the public network, at an address that is for examples (RFC
// 5737). The simulated network has UDP only.
func newRelay(net *testnet.Net) (*relay.Server, error) {
	socket, err := net.Host("relay", netip.MustParseAddr("203.0.113.1")).Listen(port)
	if err != nil {
		return nil, err
	}
	r, err := relay.NewServer(relay.ServerOptions{PacketConn: socket})
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	return r, nil
}

// arrive waits until the relay knows both nodes.
func (s *story) arrive() error {
	for _, n := range []*node{s.a, s.b} {
		if err := s.until(limit, func() bool { return n.Relays()[0].State == meshsync.RelayConnected }); err != nil {
			return fmt.Errorf("%s did not get to the relay: %w", n.name, err)
		}
		s.print(n, time.Now(), "listens on %v; the relay sees it at %v", n.Addr(), n.Relays()[0].Observed)
	}
	return nil
}

// meet does all that a service does: A asks for B, and sends messages when there is a
// connection.
func (s *story) meet() error {
	if err := s.a.RegisterForReconnect(s.b.ID(), nil, s.relayURL); err != nil {
		return err
	}
	if err := s.until(limit, func() bool { return s.a.conn != nil }); err != nil {
		return fmt.Errorf("no connection: %w", err)
	}
	stream, err := s.a.conn.OpenStream(s.ctx)
	if err != nil {
		return err
	}
	s.print(s.a, time.Now(), "begins a stream of messages, which go %s", where(s.a.conn.Path()))
	return s.messages.begin(s.ctx, stream)
}

// look waits until both nodes send directly, or both have found no way to.
func (s *story) look() error {
	if err := s.until(limit, func() bool { return s.a.isDirect() && s.b.isDirect() || s.a.missed && s.b.missed }); err != nil {
		return fmt.Errorf("look for a direct path: %w", err)
	}
	if err := s.until(calm, func() bool { return false }); !errors.Is(err, errTimeUp) {
		return err
	}
	return nil
}

// finish sends no more messages, waits until all have come back, and says what is
// not as it has to be.
func (s *story) finish() error {
	m := &s.messages
	err := m.stop()
	if err == nil {
		err = s.until(limit, func() bool { return m.over })
	}
	if err != nil || m.back != m.sent {
		return errors.Join(fmt.Errorf("%d messages of %d came back", m.back, m.sent), err)
	}
	if c, ok := s.a.Conn(s.b.ID()); !ok || c != m.stream.Conn() {
		return errors.New("the stream was not of the connection that there is now")
	}
	s.print(s.a, time.Now(), "has got back all %d messages, in order, on that stream; the connection is still the same", m.back)
	for _, n := range []*node{s.a, s.b} {
		if n.path.Kind != s.ends {
			return fmt.Errorf("%s sends %s at the end, and not on a %s path", n.name, where(n.path), s.ends)
		}
	}
	return nil
}

// sumUp prints what each node knows of the other one and has spent, and returns how
// the pair has ended.
func (s *story) sumUp() ending {
	e := ending{pair: s.name, sent: s.messages.sent, lost: s.messages.sent - s.messages.back}
	for _, n := range []*node{s.a, s.b} {
		pings := n.count("path_pings_total", "")
		e.pings += pings
		if n.conn == nil {
			continue
		}
		e.paths = append(e.paths, n.path.Kind)
		var all []string
		for _, p := range n.conn.Paths() {
			all = append(all, describe(p))
			e.measure(p)
		}
		s.print(n, time.Now(), "knows these paths: %s", strings.Join(all, "; "))
		s.print(n, time.Now(), "was told where %s may be reached: %d of its own addresses, %d seen by others; has sent %d pings and answers to pings",
			n.peer, n.count("candidates_total", "host"), n.count("candidates_total", "observed"), pings)
	}
	if s.a.isDirect() && s.b.isDirect() {
		e.after = max(s.a.changed.Sub(s.met), s.b.changed.Sub(s.met))
	}
	return e
}

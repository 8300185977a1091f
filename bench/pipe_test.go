package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// testPipes checks that each pipe carries what the suites count, whole.
func testPipes(t *testing.T, pipes []*pipe) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, p := range pipes {
		t.Run(p.name, func(t *testing.T) {
			if err := p.pour(ctx, manyStreams, 1<<20); err != nil {
				t.Error(err)
			}
			if err := p.ask(ctx, make([]byte, askSize)); err != nil {
				t.Error(err)
			}
			s, err := p.open(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer s.abandon()
			const size = 5 << 20
			sum := sha256.New()
			if _, err := s.Write([]byte{modeHash}); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.MultiWriter(s, sum), io.LimitReader(rand.NewChaCha8([32]byte{1}), size)); err != nil {
				t.Fatal(err)
			}
			s.CloseWrite()
			answer := make([]byte, 8+sha256.Size)
			if _, err := io.ReadFull(s, answer); err != nil {
				t.Fatal(err)
			}
			if n := binary.BigEndian.Uint64(answer); n != size {
				t.Errorf("%d of %d bytes arrived", n, size)
			}
			if string(answer[8:]) != string(sum.Sum(nil)) {
				t.Error("they arrived with another hash")
			}
		})
	}
}

func TestDirectPipesCarryWhatIsCounted(t *testing.T) {
	pipes, err := directPipes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pipes {
		t.Cleanup(p.close)
	}
	testPipes(t, pipes)
}

// TestMain lets the test binary play the parts of children.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childCommand {
		os.Exit(runChild(os.Args[2:]))
	}
	os.Exit(m.Run())
}

// What goes through a relay arrives whole, and through the relay's process:
// that is checked at each stream, or there is no other way.
func TestRelayedPipesCarryWhatIsCounted(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, kind := range relayKinds() {
		p, err := openRelayed(ctx, kind)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.close)
		before, err := p.cpu()
		if err != nil {
			t.Fatal(err)
		}
		testPipes(t, []*pipe{p.pipe})
		after, err := p.cpu()
		if err != nil {
			t.Fatal(err)
		}
		if after <= before {
			t.Errorf("%s: the relay's process has done nothing", kind)
		}
	}
}

// A keeper whose peers should be connected and are not has no figure.
func TestKeeperOfUnconnectedPeersHasNoFigure(t *testing.T) {
	s, err := realSite()
	if err != nil {
		t.Fatal(err)
	}
	n, err := meshRivals()[0].start(s)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := awaitAll(n, strangers(1, s.addr), 0); !errors.Is(err, errNoConn) {
		t.Error("an unconnected peer passes:", err)
	}
}

// A hub that waits for more spokes than there are has no figure.
func TestHubWithoutItsSpokesHasNoFigure(t *testing.T) {
	for _, v := range idleRivals() {
		s, err := realSite()
		if err != nil {
			t.Fatal(err)
		}
		sock, err := s.listen(s.addr.Port())
		if err != nil {
			t.Fatal(err)
		}
		sock.Close()
		_, err = beHub(hubRequest{Rival: v.name, Key: s.key.Seed(), Addr: s.addr, Spokes: 1, Limit: 100 * time.Millisecond})
		if err == nil {
			t.Errorf("%s: a hub without spokes has a figure", v.name)
		}
	}
}

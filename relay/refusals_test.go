package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// A logBuffer is what was logged at Info and above.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// lines returns the lines that contain all of the given texts.
func (b *logBuffer) lines(texts ...string) (found []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
lines:
	for line := range strings.Lines(b.buf.String()) {
		for _, text := range texts {
			if !strings.Contains(line, text) {
				continue lines
			}
		}
		found = append(found, line)
	}
	return found
}

func refuseAll(identity.PeerID) error { return errors.New("not on the list") }

func TestRelayLogsWhomItRefuses(t *testing.T) {
	var log logBuffer
	inWorld(t, ServerOptions{Authorize: refuseAll, Logger: log.logger()}, func(w *world) {
		for i, set := range []func(*relayclient.Options){func(*relayclient.Options) {}, overTCP} {
			if _, err := w.dial(i+1, set); !errors.Is(err, ErrUnauthorized) {
				t.Fatal(err)
			}
			peer := "peer=" + testID(i+1).String()
			if n := len(log.lines("level=INFO", "client refused", "remote=", peer, "reason=unauthorized", "not on the list")); n != 1 {
				t.Errorf("%d lines tell of client %d", n, i+1)
			}
		}
		time.Sleep(2 * refusalPeriod)
		if n := len(log.lines("more clients refused")); n != 0 {
			t.Error("refusals were counted that have lines of their own")
		}
	})
}

// However often a relay refuses for one reason, there are a few lines, and the
// number of the others; and another reason still has its own.
func TestFloodOfRefusalsIsCounted(t *testing.T) {
	const flood = 40
	var log logBuffer
	inWorld(t, ServerOptions{Authorize: refuseAll, Logger: log.logger()}, func(w *world) {
		floods := func() {
			for range flood {
				if _, err := w.dial(1); !errors.Is(err, ErrUnauthorized) {
					t.Fatal(err)
				}
			}
			raw, err := w.tcp.dial(context.Background(), "")
			if err != nil {
				t.Fatal(err)
			}
			raw.Close() // in the midst of the handshake
			time.Sleep(time.Second)
		}
		count := fmt.Sprint("count=", flood-maxRefusalLines)
		for period := 1; period <= 3; period++ {
			floods()
			for reason, want := range map[string]int{"unauthorized": maxRefusalLines, "handshake": 1} {
				if n := len(log.lines("msg=\"client refused\"", "reason="+reason)); n != period*want {
					t.Errorf("period %d: %d lines for %s, want %d", period, n, reason, period*want)
				}
			}
			if period < 3 {
				time.Sleep(refusalPeriod)
			} else {
				w.relay.Close() // does not keep the count to itself
			}
			if n := len(log.lines("more clients refused", "reason=unauthorized", count)); n != period {
				t.Errorf("period %d: %d lines tell how many were left out", period, n)
			}
		}
	})
}

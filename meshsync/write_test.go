package meshsync

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// A stream whose other side stops reading while a small Write waits ends like others, and the
// peer may open the next one.
func TestStreamsCancelledUnderSmallWritesAreFreed(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(s *Stream) error{
		"Write": func(s *Stream) error {
			_, err := s.Write(make([]byte, 1000)) // two of them are more than a packet
			return err
		},
		"TryWriteAll before Write": func(s *Stream) error {
			if err := s.TryWriteAll(make([]byte, 1000)); err != nil && !errors.Is(err, quic.ErrWouldBlock) {
				return err
			}
			_, err := s.Write(make([]byte, 10))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			if raceEnabled && name != "Write" {
				t.Skip("a thousand streams are slow under the race detector")
			}
			inWorld(t, 1, func(w *world) {
				w.net.SetDefaultLink(testnet.Link{Latency: testRTT / 2, Rate: 250_000, Queue: 16 << 10}) // so that Writes wait soon
				a, b := w.pair(func(o *Options) {
					o.Handler = func(c *Conn) {
						for {
							s, err := c.AcceptStream(c.Context())
							if err != nil {
								return
							}
							go func() {
								for write(s) == nil {
								}
								s.CancelRead(1)
								s.Close()
							}()
						}
					}
				})
				c, err := a.Connect(context.Background(), b.ID(), []string{b.addr()}, "")
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
				defer cancel()
				for i := range maxStreams + 76 {
					s, err := c.OpenStream(ctx)
					if err != nil {
						t.Fatalf("stream %d: %v", i, err)
					}
					s.Write([]byte("go"))
					if _, err := io.ReadFull(s, make([]byte, 100)); err != nil {
						t.Fatal(err)
					}
					s.CancelRead(1)
					s.Close()
				}
				a.stop()
				b.stop()
			})
		})
	}
}

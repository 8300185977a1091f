package relayclient

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// QUIC keeps an idle connection alive, and nothing else is sent.
func TestIdleClientDoesNotPing(t *testing.T) {
	withFakeRelay(t, func(t *testing.T, r *fakeRelay, c *Client) {
		time.Sleep(time.Hour)
		if n := r.pings.Load(); n != 0 || c.Err() != nil {
			t.Errorf("%d pings; %v", n, c.Err())
		}
	})
}

func TestStalledTellsOfASilentRelay(t *testing.T) {
	withFakeRelay(t, func(t *testing.T, r *fakeRelay, c *Client) {
		stalled := func() bool {
			select {
			case <-c.Stalled():
				return true
			default:
				return false
			}
		}
		for range 100 { // while all is well
			c.Send(testID(2), []byte("x"))
			time.Sleep(100 * time.Millisecond)
		}
		if p := r.pings.Load(); p < 12 || p > 15 {
			t.Errorf("%d pings in 10 s", p)
		}
		time.Sleep(time.Minute)
		pings := r.pings.Load()
		r.host.Blackout(testnet.Both)
		time.Sleep(8 * time.Second)
		if synctest.Wait(); stalled() {
			t.Error("stalled though nothing was sent")
		}
		r.host.Restore()
		time.Sleep(10 * time.Second)
		if r.pings.Load() != pings {
			t.Error("it asked though nothing was sent")
		}

		r.host.Blackout(testnet.Both)
		began := time.Now()
		c.Send(testID(2), []byte("x"))
		<-c.Stalled()
		if took := time.Since(began); took != minStall {
			t.Errorf("stalled after %v", took)
		}
		r.host.Restore()
		time.Sleep(5 * time.Second)
		c.Send(testID(2), []byte("x"))
		time.Sleep(5 * time.Second)
		if c.Err() != nil {
			t.Errorf("the connection ended: %v", c.Err())
		}
	})
}

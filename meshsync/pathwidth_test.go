package meshsync

import (
	"sync"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// An upload is a stream on which one side writes as much as it can, and the other reads.
type upload struct {
	mu     sync.Mutex
	bytes  int64
	at     time.Time     // when something came last
	pause  time.Duration // the longest one since the last call
	sender *Stream
	done   sync.WaitGroup
}

func (m *meeting) upload(from, to *node) *upload {
	m.t.Helper()
	ours, theirs, err := m.open(from, to)
	if err != nil {
		m.t.Fatal(err)
	}
	u := &upload{sender: ours, at: time.Now()}
	u.done.Go(func() {
		b := make([]byte, 16<<10)
		for {
			if _, err := ours.Write(b); err != nil {
				return
			}
		}
	})
	u.done.Go(func() {
		b := make([]byte, 16<<10)
		for {
			n, err := theirs.Read(b)
			u.heard(n)
			if err != nil {
				return
			}
		}
	})
	return u
}

func (u *upload) heard(n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	u.bytes += int64(n)
	u.pause = max(u.pause, now.Sub(u.at))
	u.at = now
}

// look returns how much has come, and the longest time in which nothing did since the last look.
func (u *upload) look() (bytes int64, pause time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	pause = max(u.pause, time.Since(u.at))
	u.pause = 0
	return u.bytes, pause
}

// goodput returns how many bytes a second come in d.
func (u *upload) goodput(d time.Duration) float64 {
	before, _ := u.look()
	time.Sleep(d)
	after, _ := u.look()
	return float64(after-before) / d.Seconds()
}

// end ends it, by resetting the stream.
func (u *upload) end() {
	u.sender.CancelWrite(0)
	u.done.Wait()
}

const (
	uploadRate = 1 << 20 // bytes a second
	wideMTU    = 1452
	narrowMTU  = 1300
)

// uploadLink returns one without a jitter, which would reorder packets.
func uploadLink(mtu int) testnet.Link {
	return testnet.Link{Latency: testRTT / 2, Rate: uploadRate, MTU: mtu}
}

// uploads lets two nodes meet whose direct path is so wide, and the one that has dialed
// write all the time while f runs.
func (p place) uploads(t *testing.T, seed uint64, mtu int, f func(m *meeting, u *upload)) {
	t.Helper()
	inWorld(t, seed, func(w *world) {
		m := w.meetOver(p, uploadLink(mtu))
		u := m.upload(m.a, m.b)
		f(m, u)
		u.end()
		m.stop()
	})
}

// When the direct path becomes narrower under a transfer, that goes on, in either direction,
// and with little less than on a path that has always been narrow.
func TestTransferGoesOnWhenItsPathNarrows(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]place{"direct only": {both: true}, "with a relay": oneRelay} {
		for _, narrow := range []string{"both ways", "forth", "back"} {
			t.Run(name+", "+narrow, func(t *testing.T) {
				var pauses []time.Duration
				for seed := range seedsOfPaths(1) {
					var always, after float64
					at.follower = seed%2 == 1
					at.uploads(t, seed, narrowMTU, func(m *meeting, u *upload) {
						time.Sleep(20 * time.Second)
						always = u.goodput(10 * time.Second)
					})
					at.uploads(t, seed, wideMTU, func(m *meeting, u *upload) {
						time.Sleep(10*time.Second + time.Duration(m.rand.IntN(1000_000))*time.Microsecond)
						u.look()
						if narrow != "back" {
							m.net.SetLinkOneWay(m.a.host, m.b.host, uploadLink(narrowMTU))
						}
						if narrow != "forth" {
							m.net.SetLinkOneWay(m.b.host, m.a.host, uploadLink(narrowMTU))
						}
						time.Sleep(10 * time.Second)
						_, pause := u.look()
						pauses = append(pauses, pause)
						after = u.goodput(10 * time.Second)
					})
					if after < 0.6*always {
						t.Errorf("%.0f bytes a second, %.0f where it was always narrow", after, always)
					}
				}
				p50, p99 := quantiles(pauses)
				t.Logf("it stands still for p50 %v, p99 %v", p50.Round(time.Millisecond), p99.Round(time.Millisecond))
				if p99 > 3*time.Second {
					t.Errorf("it stood still for p50 %v, p99 %v", p50, p99)
				}
			})
		}
	}
}

// A transfer goes on as soon as the network is back. In one case of ten it takes a little longer: what is
// missing for longest is what QUIC sends last then, as it had sent it again just before.
func TestTransferGoesOnAfterDarkness(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]place{"both registered": {both: true}, "one registered": {}, "with a relay": oneRelay} {
		for _, dark := range []time.Duration{2 * time.Second, 10 * time.Second} {
			t.Run(name+", "+dark.String(), func(t *testing.T) {
				var took []time.Duration
				for seed := range seedsOfPaths(7) {
					at.follower = seed%2 == 1
					at.uploads(t, seed, wideMTU, func(m *meeting, u *upload) {
						time.Sleep(10*time.Second + time.Duration(m.rand.IntN(1000_000))*time.Microsecond)
						m.b.host.Blackout(testnet.Both)
						time.Sleep(dark)
						m.b.host.Restore()
						light := time.Now()
						before, _ := u.look()
						for now := before; now == before && time.Since(light) < time.Minute; now, _ = u.look() {
							time.Sleep(time.Millisecond)
						}
						took = append(took, time.Since(light))
					})
				}
				p50, p99 := quantiles(took)
				t.Logf("it goes on after p50 %v, p99 %v", p50, p99)
				if p50 > 300*time.Millisecond || p99 > time.Second {
					t.Errorf("it goes on after p50 %v, p99 %v", p50, p99)
				}
			})
		}
	}
}

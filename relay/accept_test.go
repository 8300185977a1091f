package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/endpoint"
	"github.com/defenseunicorns/peat-mesh-go/internal/relayclient"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaylink"
	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

func TestCloseDoesNotWaitForAHalfHello(t *testing.T) {
	for _, carrier := range bothCarriers {
		t.Run(string(carrier), func(t *testing.T) {
			inWorld(t, ServerOptions{}, func(w *world) {
				r := w.raw(1, carrier)
				go r.write([]byte{0})
				time.Sleep(time.Second)
				began := time.Now()
				w.relay.Close()
				if took := time.Since(began); took > time.Second {
					t.Errorf("Close took %v", took)
				}
			})
		})
	}
}

// silence opens n TCP connections from each of so many hosts, again whenever one is
// closed, and says nothing on them. It returns what ends that.
func (w *world) silence(hosts, n int) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	for i := range hosts * n {
		go func() {
			for ctx.Err() == nil {
				conn, err := w.tcp.dialFrom(ctx, &net.TCPAddr{IP: net.IPv4(10, 8, 0, byte(i%hosts)), Port: 1})
				if err != nil {
					continue
				}
				stop := context.AfterFunc(ctx, func() { conn.Close() })
				conn.Read(make([]byte, 1)) // until the relay closes it
				stop()
				conn.Close()
				select {
				case <-time.After(testRTT):
				case <-ctx.Done():
				}
			}
			done <- struct{}{}
		}()
	}
	return func() {
		cancel()
		for range hosts * n {
			<-done
		}
	}
}

func everybody(identity.PeerID) error { return nil }

func TestSilentTCPConnectionsLeaveRoomForOthers(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		end := w.silence(tcpBounds.All/tcpBounds.PerHost, tcpBounds.PerHost)
		time.Sleep(time.Second)
		if n := w.relay.greeting.Count(); n != tcpBounds.All {
			t.Errorf("%d connections wait, want %d", n, tcpBounds.All)
		}
		for i := range 20 {
			began := time.Now()
			w.client(1+i, overTCP)
			if took := time.Since(began); took > time.Second {
				t.Errorf("client %d was in after %v", i, took)
			}
		}
		end()
		time.Sleep(helloTimeout)
		if n := w.relay.greeting.Count(); n != 0 {
			t.Errorf("%d connections still wait", n)
		}
	})
}

func TestAFirstByteIsDueSoonOverTCP(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		for name, tc := range map[string]struct {
			says []byte
			ends time.Duration
		}{"silent": {nil, firstByteTimeout}, "one byte": {[]byte{22}, helloTimeout}} {
			conn, err := w.tcp.dial(context.Background(), "")
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			conn.Write(tc.says)
			conn.Read(make([]byte, 1))
			if took := time.Since(began); took != tc.ends {
				t.Errorf("%s: closed after %v, want %v", name, took, tc.ends)
			}
			conn.Close()
		}
	})
}

// Identities cost nothing, addresses do: clients of one host cannot take all places,
// but where there is a list of who may.
func TestStrangersOfOneHostLeaveRoomForOthers(t *testing.T) {
	const most = 6
	for name, tc := range map[string]struct {
		o    ServerOptions
		want int
	}{
		"open":      {ServerOptions{MaxClients: most}, most / 2},
		"Authorize": {ServerOptions{MaxClients: most, Authorize: everybody}, most},
	} {
		for _, carrier := range bothCarriers {
			t.Run(fmt.Sprint(name, " over ", carrier), func(t *testing.T) {
				inWorld(t, tc.o, func(w *world) {
					fromOne := func(o *relayclient.Options) {
						if _, o.QUIC = w.clientHost(100); carrier == CarrierTCP {
							o.QUIC = nil
						}
						o.DialTCP = func(ctx context.Context, _ string) (net.Conn, error) {
							return w.tcp.dialFrom(ctx, &net.TCPAddr{IP: net.IPv4(10, 8, 0, 1), Port: 1})
						}
					}
					for i := range most + 2 {
						_, err := w.dial(1+i, fromOne)
						if in := i < tc.want; (in && err != nil) || (!in && !errors.Is(err, ErrFull)) {
							t.Errorf("client %d: %v", i, err)
						}
					}
					if tc.want == most {
						return
					}
					w.client(50)
					if _, err := w.dial(1, fromOne); err != nil { // in its own place
						t.Errorf("a client that comes back: %v", err)
					}
					w.all[1].Close()
					time.Sleep(time.Second)
					if _, err := w.dial(60, fromOne); err != nil {
						t.Errorf("one has left, and another finds no place: %v", err)
					}
				})
			})
		}
	}
}

// Clients that were here have places in a flood from many hosts.
func TestPlacesAreKeptForClientsThatAreKnown(t *testing.T) {
	for name, o := range map[string]ServerOptions{"open": {}, "Authorize": {Authorize: everybody}} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, o, func(w *world) {
				home := &net.TCPAddr{IP: net.IPv4(10, 7, 0, 1), Port: 1}
				from := func(a net.Addr) func(*relayclient.Options) {
					return func(o *relayclient.Options) {
						o.QUIC = nil
						o.DialTCP = func(ctx context.Context, _ string) (net.Conn, error) { return w.tcp.dialFrom(ctx, a) }
					}
				}
				w.client(1, from(home)).Close()
				for i := range tcpBounds.All {
					if _, err := w.relay.greeting.Take(&net.TCPAddr{IP: net.IPv4(10, 6, byte(i>>8), byte(i))}, func() {}); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := w.relay.greeting.Take(&net.TCPAddr{IP: net.IPv4(10, 6, 9, 9)}, func() {}); !errors.Is(err, endpoint.ErrTooMany) {
					t.Errorf("a stranger: %v", err)
				}
				w.client(1, from(home))
			})
		})
	}
}

func TestAuthorize(t *testing.T) {
	asked := []identity.PeerID{}
	refuse := ServerOptions{Authorize: func(id identity.PeerID) error {
		asked = append(asked, id)
		if id == testID(2) {
			return errors.New("not on the list")
		}
		return nil
	}}
	inWorld(t, refuse, func(w *world) {
		w.client(1)
		for _, set := range []func(*relayclient.Options){func(*relayclient.Options) {}, overTCP} {
			began := time.Now()
			_, err := w.dial(2, set)
			if !errors.Is(err, ErrUnauthorized) || strings.Contains(err.Error(), "list") || time.Since(began) > time.Second {
				t.Errorf("after %v: %v", time.Since(began), err)
			}
		}
		if w.relay.Clients() != 1 || len(asked) != 3 {
			t.Errorf("%d clients, asked %d times", w.relay.Clients(), len(asked))
		}
	})
}

// A client of the version before is told so.
func TestOlderClientIsTold(t *testing.T) {
	inWorld(t, ServerOptions{}, func(w *world) {
		_, tr := w.clientHost(1)
		cert, err := identity.Certificate(testKey(1))
		if err != nil {
			t.Fatal(err)
		}
		conf := identity.ClientTLS(cert, relaywire.ALPNBefore, w.relay.ID())
		conf.ServerName = relaywire.PinnedName
		qc, err := tr.Dial(context.Background(), net.UDPAddrFromAddrPort(netip.AddrPortFrom(w.host.Addr(), testPort)), conf, relaylink.QUICConfig())
		if err != nil {
			t.Fatal(err)
		}
		<-qc.Context().Done()
		const want = "this relay speaks meshsync-relay/2, the client meshsync-relay/1"
		app, ok := errors.AsType[*quic.ApplicationError](context.Cause(qc.Context()))
		if !ok || app.ErrorCode != quic.ApplicationErrorCode(relaywire.CodeVersion) || !strings.Contains(app.ErrorMessage, want) {
			t.Errorf("the client hears %v", context.Cause(qc.Context()))
		}
		if n := w.relay.counts.refused[refusalOf(ErrVersion)].Load(); n != 1 {
			t.Errorf("%d clients of an older version are counted, want 1", n)
		}
	})
}

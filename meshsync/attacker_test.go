package meshsync

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// An attacker speaks QUIC and TLS as it should, and nothing else.
type attacker struct {
	w    *world
	host *testnet.Host
	tr   *quic.Transport
	key  int
	conf *quic.Config
}

func (w *world) attacker(n int) *attacker {
	host := w.node(n).host
	return &attacker{w: w, host: host, tr: &quic.Transport{Conn: w.listenRaw(host)}, key: n + 100,
		conf: &quic.Config{EnableDatagrams: true, MaxIdleTimeout: time.Minute, HandshakeIdleTimeout: 10 * time.Second}}
}

func (a *attacker) close() {
	a.tr.Close()
	a.tr.Conn.Close()
}

func (a *attacker) dial(to *node) (*quic.Conn, error) {
	cert, err := identity.Certificate(testKey(a.key))
	if err != nil {
		a.w.t.Fatal(err)
	}
	return a.tr.Dial(context.Background(), to.sock.LocalAddr(), identity.ClientTLS(cert, alpn, to.ID()), a.conf)
}

func (a *attacker) mustDial(to *node) *quic.Conn {
	a.w.t.Helper()
	qc, err := a.dial(to)
	if err != nil {
		a.w.t.Fatal(err)
	}
	return qc
}

// victimAndFriend are two nodes that are connected, and must stay so.
func (w *world) victimAndFriend(set ...func(*Options)) (victim, friend *node, check func()) {
	victim, friend = w.pair(set...)
	victim.register(friend)
	c := victim.await(friend, time.Second)
	return victim, friend, func() {
		w.t.Helper()
		victim.mustPing(friend, 10*time.Second)
		if now, _ := victim.Conn(friend.ID()); now != c {
			w.t.Error("the friend's connection did not survive")
		}
		time.Sleep(time.Minute)
		if n := victim.endpoint.Unknown.Count(); n != 0 {
			w.t.Errorf("%d unknown connections are left", n)
		}
		victim.stop()
		friend.stop()
		for _, ev := range victim.log.events {
			if ev.Peer != friend.ID() {
				w.t.Errorf("the service was told of the attacker: %v", ev.Kind)
			}
		}
	}
}

func closeCode(qc *quic.Conn, d time.Duration) (quic.ApplicationErrorCode, error) {
	select {
	case <-qc.Context().Done():
	case <-time.After(d):
		return 0, fmt.Errorf("still open after %v", d)
	}
	err := context.Cause(qc.Context())
	app, ok := errors.AsType[*quic.ApplicationError](err)
	if !ok || !app.Remote {
		return 0, err
	}
	return app.ErrorCode, nil
}

// offerTo dials the victim and sends a hello with seq; the first message of the
// answer is read.
func (a *attacker) offerTo(victim *node, seq uint64) (*quic.Conn, *quic.Stream) {
	a.w.t.Helper()
	qc := a.mustDial(victim)
	s, err := qc.OpenStream()
	if err != nil {
		a.w.t.Fatal(err)
	}
	s.Write(helloOf(1, seq).frame())
	return qc, s
}

// decider returns an attacker that decides for the pair with victim.
func (w *world) decider(victim *node) *attacker {
	for n := 10; ; n++ {
		if a := w.attacker(n); !victim.decides(PeerIDFromKey(testKey(a.key))) {
			return a
		}
	}
}

// follower returns an attacker for which the victim decides, so that its hello is
// enough.
func (w *world) follower(victim *node) *attacker {
	for n := 10; ; n++ {
		a := w.attacker(n)
		if victim.decides(PeerIDFromKey(testKey(a.key))) {
			return a
		}
		a.close()
	}
}

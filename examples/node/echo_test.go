package main

import (
	"encoding/binary"
	"testing"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

func TestEchoGoesOnWithTheNextConnection(t *testing.T) {
	t.Parallel()
	stays, dies := newNode(t, freeAddr(t)), newNode(t, freeAddr(t))
	dies.run()
	stays.run(registers(dies), "-echo=20ms", "-echo-size=20000")
	stays.await(0, "msg=echo stream begins", "peer="+dies.id.Short())
	stays.awaitAnswer(0, dies)

	dies.kill()
	dies.run()
	_, from := stays.await(0, "level=WARN", "msg=echo stream ended", "peer="+dies.id.Short())
	_, from = stays.await(from, "msg=echo stream begins", "peer="+dies.id.Short())
	stays.awaitAnswer(from, dies)
}

// awaitAnswer waits until n reports, from the given line on, that m has answered on its
// echo stream.
func (n *node) awaitAnswer(from int, m *node) {
	n.t.Helper()
	for l := (line{}); l["answers"] == "" || l["answers"] == "0"; {
		l, from = n.await(from, "msg=echo", "peer="+m.id.Short())
	}
}

func TestWrongEchoIsNotCounted(t *testing.T) {
	t.Parallel()
	peer, err := meshsync.New(meshsync.Options{ListenAddr: "127.0.0.1:0", Handler: func(c *meshsync.Conn) {
		if s, err := c.AcceptStream(c.Context()); err == nil {
			s.Write(binary.BigEndian.AppendUint64(nil, 7))
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	n := newNode(t, freeAddr(t))
	n.run("-peer="+peer.ID().String()+"@"+peer.Addr().String(), "-echo=20ms")
	n.await(0, "msg=echo stream ended", "err=answer 7 where 1 was due")
}

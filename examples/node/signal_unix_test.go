//go:build unix

package main

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

func TestStoppedPeerIsConnectedAgainWhenItContinues(t *testing.T) {
	skipIfShort(t)
	t.Parallel()
	a, b := newNode(t, freeAddr(t)), newNode(t, freeAddr(t))
	a.run(registers(b))
	b.run(registers(a))
	a.awaitConnected(0, b)
	b.awaitConnected(0, a)

	aBefore, bBefore := a.lines(), b.lines()
	b.signal(syscall.SIGSTOP)
	lastFor(30 * time.Second) // twice the idle timeout
	a.await(aBefore, "msg=event", "kind=disconnected", "peer="+b.id.Short())
	b.signal(syscall.SIGCONT)

	a.awaitConnected(aBefore, b)
	b.awaitConnected(bBefore, a)
	a.wantConns(b, 2)
	b.wantConns(a, 2)
}

func TestSIGTERMEndsNodeInOrder(t *testing.T) {
	t.Parallel()
	a, b := newNode(t, freeAddr(t)), newNode(t, freeAddr(t))
	a.run()
	b.run(registers(a))
	b.awaitConnected(0, a)

	a.signal(syscall.SIGTERM)
	if code := a.awaitExit(); code != exitOK {
		t.Errorf("exit code is %d, want %d", code, exitOK)
	}
	lost, _ := b.await(0, "msg=event", "kind=disconnected", "will_retry=true")
	if !strings.HasPrefix(lost["err"], meshsync.ErrShutdown.Error()) {
		t.Errorf("b lost the connection with %q, want %q", lost["err"], meshsync.ErrShutdown)
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

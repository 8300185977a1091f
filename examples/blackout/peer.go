package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// moveCommand on its stdin makes B move.
const moveCommand = "move"

// bePeer is B's process: a transport that echoes every stream, and is connected
// to a relay. It prints its address, and the new one when it has moved, and goes
// away in order when its stdin ends, so it never outlives A.
func bePeer(keyFile, listen, relayURL string) error {
	key, err := meshsync.LoadOrCreateKey(keyFile)
	if err != nil {
		return err
	}
	net, err := newNetwork(listen, "")
	if err != nil {
		return err
	}
	b, err := meshsync.New(meshsync.Options{
		PrivateKey:  key,
		PacketConn:  net,
		Relays:      []string{relayURL},
		KeepAlive:   keepAlive,
		IdleTimeout: idleTimeout,
		Handler:     echoStreams,
	})
	if err != nil {
		return errors.Join(err, net.Close())
	}
	fmt.Println(net.LocalAddr())
	for commands := bufio.NewScanner(os.Stdin); commands.Scan(); {
		if commands.Text() != moveCommand {
			continue
		}
		if err := net.rebind(); err != nil {
			return errors.Join(err, b.Close())
		}
		b.NetworkChanged()
		fmt.Println(net.LocalAddr())
	}

	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return b.Shutdown(ctx)
}

// echoStreams sends back what comes in, until the connection ends. How much
// that can be at once is bounded by QUIC's limits on streams and on data that
// was not read yet.
func echoStreams(c *meshsync.Conn) {
	for {
		s, err := c.AcceptStream(c.Context())
		if err != nil {
			return
		}
		go func() { // ends with the stream, at the latest with the connection
			defer s.Close()
			io.Copy(s, s)
		}()
	}
}

// A peerProcess is B, seen from the process that started it.
type peerProcess struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Scanner
	addr   string // where it listens
}

// startPeer starts this program once more, as B, and returns when it listens.
// The process is killed when ctx ends.
func startPeer(ctx context.Context, keyFile, listen, relayURL string) (*peerProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, peerCommand, keyFile, listen, relayURL)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start B: %w", err)
	}
	p := &peerProcess{cmd: cmd, stdin: stdin, stdout: bufio.NewScanner(stdout)}
	if err := p.readAddr(); err != nil {
		return nil, fmt.Errorf("peer B did not start: %w", errors.Join(err, cmd.Wait()))
	}
	return p, nil
}

// readAddr waits for the process to say where it listens.
func (p *peerProcess) readAddr() error {
	if !p.stdout.Scan() {
		return errors.Join(errors.New("it said nothing"), p.stdout.Err())
	}
	p.addr = p.stdout.Text()
	return nil
}

// move lets the process go on at another address.
func (p *peerProcess) move() error {
	if _, err := fmt.Fprintln(p.stdin, moveCommand); err != nil {
		return fmt.Errorf("tell B to move: %w", err)
	}
	return p.readAddr()
}

// kill ends the process without giving it a chance to tell anybody, and
// returns when it is gone.
func (p *peerProcess) kill() error {
	err := p.cmd.Process.Kill()
	p.cmd.Wait() // reports that it was killed
	return err
}

// leave lets the process shut its transport down and exit.
func (p *peerProcess) leave() error {
	p.stdin.Close()
	return p.cmd.Wait()
}

package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/meshnet"
)

// A process is the peer as it runs once: it has a transport and an HTTP server.
type process struct {
	*meshsync.MeshSyncTransport
	number  int
	addr    string
	socket  net.PacketConn
	web     *http.Server
	serving sync.WaitGroup
}

// startProcess starts the peer's process of a number. With the key of the last one it is the same peer.
func startProcess(number int, key ed25519.PrivateKey, addr string) (*process, error) {
	// Options.ListenAddr does it, if nobody wants to close the socket underneath.
	socket, err := net.ListenPacket("udp", addr)
	if err != nil {
		return nil, err
	}
	mux := meshnet.NewMux()
	listener, err := mux.Listen(service)
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	mesh, err := meshsync.New(meshsync.Options{PrivateKey: key, PacketConn: socket, Handler: mux.Handle})
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	p := &process{
		MeshSyncTransport: mesh, number: number, addr: mesh.Addr().String(), socket: socket,
		web: &http.Server{Handler: handler(number)},
	}
	p.serving.Go(func() { p.web.Serve(listener) }) // until it is closed
	return p, nil
}

// handler says which process answers whom.
func handler(number int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := meshsync.ParsePeerID(r.RemoteAddr) // proven by the mesh
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "process %d to %s", number, id.Short())
	})
}

// shutDown ends the process in order. The transport goes first: it delivers what has been answered and tells
// the other side, which then waits. If the server went first, what is asked in between would be refused,
// with meshnet.ErrNoService.
func (p *process) shutDown(ctx context.Context) error {
	err := p.MeshSyncTransport.Shutdown(ctx)
	p.kill()
	return err
}

// kill ends the process as kill -9 does: no packet tells of it.
func (p *process) kill() {
	p.socket.Close()
	p.MeshSyncTransport.Close()
	p.web.Close()
	p.serving.Wait()
}

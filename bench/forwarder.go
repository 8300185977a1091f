package main

import (
	"net"
	"sync"
	"sync/atomic"
)

// A forwarder passes UDP packets on to a peer and back, as a port forwarding of a
// router does. It looks at none of them.
type forwarder struct {
	site site

	mu    sync.Mutex
	socks []net.PacketConn
	wg    sync.WaitGroup // two goroutines for each peer, until the sockets are closed
}

// forward returns the address at which packets are taken to a peer. They come from
// one client; when its address changes, the peer's packets follow.
func (f *forwarder) forward(peer net.Addr) (net.Addr, error) {
	front, err := f.listen()
	if err != nil {
		return nil, err
	}
	back, err := f.listen()
	if err != nil {
		return nil, err
	}
	var client atomic.Pointer[net.Addr]
	f.wg.Go(func() {
		pass(front, func(b []byte, from net.Addr) {
			client.Store(&from)
			back.WriteTo(b, peer)
		})
	})
	f.wg.Go(func() {
		pass(back, func(b []byte, _ net.Addr) {
			if to := client.Load(); to != nil {
				front.WriteTo(b, *to)
			}
		})
	})
	return front.LocalAddr(), nil
}

func (f *forwarder) listen() (net.PacketConn, error) {
	sock, err := f.site.listen(0)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.socks = append(f.socks, sock)
	f.mu.Unlock()
	return sock, nil
}

// pass hands on what a socket gets, until it is closed.
func pass(sock net.PacketConn, on func(b []byte, from net.Addr)) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := sock.ReadFrom(b)
		if err != nil {
			return
		}
		on(b[:n], from)
	}
}

func (f *forwarder) close() error {
	f.mu.Lock()
	for _, s := range f.socks {
		s.Close()
	}
	f.mu.Unlock()
	f.wg.Wait()
	return nil
}

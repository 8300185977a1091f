package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/meshnet"
)

// A client makes requests of one kind.
type client struct {
	name, method, url string
	key               string // the header Idempotency-Key, "" for none

	http *http.Client
	open sync.WaitGroup // conns that it has not closed
}

func newClient(mesh *meshsync.MeshSyncTransport, peer meshsync.PeerID, method, key string) *client {
	c := &client{name: method, method: method, key: key, url: "http://" + peer.String() + "/"}
	if key != "" {
		c.name += " with Idempotency-Key"
	}
	dial := meshnet.Dialer(mesh, service)
	c.http = &http.Client{Transport: &http.Transport{
		// DialContext: dial is all that it takes. Here conns are counted, too.
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			c.open.Add(1)
			return &counted{Conn: conn, closed: sync.OnceFunc(c.open.Done)}, nil
		},
	}}
	return c
}

// counted is a conn that says when it is closed.
type counted struct {
	net.Conn
	closed func()
}

func (c *counted) Close() error {
	defer c.closed()
	return c.Conn.Close()
}

// ask makes a request and returns the answer, how long it took, and on how many conns the request was sent: on
// two if http.Transport made it again. It waits for the peer until ctx ends.
func (c *client) ask(ctx context.Context) (string, error) {
	conns := 0
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { conns++ }})
	var body io.Reader
	if c.method == http.MethodPost {
		body = strings.NewReader("an order")
	}
	r, err := http.NewRequestWithContext(ctx, c.method, c.url, body)
	if err != nil {
		return "", err
	}
	if c.key != "" {
		r.Header.Set("Idempotency-Key", c.key)
	}
	began := time.Now()
	response, err := c.http.Do(r)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return fmt.Sprintf("%s after %.2f s, conns: %d", text, time.Since(began).Seconds(), conns), err
}

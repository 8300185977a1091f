package meshnet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
	"github.com/defenseunicorns/peat-mesh-go/meshsync/meshnet"
)

// One side serves HTTP under a name, the other asks it by its peer ID. The README shows these lines.
func Example() {
	mux := meshnet.NewMux()
	server, err := meshsync.New(meshsync.Options{ListenAddr: "127.0.0.1:0", Handler: mux.Handle})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	web, err := mux.Listen("web")
	if err != nil {
		log.Fatal(err)
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "you asked for %s", r.URL.Path)
	})
	go http.Serve(web, handler)
	defer web.Close()

	t, err := meshsync.New(meshsync.Options{ListenAddr: "127.0.0.1:0"})
	if err != nil {
		log.Fatal(err)
	}
	defer t.Close()
	peer := server.ID()
	if err := t.RegisterForReconnect(peer, []string{server.Addr().String()}, ""); err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: meshnet.Dialer(t, "web")}}
	defer client.CloseIdleConnections()
	answer, err := client.Get("http://" + peer.String() + "/status")
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	fmt.Println(string(body), err)
	// Output: you asked for /status <nil>
}

// Whether the peer has such a service, the first Read tells.
func ExampleDial_noService() {
	mux := meshnet.NewMux()
	server, err := meshsync.New(meshsync.Options{ListenAddr: "127.0.0.1:0", Handler: mux.Handle})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	client, err := meshsync.New(meshsync.Options{ListenAddr: "127.0.0.1:0"})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	if err := client.RegisterForReconnect(server.ID(), []string{server.Addr().String()}, ""); err != nil {
		log.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := meshnet.Dial(ctx, client, server.ID(), "web")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	_, err = c.Read(make([]byte, 1))
	fmt.Println(errors.Is(err, meshnet.ErrNoService))
	// Output: true
}

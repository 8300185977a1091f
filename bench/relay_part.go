package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"

	"tailscale.com/derp/derpserver"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
	"github.com/defenseunicorns/peat-mesh-go/relay"
)

// The relays of the relay suite.
const (
	relayMesh   = "meshsync"
	relayLibp2p = "libp2p circuit v2"
	relayDERP   = "quic-go over DERP"
)

// relayAnswer is where a relay is and what it has used so far. A relay's first
// answer needs no request; the others come for each.
type relayAnswer struct {
	Where string      `json:"where"` // ours: a URL; DERP: host:port
	At    jsonContact `json:"at"`    // libp2p's
	CPU   float64     `json:"cpu"`
}

// playRelay is a relay's process. The first request says which.
func playRelay(in *json.Decoder, out *json.Encoder) error {
	var kind string
	if err := in.Decode(&kind); err != nil {
		return err
	}
	starts := map[string]func() (relayAnswer, error){
		relayMesh: startMeshRelay, relayLibp2p: startCircuitRelay, relayDERP: startDERP,
	}
	start, ok := starts[kind]
	if !ok {
		return fmt.Errorf("no relay %q", kind)
	}
	a, err := start()
	if err != nil {
		return err
	}
	for {
		a.CPU = cpuSeconds()
		if err := out.Encode(a); err != nil {
			return err
		}
		if err := in.Decode(&kind); err != nil {
			return err
		}
	}
}

func startMeshRelay() (relayAnswer, error) {
	s, err := relay.NewServer(relay.ServerOptions{ListenAddr: "127.0.0.1:0", BytesPerSecond: 4 << 30})
	if err != nil {
		return relayAnswer{}, err
	}
	return relayAnswer{Where: s.URL()}, nil
}

func startCircuitRelay() (relayAnswer, error) {
	s, err := realSite()
	if err != nil {
		return relayAnswer{}, err
	}
	if _, err := startLibp2pRelay(s); err != nil {
		return relayAnswer{}, err
	}
	return relayAnswer{At: s.contact().json()}, nil
}

// startDERP is Tailscale's DERP server on TLS connections. In Tailscale an HTTP
// upgrade comes first, which has no part in what follows.
func startDERP() (relayAnswer, error) {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return relayAnswer{}, err
	}
	cert, err := identity.Certificate(priv)
	if err != nil {
		return relayAnswer{}, err
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		return relayAnswer{}, err
	}
	server := derpserver.New(key.NewNode(), logger.Discard)
	go func() { // ends with the process
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go server.Accept(context.Background(), c, bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c)), c.RemoteAddr().String())
		}
	}()
	return relayAnswer{Where: listener.Addr().String()}, nil
}

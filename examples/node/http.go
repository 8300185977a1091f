package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// An httpServer answers /metrics, /healthz and /debug/pprof. It is closed
// before the transport, so whoever gets an answer knows that the transport is
// open.
type httpServer struct {
	addr   net.Addr
	server *http.Server
	done   chan struct{} // closed when the serving goroutine has ended
}

func startHTTP(addr string, t *meshsync.MeshSyncTransport, metrics prometheus.Gatherer, log *slog.Logger) (*httpServer, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("-metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeHealth(w, t) })
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)

	s := &httpServer{
		addr: l.Addr(),
		// A client that never finishes its request costs a connection for this
		// long, not for ever. There is no write timeout: profiles take their time.
		server: &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute},
		done:   make(chan struct{}),
	}
	go func() { // until close
		defer close(s.done)
		if err := s.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("HTTP ended", "err", err)
		}
	}()
	return s, nil
}

// close ends the requests under way too: none is worth holding up the exit.
func (s *httpServer) close() {
	s.server.Close()
	<-s.done
}

// health is the answer of /healthz.
type health struct {
	Registered int            `json:"registered"`
	Connected  int            `json:"connected"`
	Peers      map[string]int `json:"peers"` // by state
}

// writeHealth answers 200 whether the peers are there or not: restarting this
// process would not bring them back.
func writeHealth(w http.ResponseWriter, t *meshsync.MeshSyncTransport) {
	h := health{Peers: make(map[string]int)}
	for _, p := range t.Peers() {
		if p.Registered {
			h.Registered++
		}
		if p.State == meshsync.StateConnected {
			h.Connected++
		}
		h.Peers[p.State.String()]++
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(h)
}

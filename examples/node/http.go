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
	"github.com/defenseunicorns/peat-mesh-go/meshsync/statuspage"
)

// An httpServer answers /status, /metrics, /healthz, /readyz and /debug/pprof. It is closed
// before the transport, so whoever gets an answer knows that the transport is
// open.
type httpServer struct {
	addr   net.Addr
	server *http.Server
	status *statuspage.Page
	done   chan struct{} // closed when the serving goroutine has ended
}

func startHTTP(addr string, t *meshsync.MeshSyncTransport, metrics prometheus.Gatherer, log *slog.Logger) (*httpServer, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("-metrics: %w", err)
	}
	status, err := statuspage.New(t, statuspage.Options{})
	if err != nil {
		l.Close()
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/status", status)
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	// A node runs well whether its peers and relays are there or not: restarting
	// the process would not bring them back.
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		h, _ := healthOf(t)
		h.write(w, http.StatusOK)
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		h, ready := healthOf(t)
		if ready {
			h.write(w, http.StatusOK)
		} else {
			h.write(w, http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)

	s := &httpServer{
		addr:   l.Addr(),
		status: status,
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
	s.status.Close()
}

// health is the answer of /healthz and /readyz.
type health struct {
	Registered int            `json:"registered"`
	Connected  int            `json:"connected"`
	Peers      map[string]int `json:"peers"` // by state
	Relays     []relayHealth  `json:"relays"`
}

type relayHealth struct {
	URL      string    `json:"url"`
	Home     bool      `json:"home"`
	State    string    `json:"state"`
	Since    time.Time `json:"since"`
	Carrier  string    `json:"carrier,omitempty"`
	Observed string    `json:"observed,omitempty"` // the node's address, as the relay sees it
	Error    string    `json:"error,omitempty"`
}

// healthOf returns how things stand, and whether the node is ready: others can
// reach it at one of its home relays, if it has any.
func healthOf(t *meshsync.MeshSyncTransport) (h health, ready bool) {
	h = health{Peers: make(map[string]int), Relays: []relayHealth{}}
	for _, p := range t.Peers() {
		if p.Registered {
			h.Registered++
		}
		if p.State == meshsync.StateConnected {
			h.Connected++
		}
		h.Peers[p.State.String()]++
	}
	homes, connected := 0, 0
	for _, r := range t.Relays() {
		if r.Home {
			homes++
		}
		if r.Home && r.State == meshsync.RelayConnected {
			connected++
		}
		out := relayHealth{URL: r.URL, Home: r.Home, State: r.State.String(), Since: r.Since, Carrier: string(r.Carrier)}
		if r.Observed.IsValid() {
			out.Observed = r.Observed.String()
		}
		if r.LastError != nil {
			out.Error = r.LastError.Error()
		}
		h.Relays = append(h.Relays, out)
	}
	return h, homes == 0 || connected > 0
}

func (h health) write(w http.ResponseWriter, code int) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(h)
}

package main

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/defenseunicorns/peat-mesh-go/relay"
)

// An httpServer answers /metrics, /healthz and /readyz. It is closed after the
// relay, so that it can tell that the relay drains.
type httpServer struct {
	addr     net.Addr
	relay    *relay.Server
	draining atomic.Bool
	server   *http.Server
	done     chan struct{} // closed when the serving goroutine has ended
}

func startHTTP(addr string, r *relay.Server, metrics prometheus.Gatherer, log *slog.Logger) (*httpServer, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &httpServer{addr: l.Addr(), relay: r, done: make(chan struct{})}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, http.StatusOK) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if s.draining.Load() {
			s.answer(w, http.StatusServiceUnavailable)
		} else {
			s.answer(w, http.StatusOK)
		}
	})
	s.server = &http.Server{
		Handler: mux,
		// A client that is slow in either direction costs a connection for this
		// long, not for ever.
		ReadTimeout:  5 * time.Second,
		WriteTimeout: 30 * time.Second,
		IdleTimeout:  time.Minute,
	}
	go func() { // until close
		defer close(s.done)
		if err := s.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("HTTP ended", "err", err)
		}
	}()
	return s, nil
}

// drain makes /readyz say that no clients are taken any more. A nil server has
// nobody to tell.
func (s *httpServer) drain() {
	if s != nil {
		s.draining.Store(true)
	}
}

// close ends the requests under way too: none is worth holding up the exit.
func (s *httpServer) close() {
	s.server.Close()
	<-s.done
}

// health is the answer of /healthz and /readyz.
type health struct {
	Clients  int  `json:"clients"`
	Draining bool `json:"draining"`
}

func (s *httpServer) answer(w http.ResponseWriter, code int) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(health{Clients: s.relay.Clients(), Draining: s.draining.Load()})
}

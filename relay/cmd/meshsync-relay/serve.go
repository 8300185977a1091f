package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/defenseunicorns/peat-mesh-go/relay"
)

// serve runs the relay until ctx ends, and then drains it.
func serve(ctx context.Context, cfg config, reload <-chan os.Signal, stdout io.Writer, log *slog.Logger) (err error) {
	f, err := readFiles(cfg)
	if err != nil {
		return err
	}
	slog.SetDefault(log) // what the libraries say through package log is of one format too
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s, err := relay.NewServer(serverOptions(cfg, f, log, registry))
	if err != nil {
		return fmt.Errorf("%s: %w", cfg.source("listen"), err) // the rest has been checked
	}
	defer func() { err = errors.Join(err, s.Close()) }() // has nothing to do once it has drained

	url, err := printedURL(s, cfg)
	if err != nil {
		return err
	}
	up := []any{"url", url, "addr", s.Addr().String()} // as text in JSON too
	var web *httpServer                                // nil: none
	if cfg.metrics != "" {
		if web, err = startHTTP(cfg.metrics, s, registry, log); err != nil {
			return fmt.Errorf("%s: %w", cfg.source("metrics"), err)
		}
		defer web.close()
		up = append(up, "metrics", web.addr.String())
	}
	if f.allow != nil {
		up = append(up, "allowed", f.allow.len())
	}
	if f.cert != nil {
		up = append(up, "certificate_expires", f.cert.expires())
	}
	log.Info("relay is up", up...)
	if _, err := fmt.Fprintln(stdout, url); err != nil {
		return fmt.Errorf("standard output: %w", err)
	}
	for {
		select {
		case <-reload:
			f.reload(log)
		case <-ctx.Done():
			log.Info("relay shuts down", "cause", context.Cause(ctx))
			web.drain()
			return drain(s, cfg.drain, log)
		}
	}
}

func serverOptions(cfg config, f files, log *slog.Logger, registry prometheus.Registerer) relay.ServerOptions {
	o := relay.ServerOptions{
		ListenAddr:     cfg.listen,
		PrivateKey:     f.key,
		MaxClients:     cfg.maxClients,
		BytesPerSecond: cfg.bytesPerSecond,
		Logger:         log,
		Registerer:     registry,
	}
	if f.cert != nil {
		o.TLS = f.cert.config()
	}
	if f.allow != nil {
		o.Authorize = f.allow.authorize
	}
	return o
}

// printedURL is the relay's, with the host that the flags want in it.
func printedURL(s *relay.Server, cfg config) (string, error) {
	u, err := relay.ParseURL(s.URL())
	if err != nil {
		return "", err
	}
	if cfg.urlHost != "" {
		u.Host = cfg.urlHost
	}
	return u.String(), nil
}

// drain closes the relay when its clients have left, or after limit.
func drain(s *relay.Server, limit time.Duration, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err := s.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		log.Warn("the wait for clients to leave is over", "drain", limit.String())
		return nil
	}
	return err
}

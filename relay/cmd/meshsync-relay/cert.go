package main

import (
	"crypto/tls"
	"fmt"
	"sync/atomic"
	"time"
)

// maxPEM bounds a certificate file: a chain of RSA certificates takes some 10 kB.
const maxPEM = 1 << 20

// A certificate is what clients see whose URL has no ID. It is read while the
// relay starts, and again at each load.
type certificate struct {
	certFile, keyFile string
	pair              atomic.Pointer[tls.Certificate] // never nil
}

// readCertificate returns the certificate in the two PEM files.
func readCertificate(certFile, keyFile string) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile}
	if err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

// load reads the files again. If it fails, the certificate stays what it was.
func (c *certificate) load() error {
	chain, err := readFile(c.certFile, maxPEM)
	if err != nil {
		return err
	}
	key, err := readFile(c.keyFile, maxPEM)
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return fmt.Errorf("%s with %s: %w", c.certFile, c.keyFile, err)
	}
	c.pair.Store(&pair)
	return nil
}

// config returns TLS rules that show the certificate as it is at the time.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.pair.Load(), nil },
	}
}

// expires returns when the certificate does.
func (c *certificate) expires() time.Time { return c.pair.Load().Leaf.NotAfter }

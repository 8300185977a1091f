package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// ErrIdentityMismatch says that the other side proved another identity than
// the one that was asked for.
var ErrIdentityMismatch = errors.New("the other side is another peer")

// noExpiry is what RFC 5280 section 4.1.2.5 gives a certificate without a
// well-defined end: these certificates live as long as their key, and nobody
// reads their dates, so a node whose clock is wrong still gets in.
var noExpiry = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// Certificate returns a self-signed certificate that carries the public half
// of key, for the TLS handshake to prove.
func Certificate(key ed25519.PrivateKey) (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Unix(0, 0),
		NotAfter:     noExpiry,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("self-signed certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// ServerTLS returns the TLS rules of an accepting side: TLS 1.3, the given
// application protocol, a certificate from the client and no session tickets.
// Who the client is, PeerOf tells once the handshake is complete.
func ServerTLS(cert tls.Certificate, alpn string) *tls.Config {
	conf := baseTLS(cert, alpn)
	conf.ClientAuth = tls.RequireAnyClientCert
	conf.SessionTicketsDisabled = true
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		_, err := PeerOf(cs)
		return err
	}
	return conf
}

// ClientTLS returns the TLS rules of a dialing side, which accepts only want:
// the handshake with anybody else fails with ErrIdentityMismatch.
func ClientTLS(cert tls.Certificate, alpn string, want PeerID) *tls.Config {
	conf := baseTLS(cert, alpn)
	// The certificate authorities of the web have no say here. VerifyConnection
	// checks the key itself, and the handshake has proven its possession.
	conf.InsecureSkipVerify = true
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		got, err := PeerOf(cs)
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("%w: want %s, got %s", ErrIdentityMismatch, want.Short(), got.Short())
		}
		return nil
	}
	return conf
}

func baseTLS(cert tls.Certificate, alpn string) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		NextProtos:   []string{alpn},
	}
}

// PeerOf returns the identity the other side proved in a handshake. It fails
// if the certificate is missing, is not alone, is not for an Ed25519 key, or is
// for one that Check refuses, since possession of that proves nothing.
func PeerOf(cs tls.ConnectionState) (PeerID, error) {
	if len(cs.PeerCertificates) != 1 {
		return PeerID{}, fmt.Errorf("want one certificate from the other side, got %d", len(cs.PeerCertificates))
	}
	pub, ok := cs.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok {
		return PeerID{}, fmt.Errorf("the other side's key is %T, want Ed25519", cs.PeerCertificates[0].PublicKey)
	}
	id := PeerID(pub)
	if err := id.Check(); err != nil {
		return PeerID{}, fmt.Errorf("the other side's key %s: %w", id.Short(), err)
	}
	return id, nil
}

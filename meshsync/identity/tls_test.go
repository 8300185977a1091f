package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"testing"
)

// handshake runs TLS between the two and returns what each side got.
func handshake(t *testing.T, client, server *tls.Config) (seen tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			serverErr = err
			return
		}
		defer c.Close()
		s := tls.Server(c, server)
		serverErr = s.Handshake()
		seen = s.ConnectionState()
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	tc := tls.Client(c, client)
	clientErr = tc.Handshake()
	if clientErr == nil {
		tc.Read(make([]byte, 1)) // TLS 1.3: the server's verdict on the client comes later
	}
	c.Close()
	<-done
	return seen, clientErr, serverErr
}

func mustCert(t *testing.T, n byte) tls.Certificate {
	t.Helper()
	cert, err := Certificate(testKey(n))
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestHandshakeProvesBothIdentities(t *testing.T) {
	client := ClientTLS(mustCert(t, 1), "test/1", FromKey(testKey(2)))
	seen, clientErr, serverErr := handshake(t, client, ServerTLS(mustCert(t, 2), "test/1"))
	if clientErr != nil || serverErr != nil {
		t.Fatal(clientErr, serverErr)
	}
	if id, err := PeerOf(seen); err != nil || id != FromKey(testKey(1)) {
		t.Errorf("the server saw %v, %v", id, err)
	}
	if seen.Version != tls.VersionTLS13 || seen.NegotiatedProtocol != "test/1" {
		t.Errorf("version %x, protocol %q", seen.Version, seen.NegotiatedProtocol)
	}
}

func TestClientRefusesAnotherPeer(t *testing.T) {
	client := ClientTLS(mustCert(t, 1), "test/1", FromKey(testKey(3)))
	_, clientErr, _ := handshake(t, client, ServerTLS(mustCert(t, 2), "test/1"))
	if !errors.Is(clientErr, ErrIdentityMismatch) {
		t.Errorf("got %v, want %v", clientErr, ErrIdentityMismatch)
	}
}

func TestServerRefusesClientsWithoutOneGoodCertificate(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: noExpiry}
	der, err := x509.CreateCertificate(rand.Reader, template, template, ec.Public(), ec)
	if err != nil {
		t.Fatal(err)
	}
	good := mustCert(t, 1)
	two := good
	two.Certificate = append(two.Certificate[:1:1], good.Certificate[0])
	stolen := good // someone else's certificate, without its key
	stolen.PrivateKey = testKey(9)
	for name, certs := range map[string][]tls.Certificate{
		"none": nil, "ECDSA": {{Certificate: [][]byte{der}, PrivateKey: ec}}, "two": {two}, "stolen": {stolen},
	} {
		client := ClientTLS(good, "test/1", FromKey(testKey(2)))
		client.Certificates = certs
		if _, _, serverErr := handshake(t, client, ServerTLS(mustCert(t, 2), "test/1")); serverErr == nil {
			t.Errorf("%s: let in", name)
		}
	}
}

func TestOldVersionsAndOtherProtocolsAreRefused(t *testing.T) {
	for name, change := range map[string]func(*tls.Config){
		"TLS 1.2":          func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		"another protocol": func(c *tls.Config) { c.NextProtos = []string{"test/2"} },
	} {
		client := ClientTLS(mustCert(t, 1), "test/1", FromKey(testKey(2)))
		change(client)
		if _, _, serverErr := handshake(t, client, ServerTLS(mustCert(t, 2), "test/1")); serverErr == nil {
			t.Errorf("%s: let in", name)
		}
	}
}

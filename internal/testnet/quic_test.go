package testnet_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// serverTLS returns the configuration of a server with a self-signed certificate.
func serverTLS(t *testing.T) *tls.Config {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	cert, err := x509.CreateCertificate(nil, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		NextProtos:   []string{"echo"},
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: private}},
	}
}

// serveEcho answers each stream of each connection with what it got, until the listener closes.
func serveEcho(l *quic.Listener) {
	for {
		conn, err := l.Accept(context.Background())
		if err != nil {
			return
		}
		go func() {
			for {
				stream, err := conn.AcceptStream(context.Background())
				if err != nil {
					return
				}
				io.Copy(stream, stream)
				stream.Close()
			}
		}()
	}
}

// echo sends so many bytes on a new stream and checks that they come back.
func echo(t *testing.T, conn *quic.Conn, size int) {
	t.Helper()
	stream, err := conn.OpenStreamSync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		stream.Write(make([]byte, size))
		stream.Close()
	}()
	if back, err := io.ReadAll(stream); err != nil || len(back) != size {
		t.Fatalf("%d of %d bytes came back, %v", len(back), size, err)
	}
}

func TestQUICThroughAnHourOfBlackout(t *testing.T) {
	virtual(t, func(t *testing.T, n *testnet.Net) {
		n.SetDefaultLink(testnet.Link{Latency: 25 * ms, Jitter: 5 * ms, Loss: 0.01, Rate: 10 << 20})
		ship := n.NAT(addr("192.0.2.1"), testnet.NATConfig{}).Host("ship", addr("192.168.0.2"))
		shore := n.Host("shore", addr("10.0.0.2"))
		shipConn, shoreConn := listen(t, ship, 1), listen(t, shore, 1)
		defer shipConn.Close()
		defer shoreConn.Close()
		client, server := &quic.Transport{Conn: shipConn}, &quic.Transport{Conn: shoreConn}
		defer client.Close()
		defer server.Close()

		config := &quic.Config{KeepAlivePeriod: 5 * time.Second, MaxIdleTimeout: 15 * time.Second}
		l, err := server.Listen(serverTLS(t), config)
		if err != nil {
			t.Fatal(err)
		}
		go serveEcho(l)
		dial := func(timeout time.Duration) (*quic.Conn, error) {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			return client.Dial(ctx, shoreConn.LocalAddr(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"echo"}}, config)
		}

		first, err := dial(10 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		echo(t, first, 1<<20)
		time.Sleep(time.Hour)
		echo(t, first, 1<<10) // keep-alives held the connection, and the NAT's mapping

		ship.Blackout(testnet.Both)
		<-first.Context().Done()
		if idle := new(quic.IdleTimeoutError); !errors.As(context.Cause(first.Context()), &idle) {
			t.Errorf("the connection ended with %v", context.Cause(first.Context()))
		}
		time.Sleep(time.Minute) // the server's side ends too
		synctest.Wait()
		before := runtime.NumGoroutine()
		const dials = 59
		for range dials {
			if _, err := dial(10 * time.Second); err == nil {
				t.Fatal("a dial got through the blackout")
			}
			time.Sleep(50 * time.Second)
		}
		synctest.Wait()
		// The runtime starts a goroutine of its own now and then; a leak would be one for each dial.
		if after := runtime.NumGoroutine(); after >= before+dials {
			t.Errorf("%d goroutines before an hour of dials, %d after", before, after)
		}

		ship.Restore()
		second, err := dial(10 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		echo(t, second, 1<<20)
	})
}

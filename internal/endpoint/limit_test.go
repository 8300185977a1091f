package endpoint

import (
	"context"
	"errors"
	"net"
	"runtime"
	"testing"

	"github.com/quic-go/quic-go"
)

func TestInboundLimitsAndRetry(t *testing.T) {
	l := newLimit()
	ctx, cancel := context.WithCancel(context.Background())
	admit := func(i int) error {
		addr := &net.UDPAddr{IP: net.IPv4(10, byte(i>>16), byte(i>>8), byte(i)), Port: 1}
		_, err := l.admit(ctx, &quic.ClientInfo{RemoteAddr: addr})
		return err
	}
	for i := range maxUnknown {
		if l.underLoad(nil) != (i > retryAbove) {
			t.Fatalf("with %d unknown connections: address validation is %v", i, l.underLoad(nil))
		}
		if err := admit(i); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	if err := admit(maxUnknown); !errors.Is(err, errTooMany) {
		t.Errorf("one too many: %v", err)
	}
	cancel()
	for l.Count() > 0 { // released in goroutines of the context's
		runtime.Gosched()
	}
	if len(l.perHost) != 0 {
		t.Errorf("%d hosts are left", len(l.perHost))
	}
	for range MaxUnknownPerHost {
		if _, err := l.admit(context.Background(), &quic.ClientInfo{RemoteAddr: &net.UDPAddr{IP: net.ParseIP("2001:db8::1")}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.admit(context.Background(), &quic.ClientInfo{RemoteAddr: &net.UDPAddr{IP: net.ParseIP("2001:db8::2")}}); err == nil {
		t.Error("another address of the same /64 was let in")
	}
	if _, err := l.admit(context.Background(), &quic.ClientInfo{RemoteAddr: &net.UDPAddr{IP: net.ParseIP("2001:db8:0:1::1")}}); err != nil {
		t.Errorf("another /64: %v", err)
	}
}

// A virtual address is one peer, and all of them leave room for the network.
func TestInboundLimitsOfVirtualAddresses(t *testing.T) {
	l := newLimit()
	ctx, cancel := context.WithCancel(context.Background())
	admit := func(addr *net.UDPAddr) error {
		_, err := l.admit(ctx, &quic.ClientInfo{RemoteAddr: addr})
		return err
	}
	for n := range uint64(maxUnknownRelayed / maxUnknownVirtual) {
		for range maxUnknownVirtual {
			if err := admit(VirtualAddr(n)); err != nil {
				t.Fatalf("address %d: %v", n, err)
			}
		}
		if err := admit(VirtualAddr(n)); !errors.Is(err, errTooMany) {
			t.Fatalf("one too many of address %d: %v", n, err)
		}
	}
	if err := admit(VirtualAddr(1 << 40)); !errors.Is(err, errTooMany) {
		t.Errorf("one too many of all: %v", err)
	}
	if err := admit(&net.UDPAddr{IP: net.IPv4(10, 0, 0, 1)}); err != nil {
		t.Errorf("no room for the network: %v", err)
	}
	cancel()
	for l.Count() > 0 { // released in goroutines of the context's
		runtime.Gosched()
	}
	if l.relayed != 0 || len(l.perHost) != 0 {
		t.Errorf("%d of virtual addresses, %d hosts are left", l.relayed, len(l.perHost))
	}
}

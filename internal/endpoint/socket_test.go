package endpoint

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"testing"
)

// Only failures in a row make the socket rest.
func TestSingleReadFailuresDoNotAddUp(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	d := &duties{log: slog.New(slog.DiscardHandler), injected: newInjector(pc)}
	for range 5 * readFailures {
		if !d.again(errors.New("foreign error")) || d.again(nil) || d.failed != 0 {
			t.Fatalf("after a failure and a success: %d failures in a row", d.failed)
		}
	}
	if d.again(net.ErrClosed) || d.again(os.ErrDeadlineExceeded) {
		t.Error("a closed socket is read again")
	}
}

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
	d := &duties{log: slog.New(slog.DiscardHandler)}
	for range 5 * readFailures {
		if !d.again(errors.New("foreign error")) || d.again(nil) || d.failed != 0 {
			t.Fatalf("after a failure and a success: %d failures in a row", d.failed)
		}
	}
	if d.again(net.ErrClosed) || d.again(os.ErrDeadlineExceeded) {
		t.Error("a closed socket is read again")
	}
}

package endpoint

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"syscall"
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

func TestErrorsOfSendingCountAsLoss(t *testing.T) {
	established, handshake := []byte{0x40, 1, 2}, []byte{0xc0, 1, 2}
	wrap := func(err error) error {
		return &net.OpError{Op: "write", Net: "udp", Err: os.NewSyscallError("sendmsg", err)}
	}
	for _, tc := range []struct {
		name   string
		packet []byte
		err    error
		loss   bool
	}{
		{"no error", established, nil, false},
		{"prohibit route", established, wrap(syscall.EACCES), true},
		{"blackhole route", established, wrap(syscall.EINVAL), true},
		{"no route", established, wrap(syscall.ENETUNREACH), true},
		{"firewall", established, wrap(syscall.EPERM), true},
		{"broken interface", established, wrap(syscall.EIO), true},
		{"foreign error", established, errors.New("foreign error"), true},
		{"probe", []byte{TypeProbe}, wrap(syscall.EACCES), true},
		{"handshake", handshake, wrap(syscall.EACCES), false},
		{"closed socket", established, &net.OpError{Op: "write", Net: "udp", Err: net.ErrClosed}, false},
		{"too long", established, wrap(errTooLong), false},
	} {
		if got := isLoss(tc.packet, nil, tc.err); got != tc.loss {
			t.Errorf("%s: loss is %v, want %v", tc.name, got, tc.loss)
		}
	}
}

package endpoint

import (
	"net"
	"testing"
	"time"
)

// Thousands of connections write to one socket: none of them waits for another one, as
// all would if they took the lock that Go has for those who write.
func TestWriteDoesNotWaitForOtherWriters(t *testing.T) {
	u := listenUDP(t, "udp4", "127.0.0.1:0")
	s := readingSocket(u)
	raw, err := u.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	held, release, released := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		released <- raw.Write(func(uintptr) bool {
			close(held)
			<-release
			return true
		})
	}()
	<-held

	written := make(chan error, 1)
	to := listenUDP(t, "udp4", "127.0.0.1:0")
	go func() {
		_, _, err := s.WriteMsgUDP([]byte("packet"), nil, to.LocalAddr().(*net.UDPAddr))
		written <- err
	}()
	select {
	case err := <-written:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for another writer")
	}
	close(release)
	if err := <-released; err != nil {
		t.Error(err)
	}
	b := make([]byte, 10)
	to.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := to.Read(b); string(b[:n]) != "packet" {
		t.Errorf("%q came, %v", b[:n], err)
	}
}

package endpoint

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A socket that takes the place of another one has its options.
func TestExchangedSocketHasTheOptionsOfTheFirst(t *testing.T) {
	a := newSide(t, 1, false, Config{})
	s := a.socket.(*udpSocket)
	options := func() (values [6]int) {
		for i, o := range [...]struct{ level, name int }{
			{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER}, {unix.IPPROTO_IP, unix.IP_RECVTOS}, {unix.IPPROTO_IP, unix.IP_PKTINFO},
			{unix.IPPROTO_UDP, unix.UDP_GRO}, {unix.SOL_SOCKET, unix.SO_RCVBUF}, {unix.SOL_SOCKET, unix.SO_SNDBUF},
		} {
			s.conn.Load().system.raw.Control(func(fd uintptr) { values[i], _ = unix.GetsockoptInt(int(fd), o.level, o.name) })
		}
		return values
	}
	want := options()
	if err := a.Rebind(listenUDP(t, "udp4", "127.0.0.1:0")); err != nil {
		t.Fatal(err)
	}
	if got := options(); got != want || got[1] != 1 {
		t.Errorf("%v, want %v: whether it fragments, tells marks and addresses, coalesces, and its buffers", got, want)
	}
}

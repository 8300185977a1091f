//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package netmon

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	rib "golang.org/x/net/route"
	"golang.org/x/sys/unix"
)

// open listens on a route socket (route(4)).
func open() (source, error) {
	fd, err := unix.Socket(unix.AF_ROUTE, unix.SOCK_RAW, unix.AF_UNSPEC)
	if err != nil {
		return source{}, fmt.Errorf("open a route socket: %w", err)
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return source{}, fmt.Errorf("set up a route socket: %w", err)
	}
	messages := os.NewFile(uintptr(fd), "route")
	return source{
		waits:  []func() error{func() error { return awaitMessage(messages) }},
		read:   readTables,
		asleep: asleep,
		close:  func() { messages.Close() },
	}, nil
}

// awaitMessage returns when there was a message, whose text is dropped.
func awaitMessage(messages *os.File) error {
	_, err := messages.Read(make([]byte, 1))
	if errors.Is(err, unix.ENOBUFS) {
		return errLost // the socket goes on
	}
	return err
}

func readTables() (tables, error) {
	t, err := readInterfaces()
	if err != nil {
		return tables{}, err
	}
	b, err := rib.FetchRIB(unix.AF_UNSPEC, rib.RIBTypeRoute, 0)
	if err != nil {
		return tables{}, fmt.Errorf("read routes: %w", err)
	}
	messages, err := rib.ParseRIB(rib.RIBTypeRoute, b)
	if err != nil {
		return tables{}, fmt.Errorf("read routes: %w", err)
	}
	for _, m := range messages {
		if m, ok := m.(*rib.RouteMessage); ok {
			t.addRoute(m)
		}
	}
	return t, nil
}

// addRoute takes those to gateways, and default routes. The others come and go with an address, and those to single hosts
// are mostly made by the system, for each that it has sent to.
func (t *tables) addRoute(m *rib.RouteMessage) {
	if m.Flags&unix.RTF_UP == 0 || m.Flags&(unix.RTF_HOST|unix.RTF_DYNAMIC) != 0 || len(m.Addrs) <= syscall.RTAX_NETMASK {
		return
	}
	destination, mask := text(m.Addrs[syscall.RTAX_DST]), text(m.Addrs[syscall.RTAX_NETMASK])
	all := isZero(m.Addrs[syscall.RTAX_DST]) && isZero(m.Addrs[syscall.RTAX_NETMASK])
	if !all && m.Flags&unix.RTF_GATEWAY == 0 {
		return
	}
	t.routes = append(t.routes, route{
		links: []int{m.Index},
		all:   all,
		key:   fmt.Sprint(destination, " ", mask, " ", text(m.Addrs[syscall.RTAX_GATEWAY]), " ", m.Index, " ", m.Flags),
	})
}

// text returns an address of a message.
func text(a rib.Addr) string {
	switch a := a.(type) {
	case *rib.Inet4Addr:
		return fmt.Sprint(a.IP)
	case *rib.Inet6Addr:
		return fmt.Sprint(a.IP, a.ZoneID)
	case *rib.LinkAddr:
		return fmt.Sprint("link ", a.Index)
	default:
		return ""
	}
}

// isZero reports whether an address of a message is all zeros, or left out.
func isZero(a rib.Addr) bool {
	switch a := a.(type) {
	case *rib.Inet4Addr:
		return a.IP == [4]byte{}
	case *rib.Inet6Addr:
		return a.IP == [16]byte{}
	default:
		return true
	}
}

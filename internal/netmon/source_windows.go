package netmon

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// notices are what the IP helper calls back for.
type notices struct {
	told   chan struct{} // full: something has changed
	closed chan struct{}
	pin    runtime.Pinner // the IP helper has its address
	handles
}

// handles are those of what notices has asked for.
type handles []windows.Handle

// callback returns the address of changed for the system. There is one in a process, as such an address is never freed.
var callback = sync.OnceValue(func() uintptr { return windows.NewCallback(changed) })

// changed runs in a thread of the system.
func changed(n *notices, row unsafe.Pointer, kind uint32) uintptr {
	select {
	case n.told <- struct{}{}:
	default:
	}
	return 0
}

// open asks for notices of interfaces, addresses and routes.
func open() (source, error) {
	n := &notices{told: make(chan struct{}, 1), closed: make(chan struct{})}
	n.pin.Pin(n)
	for _, ask := range []func(uint16, uintptr, unsafe.Pointer, bool, *windows.Handle) error{
		windows.NotifyIpInterfaceChange, windows.NotifyUnicastIpAddressChange, windows.NotifyRouteChange2,
	} {
		var h windows.Handle
		if err := ask(windows.AF_UNSPEC, callback(), unsafe.Pointer(n), false, &h); err != nil {
			n.close()
			return source{}, fmt.Errorf("ask the IP helper for notices: %w", err)
		}
		n.handles = append(n.handles, h)
	}
	return source{waits: []func() error{n.wait}, read: readTables, asleep: sleepClock(), close: n.close}, nil
}

func (n *notices) wait() error {
	select {
	case <-n.told:
		return nil
	case <-n.closed:
		return net.ErrClosed
	}
}

// close returns when no callback runs any more.
func (n *notices) close() {
	for _, h := range n.handles {
		windows.CancelMibChangeNotify2(h)
	}
	n.pin.Unpin()
	close(n.closed)
}

func readTables() (tables, error) {
	t, err := readInterfaces()
	if err != nil {
		return tables{}, err
	}
	var table *windows.MibIpForwardTable2
	if err := windows.GetIpForwardTable2(windows.AF_UNSPEC, &table); err != nil {
		return tables{}, fmt.Errorf("read routes: %w", err)
	}
	defer windows.FreeMibTable(unsafe.Pointer(table))
	for _, row := range table.Rows() {
		t.addRoute(&row)
	}
	return t, nil
}

// protocolLocal is MIB_IPPROTO_LOCAL of NL_ROUTE_PROTOCOL (nldef.h): routes that come and go with an address.
const protocolLocal = 2

func (t *tables) addRoute(row *windows.MibIpForwardRow2) {
	all := row.DestinationPrefix.PrefixLength == 0
	if row.Loopback != 0 || row.Protocol == protocolLocal && !all {
		return
	}
	t.routes = append(t.routes, route{
		links: []int{int(row.InterfaceIndex)},
		all:   all,
		key: fmt.Sprint(text(&row.DestinationPrefix.Prefix), "/", row.DestinationPrefix.PrefixLength, " ",
			text(&row.NextHop), " ", row.InterfaceIndex, " ", row.Metric),
	})
}

// text returns an address with its family.
func text(a *windows.RawSockaddrInet) string {
	return hex.EncodeToString(unsafe.Slice((*byte)(unsafe.Pointer(a)), unsafe.Sizeof(*a)))
}

// sleepClock returns a function that compares the clock that counts sleep with the one that does not, nil where Windows has not
// both. It is looked at when the network says something, which it does on wake.
func sleepClock() func() time.Duration {
	// They are in an API set of kernelbase.dll, since Windows 10.
	dll := windows.NewLazySystemDLL("kernelbase.dll")
	with, without := dll.NewProc("QueryInterruptTime"), dll.NewProc("QueryUnbiasedInterruptTime")
	if errors.Join(with.Find(), without.Find()) != nil {
		return nil
	}
	read := func(p *windows.LazyProc) time.Duration {
		var t uint64 // in 100 ns
		p.Call(uintptr(unsafe.Pointer(&t)))
		return time.Duration(t) * 100
	}
	return func() time.Duration { return read(with) - read(without) }
}

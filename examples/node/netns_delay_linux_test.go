package main

import (
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// delay makes each packet that the star's router passes on take d longer. Packets between namespaces take some
// 20 µs, so without it whatever two hosts are to do at the same time they do one after the other. The router sends
// what comes from a leaf to a TUN device, from which it gets it back later.
func (s star) delay(d time.Duration) {
	s.router.t.Helper()
	tun := s.router.tun("tun0")
	s.router.ipBatch("link set tun0 up", "route add default dev tun0 table 100",
		"rule add iif to-a lookup 100", "rule add iif to-b lookup 100", "rule add iif to-relay lookup 100")

	type packet struct {
		due   time.Time
		bytes []byte
	}
	onTheWay := make(chan packet, 10_000) // those of seconds
	var work sync.WaitGroup
	work.Go(func() {
		defer close(onTheWay)
		for {
			b := make([]byte, 1500)
			n, err := tun.Read(b)
			if err != nil {
				return // it is closed
			}
			onTheWay <- packet{time.Now().Add(d), b[:n]}
		}
	})
	work.Go(func() {
		for p := range onTheWay {
			time.Sleep(time.Until(p.due))
			tun.Write(p.bytes) // it fails when the device is closed: what is on the way is lost
		}
	})
	s.router.t.Cleanup(func() {
		tun.Close()
		work.Wait()
	})
}

// tun returns a new TUN device in the namespace. It skips the test where there are none.
func (n netns) tun(name string) *os.File {
	n.t.Helper()
	var file *os.File
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine, as it is in another namespace
		file, err = openTUN(name, "/run/netns/"+n.name)
	}()
	<-done
	if err != nil {
		n.t.Skipf("cannot make a TUN device here: %v", err)
	}
	return file
}

// openTUN moves the calling thread to a network namespace and makes a TUN device there, without headers before
// its packets.
func openTUN(name, namespace string) (*os.File, error) {
	ns, err := os.Open(namespace)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, os.NewSyscallError("setns", err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open /dev/net/tun", err)
	}
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("TUNSETIFF", err)
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun"), nil
}

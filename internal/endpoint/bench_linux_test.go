package endpoint

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

// BenchmarkStream measures the goodput of one stream between two endpoints on the
// loopback interface, and of two of bare quic-go.
func BenchmarkStream(b *testing.B) {
	var last *Endpoint
	listen := func(bare bool, seed byte) *quic.Transport {
		pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		if bare {
			t := &quic.Transport{Conn: pc}
			b.Cleanup(func() { t.Close(); pc.Close() })
			return t
		}
		e := New(Config{PacketConn: pc, Key: testKey(seed), Log: slog.New(slog.DiscardHandler)})
		b.Cleanup(func() { e.Close() })
		last = e
		return e.QUIC
	}
	const windows = 16 << 20
	conf := &quic.Config{InitialStreamReceiveWindow: windows, MaxStreamReceiveWindow: windows, InitialConnectionReceiveWindow: windows, MaxConnectionReceiveWindow: windows}
	for name, bare := range map[string]bool{"endpoint": false, "quic-go": true} {
		b.Run(name, func(b *testing.B) {
			from, to := listen(bare, 1), listen(bare, 2)
			certTo, _ := identity.Certificate(testKey(2))
			certFrom, _ := identity.Certificate(testKey(1))
			l, err := to.Listen(identity.ServerTLS(certTo, testALPN), conf)
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			qc, err := from.Dial(ctx, to.Conn.LocalAddr(), identity.ClientTLS(certFrom, testALPN, identity.FromKey(testKey(2))), conf)
			if err != nil {
				b.Fatal(err)
			}
			in, err := l.Accept(ctx)
			if err != nil {
				b.Fatal(err)
			}
			const chunk = 32 << 10
			spent := cpu()
			buf := make([]byte, chunk)
			b.SetBytes(chunk)
			b.ResetTimer()
			out, err := qc.OpenUniStream()
			if err != nil {
				b.Fatal(err)
			}
			go func() {
				defer out.Close()
				for range b.N {
					out.Write(buf)
				}
			}()
			s, err := in.AcceptUniStream(ctx)
			if err != nil {
				b.Fatal(err)
			}
			if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{s}, make([]byte, chunk)); err != nil || n != int64(b.N)*chunk {
				b.Fatal(n, err)
			}
			b.StopTimer()
			b.ReportMetric((cpu()-spent).Seconds()*(1<<30)/float64(b.N)/chunk, "cpu-s/GiB")
			if !bare {
				b.ReportMetric(float64(last.Datagrams())/float64(last.Reads()), "datagrams/read")
			}
			qc.CloseWithError(0, "")
		})
	}
}

// BenchmarkReadManyFlows measures the reading of datagrams that are each of another
// flow, as those are that come to a hub.
func BenchmarkReadManyFlows(b *testing.B) {
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer pc.Close()
	pc.(*net.UDPConn).SetReadBuffer(1 << 20)
	s := readingSocket(pc)
	var flows [64]net.PacketConn
	for i := range flows {
		if flows[i], err = net.ListenPacket("udp4", "127.0.0.1:0"); err != nil {
			b.Fatal(err)
		}
		defer flows[i].Close()
	}
	packet := make([]byte, 1200)
	packet[0] = 0x40
	ms := make([]ipv4.Message, 8)
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, MaxPacket)}
		ms[i].OOB = make([]byte, 128)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for left := b.N; left > 0; {
		b.StopTimer()
		burst := min(left, len(flows))
		for _, f := range flows[:burst] {
			if _, err := f.WriteTo(packet, pc.LocalAddr()); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		for got := 0; got < burst; {
			n, err := s.ReadBatch(ms, 0)
			if err != nil {
				b.Fatal(err)
			}
			got += n
		}
		left -= burst
	}
}

// cpu returns what the process has used of the processors.
func cpu() time.Duration {
	var ru unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &ru)
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// BenchmarkPing measures a datagram's way to another socket and back, where each is
// waited for.
func BenchmarkPing(b *testing.B) {
	var socks [2]*udpSocket
	for i := range socks {
		pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer pc.Close()
		socks[i] = readingSocket(pc)
	}
	batch := func() []ipv4.Message {
		ms := make([]ipv4.Message, 8)
		for i := range ms {
			ms[i].Buffers = [][]byte{make([]byte, MaxPacket)}
			ms[i].OOB = make([]byte, 128)
		}
		return ms
	}
	packet := padded([]byte{0x40}, 100)
	done := make(chan struct{})
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		defer close(done)
		ms := batch()
		for range b.N {
			socks[1].ReadBatch(ms, 0)
			socks[1].WriteMsgUDP(packet, nil, ms[0].Addr.(*net.UDPAddr))
		}
	}()
	ms := batch()
	to := socks[1].LocalAddr().(*net.UDPAddr)
	for range b.N {
		socks[0].WriteMsgUDP(packet, nil, to)
		socks[0].ReadBatch(ms, 0)
	}
	<-done
}

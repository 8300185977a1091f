package relay

import (
	"encoding/binary"
	"net/netip"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

func appendHeader(b []byte, kind uint8, body int) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(1+body)), kind)
}

func appendHello(b []byte) []byte {
	return append(appendHeader(b, kindHello, helloSize), protocolVersion)
}

func appendWelcome(b []byte, w welcome) []byte {
	b = append(appendHeader(b, kindWelcome, welcomeSize), protocolVersion)
	b = binary.BigEndian.AppendUint32(b, w.maxWatches)
	return appendAddr(binary.BigEndian.AppendUint64(b, w.bytesPerSecond), w.observed)
}

func appendAddr(b []byte, ap netip.AddrPort) []byte {
	var ip [16]byte
	if ap.IsValid() {
		ip = ap.Addr().As16()
	}
	return binary.BigEndian.AppendUint16(append(b, ip[:]...), ap.Port())
}

func appendObserved(b []byte, ap netip.AddrPort) []byte {
	return appendAddr(appendHeader(b, kindObserved, addrSize), ap)
}

// appendPeer is for watch, unwatch, present and gone.
func appendPeer(b []byte, kind uint8, peer identity.PeerID) []byte {
	return append(appendHeader(b, kind, peerSize), peer[:]...)
}

// appendNonce is for ping and pong.
func appendNonce(b []byte, kind uint8, nonce uint64) []byte {
	return binary.BigEndian.AppendUint64(appendHeader(b, kind, nonceSize), nonce)
}

// appendChannel is for receive and send.
func appendChannel(b []byte, kind uint8, peer identity.PeerID, number uint64) []byte {
	return binary.BigEndian.AppendUint64(append(appendHeader(b, kind, peerSize+numberSize), peer[:]...), number)
}

func appendTakes(b []byte, peer identity.PeerID, size uint16) []byte {
	return binary.BigEndian.AppendUint16(append(appendHeader(b, kindTakes, peerSize+fitsSize), peer[:]...), size)
}

func appendReady(b []byte, number uint64) []byte {
	return binary.BigEndian.AppendUint64(appendHeader(b, kindReady, numberSize), number)
}

func appendFits(b []byte, size uint16) []byte {
	return binary.BigEndian.AppendUint16(appendHeader(b, kindFits, fitsSize), size)
}

func appendGoodbye(b []byte, delay uint32) []byte {
	return binary.BigEndian.AppendUint32(appendHeader(b, kindGoodbye, 4), delay)
}

func appendClose(b []byte, code closeCode) []byte {
	return append(appendHeader(b, kindClose, 1), byte(code))
}

// appendPacket returns what a DATAGRAM frame holds.
func appendPacket(b []byte, peer identity.PeerID, payload []byte) []byte {
	return append(append(append(b, kindPacket), peer[:]...), payload...)
}

func appendPart(b []byte, peer []byte, id uint16, index uint8, payload []byte) []byte {
	b = append(append(b, kindPart), peer...)
	b = append(binary.BigEndian.AppendUint16(b, id), index)
	return append(b, payload...)
}

package relaywire

import (
	"encoding/binary"
	"net/netip"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

func AppendHeader(b []byte, kind uint8, body int) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(1+body)), kind)
}

func AppendHello(b []byte) []byte {
	return append(AppendHeader(b, KindHello, HelloSize), ProtocolVersion)
}

func AppendWelcome(b []byte, w Welcome) []byte {
	b = append(AppendHeader(b, KindWelcome, welcomeSize), ProtocolVersion)
	b = binary.BigEndian.AppendUint32(b, w.MaxWatches)
	return appendAddr(binary.BigEndian.AppendUint64(b, w.BytesPerSecond), w.Observed)
}

func appendAddr(b []byte, ap netip.AddrPort) []byte {
	var ip [16]byte
	if ap.IsValid() {
		ip = ap.Addr().As16()
	}
	return binary.BigEndian.AppendUint16(append(b, ip[:]...), ap.Port())
}

func AppendObserved(b []byte, ap netip.AddrPort) []byte {
	return appendAddr(AppendHeader(b, KindObserved, addrSize), ap)
}

// AppendPeer is for watch, unwatch, present and gone.
func AppendPeer(b []byte, kind uint8, peer identity.PeerID) []byte {
	return append(AppendHeader(b, kind, peerSize), peer[:]...)
}

// AppendNonce is for ping and pong.
func AppendNonce(b []byte, kind uint8, nonce uint64) []byte {
	return binary.BigEndian.AppendUint64(AppendHeader(b, kind, NonceSize), nonce)
}

// AppendChannel is for receive and send.
func AppendChannel(b []byte, kind uint8, peer identity.PeerID, number uint64) []byte {
	return binary.BigEndian.AppendUint64(append(AppendHeader(b, kind, peerSize+NumberSize), peer[:]...), number)
}

func AppendTakes(b []byte, peer identity.PeerID, size uint16) []byte {
	return binary.BigEndian.AppendUint16(append(AppendHeader(b, KindTakes, peerSize+fitsSize), peer[:]...), size)
}

func AppendReady(b []byte, number uint64) []byte {
	return binary.BigEndian.AppendUint64(AppendHeader(b, KindReady, NumberSize), number)
}

func AppendFits(b []byte, size uint16) []byte {
	return binary.BigEndian.AppendUint16(AppendHeader(b, KindFits, fitsSize), size)
}

func AppendGoodbye(b []byte, delay uint32) []byte {
	return binary.BigEndian.AppendUint32(AppendHeader(b, KindGoodbye, 4), delay)
}

func AppendClose(b []byte, code CloseCode) []byte {
	return append(AppendHeader(b, KindClose, 1), byte(code))
}

// AppendPacket returns what a DATAGRAM frame holds.
func AppendPacket(b []byte, peer identity.PeerID, payload []byte) []byte {
	return append(append(append(b, KindPacket), peer[:]...), payload...)
}

func AppendFragment(b []byte, peer []byte, id uint16, index uint8, payload []byte) []byte {
	b = append(append(b, KindFragment), peer...)
	b = append(binary.BigEndian.AppendUint16(b, id), index)
	return append(b, payload...)
}

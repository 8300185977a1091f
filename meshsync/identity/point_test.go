package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"testing"
)

// A point is one of edwards25519, whose arithmetic this file has of its own
// (RFC 8032 section 5.1.4), slow and plain, to find out what Check is to refuse.
type point struct{ x, y *big.Int }

var (
	fieldP = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	curveD = modP(new(big.Int).Mul(big.NewInt(-121665), new(big.Int).ModInverse(big.NewInt(121666), fieldP)))
	one    = big.NewInt(1)
)

func modP(n *big.Int) *big.Int       { return n.Mod(n, fieldP) }
func mulP(a, b *big.Int) *big.Int    { return modP(new(big.Int).Mul(a, b)) }
func addP(a, b *big.Int) *big.Int    { return modP(new(big.Int).Add(a, b)) }
func subP(a, b *big.Int) *big.Int    { return modP(new(big.Int).Sub(a, b)) }
func divideP(a, b *big.Int) *big.Int { return mulP(a, new(big.Int).ModInverse(b, fieldP)) }

func (p point) double() point {
	xy, xx, yy := mulP(p.x, p.y), mulP(p.x, p.x), mulP(p.y, p.y)
	t := mulP(curveD, mulP(xx, yy))
	return point{divideP(addP(xy, xy), addP(one, t)), divideP(addP(yy, xx), subP(one, t))}
}

func (p point) isNeutral() bool { return p.x.Sign() == 0 && p.y.Cmp(one) == 0 }

// pointOf decodes an ID as a lenient verifier does: y may be p or more, and x = 0
// may have a sign. It returns false for what is on no point.
func pointOf(id PeerID) (point, bool) {
	b := slices.Clone(id[:])
	negative := b[31]&0x80 != 0
	b[31] &= 0x7f
	slices.Reverse(b)
	y := modP(new(big.Int).SetBytes(b))
	yy := mulP(y, y)
	x := divideP(subP(yy, one), addP(mulP(curveD, yy), one))
	if x.ModSqrt(x, fieldP) == nil {
		return point{}, false
	}
	if (x.Bit(0) == 1) != negative {
		x = subP(new(big.Int), x)
	}
	return point{x, y}, true
}

// idOf encodes a number of 255 bits and a sign.
func idOf(y *big.Int, negative bool) (id PeerID) {
	y.FillBytes(id[:])
	slices.Reverse(id[:])
	if negative {
		id[31] |= 0x80
	}
	return id
}

// smallOrderIDs returns every encoding of every point whose eightfold is the
// neutral point, which it finds by halving: y = 1 and its halves.
func smallOrderIDs(t *testing.T) (ids []PeerID) {
	t.Helper()
	ys := []*big.Int{big.NewInt(0), big.NewInt(1), subP(new(big.Int), one)}
	// Twice (x, y) has y = 0 if x^2 = -y^2, so on the curve d*y^4 + 2*y^2 = 1.
	root := new(big.Int).ModSqrt(addP(one, curveD), fieldP)
	for _, r := range []*big.Int{root, subP(new(big.Int), root)} {
		if y := new(big.Int).ModSqrt(divideP(subP(r, one), curveD), fieldP); y != nil {
			ys = append(ys, y, subP(new(big.Int), y))
		}
	}
	for _, y := range ys {
		for n := y; n.BitLen() <= 255; n = new(big.Int).Add(n, fieldP) {
			for _, negative := range []bool{false, true} {
				id := idOf(n, negative)
				if p, ok := pointOf(id); !ok || !p.double().double().double().isNeutral() {
					t.Fatalf("%s is no point of small order", id)
				}
				ids = append(ids, id)
			}
		}
	}
	return ids
}

func TestKeysOfSmallOrderAreNobodys(t *testing.T) {
	ids := smallOrderIDs(t)
	points := map[string]bool{}
	for _, id := range ids {
		p, _ := pointOf(id)
		points[fmt.Sprint(p.x, p.y)] = true
		refusedEverywhere(t, id)
	}
	// Eight points; y = 0 and y = 1 have two forms, and each form two signs.
	if len(points) != 8 || len(ids) != 14 {
		t.Errorf("%d encodings of %d points, want 14 of 8", len(ids), len(points))
	}
}

func TestKeysThatAreNotCanonicalAreNobodys(t *testing.T) {
	for n := new(big.Int).Set(fieldP); n.BitLen() <= 255; n.Add(n, one) {
		refusedEverywhere(t, idOf(n, false))
		refusedEverywhere(t, idOf(n, true))
	}
}

// refusedEverywhere checks every way on which an ID comes into this package.
func refusedEverywhere(t *testing.T, id PeerID) {
	t.Helper()
	if err := id.Check(); err == nil {
		t.Errorf("%s passes", id)
	}
	if got, err := Parse(id.String()); err == nil || !got.IsZero() {
		t.Errorf("Parse took %s", got)
	}
	var got PeerID
	if err := got.UnmarshalText([]byte(strings.ToUpper(id.String()))); err == nil || !got.IsZero() {
		t.Errorf("UnmarshalText took %s", got)
	}
	cs := tls.ConnectionState{PeerCertificates: []*x509.Certificate{{PublicKey: ed25519.PublicKey(id[:])}}}
	if got, err := PeerOf(cs); err == nil {
		t.Errorf("PeerOf took %s", got)
	}
	for _, conf := range []*tls.Config{ServerTLS(mustCert(t, 1), "test/1"), ClientTLS(mustCert(t, 1), "test/1", id)} {
		if err := conf.VerifyConnection(cs); err == nil {
			t.Errorf("TLS took %s", id)
		}
	}
}

func TestOrdinaryKeysPass(t *testing.T) {
	for range 1000 {
		pub, _, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if err := PeerID(pub).Check(); err != nil {
			t.Errorf("%x: %v", pub, err)
		}
	}
	// The neighbours of what is refused: they are numbers below p, whatever their points.
	for _, n := range []int64{2, 3} {
		if err := idOf(new(big.Int).Sub(fieldP, big.NewInt(n)), false).Check(); err != nil {
			t.Errorf("p-%d: %v", n, err)
		}
	}
}

// A forger signs for the neutral point with a signature that is one itself, and
// so holds for every message.
type forger struct{ pub ed25519.PublicKey }

func (f forger) Public() crypto.PublicKey { return f.pub }

func (f forger) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return append(slices.Clone(f.pub), make([]byte, 32)...), nil
}

// The handshake itself proves nothing about such a key, in either direction.
func TestHandshakesWithoutAPrivateKeyFail(t *testing.T) {
	pub := ed25519.PublicKey(append([]byte{1}, make([]byte, 31)...))
	if sig, _ := (forger{pub}).Sign(nil, nil, nil); !ed25519.Verify(pub, []byte("anything"), sig) {
		t.Fatal("the forged signature does not hold: the test proves nothing")
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: noExpiry}
	der, err := x509.CreateCertificate(rand.Reader, template, template, pub, testKey(1))
	if err != nil {
		t.Fatal(err)
	}
	forged := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: forger{pub}}

	client := ClientTLS(forged, "test/1", FromKey(testKey(2)))
	if _, _, serverErr := handshake(t, client, ServerTLS(mustCert(t, 2), "test/1")); serverErr == nil {
		t.Error("a client was let in")
	}
	client = ClientTLS(mustCert(t, 2), "test/1", PeerID(pub))
	if _, clientErr, _ := handshake(t, client, ServerTLS(forged, "test/1")); clientErr == nil {
		t.Error("a server was believed")
	}
}

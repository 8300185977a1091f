package identity

import (
	"crypto/ed25519"
	"encoding/json"
	"strings"
	"testing"
)

func testKey(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(append(make([]byte, ed25519.SeedSize-1), n))
}

func TestPeerIDHasOneTextForm(t *testing.T) {
	id := FromKey(testKey(1))
	if len(id.String()) != 64 || !strings.HasPrefix(id.String(), id.Short()) || len(id.Short()) != 10 {
		t.Errorf("String %q, Short %q", id, id.Short())
	}
	for _, s := range []string{id.String(), strings.ToUpper(id.String())} {
		if got, err := Parse(s); err != nil || got != id {
			t.Errorf("Parse(%q) is %v, %v", s, got, err)
		}
	}
	b, err := json.Marshal(map[PeerID]PeerID{id: id})
	if err != nil {
		t.Fatal(err)
	}
	var back map[PeerID]PeerID
	if err := json.Unmarshal(b, &back); err != nil || back[id] != id {
		t.Errorf("%s came back as %v, %v", b, back, err)
	}
}

func TestParseNamesWhatIsWrong(t *testing.T) {
	good := FromKey(testKey(1)).String()
	for _, s := range []string{"", "abc", good[:63], good + "0", "x" + good[1:], " " + good[1:], strings.Repeat("0", 64), strings.Repeat("ab", 10_000)} {
		_, err := Parse(s)
		if err == nil {
			t.Errorf("Parse(%.80q) succeeded", s)
			continue
		}
		if len(err.Error()) > 300 || (len(s) < 80 && !strings.Contains(err.Error(), s)) {
			t.Errorf("Parse(%.80q): %v", s, err)
		}
	}
	var id PeerID
	if err := id.UnmarshalText([]byte("zz")); err == nil || !id.IsZero() {
		t.Errorf("UnmarshalText of nonsense: %v, %v", id, err)
	}
}

func TestCompareOrdersByBytes(t *testing.T) {
	a, b := PeerID{1}, PeerID{2}
	if a.Compare(b) >= 0 || b.Compare(a) <= 0 || a.Compare(a) != 0 {
		t.Error("not an order")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(FromKey(testKey(1)).String())
	f.Add(strings.Repeat("0", 64))
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := Parse(s)
		if err != nil {
			if !id.IsZero() {
				t.Errorf("an error and an ID: %v", id)
			}
			return
		}
		if id.IsZero() || id.String() != strings.ToLower(s) {
			t.Errorf("Parse(%q) is %v", s, id)
		}
	})
}

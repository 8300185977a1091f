package relaywire

import (
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

func TestParseURL(t *testing.T) {
	id := testID
	for s, want := range map[string]URL{
		"relay://relay.example:4443":                 {Host: "relay.example", Port: 4443},
		"relay://" + id.String() + "@10.0.0.1:1":     {ID: id, Host: "10.0.0.1", Port: 1},
		"relay://" + id.String() + "@[::1]:65535":    {ID: id, Host: "::1", Port: 65535},
		"relay://[fe80::1%25eth0]:7":                 {Host: "fe80::1%eth0", Port: 7},
		"relay://" + strings.Repeat("a", 253) + ":7": {Host: strings.Repeat("a", 253), Port: 7},
	} {
		got, err := ParseURL(s)
		if err != nil || got != want {
			t.Errorf("ParseURL(%q) is %+v, %v", s, got, err)
		}
		if got.String() != s {
			t.Errorf("%q came back as %q", s, got.String())
		}
	}
}

func TestParseURLNamesWhatIsWrong(t *testing.T) {
	id := testID.String()
	for _, s := range []string{
		"", "relay", "relay:", "relay://", "relay://host", "relay://host:", "relay://:1", "relay://host:0",
		"relay://host:65536", "relay://host:-1", "relay://host:http", "http://host:1", "relay://host:1/", "relay://host:1/x",
		"relay://host:1?", "relay://host:1?x", "relay://host:1#", "relay://host:1#x", "relay:host:1",
		"relay://ab@host:1", "relay://" + id + ":pw@host:1", "relay://" + id + ":@host:1", "relay://@host:1",
		"relay://" + strings.Repeat("0", 64) + "@host:1", "relay://::1:1", "relay://[::1]", "relay://h%00st:1",
		"relay://host\n:1", "relay://" + strings.Repeat("a", 2000) + ":1",
	} {
		u, err := ParseURL(s)
		if !errors.Is(err, ErrBadURL) || u != (URL{}) {
			t.Errorf("ParseURL(%.80q) is %+v, %v", s, u, err)
			continue
		}
		if len(err.Error()) > 400 {
			t.Errorf("ParseURL(%.80q): an error of %d characters", s, len(err.Error()))
		}
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("relay://host:1")
	f.Add("relay://" + testID.String() + "@[::1]:65535")
	f.Add("relay://[fe80::1%25eth0]:7")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURL(s)
		if err != nil {
			if !errors.Is(err, ErrBadURL) || u != (URL{}) || len(err.Error()) > 2000 {
				t.Errorf("ParseURL(%q) is %+v, %v", s, u, err)
			}
			return
		}
		if u.Host == "" || u.Port == 0 {
			t.Errorf("ParseURL(%q) is %+v", s, u)
		}
		if again, err := ParseURL(u.String()); err != nil || again != u {
			t.Errorf("%q is %+v, but its String %q is %+v, %v", s, u, u.String(), again, err)
		}
		if u.ID == (identity.PeerID{}) && strings.Contains(u.String(), "@") {
			t.Errorf("%q has an identity in its String", s)
		}
	})
}

var testID = identity.FromKey(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))

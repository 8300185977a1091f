package relayclient

import (
	"errors"
	"testing"

	"github.com/defenseunicorns/peat-mesh-go/internal/relaywire"
)

func TestBadOptionsAreNamed(t *testing.T) {
	good := Options{URL: relaywire.URL{Host: "h", Port: 1}, PrivateKey: testKey(1)}
	for name, change := range map[string]func(*Options){
		"PrivateKey":  func(o *Options) { o.PrivateKey = o.PrivateKey[1:] },
		"URL":         func(o *Options) { o.URL.Host = "" },
		"port":        func(o *Options) { o.URL.Port = 0 },
		"KeepAlive":   func(o *Options) { o.KeepAlive = -1 },
		"IdleTimeout": func(o *Options) { o.IdleTimeout = -1 },
		"DialTimeout": func(o *Options) { o.DialTimeout = -1 },
		"UDPOnly":     func(o *Options) { o.UDPOnly = true },
	} {
		o := good
		change(&o)
		if _, err := Dial(t.Context(), o); !errors.Is(err, relaywire.ErrBadOption) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMoreURLsPinTheSameKey(t *testing.T) {
	pinned := relaywire.URL{ID: testID(1), Host: "h", Port: 1}
	for _, urls := range [][2]relaywire.URL{
		{{Host: "h", Port: 1}, {Host: "g", Port: 1}},
		{pinned, {Host: "g", Port: 1}},
		{pinned, {ID: testID(2), Host: "g", Port: 1}},
		{pinned, {ID: testID(1), Host: "g"}},
	} {
		for _, o := range []Options{{MoreURLs: urls[1:]}, {LookUp: urls[1:]}} {
			o.URL, o.PrivateKey = urls[0], testKey(1)
			if _, err := Dial(t.Context(), o); !errors.Is(err, relaywire.ErrBadOption) {
				t.Errorf("%v: %v, want %v", urls, err, relaywire.ErrBadOption)
			}
		}
	}
}

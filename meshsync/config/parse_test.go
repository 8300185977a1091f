package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// idOf returns the PeerID of a key that belongs to n.
func idOf(t testing.TB, n byte) meshsync.PeerID {
	t.Helper()
	seed := make([]byte, 32)
	seed[0] = n
	key, err := meshsync.KeyFromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	return meshsync.PeerIDFromKey(key)
}

// fill puts IDs in the place of ID1 to ID3.
func fill(t testing.TB, text string) []byte {
	t.Helper()
	return []byte(strings.NewReplacer("ID1", idOf(t, 1).String(), "ID2", idOf(t, 2).String(), "ID3", idOf(t, 3).String()).Replace(text))
}

const whole = `key_file: node.key
listen: ":7001"
relays: ["relay://ID1@relay.example:7443"]
formation: {id: fleet, key_file: secret, next_key_env: NEXT}
reconnect: {min_delay: 1s, jitter: 0.5}
keep_alive: 2s
idle_timeout: 10s
dial_timeout: 4s
stream_window: 1048576
conn_window: 2097152
max_concurrent_dials: 8
max_inbound_peers: 100
peer_metrics: 50
no_local_candidates: true
no_hole_punching: true
no_network_monitor: true
peers:
  hub:
    id: ID2
    addrs: [hub.example:7001, "[2001:db8::1]:7001"]
    relays: ["relay://relay.example:7443"]
    reconnect: {max_delay: 1m}
  spoke: {id: ID3, addrs: ["192.0.2.1:1"]}
`

func TestEveryFieldIsRead(t *testing.T) {
	c, err := Parse("fleet.yaml", fill(t, whole))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Peers) != 2 || c.Peers[0].Name != "hub" || c.Peers[0].ID != idOf(t, 2) || len(c.Peers[0].Addrs) != 2 || len(c.Peers[0].Relays) != 1 {
		t.Errorf("peers: %+v", c.Peers)
	}
	if p := c.Peers[0].Reconnect; p.MinDelay != time.Second || p.MaxDelay != time.Minute || p.Jitter != 0.5 {
		t.Errorf("a peer's policy is not over that of all: %+v", p)
	}
	if p := c.Peers[1].Reconnect; p != c.Reconnect || p.MinDelay != time.Second {
		t.Errorf("a peer without a policy has %+v", p)
	}
	if f := *c.Formation; f != (Formation{ID: "fleet", KeyFile: "secret", NextKeyEnv: "NEXT"}) {
		t.Errorf("formation: %+v", f)
	}
	o := c.plain()
	if c.KeyFile != "node.key" || o.ListenAddr != ":7001" || len(o.Relays) != 1 || o.KeepAlive != 2*time.Second || o.IdleTimeout != 10*time.Second ||
		o.DialTimeout != 4*time.Second || o.StreamWindow != 1<<20 || o.ConnWindow != 2<<20 || o.MaxConcurrentDials != 8 ||
		o.MaxInboundPeers != 100 || o.PeerMetrics != 50 || !o.NoLocalCandidates || !o.NoHolePunching || !o.NoNetworkMonitor {
		t.Errorf("options: %+v", o)
	}
}

// A new option is in the file, or here.
func TestFileHasEveryOptionButTheProgramsOwn(t *testing.T) {
	own := []string{"PrivateKey", "PacketConn", "Formation", "Authorize", "Handler", "RelayTLS", "Logger", "Registerer"}
	c, err := Parse("fleet.yaml", fill(t, whole))
	if err != nil {
		t.Fatal(err)
	}
	o := reflect.ValueOf(c.plain())
	for i := range o.NumField() {
		f := o.Type().Field(i)
		if f.IsExported() && o.Field(i).IsZero() != slices.Contains(own, f.Name) {
			t.Errorf("Options.%s: set by the file: %v", f.Name, !o.Field(i).IsZero())
		}
	}
}

func TestJSONIsReadAsWell(t *testing.T) {
	c, err := Parse("fleet.json", fill(t, `{"key_file": "node.key", "keep_alive": "2s", "peers": {"hub": {"id": "ID1", "addrs": ["hub.example:1"]}}}`))
	if err != nil || len(c.Peers) != 1 || c.KeepAlive != 2*time.Second {
		t.Errorf("%+v, %v", c, err)
	}
}

// Each row is a mistake and the whole error. KEY stands for a good first line.
func TestEveryMistakeIsNamedByFileLineAndField(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"empty file":               {"", "f: nothing is in it"},
		"only a comment":           {"# nothing\n", "f: nothing is in it"},
		"a list":                   {"- a\n", "f:1: want a mapping, got a list"},
		"a string":                 {"hello", "f:1: want a mapping, got a string"},
		"syntax":                   {"KEYlisten: [", "f:2: did not find expected node content"},
		"tab":                      {"KEY\tlisten: x", "f:2: found a tab character that violates indentation"},
		"two documents":            {"KEY---\nlisten: x\n", "f:2: a second document: one is all a file can have"},
		"unknown field":            {"KEYlisten_addr: x\n", "f:2: listen_addr: unknown field"},
		"case matters":             {"KEYListen: x\n", "f:2: Listen: unknown field"},
		"field twice":              {"KEYlisten: \":1\"\nlisten: \":2\"\n", "f:3: listen: it is in line 2 already"},
		"an alias":                 {"KEYlisten: &a \":1\"\nrelays: *a\n", "f:3: relays: want a list, got an alias"},
		"unknown alias":            {"KEYlisten: *a\n", "f: unknown anchor"},
		"merge":                    {"KEYpeers: {a: {<<: {id: x}}}\n", "f:2: peers.a.<<: unknown field"},
		"no identity":              {"listen: \":1\"\n", "f:1: key_file: neither key_file nor seed_file is there"},
		"two identities":           {"KEYseed_file: s\n", "f:2: seed_file: key_file is there as well: want one of them"},
		"nothing as a string":      {"KEYlisten:\n", "f:2: listen: want a string, got nothing"},
		"empty string":             {"KEYlisten: \"\"\n", "f:2: listen: it is empty"},
		"mapping as a string":      {"KEYlisten: {}\n", "f:2: listen: want a string, got a mapping"},
		"listen without port":      {"KEYlisten: localhost\n", "f:2: listen: address localhost: missing port in address"},
		"listen with a bad port":   {"KEYlisten: \":99999\"\n", "f:2: listen: port \"99999\" is not 0 to 65535"},
		"string as a list":         {"KEYrelays: relay://r.example:1\n", "f:2: relays: want a list, got a string"},
		"bad relay":                {"KEYrelays:\n  - relay://r.example:1\n  - http://r.example\n", "f:4: relays[1]: bad address: bad relay URL \"http://r.example\": want relay://<id>@host:port or relay://host:port"},
		"duration without unit":    {"KEYkeep_alive: 5\n", "f:2: keep_alive: want a duration as 250ms, 5s or 2m, got \"5\""},
		"bad duration":             {"KEYidle_timeout: often\n", "f:2: idle_timeout: want a duration as 250ms, 5s or 2m, got \"often\""},
		"negative duration":        {"KEYdial_timeout: -1s\n", "f:2: dial_timeout: bad option: DialTimeout is negative: -1s"},
		"fraction":                 {"KEYconn_window: 1.5\n", "f:2: conn_window: want a whole number, got a number"},
		"number too large":         {"KEYstream_window: 99999999999999999999\n", "f:2: stream_window: want a whole number, got a number"},
		"negative number":          {"KEYmax_inbound_peers: -1\n", "f:2: max_inbound_peers: bad option: MaxInboundPeers is negative: -1"},
		"too many names":           {"KEYpeer_metrics: 20000\n", "f:2: peer_metrics: bad option: PeerMetrics is 20000, at most 10000"},
		"string as a bool":         {"KEYno_hole_punching: \"yes\"\n", "f:2: no_hole_punching: want true or false, got a string"},
		"number as a bool":         {"KEYno_network_monitor: 1\n", "f:2: no_network_monitor: want true or false, got a number"},
		"bad jitter":               {"KEYreconnect: {jitter: 2}\n", "f:2: reconnect.jitter: bad option: Reconnect.Jitter is outside 0..1: 2"},
		"delays in a wrong order":  {"KEYreconnect: {min_delay: 2s, max_delay: 1s}\n", "f:2: reconnect: bad option: Reconnect.MinDelay 2s is above MaxDelay 1s"},
		"formation as a string":    {"KEYformation: fleet\n", "f:2: formation: want a mapping, got a string"},
		"formation with its key":   {"KEYformation: {id: a, key_env: K,\n  key: 00112233}\n", "f:3: formation.key: unknown field"},
		"formation without ID":     {"KEYformation: {key_env: K}\n", "f:2: formation.id: it is missing"},
		"formation without secret": {"KEYformation: {id: a}\n", "f:2: formation.key_file: neither key_file nor key_env is there"},
		"formation with two":       {"KEYformation:\n  id: a\n  key_file: x\n  key_env: X\n", "f:5: formation.key_env: formation.key_file is there as well: want one of them"},
		"peers as a list":          {"KEYpeers: [a]\n", "f:2: peers: want a mapping, got a list"},
		"peer as a string":         {"KEYpeers: {hub: ID1}\n", "f:2: peers.hub: want a mapping, got a string"},
		"peer twice":               {"KEYpeers:\n  a: {id: ID1, addrs: [\"h:1\"]}\n  a: {id: ID2, addrs: [\"h:1\"]}\n", "f:4: peers.a: it is in line 3 already"},
		"ID twice":                 {"KEYpeers:\n  a: {id: ID1, addrs: [\"h:1\"]}\n  b: {id: ID1, addrs: [\"h:1\"]}\n", "f:4: peers.b.id: peers.a has this ID already"},
		"peer without ID":          {"KEYpeers:\n  a:\n    addrs: [\"h:1\"]\n", "f:4: peers.a.id: it is missing"},
		"short ID":                 {"KEYpeers:\n  a:\n    id: 0011\n", "f:4: peers.a.id: peer ID \"0011\": want 64 hex digits, got 4 characters"},
		"peer without route":       {"KEYpeers:\n  a: {id: ID1}\n", "f:3: peers.a: no address and no relay"},
		"bad address":              {"KEYpeers:\n  a: {id: ID1,\n    addrs: [\"h:1\", h]}\n", "f:4: peers.a.addrs[1]: bad address \"h\": address h: missing port in address"},
		"name with a control":      {"KEYpeers:\n  \"a\\tb\": {id: ID1, addrs: [\"h:1\"]}\n", "f:3: peers.a\tb: bad option: Name \"a\\tb\" has a control character"},
		"several mistakes": {"KEYlisten: x\nfoo: 1\npeers: {a: {id: ID1}}\n",
			"f:2: listen: address x: missing port in address\nf:3: foo: unknown field\nf:4: peers.a: no address and no relay"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := Parse("f", fill(t, strings.ReplaceAll(tc.text, "KEY", "key_file: node.key\n")))
			if c != nil || err == nil || err.Error() != string(fill(t, tc.want)) {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
		})
	}
}

func TestManyMistakesAreCounted(t *testing.T) {
	_, err := Parse("f", []byte("key_file: a\n"+strings.Repeat("x: 1\n", 30)))
	if lines := strings.Split(err.Error(), "\n"); len(lines) != maxErrors+1 || lines[maxErrors] != "f: and 10 more" {
		t.Errorf("%d lines: %v", len(lines), err)
	}
}

// An alias is never followed, so those of those cost nothing.
func TestAliasBombIsRefused(t *testing.T) {
	bomb := "a: &a [x, x, x, x, x, x, x, x, x]\n"
	for c := byte('b'); c <= 'z'; c++ {
		bomb += string(c) + ": &" + string(c) + " [" + strings.TrimSuffix(strings.Repeat("*"+string(c-1)+", ", 9), ", ") + "]\n"
	}
	if _, err := Parse("f", []byte("key_file: k\n"+bomb+"relays: *z\n")); err == nil {
		t.Error("no error")
	}
}

func TestHugeFileIsRefused(t *testing.T) {
	if _, err := Parse("f", make([]byte, maxFile+1)); err == nil || !strings.Contains(err.Error(), "longer than 8388608 bytes") {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(fill(f, whole))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("{\"peers\": {\"x\": {}}}"))
	f.Add([]byte("? [a]\n: !!binary x\n--- !foo\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data)
		if (c == nil) == (err == nil) {
			t.Fatalf("%v, %v", c, err)
		}
		if err != nil {
			return
		}
		if err := c.plain().Validate(); err != nil {
			t.Errorf("what was taken is refused by New: %v", err)
		}
		for _, p := range c.Peers {
			if err := p.peerConfig().Validate(); err != nil {
				t.Errorf("what was taken is refused by Register: %v", err)
			}
		}
	})
}

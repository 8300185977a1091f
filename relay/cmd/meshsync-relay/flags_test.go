package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// values are a value for each flag, other than its default.
var values = map[string]string{
	"listen":           "127.0.0.1:7",
	"key":              "some.key",
	"cert":             "some.pem",
	"cert-key":         "some.other",
	"allow":            "some.list",
	"max-clients":      "12",
	"bytes-per-second": "34",
	"metrics":          "127.0.0.1:8",
	"drain":            "56s",
	"url-host":         "relay.example",
	"log-format":       "json",
}

// fields returns a config by the names of the flags.
func (c config) fields() map[string]string {
	return map[string]string{
		"listen":           c.listen,
		"key":              c.keyFile,
		"cert":             c.certFile,
		"cert-key":         c.certKeyFile,
		"allow":            c.allowFile,
		"max-clients":      fmt.Sprint(c.maxClients),
		"bytes-per-second": fmt.Sprint(c.bytesPerSecond),
		"metrics":          c.metrics,
		"drain":            c.drain.String(),
		"url-host":         c.urlHost,
		"log-format":       c.logFormat,
	}
}

func mustParse(t *testing.T, env map[string]string, args ...string) config {
	t.Helper()
	var stderr bytes.Buffer
	cfg, err := parseFlags(args, func(name string) (string, bool) { v, ok := env[name]; return v, ok }, &stderr)
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	return cfg
}

func TestDefaults(t *testing.T) {
	cfg := mustParse(t, nil)
	if cfg.listen != ":7443" || cfg.keyFile != "relay.key" || cfg.drain != 10*time.Second || cfg.logFormat != logText {
		t.Errorf("defaults are %+v", cfg)
	}
}

func TestEveryFlagCanBeGivenAsVariable(t *testing.T) {
	env := make(map[string]string)
	var args []string
	for name, value := range values {
		env["MESHSYNC_RELAY_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))] = value
		args = append(args, "-"+name+"="+value)
	}
	byFlag, byEnv := mustParse(t, nil, args...), mustParse(t, env)
	for name, want := range values {
		if got := byFlag.fields()[name]; got != want {
			t.Errorf("-%s=%s gives %q", name, want, got)
		}
		if got := byEnv.fields()[name]; got != want {
			t.Errorf("%s=%s gives %q", byEnv.source(name), want, got)
		}
	}
	var usage bytes.Buffer
	parseFlags([]string{"-h"}, func(string) (string, bool) { return "", false }, &usage)
	if n := strings.Count(usage.String(), "\n  -"); n != len(values)+1 {
		t.Errorf("there are %d flags, and %d are tested, and -version:\n%s", n, len(values), &usage)
	}
}

func TestFlagGoesBeforeVariable(t *testing.T) {
	for _, tc := range []struct {
		name, env string
		args      []string
		want      time.Duration
		source    string
	}{
		{"neither", "", nil, defaultDrain, "-drain"},
		{"variable", "7s", nil, 7 * time.Second, "MESHSYNC_RELAY_DRAIN"},
		{"both", "7s", []string{"-drain=8s"}, 8 * time.Second, "-drain"},
		{"flag with the default", "7s", []string{"-drain=10s"}, defaultDrain, "-drain"},
		{"flag and a bad variable", "never", []string{"-drain=8s"}, 8 * time.Second, "-drain"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := mustParse(t, map[string]string{"MESHSYNC_RELAY_DRAIN": tc.env}, tc.args...)
			if cfg.drain != tc.want || cfg.source("drain") != tc.source {
				t.Errorf("drain is %v from %s, want %v from %s", cfg.drain, cfg.source("drain"), tc.want, tc.source)
			}
		})
	}
}

func TestBadValueNamesItsSource(t *testing.T) {
	junk := tempFile(t, "junk\n")
	missing := filepath.Join(t.TempDir(), "missing")
	for _, tc := range []struct{ flag, value, says string }{
		{"listen", "nonsense", "missing port"},
		{"listen", "127.0.0.1:70000", "70000"},
		{"key", junk, "key file " + junk},
		{"key", filepath.Join(missing, "relay.key"), "in directory " + missing},
		{"cert", junk, "cert-key"},
		{"cert-key", junk, "without -cert"},
		{"allow", missing, missing},
		{"allow", junk, junk + ":1: "},
		{"allow", t.TempDir(), "not a regular file"},
		{"allow", "", "names no file"},
		{"max-clients", "many", "want a number"},
		{"max-clients", "0", "1 or more"},
		{"max-clients", "-1", "1 or more"},
		{"bytes-per-second", "1e9", "want a number"},
		{"metrics", "nonsense", "missing port"},
		{"drain", "10", "duration"},
		{"drain", "-1s", "not negative"},
		{"url-host", "relay.example:7443", "without a port"},
		{"url-host", "[::1]", "without a port"},
		{"url-host", "relay.example/path", "relay.example/path"},
		{"log-format", "xml", "text or json"},
	} {
		t.Run(tc.flag+"="+clip(tc.value), func(t *testing.T) {
			key := "-key=" + filepath.Join(t.TempDir(), "relay.key")
			check := func(source string, code int, stderr string) {
				t.Helper()
				if code != exitUsage {
					t.Errorf("exit code is %d, want %d", code, exitUsage)
				}
				for _, want := range []string{source, tc.says} {
					if !strings.Contains(stderr, want) {
						t.Errorf("stderr does not say %q:\n%s", want, stderr)
					}
				}
			}
			code, stderr := runInProcess(t, nil, key, "-"+tc.flag+"="+tc.value)
			check("-"+tc.flag, code, stderr)

			var args []string
			if tc.flag != "key" { // a flag would go before
				args = append(args, key)
			}
			code, stderr = runInProcess(t, map[string]string{envName(tc.flag): tc.value}, args...)
			check(envName(tc.flag), code, stderr)
		})
	}
}

func clip(s string) string { return s[:min(len(s), 40)] }

func TestBadUsage(t *testing.T) {
	junk := tempFile(t, "junk\n")
	for _, tc := range []struct {
		name string
		args []string
		says string
	}{
		{"unknown flag", []string{"-nonsense"}, "-nonsense"},
		{"argument", []string{"nonsense"}, "nonsense"},
		{"certificate that is none", []string{"-cert=" + junk, "-cert-key=" + junk}, "-cert: " + junk},
	} {
		t.Run(tc.name, func(t *testing.T) {
			key := "-key=" + filepath.Join(t.TempDir(), "relay.key")
			code, stderr := runInProcess(t, nil, append([]string{key}, tc.args...)...)
			if code != exitUsage {
				t.Errorf("exit code is %d, want %d", code, exitUsage)
			}
			if !strings.Contains(stderr, tc.says) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("stderr does not say %q in one line:\n%s", tc.says, stderr)
			}
		})
	}
	if code, stderr := runInProcess(t, nil, "-help"); code != exitOK || !strings.Contains(stderr, "-listen") {
		t.Errorf("-help: exit code %d\n%s", code, stderr)
	}
}

func TestVersionIsPrintedWhateverElseIsWrong(t *testing.T) {
	var stdout, stderr bytes.Buffer
	env := func(string) (string, bool) { return "nonsense", true }
	code := run(t.Context(), nil, []string{"-version"}, env, &stdout, &stderr)
	if code != exitOK || stderr.Len() > 0 || !regexp.MustCompile(`^meshsync-relay \S+ go\S+ \S+/\S+\n$`).MatchString(stdout.String()) {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, &stdout, &stderr)
	}
}

// A value that is right but cannot be had is not the flag's fault.
func TestTakenPortIsAnError(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, flag := range []string{"-listen", "-metrics"} {
		p := start(t, flag+"="+l.Addr().String())
		if code := p.awaitExit(); code != exitError {
			t.Errorf("%s: exit code is %d, want %d", flag, code, exitError)
		}
		if last := p.log[len(p.log)-1]; !strings.Contains(last, flag+": ") {
			t.Errorf("the last line does not blame %s: %s", flag, last)
		}
	}
}

func TestUnwritableStdoutIsAnError(t *testing.T) {
	key := "-key=" + filepath.Join(t.TempDir(), "relay.key")
	cfg := mustParse(t, nil, key, "-listen=127.0.0.1:0")
	r, w := io.Pipe()
	r.Close()
	if err := serve(t.Context(), cfg, nil, w, newLogger(logText, io.Discard)); err == nil || !strings.Contains(err.Error(), "standard output") {
		t.Errorf("serve: %v", err)
	}
}

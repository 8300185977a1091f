package main

import (
	"errors"
	"strings"
	"testing"
)

func TestAllowListIsRead(t *testing.T) {
	a, b, c, stranger := newPeer(t), newPeer(t), newPeer(t), newPeer(t)
	text := "# ours\n\n" + a.id.String() + "\n \t" + b.id.String() + " # the hub\r\n" + a.id.String() + "\n#" + stranger.id.String() + "\n" + c.id.String()
	l, err := readAllowList(tempFile(t, text))
	if err != nil {
		t.Fatal(err)
	}
	if l.len() != 3 {
		t.Errorf("%d peers, want 3", l.len())
	}
	for _, p := range []*peer{a, b, c} {
		if err := l.authorize(p.id); err != nil {
			t.Errorf("%s: %v", p.id.Short(), err)
		}
	}
	if err := l.authorize(stranger.id); !errors.Is(err, errNotAllowed) {
		t.Errorf("a stranger: %v", err)
	}
}

func TestEmptyAllowListLetsNobodyIn(t *testing.T) {
	l, err := readAllowList(tempFile(t, "# nobody yet\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.authorize(newPeer(t).id); !errors.Is(err, errNotAllowed) {
		t.Errorf("authorize: %v", err)
	}
}

func TestBadAllowListNamesFileAndLine(t *testing.T) {
	good := newPeer(t).id.String()
	for _, tc := range []struct{ name, text, says string }{
		{"no ID", good + "\n\nnonsense\n", ":3: "},
		{"short ID", good[:63], ":1: "},
		{"two IDs", good + " " + good, ":1: "},
		{"long line", good + "\n#" + strings.Repeat("x", maxAllowLine), ":2: a line of more than 1024 bytes"},
		{"binary", "\x00\xff\n", ":1: "},
		{"long file", strings.Repeat("#\n", maxAllowFile/2) + "#", "more than 8388608 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := tempFile(t, tc.text)
			_, err := readAllowList(path)
			if err == nil || !strings.HasPrefix(err.Error(), path) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error %q, want %q of %s", err, tc.says, path)
			}
		})
	}
}

func TestAllowListStaysWhenItCannotBeReadAgain(t *testing.T) {
	a := newPeer(t)
	path := tempFile(t, a.id.String())
	l, err := readAllowList(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, "nonsense")
	if err := l.load(); err == nil {
		t.Error("nonsense was read")
	}
	if err := l.authorize(a.id); err != nil {
		t.Errorf("authorize: %v", err)
	}
}

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/defenseunicorns/peat-mesh-go/meshsync/identity"
)

const (
	// maxAllowFile bounds the allow list: some 120,000 peers, more than ten times
	// as many as are connected by default.
	maxAllowFile = 8 << 20
	// maxAllowLine bounds a line of it: an ID takes 64 characters, the rest is
	// room for a comment.
	maxAllowLine = 1 << 10
)

// errNotAllowed is why a peer is refused that is not in the allow list.
var errNotAllowed = errors.New("not in the allow list")

// An allowList is the peers that may connect, as a file says. It is read while
// the relay starts, and again at each load.
type allowList struct {
	path  string
	peers atomic.Pointer[map[identity.PeerID]struct{}] // never nil
}

// readAllowList returns the list in the file at path.
func readAllowList(path string) (*allowList, error) {
	l := &allowList{path: path}
	if err := l.load(); err != nil {
		return nil, err
	}
	return l, nil
}

// load reads the file again. If it fails, the list stays what it was.
func (l *allowList) load() error {
	raw, err := readFile(l.path, maxAllowFile)
	if err != nil {
		return err
	}
	peers, err := parseAllowList(raw)
	if err != nil {
		return fmt.Errorf("%s:%w", l.path, err)
	}
	l.peers.Store(&peers)
	return nil
}

// authorize is the relay's Authorize.
func (l *allowList) authorize(id identity.PeerID) error {
	if _, ok := (*l.peers.Load())[id]; !ok {
		return errNotAllowed
	}
	return nil
}

// len returns how many peers are in the list.
func (l *allowList) len() int { return len(*l.peers.Load()) }

// parseAllowList reads one ID per line; a # begins a comment, and a line may be
// blank. Its error begins with the number of the line.
func parseAllowList(raw []byte) (map[identity.PeerID]struct{}, error) {
	peers := make(map[identity.PeerID]struct{})
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, maxAllowLine)
	n := 1
	for ; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		id, err := identity.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("%d: %w", n, err)
		}
		peers[id] = struct{}{}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("%d: a line of more than %d bytes", n, maxAllowLine)
	} else if err != nil {
		return nil, fmt.Errorf("%d: %w", n, err)
	}
	return peers, nil
}

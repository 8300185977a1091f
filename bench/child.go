package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
)

// childCommand as first argument makes the program play a part in a suite of
// real processes; the second is which.
const childCommand = "child"

// part is what a child does: it reads requests from its stdin and writes
// answers to its stdout, as JSON, until its stdin ends.
type part func(in *json.Decoder, out *json.Encoder) error

func parts() map[string]part {
	return map[string]part{"farm": playFarm, "keeper": playKeeper, "hub": playHub, "spokes": playSpokes, "relay": playRelay}
}

// runChild plays a part and returns the exit code.
func runChild(args []string) int {
	err := errors.New("no such part")
	if len(args) == 1 {
		if play, ok := parts()[args[0]]; ok {
			err = play(json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout))
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintf(os.Stderr, "bench child %v: %v\n", args, err)
		return 1
	}
	return 0
}

// A child is a process that plays a part.
type child struct {
	cmd *exec.Cmd
	in  *json.Encoder
	out *json.Decoder
}

// startChild starts this program once more. The child is killed when ctx ends.
func startChild(ctx context.Context, name string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, childCommand, name)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return &child{cmd, json.NewEncoder(stdin), json.NewDecoder(stdout)}, nil
}

// call sends a request and waits for its answer.
func (c *child) call(request, answer any) error {
	if err := c.in.Encode(request); err != nil {
		return fmt.Errorf("child: %w", err)
	}
	if err := c.out.Decode(answer); err != nil {
		return fmt.Errorf("child: %w", err)
	}
	return nil
}

// kill ends the process without giving it a chance to tell anybody.
func (c *child) kill() {
	c.cmd.Process.Kill()
	c.cmd.Wait() // reports that it was killed
}

// jsonContact is a contact as processes tell each other.
type jsonContact struct {
	Key  []byte         `json:"key"`
	Addr netip.AddrPort `json:"addr"`
}

func (c jsonContact) contact() contact { return contact{key: c.Key, addr: c.Addr} }

func (c contact) json() jsonContact { return jsonContact{Key: c.key, Addr: c.addr} }

// realRival finds a rival by name.
func realRival(name string) (rival, error) {
	for _, v := range reconnectors() {
		if v.name == name {
			return v, nil
		}
	}
	return rival{}, fmt.Errorf("no rival %q", name)
}

// A farmRequest asks for nodes that do nothing but be there.
type farmRequest struct {
	Rival string `json:"rival"`
	N     int    `json:"n"`
}

// playFarm is a process of nodes that others keep. It answers their contacts.
func playFarm(in *json.Decoder, out *json.Encoder) error {
	var req farmRequest
	if err := in.Decode(&req); err != nil {
		return err
	}
	v, err := realRival(req.Rival)
	if err != nil {
		return err
	}
	contacts := make([]jsonContact, req.N)
	for i := range contacts {
		s, err := realSite()
		if err != nil {
			return err
		}
		if _, err := v.start(s); err != nil {
			return err
		}
		contacts[i] = s.contact().json()
	}
	if err := out.Encode(contacts); err != nil {
		return err
	}
	return in.Decode(&struct{}{}) // until stdin ends
}

// Command holes shows in twenty seconds how two nodes behind NATs, which know each
// other only by a relay, find a direct path, and when there is none. It needs no
// flags, no rights and no second host:
//
//	go run ./examples/holes
//
// The nodes, A and B, are real transports, and so is the relay; the network between
// them is simulated, with the NATs of homes, offices and carriers. One pair of these
// after the other, both nodes connect through the relay, and A sends numbered
// messages on a stream, which B sends back. The nodes tell each other where they may
// be reached, and both ping what they are told: each ping opens the NAT of its
// sender for the other one's. Where that works both send directly from then on, in
// the middle of the stream. Where it cannot, they keep the relay.
//
// Every line it prints is measured while it happens. The exit code is 1 if a message
// was lost, the connection did not last, or a pair did not end on the path that it
// has to.
//
// Where to look: pair.go is which NATs there are, and what a pair has to end on,
// node.go all that a service does to get a direct path, which is nothing, message.go
// the messages, story.go what happens, watch.go prints it and table.go the table.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "holes:", err)
		os.Exit(1)
	}
}

// run tells the story of each pair, and prints the table.
func run(ctx context.Context, out io.Writer, args []string) error {
	if len(args) > 0 {
		return errors.New("this program takes no arguments")
	}
	fmt.Fprintf(out, `Two nodes, A and B, are told of nothing but a relay. A asks for B, and sends it a message each %v, on one stream.
A packet takes %v from node to node (%v on a LAN), and %v to the relay or from there.
Lines with "A" and "B" are what the node's transport tells its service, and what Conn.Paths and the metrics say.
`, messageInterval, directLatency, lanLatency, relayLatency)
	var endings []ending
	var failed error
	for _, p := range pairs() {
		e, err := tellStory(ctx, out, p)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", p.name, err))
		}
		endings = append(endings, e)
		if ctx.Err() != nil {
			break
		}
	}
	printTable(out, endings)
	return failed
}

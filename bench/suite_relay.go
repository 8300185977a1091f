package main

import (
	"context"
	"fmt"
	"sort"
	"time"
)

func (b *bench) relaySizes() pourSizes {
	if b.short {
		return pourSizes{rounds: 1, bytes: 4 << 20, requests: 100}
	}
	return pourSizes{rounds: 7, bytes: 64 << 20, requests: 2000}
}

// costBytes is how much is poured to find what a relay's CPU costs.
func (b *bench) costBytes() int {
	if b.short {
		return 4 << 20
	}
	return 128 << 20
}

func runRelay(b *bench) (*result, error) {
	size := b.relaySizes()
	r := &result{
		Title: "bytes and requests through a relay",
		Method: []string{fmt.Sprintf("As in stream, but through a relay on the loopback interface, each relay a process of its own, with %d MiB at a time and "+
			"%d requests, %d rounds. CPU is what the relay's process used, user and system, while %d MiB were poured into one stream, for each GiB; "+
			"median of %d turns.",
			size.bytes>>20, size.requests, size.rounds, b.costBytes()>>20, costRounds)},
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	var relayed []relayedPipe
	var pipes []*pipe
	defer func() {
		for _, p := range pipes {
			p.close()
		}
	}()
	for _, kind := range relayKinds() {
		b.log.say("relay: %s connects", kind)
		p, err := openRelayed(ctx, kind)
		if err != nil {
			return nil, err
		}
		relayed, pipes = append(relayed, p), append(pipes, p.pipe)
		r.Rivals = append(r.Rivals, [2]string{p.name, p.about})
	}
	rounds, err := measurePipes(ctx, b, "relay", pipes, size)
	if err != nil {
		return nil, err
	}
	r.Tables = pipeTables(pipes, rounds, ", relayed")
	cost, err := relayCosts(ctx, b, relayed)
	r.Tables = append(r.Tables, cost)
	return r, err
}

// costRounds is how often each relay's CPU is measured.
const costRounds = 3

// relayCosts measures the CPU each relay takes for its packets, in turns.
func relayCosts(ctx context.Context, b *bench, pipes []relayedPipe) (table, error) {
	t := table{
		Title:   "CPU of the relay",
		Columns: []column{{"CPU s/GiB", unitRatio, lower}, {"lowest", unitRatio, ""}, {"highest", unitRatio, ""}},
	}
	costs := make([][]float64, len(pipes))
	for range costRounds {
		for i, p := range pipes {
			b.log.say("relay: CPU of %s", p.name)
			before, err := p.cpu()
			if err != nil {
				return t, err
			}
			if err := p.pour(ctx, 1, b.costBytes()); err != nil {
				return t, err
			}
			after, err := p.cpu()
			if err != nil {
				return t, err
			}
			costs[i] = append(costs[i], (after-before)*(1<<30)/float64(b.costBytes()))
		}
	}
	for i, p := range pipes {
		sort.Float64s(costs[i])
		t.Rows = append(t.Rows, row{Case: "one stream", Rival: p.name, Ours: p.ours, Values: []float64{
			quantile(costs[i], 0.5), costs[i][0], costs[i][costRounds-1]}})
	}
	return t, nil
}

package main

import (
	"context"
	"fmt"
	"runtime"
	"sort"
	"time"
)

// pourSizes say how much the stream suites measure.
type pourSizes struct {
	rounds   int
	bytes    int // poured at a time, over one stream or over several together
	requests int
}

const manyStreams = 8

func (b *bench) pourSizes() pourSizes {
	if b.short {
		return pourSizes{rounds: 2, bytes: 8 << 20, requests: 200}
	}
	return pourSizes{rounds: 9, bytes: 256 << 20, requests: 3000}
}

func runStream(b *bench) (*result, error) {
	size := b.pourSizes()
	r := &result{
		Title: "bytes and requests",
		Method: []string{fmt.Sprintf("Real sockets on the loopback interface, both ends in one process. Goodput: %d MiB poured into one stream, or "+
			"into %d together, until the receiver has confirmed the count. Requests: %d of %d bytes one after another, each on a stream of its own "+
			"(TLS over TCP: all on one connection), in turns of %d; allocations are both ends' together. %d rounds in which all take turns; "+
			"medians over the rounds, with the lowest and highest; the ratio is the median of the rounds' ratios to quic-go.",
			size.bytes>>20, manyStreams, size.requests, askSize, requestTurn, size.rounds)},
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	pipes, err := directPipes(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, p := range pipes {
			p.close()
		}
	}()
	rounds, err := measurePipes(ctx, b, "stream", pipes, size)
	if err != nil {
		return nil, err
	}
	for _, p := range pipes {
		r.Rivals = append(r.Rivals, [2]string{p.name, p.about})
	}
	r.Tables = pipeTables(pipes, rounds, "")
	return r, nil
}

// pipeRound is what one round found of one pipe. Rates are bytes a second.
type pipeRound struct {
	one, many float64
	p50, p99  float64 // seconds
	allocs    float64 // for each request
}

// measurePipes lets the pipes take turns and returns their rounds, by pipe.
func measurePipes(ctx context.Context, b *bench, name string, pipes []*pipe, size pourSizes) ([][]pipeRound, error) {
	rounds := make([][]pipeRound, len(pipes))
	for i := -1; i < size.rounds; i++ { // one to warm up: windows and MTUs have grown after it
		b.log.say("%s: round %d of %d", name, i+1, size.rounds)
		turns := make([]int, len(pipes))
		for j := range turns {
			turns[j] = (j + i + 1) % len(pipes) // nobody always comes after the same
		}
		round := make([]pipeRound, len(pipes))
		for _, k := range turns {
			var err error
			if round[k].one, err = pipes[k].goodput(ctx, 1, size.bytes); err != nil {
				return nil, err
			}
			if round[k].many, err = pipes[k].goodput(ctx, manyStreams, size.bytes); err != nil {
				return nil, err
			}
		}
		if err := measureRequests(ctx, pipes, turns, round, size.requests); err != nil {
			return nil, err
		}
		if i >= 0 {
			for k, r := range round {
				rounds[k] = append(rounds[k], r)
			}
		}
	}
	return rounds, nil
}

// requestTurn is how many requests a pipe makes before it is the next one's
// turn: what the scheduler and the neighbours on the machine do changes from one
// second to the next, and is to hit all alike.
const requestTurn = 100

// measureRequests has all pipes make n requests.
func measureRequests(ctx context.Context, pipes []*pipe, turns []int, round []pipeRound, n int) error {
	took, allocs := make([][]float64, len(pipes)), make([]uint64, len(pipes))
	msg := make([]byte, askSize)
	var before, after runtime.MemStats
	for len(took[turns[len(turns)-1]]) < n {
		for _, k := range turns {
			runtime.ReadMemStats(&before)
			for i := range requestTurn {
				msg[0] = byte(i)
				began := time.Now()
				if err := pipes[k].ask(ctx, msg); err != nil {
					return err
				}
				took[k] = append(took[k], time.Since(began).Seconds())
			}
			runtime.ReadMemStats(&after)
			allocs[k] += after.Mallocs - before.Mallocs
		}
	}
	for k := range pipes {
		sort.Float64s(took[k])
		round[k].p50, round[k].p99 = quantile(took[k], 0.5), quantile(took[k], 0.99)
		round[k].allocs = float64(allocs[k]) / float64(len(took[k]))
	}
	return nil
}

// goodput returns the bytes a second of a pour over some streams.
func (p *pipe) goodput(ctx context.Context, streams, bytes int) (float64, error) {
	runtime.GC() // the last one's garbage is not this one's
	began := time.Now()
	err := p.pour(ctx, streams, bytes/streams)
	return float64(bytes) / time.Since(began).Seconds(), err
}

// pipeTables sums up the rounds. The first pipe is what the ratios refer to;
// where names the path in the tables, if there are several.
func pipeTables(pipes []*pipe, rounds [][]pipeRound, where string) []table {
	goodput := table{
		Title: "Goodput",
		Case:  "streams",
		Columns: []column{{"MB/s", unitRate, higher}, {"lowest", unitRate, ""}, {"highest", unitRate, ""},
			{"ratio", unitRatio, ""}},
		Notes: []string{"The ratio is to " + pipes[0].name + "."},
	}
	requests := table{
		Title: fmt.Sprintf("A request of %d bytes and its answer", askSize),
		Case:  "",
		Columns: []column{{"p50", unitSeconds, lower}, {"lowest", unitSeconds, ""}, {"highest", unitSeconds, ""},
			{"p99", unitSeconds, lower}, {"allocations", unitCount, lower}, {"p50 ratio", unitRatio, ""}},
		Notes: goodput.Notes,
	}
	for _, streams := range []int{1, manyStreams} {
		rate := func(r pipeRound) float64 {
			if streams == 1 {
				return r.one
			}
			return r.many
		}
		name := fmt.Sprintf("%d streams%s", streams, where)
		if streams == 1 {
			name = "1 stream" + where
		}
		for i, p := range pipes {
			v := sorted(rounds[i], rate)
			goodput.Rows = append(goodput.Rows, row{Case: name, Rival: p.name, Ours: p.ours, Values: []float64{
				quantile(v, 0.5), v[0], v[len(v)-1], ratioTo(rounds[i], rounds[0], rate)}})
		}
	}
	for i, p := range pipes {
		half := func(r pipeRound) float64 { return r.p50 }
		v := sorted(rounds[i], half)
		tail := sorted(rounds[i], func(r pipeRound) float64 { return r.p99 })
		allocs := sorted(rounds[i], func(r pipeRound) float64 { return r.allocs })
		requests.Rows = append(requests.Rows, row{Case: "request" + where, Rival: p.name, Ours: p.ours, Values: []float64{
			quantile(v, 0.5), v[0], v[len(v)-1], quantile(tail, 0.5), quantile(allocs, 0.5), ratioTo(rounds[i], rounds[0], half)}})
	}
	return []table{goodput, requests}
}

// ratioTo returns the median of the rounds' ratios: the two of a round were
// measured a moment apart.
func ratioTo(rounds, to []pipeRound, of func(pipeRound) float64) float64 {
	ratios := make([]float64, len(rounds))
	for i := range rounds {
		ratios[i] = of(rounds[i]) / of(to[i])
	}
	return quantile(sorted(ratios, func(r float64) float64 { return r }), 0.5)
}

package relaylink

import "testing"

func TestRings(t *testing.T) {
	var r ring[int]
	next, want := 0, 0
	out := make([]int, 7)
	for i := range 1000 {
		for range i % 23 {
			r.push(next)
			next++
		}
		for _, v := range out[:r.take(out)] {
			if v != want {
				t.Fatalf("got %d, want %d", v, want)
			}
			want++
		}
		r.release()
	}
	for r.n > 0 {
		want += r.take(out)
	}
	if r.release(); next != want || len(r.items) > ringKeep {
		t.Errorf("%d in, %d out, %d places kept", next, want, len(r.items))
	}
}

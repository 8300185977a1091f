package relaylink

import "sync"

// BufferSize is the size of the pooled buffers. Any frame fits, and no frame that
// quic-go allocates has this capacity, so that the two can be told apart.
const BufferSize = 1536

// Buffers keeps buffers for frames, so that forwarding makes no work for the garbage
// collector.
type Buffers struct{ pool sync.Pool }

// Get returns an empty buffer of BufferSize.
func (p *Buffers) Get() []byte {
	if b, ok := p.pool.Get().(*[BufferSize]byte); ok {
		return b[:0]
	}
	return make([]byte, 0, BufferSize)
}

// Put takes back what Get returned, however it was sliced since at its end; any
// other slice is left to the garbage collector.
func (p *Buffers) Put(b []byte) {
	if cap(b) == BufferSize {
		p.pool.Put((*[BufferSize]byte)(b[:BufferSize]))
	}
}

// A ring is a queue that grows as it fills. release frees its memory if it is empty and
// has become large. It is not for concurrent use.
type ring[T any] struct {
	items []T // len is a power of two, or 0
	head  int
	n     int
}

const (
	ringStart = 8
	// ringKeep is the largest ring that rest keeps.
	ringKeep = 64
)

func (r *ring[T]) push(v T) {
	if r.n == len(r.items) {
		grown := make([]T, max(ringStart, 2*len(r.items)))
		for i := range r.n {
			grown[i] = *r.at(i)
		}
		r.items, r.head = grown, 0
	}
	*r.at(r.n) = v
	r.n++
}

// at returns the place of the i-th element from the front.
func (r *ring[T]) at(i int) *T { return &r.items[(r.head+i)&(len(r.items)-1)] }

// take moves elements from the front to out, as many as there are or fit.
func (r *ring[T]) take(out []T) int {
	n := min(r.n, len(out))
	var zero T
	for i := range n {
		p := r.at(i)
		out[i], *p = *p, zero
	}
	if n > 0 {
		r.head = (r.head + n) & (len(r.items) - 1)
		r.n -= n
	}
	return n
}

// release gives up what an empty ring has grown to.
func (r *ring[T]) release() {
	if r.n == 0 && len(r.items) > ringKeep {
		r.items, r.head = nil, 0
	}
}

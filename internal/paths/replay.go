package paths

// A window remembers which of the last numbers of the other side were taken (RFC 4303
// section 3.4.3), as a ring of words of 64 bits whose oldest one is cleared when a new
// one begins (RFC 6479). The zero value has taken none.
type window struct {
	bits [windowWords]uint64
	end  uint64 // the highest number that was taken, and one more
}

// windowSize is how far a packet may be behind the newest one. All paths of a
// connection share their numbers, and some are slower than others: with 32 paths, each
// pinged every 300 ms while all are silent, one that is queued for 9 s somewhere is
// still taken. A word more is there because the newest one is filled bit by bit.
const (
	windowSize  = 1024
	windowWords = windowSize/64 + 1
)

// has reports whether a number was taken, or is too old to know.
func (w *window) has(number uint64) bool {
	switch {
	case number >= w.end:
		// The highest number of all would make end wrap around. Nobody gets there.
		return number+1 == 0
	case w.end-number > windowSize:
		return true
	default:
		return w.bits[number/64%windowWords]&(1<<(number%64)) != 0
	}
}

// add takes a number for which has is false. The packet that has it is authentic.
func (w *window) add(number uint64) {
	if number >= w.end {
		newest := number / 64
		next := uint64(0) // the first word that no number was taken in
		if w.end > 0 {
			next = (w.end-1)/64 + 1
		}
		if newest >= next+windowWords {
			next = newest - windowWords + 1
		}
		for ; next <= newest; next++ {
			w.bits[next%windowWords] = 0
		}
		w.end = number + 1
	}
	w.bits[number/64%windowWords] |= 1 << (number % 64)
}

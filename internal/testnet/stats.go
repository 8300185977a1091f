package testnet

// Stats counts a host's packets since its creation. Over all hosts, the packets sent and copied are those received, those
// dropped and those in flight.
type Stats struct {
	Sent     Count // handed to the network, whatever became of them
	Received Count // put into a socket's receive buffer, read or not
	Copied   int   // of the packets sent: what somebody on the way has sent once more
	Dropped  Drops // of the packets sent and copied
}

// Count is a number of packets and of the bytes of their UDP payloads.
type Count struct {
	Packets, Bytes int
}

func (c *Count) add(bytes int) {
	c.Packets++
	c.Bytes += bytes
}

// Drops counts the packets a host sent that did not arrive, by reason.
type Drops struct {
	Loss        int // lost on the link
	Blackout    int // the sender or the receiver was blacked out
	Cut         int // the path was cut
	Partition   int // the two hosts were in different groups
	Meddled     int // somebody on the way did it
	MTU         int // too large for the link
	Queue       int // the rate limiter's queue was full
	NAT         int // no mapping, not admitted by the filter, or sent to the sender's own NAT
	Unreachable int // no such address, no socket on the port, or no address to send from
	Buffer      int // the receiver's receive buffer was full
}

// Total returns the number of packets dropped.
func (d Drops) Total() int {
	return d.Loss + d.Blackout + d.Cut + d.Partition + d.Meddled + d.MTU + d.Queue + d.NAT + d.Unreachable + d.Buffer
}

// Stats returns the host's counts so far.
func (h *Host) Stats() Stats {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	return h.stats
}

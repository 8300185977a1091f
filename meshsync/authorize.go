package meshsync

import (
	"errors"
	"fmt"
)

// Reauthorize asks Options.Authorize again about every peer that is connected, and ends the
// connections of those that it refuses now, whoever dialed: such a peer learns
// ErrUnauthorized, which is also the cause of Conn.Context on both sides. A registered peer stays registered, and is
// dialed again after MaxDelay, as after any refusal. Call it after what Authorize answers has changed.
//
// When it returns, those connections have ended, and there will be none that an
// older answer lets in: about a connection that is just being made, Authorize is asked again as well. It does nothing if there is
// no Authorize. It returns how many connections it has ended. It must not be called by
// Authorize itself.
func (t *MeshSyncTransport) Reauthorize() (ended int) {
	if t.opts.Authorize == nil {
		return 0
	}
	t.mu.Lock()
	t.rules++ // what is shown from here on was asked about after this
	t.mu.Unlock()
	var refused []*Conn
	for _, c := range t.conns() {
		if err := t.ask(c.peer); err != nil {
			c.close(err)
			refused = append(refused, c)
		}
	}
	for _, c := range refused {
		<-c.ctx.Done()
		if errors.Is(c.endCause(), ErrUnauthorized) { // else it has ended by itself meanwhile
			ended++
		}
	}
	return ended
}

// authorize asks Authorize about a connection that is not shown yet.
func (t *MeshSyncTransport) authorize(c *Conn) error {
	t.mu.Lock()
	c.asked = t.rules
	t.mu.Unlock()
	return t.ask(c.peer)
}

// ask returns an ErrUnauthorized if Authorize refuses the peer.
func (t *MeshSyncTransport) ask(id PeerID) error {
	if t.opts.Authorize == nil {
		return nil
	}
	if err := t.opts.Authorize(id); err != nil {
		// Only the text: the error may be one that means something else here.
		return fmt.Errorf("%w: %v", ErrUnauthorized, err)
	}
	return nil
}

// errAskAgain is the table's answer to a connection about which Authorize was asked before
// the last Reauthorize.
var errAskAgain = errors.New("rules have changed since")

// underPresentRules calls admit, which lets c into the table, until Authorize was not
// called upon to think again in between.
func (t *MeshSyncTransport) underPresentRules(c *Conn, admit func() error) error {
	for {
		if err := admit(); !errors.Is(err, errAskAgain) {
			return err
		}
		if err := t.authorize(c); err != nil {
			return err
		}
	}
}

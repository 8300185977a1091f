package rate

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestBucketHoldsItsBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBucket(100, 10, 10)
		n := 0
		for b.Take(1) {
			n++
		}
		if n != 10 || b.Take(0.5) || b.Full() {
			t.Errorf("a burst of %d, want 10", n)
		}
		time.Sleep(50 * time.Millisecond)
		if !b.Take(5) || b.Take(1) {
			t.Error("want 5 tokens after 50 ms")
		}
		time.Sleep(time.Hour)
		if !b.Full() || b.Take(11) || !b.Take(10) {
			t.Error("want 10 tokens after an hour")
		}
		if w := b.Until(1); w != 10*time.Millisecond {
			t.Errorf("wait %v for a token, want 10 ms", w)
		}
	})
}

func TestWaitTakesTheTimeOfTheTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, began := NewBucket(100, 10, 10), time.Now()
		for range 110 {
			if err := b.Wait(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("110 tokens took %v, want 1s", took)
		}
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Millisecond, func() { cancel(gone) })
		if err := b.Wait(ctx, 100); err != gone || time.Since(began) != 1001*time.Millisecond {
			t.Errorf("a wait that is called off ended with %v after %v", err, time.Since(began))
		}
	})
}

package testnet_test

import (
	"testing"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/internal/testnet"
)

// QUIC in a bubble needs a clock that is ahead of the start of the process.
func TestBubbleIsAheadOfTheProcess(t *testing.T) {
	now := time.Now()
	virtual(t, func(t *testing.T, _ *testnet.Net) {
		if !time.Now().After(now) {
			t.Errorf("the bubble's clock says %v, the process began before %v", time.Now(), now)
		}
	})
}

package sharedmetrics

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// owned is a gauge with owners.
type owned struct {
	prometheus.Gauge
	owners  int
	retired bool
}

func build() *owned {
	return &owned{Gauge: prometheus.NewGauge(prometheus.GaugeOpts{Name: "owners", Help: "Owners."})}
}

func attach(o *owned) bool {
	if !o.retired {
		o.owners++
	}
	return !o.retired
}

func TestOwnersShareACollector(t *testing.T) {
	r := prometheus.NewRegistry()
	first, err := Register(r, build, attach)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Register(r, build, attach)
	if err != nil || second != first || first.owners != 2 {
		t.Errorf("%v; it is the same: %v, %d owners", err, second == first, first.owners)
	}
	alone, err := Register(nil, build, attach)
	if err != nil || alone == first || alone.owners != 1 {
		t.Errorf("%v; without a Registerer it has %d owners", err, alone.owners)
	}
}

func TestRetiredCollectorIsReplaced(t *testing.T) {
	r := prometheus.NewRegistry()
	first, err := Register(r, build, attach)
	if err != nil {
		t.Fatal(err)
	}
	first.retired = true
	second, err := Register(r, build, func(o *owned) bool {
		if o == first {
			r.Unregister(first) // as its last owner does, a moment later
		}
		return attach(o)
	})
	if err != nil || second == first || second.owners != 1 {
		t.Errorf("%v; it is the same: %v", err, second == first)
	}
}

func TestNameThatIsTakenIsRefused(t *testing.T) {
	r := prometheus.NewRegistry()
	r.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "owners", Help: "Owners."}))
	if _, err := Register(r, build, attach); err == nil {
		t.Error("somebody else's gauge was taken for a shared one")
	}
}

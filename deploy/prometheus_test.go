package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/goleak"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
	"github.com/defenseunicorns/peat-mesh-go/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds each wait for something that is about to happen.
const patience = time.Minute

func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("needs %s, of Debian's package prometheus: %v", name, err)
	}
	return path
}

func TestAlertRulesPassTheirTests(t *testing.T) {
	promtool := tool(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "meshsync.rules.yml"}, {"test", "rules", "meshsync.rules.test.yml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = "prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// fleet returns the address of what two nodes and a relay export, after an outage and a move from
// the relay to a direct path.
func fleet(t *testing.T) string {
	t.Helper()
	reg := prometheus.NewRegistry()
	server, err := relay.NewServer(relay.ServerOptions{ListenAddr: "127.0.0.1:0", Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	start := func(o meshsync.Options) *meshsync.MeshSyncTransport {
		o.ListenAddr, o.Registerer, o.PeerMetrics, o.Relays = "127.0.0.1:0", reg, 10, []string{server.URL()}
		node, err := meshsync.New(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { node.Close() })
		return node
	}
	a, b := start(meshsync.Options{}), start(meshsync.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	events := a.Subscribe(ctx)
	register := func(addrs ...string) {
		if err := a.Register(b.ID(), meshsync.PeerConfig{Addrs: addrs, Relays: []string{server.URL()}, Name: "hub"}); err != nil {
			t.Error(err)
		}
	}
	register()
	connected, direct := 0, false
	for ev := range events {
		switch ev.Kind {
		case meshsync.EventConnected:
			if connected++; connected == 1 {
				ev.Conn.Close() // an outage
			} else {
				register(b.Addr().String())
			}
		case meshsync.EventPathChanged:
			direct = true
		}
		if direct && connected > 1 {
			break
		}
	}
	if ctx.Err() != nil {
		t.Fatalf("connected %d times, direct: %v", connected, direct)
	}
	web := httptest.NewServer(promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	t.Cleanup(web.Close)
	return web.Listener.Addr().String()
}

// scrape starts a Prometheus with the alert rules, and returns its address. A scrape may take as long
// as the interval, which is short for the test's sake and long enough for a busy machine.
func scrape(t *testing.T, target string) string {
	t.Helper()
	binary, dir := tool(t, "prometheus"), t.TempDir()
	rules, err := filepath.Abs("prometheus/meshsync.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("global: {scrape_interval: 2s, evaluation_interval: 2s}\nrule_files: [%q]\nscrape_configs:\n- job_name: mesh\n  static_configs: [{targets: [%q]}]\n", rules, target)
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // to find a free port
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	cmd := exec.Command(binary, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		log.Close()
		if said, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("Prometheus:\n%s", said)
		}
	})
	return addr
}

// ask returns how many results an expression has.
func ask(prom, expr string) (int, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Get("http://" + prom + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var answer struct {
		Status, Error string
		Data          struct{ Result []any }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return 0, err
	}
	if answer.Status != "success" {
		return 0, fmt.Errorf("%s", answer.Error)
	}
	return len(answer.Data.Result), nil
}

// awaitAnswer asks until there is a result, but no more than once when ctx has ended. A rate has one after the
// second scrape, and nothing has one for a moment after a scrape that took too long.
func awaitAnswer(ctx context.Context, prom, expr string) error {
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		n, err := ask(prom, expr)
		if err == nil && n > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d results (%v)", n, err)
		case <-again.C:
		}
	}
}

func TestPrometheusAnswersPanelsAndAlerts(t *testing.T) {
	tool(t, "prometheus")
	prom := scrape(t, fleet(t))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	variables := strings.NewReplacer("$__rate_interval", "1m", "$job", ".*", "$instance", ".*")
	for _, q := range panelQueries(t) {
		if err := awaitAnswer(ctx, prom, variables.Replace(q.expr)); err != nil {
			t.Errorf("%s: %v: %s", q.where, err, q.expr)
		}
	}
	// An alert has a result only when it fires; that what it looks at is there is what keeps it alive.
	series := regexp.MustCompile(`meshsync_\w+(\{[^}]*\})?`)
	for _, q := range ruleQueries(t) {
		if _, err := ask(prom, q.expr); err != nil {
			t.Errorf("%s: %v", q.where, err)
		}
		seen := series.FindAllString(q.expr, -1)
		slices.Sort(seen)
		for _, s := range slices.Compact(seen) {
			if err := awaitAnswer(ctx, prom, s); err != nil {
				t.Errorf("%s looks at %s: %v", q.where, s, err)
			}
		}
	}
}

package deploy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
	"github.com/defenseunicorns/peat-mesh-go/relay"
)

// A schema is what can be exported: the labels of each metric by its name.
type schema map[string][]string

// A recorder is a Registerer that writes down what may be exported.
type recorder struct {
	prometheus.Registerer
	schema schema
}

var descText = regexp.MustCompile(`^Desc\{fqName: "([^"]+)", .*variableLabels: \{([^}]*)\}\}$`)

// Register implements prometheus.Registerer.
func (r recorder) Register(c prometheus.Collector) error {
	ch := make(chan *prometheus.Desc)
	go func() {
		defer close(ch)
		c.Describe(ch)
	}()
	for d := range ch {
		m := descText.FindStringSubmatch(d.String())
		if m == nil {
			panic("a description of another form: " + d.String())
		}
		labels := []string{}
		if m[2] != "" {
			labels = strings.Split(m[2], ",")
		}
		r.schema[m[1]] = labels
	}
	return r.Registerer.Register(c)
}

// exported returns what a transport and a relay export.
func exported(t *testing.T) schema {
	t.Helper()
	s := make(schema)
	r := recorder{prometheus.NewRegistry(), s}
	server, err := relay.NewServer(relay.ServerOptions{ListenAddr: "127.0.0.1:0", Registerer: r})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	node, err := meshsync.New(meshsync.Options{ListenAddr: "127.0.0.1:0", Registerer: r, PeerMetrics: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	return s
}

// labelsOf returns the labels of a series by its name, which may be of a histogram's parts.
func (s schema) labelsOf(name string) (labels []string, ok bool) {
	if labels, ok := s[name]; ok {
		return labels, true
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, cut := strings.CutSuffix(name, suffix); cut && isHistogram(base) {
			if labels, ok := s[base]; ok {
				return append([]string{"le"}, labels...), true
			}
		}
	}
	return nil, false
}

// isHistogram says so by the name: a description does not tell the kind.
func isHistogram(name string) bool { return strings.HasSuffix(name, "_duration_seconds") }

var (
	selectorText = regexp.MustCompile(`\b(meshsync_\w+)(\{[^}]*\})?`)
	matcherText  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)\s*"`)
	groupText    = regexp.MustCompile(`\b(?:by|without|on|ignoring)\s*\(([^)]*)\)`)
)

// check returns what is wrong with the names in an expression of Prometheus.
func (s schema) check(expr string) (wrong []string) {
	all := []string{"job", "instance", "le"} // what Prometheus adds, and histograms
	for _, sel := range selectorText.FindAllStringSubmatch(expr, -1) {
		labels, ok := s.labelsOf(sel[1])
		if !ok {
			wrong = append(wrong, "there is no metric "+sel[1])
		}
		if isHistogram(sel[1]) {
			wrong = append(wrong, sel[1]+" has no series but _bucket, _sum and _count")
		}
		all = append(all, labels...)
		for _, m := range matcherText.FindAllStringSubmatch(sel[2], -1) {
			if !slices.Contains(labels, m[1]) && m[1] != "job" && m[1] != "instance" && ok {
				wrong = append(wrong, sel[1]+" has no label "+m[1])
			}
		}
	}
	for _, g := range groupText.FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(g[1], ",") {
			if label = strings.TrimSpace(label); !slices.Contains(all, label) {
				wrong = append(wrong, "no metric of it has the label "+label)
			}
		}
	}
	return wrong
}

// A query is an expression, and where it stands.
type query struct{ where, expr string }

// panelQueries returns those of the dashboard.
func panelQueries(t *testing.T) (all []query) {
	t.Helper()
	raw, err := os.ReadFile("grafana/meshsync.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Type, Title string
			Targets     []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(raw, &board); err != nil {
		t.Fatal(err)
	}
	for _, p := range board.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q asks nothing", p.Title)
		}
		for _, target := range p.Targets {
			all = append(all, query{"panel " + p.Title, target.Expr})
		}
	}
	return all
}

var ruleText = regexp.MustCompile(`- alert: (\w+)\n +expr: (.+)\n`)

// ruleQueries returns those of the alerts.
func ruleQueries(t *testing.T) (all []query) {
	t.Helper()
	raw, err := os.ReadFile("prometheus/meshsync.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range ruleText.FindAllStringSubmatch(string(raw), -1) {
		all = append(all, query{m[1], m[2]})
	}
	if n := strings.Count(string(raw), "- alert:"); n == 0 || n != len(all) {
		t.Fatalf("%d of %d alerts have an expression in one line", len(all), n)
	}
	return all
}

func TestDashboardAndAlertsNameWhatExists(t *testing.T) {
	s := exported(t)
	for _, q := range append(panelQueries(t), ruleQueries(t)...) {
		if !selectorText.MatchString(q.expr) {
			t.Errorf("%s asks for no metric: %s", q.where, q.expr)
		}
		for _, wrong := range s.check(q.expr) {
			t.Errorf("%s: %s: %s", q.where, wrong, q.expr)
		}
	}
}

// A metric is on the dashboard or in an alert, or it is here: what it tells is asked for by hand.
var notShown = []string{
	"meshsync_candidates_total", "meshsync_connections_opened_total", "meshsync_formation_connections",
	"meshsync_path_pings_total", "meshsync_path_split_packets_total", "meshsync_paths",
	"meshsync_relay_client_connections", "meshsync_relay_client_dials_total", "meshsync_relay_client_dropped_total",
	"meshsync_relay_client_packets_total", "meshsync_relay_watches_refused_total",
}

func TestWhatIsExportedIsShown(t *testing.T) {
	shown := make(map[string]bool)
	for _, q := range append(panelQueries(t), ruleQueries(t)...) {
		for _, sel := range selectorText.FindAllStringSubmatch(q.expr, -1) {
			shown[strings.TrimSuffix(sel[1], "_bucket")] = true
		}
	}
	for name := range exported(t) {
		if shown[name] == slices.Contains(notShown, name) {
			t.Errorf("%s: shown: %v", name, shown[name])
		}
	}
}

func TestNamesThatDoNotExistAreFound(t *testing.T) {
	s := exported(t)
	for _, expr := range []string{
		"meshsync_no_such_thing", `rate(meshsync_bytes_totl[5m])`, `meshsync_relays{sate="connected"}`, "sum by (peer) (meshsync_peers)",
		`meshsync_peers{job="x",name=~"a"}`, "meshsync_registered_peers_bucket", "rate(meshsync_dial_duration_seconds[5m])",
	} {
		if len(s.check(expr)) == 0 {
			t.Errorf("nothing is wrong with %s", expr)
		}
	}
}

// Prose may leave the namespace away inside code: peers{state}, relay_clients.
var codeText = regexp.MustCompile("`(?:meshsync_)?([a-z][a-z_]*)(?:\\{([a-z_,]*)\\})`|`meshsync_([a-z_]+)")

func TestDocsNameWhatExists(t *testing.T) {
	s := exported(t)
	found := 0
	for _, file := range []string{"../README.md", "../docs/guide.md", "../docs/operating.md", "../docs/coming-from.md", "README.md", "../relay/cmd/meshsync-relay/main.go", "../relay/cmd/meshsync-relay/check.go"} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range codeText.FindAllStringSubmatch(string(raw), -1) {
			found++
			labels, ok := s.labelsOf("meshsync_" + m[1] + m[3])
			if !ok {
				t.Errorf("%s: there is no metric of %s", file, m[0])
			}
			for label := range strings.SplitSeq(m[2], ",") {
				if label != "" && !slices.Contains(labels, label) {
					t.Errorf("%s: no label %s: %s", file, label, m[0])
				}
			}
		}
	}
	if found < 20 {
		t.Errorf("only %d metrics are named", found)
	}
}

func TestEachAlertHasATestAndARunbook(t *testing.T) {
	tests, err := os.ReadFile("prometheus/meshsync.rules.test.yml")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := os.ReadFile("prometheus/meshsync.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	book, err := os.ReadFile(filepath.Join("..", "docs", "operating.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range ruleQueries(t) {
		if !strings.Contains(string(tests), "alertname: "+q.where+"\n        exp_alerts:\n") {
			t.Errorf("no test makes %s fire", q.where)
		}
		if !strings.Contains(string(rules), "docs/operating.md#"+strings.ToLower(q.where)+"\n") {
			t.Errorf("%s has no runbook_url", q.where)
		}
		if !strings.Contains(string(book), "\n### "+q.where+"\n") {
			t.Errorf("docs/operating.md does not say what to do about %s", q.where)
		}
	}
}

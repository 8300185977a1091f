//go:build unix

package statuspage

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// loopback returns a transport on this host, which is closed with the test.
func loopback(t *testing.T, set ...func(*meshsync.Options)) *meshsync.MeshSyncTransport {
	t.Helper()
	o := meshsync.Options{ListenAddr: "127.0.0.1:0"}
	for _, s := range set {
		s(&o)
	}
	tr, err := meshsync.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	return tr
}

// rowOf is a JavaScript expression for the rows of the peer whose name, or short ID, has the given text.
func rowOf(text string) string {
	return `[...document.querySelectorAll("#peers tbody")].find(b => b.querySelector(".peer").textContent.includes("` + text + `"))`
}

func TestPageInABrowser(t *testing.T) {
	b := openBrowser(t)
	hub, near, far := loopback(t), loopback(t), loopback(t)
	for name, p := range map[string]*meshsync.MeshSyncTransport{"near kit": near, "far <i>kit</i>": far} {
		if err := hub.Register(p.ID(), meshsync.PeerConfig{Addrs: []string{p.Addr().String()}, Name: name}); err != nil {
			t.Fatal(err)
		}
		if _, err := hub.WaitConn(t.Context(), p.ID()); err != nil {
			t.Fatal(err)
		}
	}
	page, err := New(hub, Options{Title: "the hub"})
	if err != nil {
		t.Fatal(err)
	}
	defer page.Close()
	mux := http.NewServeMux()
	mux.Handle("/deep/status", page)
	server := httptest.NewServer(mux)
	defer server.Close()

	b.open(server.URL + "/deep/status?token=of-the-service")
	b.until(`document.querySelector("#summary").textContent === "All 2 peers are connected"`)
	b.until(rowOf("near kit") + `.querySelector(".state").textContent.includes("direct")`)
	b.until(rowOf("far <i>kit</i>") + `.querySelector(".path").textContent === "` + far.Addr().String() + `"`)
	b.until(rowOf("near kit") + `.querySelector("svg rect.direct") !== null`)

	// Somebody opens the detail of one, filters for it, and scrolls.
	b.eval(rowOf("near kit") + `.querySelector("button").click()`)
	b.until(rowOf("near kit") + `.querySelector(".detail").textContent.includes("` + near.ID().String() + `")`)
	b.eval(`{ const f = document.querySelector("#filter"); f.value = "near"; f.dispatchEvent(new Event("input")); f.focus(); }`)
	b.until(`document.querySelector("#shown").textContent === "1 of 2" && ` + rowOf("far") + `.hidden`)
	b.eval(`document.body.style.minHeight = "5000px"; scrollTo(0, 333)`)

	// The other goes away: the page says so without being loaded again.
	b.eval(`window.notReloaded = true`)
	far.Close()
	b.until(`document.querySelector("#summary").textContent === "1 of 2 peers connected · 1 away"`)
	b.until(rowOf("far") + `.querySelector(".state").textContent.includes("away")`)
	b.until(rowOf("far") + `.querySelector("svg rect.away") !== null`)
	b.until(rowOf("far") + ` === document.querySelector("#peers tbody")`) // trouble comes first
	b.until(rowOf("far") + `.querySelector(".now").textContent.startsWith("attempt ")`)
	b.until(`document.title.startsWith("(1 away) the hub")`)
	for what, want := range map[string]string{
		`window.notReloaded`:                                "true",
		`document.querySelector("#filter").value`:           "near",
		rowOf("far") + `.hidden`:                            "true",
		rowOf("near") + `.querySelector(".detail") != null`: "true",
		`scrollY`:                   "333",
		`document.activeElement.id`: "filter",
	} {
		if got := b.eval(what); got != want {
			t.Errorf("after the refresh %s is %s, want %s", what, got, want)
		}
	}

	// The node ends: the page says that what it shows is old.
	hub.Close()
	b.until(`!document.querySelector("#stale").hidden && document.querySelector("#stale").textContent.includes("the node has shut down")`)
	server.Close()
	b.until(`document.querySelector("#stale").textContent.includes("it does not answer")`)

	b.mu.Lock()
	defer b.mu.Unlock()
	want, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	fetches := 0
	for _, asked := range b.requests {
		u, err := url.Parse(asked)
		switch {
		case err != nil:
			t.Error(err)
		case u.Scheme == "data" || asked == "about:blank":
		case u.Host != want.Host || u.Path != "/deep/status" || u.Query().Get("token") != "of-the-service":
			t.Errorf("the page has asked for %s", asked)
		case u.Query().Get("format") == "json":
			fetches++
		}
	}
	if fetches < 3 {
		t.Errorf("the page has refreshed itself %d times", fetches)
	}
	b.mu.Unlock()
	if err := b.complaints("503", "ERR_CONNECTION_REFUSED"); err != nil {
		t.Errorf("the browser complains: %v", err)
	}
	b.mu.Lock()
}

func TestHiddenPageAsksNothing(t *testing.T) {
	b := openBrowser(t)
	page, err := New(loopback(t), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer page.Close()
	server := httptest.NewServer(page)
	defer server.Close()
	b.open(server.URL)
	fetches := func() (n int) {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, asked := range b.requests {
			if strings.Contains(asked, "format=json") {
				n++
			}
		}
		return n
	}
	// As a browser does when another tab is in front. The page's timers are slowed down then, so it is its
	// own clock that says how much time has passed.
	b.eval(`Object.defineProperty(document, "hidden", {get: () => window.isHidden, configurable: true}); window.isHidden = true; document.dispatchEvent(new Event("visibilitychange"))`)
	before := fetches()
	b.eval(`new Promise(done => setTimeout(done, 2.5 * report.refresh_seconds * 1000))`)
	if n := fetches() - before; n != 0 {
		t.Errorf("a hidden page has asked %d times", n)
	}
	b.eval(`window.isHidden = false; document.dispatchEvent(new Event("visibilitychange"))`)
	b.eval(`new Promise(done => { const look = () => performance.getEntriesByType("resource").some(e => e.name.includes("format=json")) ? done() : setTimeout(look, 10); look(); })`)
}

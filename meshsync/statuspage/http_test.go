package statuspage

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"html"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// onPage runs f with the page of a node that has one peer, under a hostile name.
func onPage(t *testing.T, o Options, f func(*Page)) {
	t.Helper()
	inWorld(t, func(w *world) {
		a, b := w.node(1), w.node(2)
		a.register(b, hostileName)
		f(a.page(o))
	})
}

// hostileName leaves whatever markup it is put into, if that does not escape it.
const hostileName = `</script><img src=x onerror=a()>"'&{{.}}`

func host(name string) func(*http.Request) {
	return func(r *http.Request) { r.Host = name }
}

func header(pairs ...string) func(*http.Request) {
	return func(r *http.Request) {
		for i := 0; i < len(pairs); i += 2 {
			r.Header.Set(pairs[i], pairs[i+1])
		}
	}
}

func TestOnlyReading(t *testing.T) {
	onPage(t, Options{}, func(p *Page) {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PROPFIND"} {
			w := ask(p, func(r *http.Request) { r.Method = method })
			if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
				t.Errorf("%s: %d, Allow %q", method, w.Code, w.Header().Get("Allow"))
			}
		}
		get, head := ask(p), ask(p, func(r *http.Request) { r.Method = http.MethodHead })
		if head.Code != http.StatusOK || head.Body.Len() != 0 || head.Header().Get("Content-Length") != get.Header().Get("Content-Length") {
			t.Errorf("HEAD: %d, %d bytes, length %s; GET has length %s", head.Code, head.Body.Len(), head.Header().Get("Content-Length"), get.Header().Get("Content-Length"))
		}
		if w := ask(p, func(r *http.Request) { r.URL.RawQuery = "format=xml" }); w.Code != http.StatusBadRequest {
			t.Errorf("another format: %d", w.Code)
		}
	})
}

func TestHostsThatAreNotKnownGetNothing(t *testing.T) {
	onPage(t, Options{Hosts: []string{"Mesh.Example"}}, func(p *Page) {
		for name, want := range map[string]int{
			"127.0.0.1:9001": 200, "10.1.2.3": 200, "[::1]:9001": 200, "[fe80::1]": 200, "localhost": 200, "LocalHost:80": 200, "localhost.": 200,
			"mesh.example": 200, "MESH.example:8443": 200, "mesh.example.": 200,
			"": 403, "evil.example": 403, "evil.example:9001": 403, "localhost.evil.example": 403, "127.0.0.1.evil.example": 403,
			"x.mesh.example": 403, "mesh.example.evil": 403, "127.1": 403, "2130706433": 403, "*": 403, "mesh.example@evil": 403,
		} {
			for _, format := range []func(*http.Request){func(*http.Request) {}, asJSON} {
				w := ask(p, host(name), format)
				if w.Code != want || want != 200 && strings.Contains(w.Body.String(), p.transport.ID().Short()) {
					t.Errorf("host %q: %d, want %d", name, w.Code, want)
				}
			}
		}
	})
}

func TestEveryHostIfTheServiceSaysSo(t *testing.T) {
	onPage(t, Options{Hosts: []string{"*"}}, func(p *Page) {
		if w := ask(p, host("anything.example:80")); w.Code != 200 {
			t.Errorf("%d", w.Code)
		}
	})
}

func TestHostsThatNobodyCanAskForAreRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.node(1)
		for _, h := range []string{"", "https://mesh.example", "mesh.example:8443", "mesh.example/status", "*.example", "a b"} {
			if _, err := New(a.MeshSyncTransport, Options{Hosts: []string{h}}); !errors.Is(err, meshsync.ErrBadOption) {
				t.Errorf("%q: %v", h, err)
			}
		}
	})
}

func TestOtherSitesGetNothing(t *testing.T) {
	onPage(t, Options{}, func(p *Page) {
		for _, tc := range []struct {
			what             string
			site, mode, dest string
			want             int
		}{
			{"the page's own fetch", "same-origin", "cors", "empty", 200},
			{"an address that was typed", "none", "navigate", "document", 200},
			{"a link of another site", "cross-site", "navigate", "document", 200},
			{"a link of a site of the same domain", "same-site", "navigate", "document", 200},
			{"what is no browser", "", "", "", 200},
			{"another site's fetch", "cross-site", "cors", "empty", 403},
			{"another site's fetch without CORS", "cross-site", "no-cors", "empty", 403},
			{"another site's script", "cross-site", "no-cors", "script", 403},
			{"another site's picture", "cross-site", "no-cors", "image", 403},
			{"a fetch of a site of the same domain", "same-site", "cors", "empty", 403},
			{"another site's frame", "cross-site", "navigate", "iframe", 403},
			{"a frame of a site of the same domain", "same-site", "navigate", "iframe", 403},
			{"a frame of the same origin", "same-origin", "navigate", "iframe", 403},
			{"another site's object", "cross-site", "navigate", "object", 403},
			{"a value that does not exist yet", "elsewhere", "cors", "empty", 403},
		} {
			var set []string
			for name, v := range map[string]string{"Sec-Fetch-Site": tc.site, "Sec-Fetch-Mode": tc.mode, "Sec-Fetch-Dest": tc.dest} {
				if v != "" {
					set = append(set, name, v)
				}
			}
			for _, format := range []func(*http.Request){func(*http.Request) {}, asJSON} {
				w := ask(p, header(set...), format)
				if w.Code != tc.want || tc.want != 200 && strings.Contains(w.Body.String(), p.transport.ID().Short()) {
					t.Errorf("%s: %d, want %d", tc.what, w.Code, tc.want)
				}
			}
		}
	})
}

func TestEveryAnswerKeepsBrowsersFromSharingIt(t *testing.T) {
	onPage(t, Options{}, func(p *Page) {
		for what, w := range map[string]http.Header{
			"the page": ask(p).Header(), "the JSON": ask(p, asJSON).Header(),
			"a refusal": ask(p, host("evil.example"), header("Origin", "http://evil.example")).Header(),
		} {
			for name, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
				"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY", "Access-Control-Allow-Origin": "",
			} {
				if got := w.Get(name); got != want {
					t.Errorf("%s: %s is %q, want %q", what, name, got, want)
				}
			}
			policy := w.Get("Content-Security-Policy")
			for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} {
				if !strings.Contains(policy, want) {
					t.Errorf("%s: the policy lacks %q", what, want)
				}
			}
			if strings.Contains(policy, "unsafe") {
				t.Errorf("%s: the policy is %q", what, policy)
			}
		}
	})
}

func TestScriptAndStyleAreThoseOfThePolicy(t *testing.T) {
	onPage(t, Options{}, func(p *Page) {
		w := ask(p)
		for _, tag := range []string{"script", "style"} {
			found := regexp.MustCompile(`(?s)<`+tag+`>(.*?)</`+tag+`>`).FindAllStringSubmatch(w.Body.String(), -1)
			if len(found) != 1 {
				t.Fatalf("%d of <%s>, want 1", len(found), tag)
			}
			if want := tag + "-src '" + hashOf(found[0][1]) + "'"; !strings.Contains(w.Header().Get("Content-Security-Policy"), want) {
				t.Errorf("the policy lacks %s", want)
			}
		}
		if elsewhere := regexp.MustCompile(`(?i)(src|href|action)="?(https?:)?//`).FindString(w.Body.String()); elsewhere != "" {
			t.Errorf("the page refers to elsewhere: %s", elsewhere)
		}
	})
}

func TestHostileNamesAreText(t *testing.T) {
	onPage(t, Options{Title: "<b>" + hostileName}, func(p *Page) {
		body := ask(p).Body.String()
		if strings.Contains(body, "<img") || strings.Count(body, "</script") != 2 || strings.Contains(body, "<b>") {
			t.Error("a name or the title is markup in the page")
		}
		if !strings.Contains(html.UnescapeString(body), "<bdi>"+hostileName+"</bdi>") {
			t.Error("the page without scripts does not have the name")
		}
		data := regexp.MustCompile(`(?s)<script type="application/json" id="report">(.*?)</script>`).FindStringSubmatch(body)
		var r report
		if data == nil || json.Unmarshal([]byte(data[1]), &r) != nil || len(r.Peers) != 1 || r.Peers[0].Name != hostileName {
			t.Error("the data in the page does not have the name")
		}
	})
}

func TestTextOfErrorsIsBoundedAndOneLine(t *testing.T) {
	got := clean(errors.New("a\x1b[31m\r\nb\u202ec"+strings.Repeat("é", 500)+"\xff"), 101)
	if len(got) > 101 || !strings.HasPrefix(got, "a [31m  b cé") || !strings.HasSuffix(got, "é…") {
		t.Errorf("the text is %q", got)
	}
}

func TestNoSecretIsShown(t *testing.T) {
	inWorld(t, func(w *world) {
		formation := func(o *meshsync.Options) {
			o.Formation = &meshsync.Formation{ID: "name-of-the-fleet", Key: []byte("key-of-the-fleet-16")}
		}
		a, b, stranger := w.node(1, formation), w.node(2, formation), w.node(3)
		page := a.page(Options{})
		a.register(b, "b")
		if err := a.RegisterForReconnect(stranger.ID(), []string{stranger.addr()}, ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		all := ask(page).Body.String() + ask(page, asJSON).Body.String()
		if !strings.Contains(all, meshsync.ErrFormation.Error()) {
			t.Error("the page does not say why the stranger is away")
		}
		for _, secret := range []string{"name-of-the-fleet", "key-of-the-fleet", string(testKey(1).Seed())} {
			if strings.Contains(all, secret) {
				t.Errorf("the page has %q", secret)
			}
		}
	})
}

func TestJSONAndPageAreCompressedForThoseWhoTakeIt(t *testing.T) {
	onPage(t, Options{}, func(p *Page) {
		plain, packed := ask(p, asJSON), ask(p, asJSON, header("Accept-Encoding", "br, gzip;q=0.5"))
		z, err := gzip.NewReader(packed.Body)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(z)
		if err != nil || string(got) != plain.Body.String() || packed.Header().Get("Content-Encoding") != "gzip" {
			t.Errorf("%d bytes and %v, want the %d of the plain answer", len(got), err, plain.Body.Len())
		}
		for _, not := range []string{"", "br", "gzip;q=0", "identity"} {
			if w := ask(p, asJSON, header("Accept-Encoding", not)); w.Header().Get("Content-Encoding") != "" {
				t.Errorf("compressed for %q", not)
			}
		}
	})
}

func TestAllWhoLookShareALook(t *testing.T) {
	onPage(t, Options{}, func(p *Page) {
		first := ask(p, asJSON).Body.String()
		time.Sleep(lookEvery - time.Nanosecond)
		if ask(p, asJSON).Body.String() != first {
			t.Error("within a second the report is another one")
		}
		time.Sleep(time.Nanosecond)
		if ask(p, asJSON).Body.String() == first {
			t.Error("after a second the report is the same")
		}
		time.Sleep(3 * tidyEvery)
		synctest.Wait()
		if p.last != nil {
			t.Error("a look at which nobody looks any more is kept")
		}
	})
}

func TestPageOfANodeThatHasShutDownSaysSo(t *testing.T) {
	onPage(t, Options{}, func(p *Page) {
		p.transport.Close()
		synctest.Wait()
		if w := ask(p, asJSON); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "shut down") {
			t.Errorf("%d: %s", w.Code, w.Body)
		}
	})
}

func TestRelaysAreShown(t *testing.T) {
	inWorld(t, func(w *world) {
		url := "relay://10.9.9.9:7443"
		page := w.node(1, func(o *meshsync.Options) { o.Relays = []string{url} }).page(Options{})
		time.Sleep(time.Minute)
		r := reportOf(t, page)
		if len(r.Relays) != 1 || r.Relays[0].URL != url || !r.Relays[0].Home || r.Relays[0].State != "unreachable" || r.Relays[0].Error == "" || r.Relays[0].Since == nil {
			t.Errorf("relays are %+v", r.Relays)
		}
	})
}

package statuspage

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

var (
	//go:embed words.js
	wordsScript string
	//go:embed page.js
	pageScript string
	//go:embed page.css
	style string
	//go:embed page.html
	pageText string
)

// lookEvery is how old a look may be that is shown: as fresh as eyes need it, and however many look, and however
// often, there is one in that time.
const lookEvery = time.Second

// A look is how things stood at one time, in the forms in which it was asked for so far.
type look struct {
	at         time.Time
	json, html form
}

// A form is what an answer says, as it is and compressed; made when it is asked for first.
type form struct {
	plain, packed func() ([]byte, error)
}

func newForm(build func() ([]byte, error)) form {
	plain := sync.OnceValues(build)
	return form{plain, sync.OnceValues(func() ([]byte, error) {
		b, err := plain()
		if err != nil {
			return nil, err
		}
		var to bytes.Buffer
		z, err := gzip.NewWriterLevel(&to, gzip.BestSpeed)
		if err != nil {
			return nil, err
		}
		z.Write(b) // a Buffer takes everything
		err = z.Close()
		return to.Bytes(), err
	})}
}

// look returns the last look, or a new one if that is old.
func (p *Page) look() *look {
	p.looking.Lock()
	defer p.looking.Unlock()
	now := time.Now()
	if p.last != nil && now.Sub(p.last.at) < lookEvery {
		return p.last
	}
	report := p.report(now)
	l := &look{at: now}
	l.json = newForm(func() ([]byte, error) { return json.Marshal(report) })
	l.html = newForm(func() ([]byte, error) {
		data, err := l.json.plain()
		if err != nil {
			return nil, err
		}
		return renderPage(report, data)
	})
	p.last = l
	return l
}

// renderPage returns the page as HTML. The data is in it as JSON, in which json.Marshal leaves no "<"; what is a
// script or a style must be as it is, or its hash would not match.
func renderPage(r report, data []byte) ([]byte, error) {
	t, err := template.New("page").Funcs(template.FuncMap{"clock": clock}).Parse(pageText)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, struct {
		report
		Script template.JS
		Style  template.CSS
		JSON   template.JS
	}{r, template.JS(wordsScript + pageScript), template.CSS(style), template.JS(data)})
	return b.Bytes(), err
}

// clock returns a time as the page has it for browsers without scripts.
func clock(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Format("2006-01-02 15:04:05")
}

// ServeHTTP answers with the page, or with JSON under ?format=json.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.setHeaders(w.Header())
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "this page is only to be read", http.StatusMethodNotAllowed)
		return
	case !p.isKnownHost(r.Host):
		http.Error(w, fmt.Sprintf("the host %q is not known here: use an IP address or localhost, or list it in the status page's Options.Hosts", r.Host), http.StatusForbidden)
		return
	case isForeign(r):
		http.Error(w, "other sites get nothing from this page", http.StatusForbidden)
		return
	case p.hasEnded():
		http.Error(w, "the node has shut down", http.StatusServiceUnavailable)
		return
	}
	switch r.URL.Query().Get("format") {
	case "", "html":
		answer(w, r, p.look().html, "text/html; charset=utf-8")
	case "json":
		answer(w, r, p.look().json, "application/json")
	default:
		http.Error(w, "the formats are html and json", http.StatusBadRequest)
	}
}

// answer sends a form, compressed if the browser takes that: on the links that this is for, bytes count.
func answer(w http.ResponseWriter, r *http.Request, f form, contentType string) {
	get := f.plain
	if takesGzip(r.Header.Get("Accept-Encoding")) {
		get = f.packed
		w.Header().Set("Content-Encoding", "gzip")
	}
	body, err := get()
	if err != nil {
		w.Header().Del("Content-Encoding")
		http.Error(w, "the page could not be made: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodGet {
		w.Write(body) // an error is the browser's having left
	}
}

// takesGzip reports whether an Accept-Encoding header has gzip (RFC 9110 section 12.5.3).
func takesGzip(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		name, weight, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			q, err := strconv.ParseFloat(strings.TrimPrefix(strings.TrimSpace(weight), "q="), 64)
			return err != nil || q > 0
		}
	}
	return false
}

//go:build unix

package statuspage

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long a browser may take for one thing on a loaded machine.
const patience = 60 * time.Second

// A browser is a headless Chromium with one page open, which is driven over a pair of pipes: the DevTools
// protocol as JSON texts that end with a zero byte.
type browser struct {
	t    *testing.T
	to   *os.File
	page string // the session of the page

	mu       sync.Mutex
	last     int
	answers  map[int]chan message
	requests []string // the URLs of what the page has asked for
	trouble  []string // what it has written to its console, exceptions among it
	err      error    // why there are no more messages
}

type message struct {
	ID        int             `json:"id"`
	Method    string          `json:"method"`
	Params    json.RawMessage `json:"params"`
	Result    json.RawMessage `json:"result"`
	Error     json.RawMessage `json:"error"`
	SessionID string          `json:"sessionId"`
}

// openBrowser starts a browser, which ends with the test. It skips the test if there is none.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome", "headless-shell"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Skip("no Chromium or Chrome in the PATH: on Debian, apt-get install chromium")
	}
	theirs, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, answers, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-default-apps", "--disable-sync", "--remote-debugging-pipe", "--user-data-dir="+t.TempDir(), "about:blank")
	cmd.ExtraFiles = []*os.File{theirs, answers} // 3 and 4
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	answers.Close()
	b := &browser{t: t, to: to, answers: make(map[int]chan message)}
	read := make(chan struct{})
	go func() { // until the browser ends
		defer close(read)
		b.read(from)
	}()
	t.Cleanup(func() {
		b.to.Write([]byte(`{"id":1000000,"method":"Browser.close"}` + "\x00"))
		kill := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		cmd.Wait()
		kill.Stop()
		to.Close()
		<-read
		from.Close()
	})
	var target struct{ TargetID string }
	b.do("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var session struct{ SessionID string }
	b.do("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &session)
	b.page = session.SessionID
	for _, domain := range []string{"Network", "Runtime", "Page", "Log"} {
		b.do(domain+".enable", nil, nil)
	}
	return b
}

// read takes the browser's messages.
func (b *browser) read(from *os.File) {
	r := bufio.NewReader(from)
	for {
		text, err := r.ReadBytes(0)
		var m message
		if err == nil {
			err = json.Unmarshal(bytes.TrimSuffix(text, []byte{0}), &m)
		}
		b.mu.Lock()
		if err != nil {
			b.err = err
			for id, ch := range b.answers {
				delete(b.answers, id)
				close(ch)
			}
			b.mu.Unlock()
			return
		}
		if ch := b.answers[m.ID]; m.ID != 0 && ch != nil {
			delete(b.answers, m.ID)
			ch <- m
		}
		b.note(m)
		b.mu.Unlock()
	}
}

// note keeps what the page asks for and complains of. mu is held.
func (b *browser) note(m message) {
	switch m.Method {
	case "Network.requestWillBeSent":
		var p struct{ Request struct{ URL string } }
		json.Unmarshal(m.Params, &p)
		b.requests = append(b.requests, p.Request.URL)
	case "Runtime.exceptionThrown", "Log.entryAdded":
		b.trouble = append(b.trouble, string(m.Params))
	}
}

// do has the browser do something, and reads the result.
func (b *browser) do(method string, params map[string]any, result any) {
	b.t.Helper()
	answer := make(chan message, 1)
	b.mu.Lock()
	b.last++
	id := b.last
	if b.err == nil {
		b.answers[id] = answer
	} else {
		close(answer)
	}
	b.mu.Unlock()
	text, err := json.Marshal(map[string]any{"id": id, "method": method, "params": params, "sessionId": b.page})
	if b.page == "" {
		text, err = json.Marshal(map[string]any{"id": id, "method": method, "params": params})
	}
	if err == nil {
		_, err = b.to.Write(append(text, 0))
	}
	if err != nil {
		b.t.Fatal(err)
	}
	select {
	case m, ok := <-answer:
		switch {
		case !ok:
			b.t.Fatalf("%s: the browser has ended", method)
		case m.Error != nil:
			b.t.Fatalf("%s: %s", method, m.Error)
		case result != nil:
			if err := json.Unmarshal(m.Result, result); err != nil {
				b.t.Fatal(err)
			}
		}
	case <-time.After(patience):
		b.t.Fatalf("%s: no answer within %v", method, patience)
	}
}

// eval returns what a JavaScript expression, or the promise that it is, comes to.
func (b *browser) eval(expression string) string {
	b.t.Helper()
	var r struct {
		Result           struct{ Value any }
		ExceptionDetails *struct{ Exception struct{ Description string } }
	}
	b.do("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true}, &r)
	if r.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", expression, r.ExceptionDetails.Exception.Description)
	}
	return fmt.Sprint(r.Result.Value)
}

// open opens a page, and returns when it has loaded.
func (b *browser) open(url string) {
	b.t.Helper()
	b.do("Page.navigate", map[string]any{"url": url}, nil)
	b.eval(`new Promise(done => {
		const look = () => location.href !== "about:blank" && document.readyState === "complete" ? done() : setTimeout(look, 10);
		look();
	})`)
}

// until returns when a JavaScript expression is true of the page, which is looked at after each change of it.
func (b *browser) until(condition string) {
	b.t.Helper()
	got := b.eval(`new Promise(done => {
		const holds = () => { try { return ` + condition + ` } catch { return false } };
		if (holds()) return done("yes");
		const o = new MutationObserver(() => { if (holds()) { o.disconnect(); done("yes"); } });
		o.observe(document, {subtree: true, childList: true, characterData: true, attributes: true});
		setTimeout(() => done(document.body.innerText), ` + fmt.Sprint(patience.Milliseconds()/2) + `);
	})`)
	if got != "yes" {
		b.t.Fatalf("it is not so that %s; the page is:\n%s", condition, got)
	}
}

// complaints returns what the page has complained of that has none of the given words.
func (b *browser) complaints(but ...string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
next:
	for _, s := range b.trouble {
		for _, word := range but {
			if strings.Contains(s, word) {
				continue next
			}
		}
		errs = append(errs, errors.New(s))
	}
	return errors.Join(errs...)
}

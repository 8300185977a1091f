package deploy

import (
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/defenseunicorns/peat-mesh-go/meshsync"
)

// read returns a file of the repository, given by its path from the root.
func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// pages returns the paths of all Markdown files from the root of the repository.
func pages(t *testing.T) (all []string) {
	t.Helper()
	root := os.DirFS("..")
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case strings.HasSuffix(path, ".md"):
			all = append(all, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var (
	fencedCode = regexp.MustCompile("(?ms)^```.*?^```")
	inlineCode = regexp.MustCompile("`[^`\n]*`")
	linkTarget = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	remoteLink = regexp.MustCompile(`^[a-z]+:`)
	headings   = regexp.MustCompile(`(?m)^#+ +(.+?) *$`)
	noSlug     = regexp.MustCompile(`[^\p{L}\p{N}_\- ]`)
)

// anchors returns what a link into a page may name, as code hosts make it of headings.
func anchors(page string) (all []string) {
	for _, m := range headings.FindAllStringSubmatch(fencedCode.ReplaceAllString(page, ""), -1) {
		all = append(all, strings.ReplaceAll(noSlug.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return all
}

// A link that goes nowhere is found here and not by a reader.
func TestLinksLeadSomewhere(t *testing.T) {
	links := 0
	for _, page := range pages(t) {
		text := inlineCode.ReplaceAllString(fencedCode.ReplaceAllString(read(t, page), ""), "")
		for _, m := range linkTarget.FindAllStringSubmatch(text, -1) {
			if remoteLink.MatchString(m[1]) {
				continue
			}
			links++
			to, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if to != "" {
				target = filepath.ToSlash(filepath.Join(filepath.Dir(page), to))
			}
			if _, err := os.Stat(filepath.Join("..", target)); err != nil {
				t.Errorf("%s: %s leads nowhere", page, m[1])
				continue
			}
			if anchor != "" && !slices.Contains(anchors(read(t, target)), anchor) {
				t.Errorf("%s: %s has no heading #%s", page, target, anchor)
			}
		}
	}
	if links < 100 {
		t.Errorf("only %d links", links)
	}
}

// code returns what a line of Go has before its comment.
func code(line string) string {
	line, _, _ = strings.Cut(line, " // ")
	return strings.TrimSpace(line)
}

// What pages show of Go are lines of programs and examples that tests run.
func TestDocsShowLinesThatAreRun(t *testing.T) {
	run := make(map[string]bool)
	for _, file := range []string{
		"examples/hello/main.go", "examples/grpc/example_test.go", "meshsync/meshnet/example_test.go", "meshsync/meshtest/meshtest_test.go",
	} {
		for line := range strings.Lines(read(t, file)) {
			run[code(line)] = true
		}
	}
	shown := 0
	for _, page := range pages(t) {
		for _, block := range fencedCode.FindAllString(read(t, page), -1) {
			body, ok := strings.CutPrefix(block, "```go\n")
			if !ok {
				continue
			}
			for line := range strings.Lines(strings.TrimSuffix(body, "```")) {
				shown++
				if !run[code(line)] {
					t.Errorf("%s: in no program or example: %s", page, line)
				}
			}
		}
	}
	if shown < 30 {
		t.Errorf("only %d lines of Go are shown", shown)
	}
}

// The guide's table of options has a row for each field, and no other.
func TestGuideNamesEachOption(t *testing.T) {
	_, section, ok := strings.Cut(read(t, "docs/guide.md"), "\n## Options\n")
	section, _, _ = strings.Cut(section, "\n## ")
	if !ok {
		t.Fatal("the guide has no section of options")
	}
	var named []string
	for _, m := range regexp.MustCompile("(?m)^\\| (`[^|]+`) \\|").FindAllStringSubmatch(section, -1) {
		for name := range strings.SplitSeq(m[1], ", ") {
			named = append(named, strings.Trim(name, "`"))
		}
	}
	var fields []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[meshsync.Options]()) {
		if f.IsExported() {
			fields = append(fields, f.Name)
		}
	}
	slices.Sort(named)
	slices.Sort(fields)
	if !slices.Equal(named, fields) {
		t.Errorf("the guide has the options\n%v, and there are\n%v", named, fields)
	}
}

func TestContributingNamesEachFileOfTheTransport(t *testing.T) {
	page := read(t, "CONTRIBUTING.md")
	files, err := filepath.Glob("../meshsync/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, f := range files {
		if name := filepath.Base(f); !strings.HasSuffix(name, "_test.go") && !strings.Contains(page, "`"+name+"`") {
			t.Errorf("CONTRIBUTING.md does not say what is in meshsync/%s", name)
		}
	}
}

// What the page about the architecture names is there: a path from the root of the project, or a file of the transport.
func TestArchitectureNamesFilesThatExist(t *testing.T) {
	named := regexp.MustCompile("`([a-zA-Z_/0-9]+\\.go)`").FindAllStringSubmatch(read(t, "docs/architecture.md"), -1)
	if len(named) < 40 {
		t.Fatalf("%d files are named", len(named))
	}
	for _, n := range named {
		dir := ".."
		if !strings.Contains(n[1], "/") {
			dir = "../meshsync"
		}
		if _, err := os.Stat(filepath.Join(dir, n[1])); err != nil {
			t.Errorf("docs/architecture.md: %v", err)
		}
	}
}

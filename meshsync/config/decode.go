package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxErrors bounds how many mistakes are told of at once.
const maxErrors = 20

// A decoder follows the nodes of a file, and notes all mistakes. It descends only into what it knows, and follows no alias, so that it
// takes no more time than the file is long.
type decoder struct {
	file  string
	lines map[string]int
	errs  []*Error
}

// fields are what a mapping may have, by name.
type fields map[string]func(n *yaml.Node, field string)

func (d *decoder) fail(n *yaml.Node, field string, err error) {
	d.errs = append(d.errs, &Error{File: d.file, Line: n.Line, Field: field, Err: err})
}

// err returns the mistakes in the order of the file, nil if there is none.
func (d *decoder) err() error {
	slices.SortStableFunc(d.errs, func(a, b *Error) int { return cmp.Compare(a.Line, b.Line) })
	var all []error
	for i, e := range d.errs {
		if i == maxErrors {
			all = append(all, fmt.Errorf("%s: and %d more", d.file, len(d.errs)-maxErrors))
			break
		}
		all = append(all, e)
	}
	return errors.Join(all...)
}

var syntaxLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(?s)(.*)$`)

// document returns the only document of a file, nil if there is a mistake.
func (d *decoder) document(data []byte) *yaml.Node {
	r := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	err := r.Decode(&doc)
	if err == nil {
		if err = r.Decode(&more); err == nil {
			d.fail(&more, "", errors.New("a second document: one is all a file can have"))
			return nil
		}
	} else if err == io.EOF {
		d.fail(&yaml.Node{}, "", errors.New("nothing is in it"))
		return nil
	}
	if err != io.EOF {
		m := syntaxLine.FindStringSubmatch(err.Error())
		if m == nil {
			m = []string{"", "", err.Error()}
		}
		line, _ := strconv.Atoi(m[1])
		what := m[2]
		if strings.HasPrefix(what, "unknown anchor") {
			what = "unknown anchor" // it may be what somebody took for a secret's place
		}
		d.fail(&yaml.Node{Line: line}, "", errors.New(what))
		return nil
	}
	return doc.Content[0]
}

// kindOf says what a node is.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.ShortTag() {
	case "!!str":
		return "a string"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!null":
		return "nothing"
	default:
		return "something else"
	}
}

func (d *decoder) want(n *yaml.Node, field, what string) {
	d.fail(n, field, fmt.Errorf("want %s, got %s", what, kindOf(n)))
}

// each calls f for each entry of a mapping, with its field, and refuses two of one name.
func (d *decoder) each(n *yaml.Node, field string, f func(key, value *yaml.Node, field string)) {
	if n.Kind != yaml.MappingNode {
		d.want(n, field, "a mapping")
		return
	}
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			d.want(key, field, "the name of a field")
			continue
		}
		name := clip(key.Value)
		if field != "" {
			name = field + "." + name
		}
		if line, ok := seen[key.Value]; ok {
			d.fail(key, name, fmt.Errorf("it is in line %d already", line))
			continue
		}
		seen[key.Value] = key.Line
		d.lines[name] = key.Line
		f(key, value, name)
	}
}

// mapping reads a mapping with fixed fields.
func (d *decoder) mapping(n *yaml.Node, field string, known fields) {
	d.each(n, field, func(key, value *yaml.Node, field string) {
		if read := known[key.Value]; read != nil {
			read(value, field)
		} else {
			d.fail(key, field, errors.New("unknown field"))
		}
	})
}

// text reads a string. Digits are one as well: an ID may have no other.
func text(d *decoder, to *string, check func(string) error) func(*yaml.Node, string) {
	return func(n *yaml.Node, field string) {
		if tag := n.ShortTag(); n.Kind != yaml.ScalarNode || tag != "!!str" && tag != "!!int" && tag != "!!float" {
			d.want(n, field, "a string")
			return
		}
		if n.Value == "" {
			d.fail(n, field, errors.New("it is empty"))
			return
		}
		if check != nil {
			if err := check(n.Value); err != nil {
				d.fail(n, field, err)
				return
			}
		}
		*to = n.Value
	}
}

// list reads a list of strings.
func list(d *decoder, to *[]string, check func(string) error) func(*yaml.Node, string) {
	return func(n *yaml.Node, field string) {
		if n.Kind != yaml.SequenceNode {
			d.want(n, field, "a list")
			return
		}
		for i, item := range n.Content {
			var s string
			text(d, &s, check)(item, fmt.Sprintf("%s[%d]", field, i))
			*to = append(*to, s)
		}
	}
}

// scalar reads a value of the given tags with parse, and has check look at it.
func scalar[T any](d *decoder, to *T, what string, tags []string, parse func(string) (T, error), check func(T) error) func(*yaml.Node, string) {
	return func(n *yaml.Node, field string) {
		if n.Kind != yaml.ScalarNode || !slices.Contains(tags, n.ShortTag()) {
			d.want(n, field, what)
			return
		}
		v, err := parse(n.Value)
		if err != nil {
			d.fail(n, field, fmt.Errorf("want %s, got %q", what, clip(n.Value)))
			return
		}
		if check != nil {
			if err := check(v); err != nil {
				d.fail(n, field, err)
				return
			}
		}
		*to = v
	}
}

func duration(d *decoder, to *time.Duration, check func(time.Duration) error) func(*yaml.Node, string) {
	return scalar(d, to, "a duration as 250ms, 5s or 2m", []string{"!!str", "!!int", "!!float"}, time.ParseDuration, check)
}

func integer[T int | int64](d *decoder, to *T, check func(T) error) func(*yaml.Node, string) {
	return scalar(d, to, "a whole number", []string{"!!int"}, func(s string) (T, error) {
		v, err := strconv.ParseInt(s, 10, strconv.IntSize)
		return T(v), err
	}, check)
}

func number(d *decoder, to *float64, check func(float64) error) func(*yaml.Node, string) {
	return scalar(d, to, "a number", []string{"!!int", "!!float"}, func(s string) (float64, error) { return strconv.ParseFloat(s, 64) }, check)
}

func boolean(d *decoder, to *bool) func(*yaml.Node, string) {
	return scalar(d, to, "true or false", []string{"!!bool"}, strconv.ParseBool, nil)
}

// clip keeps what somebody wrote from flooding the error that names it.
func clip(s string) string {
	const most = 64
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

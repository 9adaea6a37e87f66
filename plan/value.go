package plan

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"snag/flash/image"
	"snag/internal/config"
	"snag/socs"
)

// Error is a mistake in a plan's file.
type Error struct {
	File      string
	Line, Col int // from 1; 0 where unknown
	Err       error
}

func (e *Error) Error() string {
	return config.Place(e.File, e.Line, e.Col) + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// parser reads the nodes of a plan, and gathers what is wrong with them.
type parser struct {
	file string
	dir  string // that paths are relative to; empty: the current one
	errs []error
}

func (p *parser) fail(at *yaml.Node, format string, args ...any) {
	p.errs = append(p.errs, &Error{p.file, at.Line, at.Column, fmt.Errorf(format, args...)})
}

// describe says what a node is.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias, which plans do not have"
	}
	if n.Tag == "!!null" {
		return "nothing"
	}
	return fmt.Sprintf("%q", n.Value)
}

// mapping reads a mapping's values by their keys, of which it knows some.
type mapping struct {
	p      *parser
	node   *yaml.Node
	values map[string]*yaml.Node
	keys   map[string]*yaml.Node
}

// mapping reads a mapping whose keys are all among those that are known.
func (p *parser) mapping(n *yaml.Node, what string, known ...string) *mapping {
	m := &mapping{p, n, map[string]*yaml.Node{}, map[string]*yaml.Node{}}
	if n.Kind != yaml.MappingNode {
		p.fail(n, "%s: expected a mapping of %s, found %s", what, strings.Join(known, ", "), describe(n))
		return m
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.Kind != yaml.ScalarNode:
			p.fail(k, "%s: expected a key, found %s", what, describe(k))
		case m.keys[k.Value] != nil:
			p.fail(k, "%s: %s stands twice", what, k.Value)
		case !slices.Contains(known, k.Value):
			hint := "expected " + strings.Join(known, ", ")
			if near := socs.Nearest(k.Value, known); len(near) > 0 {
				hint = "did you mean " + near[0] + "?"
			}
			p.fail(k, "%s: unknown key %q: %s", what, k.Value, hint)
		default:
			m.keys[k.Value], m.values[k.Value] = k, v
		}
	}
	return m
}

func (m *mapping) has(key string) bool { return m.values[key] != nil }

// at is where a key is, or the mapping.
func (m *mapping) at(key string) *yaml.Node {
	if k := m.keys[key]; k != nil {
		return k
	}
	return m.node
}

// text is a value that is a string or a number; empty if it is not given.
func (m *mapping) text(key string) string {
	n := m.values[key]
	if n == nil {
		return ""
	}
	s, ok := scalar(n)
	if !ok || s == "" {
		m.p.fail(n, "%s: expected a text, found %s", key, describe(n))
	}
	return s
}

// required is text that must be there.
func (m *mapping) required(what, key string) string {
	if !m.has(key) && m.node.Kind == yaml.MappingNode {
		m.p.fail(m.node, "%s: %s is missing", what, key)
	}
	return m.text(key)
}

func scalar(n *yaml.Node) (string, bool) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return "", false
	}
	return n.Value, true
}

// bool is a value that is true or false.
func (m *mapping) bool(key string) bool {
	n := m.values[key]
	if n == nil {
		return false
	}
	var v bool
	if n.Kind != yaml.ScalarNode || n.Decode(&v) != nil {
		m.p.fail(n, "%s: expected true or false, found %s", key, describe(n))
	}
	return v
}

// size is a value in bytes: 4096, 0x1000, 4k, 16M, 2GiB.
func (m *mapping) size(key string) int64 {
	s := m.text(key)
	if s == "" {
		return 0
	}
	v, err := ParseSize(s)
	if err != nil {
		m.p.fail(m.values[key], "%s: %v", key, err)
	}
	return v
}

// duration is a value such as 90s or 2m.
func (m *mapping) duration(key string, def time.Duration) time.Duration {
	s := m.text(key)
	if s == "" {
		return def
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 || d > 24*time.Hour {
		m.p.fail(m.values[key], "%s: %q: expected a time, such as 90s or 2m", key, s)
		return def
	}
	return d
}

// path is a file's name, made to begin where the plan's paths do. URLs and - stay.
func (m *mapping) path(key string) string { return m.p.path(m.text(key)) }

func (p *parser) path(s string) string {
	if s == "" || s == "-" || filepath.IsAbs(s) || image.IsURL(s) || p.dir == "" {
		return s
	}
	return filepath.Join(p.dir, s)
}

// ParseSize reads a number of bytes: decimal, or hexadecimal behind 0x, with k, M, G or T (or KiB, ...) for powers of
// 1024.
func ParseSize(s string) (int64, error) {
	bad := fmt.Errorf("%q: expected a number of bytes, such as 4096, 0x1000, 64k, 16M or 2G", s)
	digits, shift := s, 0
	if !strings.HasPrefix(strings.ToLower(s), "0x") {
		digits = strings.TrimSuffix(strings.TrimSuffix(s, "iB"), "IB")
		if i := strings.IndexByte("kmgt", lower(digits)); i >= 0 {
			digits, shift = digits[:len(digits)-1], 10*(i+1)
		} else if digits != s {
			return 0, bad
		}
		if len(digits) > 1 && digits[0] == '0' {
			digits = strings.TrimLeft(digits[:len(digits)-1], "0") + digits[len(digits)-1:] // no octal numbers here
		}
	}
	n, err := strconv.ParseUint(digits, 0, 63)
	if errors.Is(err, strconv.ErrRange) || err == nil && n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%q: too large", s)
	}
	if err != nil || strings.Contains(digits, "_") {
		return 0, bad
	}
	return int64(n) << shift, nil
}

// lower is the last letter of s, in lower case.
func lower(s string) byte {
	if s == "" {
		return '-'
	}
	return s[len(s)-1] | 0x20
}

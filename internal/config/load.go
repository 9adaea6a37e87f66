package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"snag/socs"
)

// What no configuration and no boot firmware comes near.
const (
	maxConfig   = 1 << 20
	maxArg      = 64 << 10
	maxFirmware = 256 << 20
	maxPairs    = 10_000 // keys visited in one source, those that merges and aliases repeat included
	maxMerges   = 8      // merges inside merges
)

const relativeKey = "paths-relative-to"

// loader gathers what the sources say, and what is wrong with them.
type loader struct {
	slots    []socs.Slot
	problems Problems
	chosen   map[string]entry
	tried    []string // slots that a source has an unusable entry for

	// The source at hand.
	source  int
	file    string
	dict    bool // an argument: there is no THIS_FILE
	pairs   int  // keys visited so far
	tooMuch bool // which has been reported
}

// entry is a slot's configuration and where it was found.
type entry struct {
	path      string
	params    map[string]any
	source    int
	file      string
	line, col int
}

// fail records a problem at a node, or without a place if that is nil.
func (l *loader) fail(at *yaml.Node, format string, args ...any) {
	p := Problem{File: l.file, Msg: fmt.Sprintf(format, args...), source: l.source}
	if at != nil {
		p.Line, p.Col = at.Line, at.Column
	}
	l.problems = append(l.problems, p)
}

// parse turns a source into a tree, nil if there is none.
func (l *loader) parse(src Source) *yaml.Node {
	if src.File == "" {
		return l.parseArg(src.Arg)
	}
	data, err := readFile(src.File, maxConfig)
	if err != nil {
		l.fail(nil, "%v", err)
		return nil
	}
	return l.parseYAML(data)
}

func (l *loader) parseYAML(data []byte) *yaml.Node {
	root, line, col, err := Document(data, "a mapping of firmware names, for instance spl: {path: u-boot-spl.bin}")
	if err != nil {
		l.fail(&yaml.Node{Line: line, Column: col}, "%v", err)
	}
	return root
}

func (l *loader) parseArg(arg string) *yaml.Node {
	if !strings.HasPrefix(strings.TrimSpace(arg), "{") {
		slot, path, ok := strings.Cut(arg, "=")
		if !ok || slot == "" {
			l.fail(nil, "%q: expected slot=path, or a dict such as {'spl': {'path': 'u-boot-spl.bin'}}", shorten(arg))
			return nil
		}
		str := func(col int, s string) *yaml.Node {
			return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s, Line: 1, Column: col}
		}
		return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: 1, Column: 1, Content: []*yaml.Node{
			str(1, strings.TrimSpace(slot)),
			{Kind: yaml.MappingNode, Tag: "!!map", Line: 1, Column: len(slot) + 2, Content: []*yaml.Node{
				str(len(slot)+2, "path"), str(len(slot)+2, path),
			}},
		}}
	}
	if len(arg) > maxArg {
		l.fail(nil, "%d bytes are too many for a configuration", len(arg))
		return nil
	}
	root, err := parsePyDict(arg)
	if syntax, ok := errors.AsType[*pyError](err); ok {
		l.fail(&yaml.Node{Line: syntax.line, Column: syntax.col}, "not a Python dict: %s", syntax.msg)
		return nil
	}
	return root
}

// mapping walks the top level: slots, and paths-relative-to. It reports whether it could see all of it.
func (l *loader) mapping(root *yaml.Node) bool {
	if root.Kind != yaml.MappingNode {
		l.fail(root, "expected a mapping of firmware names, found %s", describe(root))
		return false
	}
	l.pairs, l.tooMuch = 0, false
	pairs := l.content(root, 0)
	dir := ""
	for _, p := range pairs {
		if p.name == relativeKey {
			dir = l.relativeTo(p.value)
		}
	}
	for _, p := range pairs {
		if p.name != relativeKey && !l.tooMuch {
			l.slot(p, dir)
		}
	}
	return !l.tooMuch
}

// relativeTo returns the directory that relative paths start at; empty is the current one.
func (l *loader) relativeTo(n *yaml.Node) string {
	dir, ok := text(n)
	switch {
	case !ok || dir == "":
		l.fail(n, "%s: expected CWD, THIS_FILE or a directory, found %s", relativeKey, describe(n))
	case dir == "CWD":
	case dir == "THIS_FILE" && l.dict:
		l.fail(n, "%s: THIS_FILE has no meaning in an argument", relativeKey)
	case dir == "THIS_FILE":
		return filepath.Dir(l.file)
	default:
		return dir
	}
	return ""
}

func (l *loader) slot(p pair, dir string) {
	i := slices.IndexFunc(l.slots, func(s socs.Slot) bool { return s.Name == p.name })
	if i < 0 {
		names := make([]string, len(l.slots))
		for i, s := range l.slots {
			names[i] = s.Name
		}
		near := socs.Nearest(p.name, append(names, relativeKey))
		l.tried = append(l.tried, near[:min(1, len(near))]...)
		l.fail(p.key, "unknown firmware %q%s", p.name, suggest(near, names))
		return
	}
	slot := l.slots[i]
	l.tried = append(l.tried, slot.Name)
	value := resolve(p.value)
	if value.Kind != yaml.MappingNode {
		hint := ""
		if s, ok := text(value); ok {
			hint = fmt.Sprintf("; write %s: {path: %s}", slot.Name, shorten(s))
		}
		l.fail(value, "%s: expected a mapping with the key path, found %s%s", slot.Name, describe(value), hint)
		return
	}
	e := entry{params: make(map[string]any), source: l.source, file: l.file}
	before, hasPath := len(l.problems), false
	for _, p := range l.content(value, 0) {
		switch {
		case p.name == "path":
			hasPath = true
			e.line, e.col = p.value.Line, p.value.Column
			if s, ok := text(p.value); ok && s != "" {
				e.path = s
			} else {
				l.fail(p.value, "%s: path: expected a file name, found %s", slot.Name, describe(p.value))
			}
		case slices.Contains(slot.Keys, p.name):
			if v, ok := scalar(p.value); ok {
				e.params[p.name] = v
			} else {
				l.fail(p.value, "%s: %s: expected a string, an integer or true or false, found %s", slot.Name, p.name, describe(p.value))
			}
		default:
			keys := append([]string{"path"}, slot.Keys...)
			l.fail(p.key, "%s: unknown key %q%s", slot.Name, p.name, suggest(socs.Nearest(p.name, keys), keys))
		}
	}
	if !hasPath && !l.tooMuch {
		l.fail(p.key, "%s: the key path is missing", slot.Name)
	}
	if len(l.problems) > before {
		delete(l.chosen, slot.Name)
		return
	}
	if dir != "" && !filepath.IsAbs(e.path) {
		e.path = filepath.Join(dir, e.path)
	}
	l.chosen[slot.Name] = e
}

// pair is one key of a mapping with its value.
type pair struct {
	name       string
	key, value *yaml.Node
}

// content lists a mapping's keys in order, merges (<<) included, and reports keys that are no strings
// or stand twice.
func (l *loader) content(m *yaml.Node, depth int) []pair {
	var own, merged []pair
	lines := make(map[string]int)
	for i := 0; i+1 < len(m.Content); i += 2 {
		if l.pairs++; l.pairs > maxPairs || depth > maxMerges {
			if !l.tooMuch {
				l.fail(m, "too much for a configuration: more than %d keys, or merges more than %d deep", maxPairs, maxMerges)
			}
			l.tooMuch = true
			return nil
		}
		key, value := resolve(m.Content[i]), m.Content[i+1]
		if key.ShortTag() == "!!merge" {
			merged = append(merged, l.merge(value, depth)...)
			continue
		}
		name, ok := text(key)
		if !ok {
			l.fail(m.Content[i], "expected a name as key, found %s", describe(key))
			continue
		}
		if line, ok := lines[name]; ok {
			l.fail(m.Content[i], "%q stands here a second time, first in line %d", name, line)
			continue
		}
		lines[name] = m.Content[i].Line
		own = append(own, pair{name, m.Content[i], value})
	}
	for _, p := range merged {
		if _, ok := lines[p.name]; !ok {
			lines[p.name] = p.key.Line
			own = append(own, p)
		}
	}
	return own
}

func (l *loader) merge(value *yaml.Node, depth int) []pair {
	value = resolve(value)
	parts := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode {
		parts = value.Content
	}
	var out []pair
	for _, part := range parts {
		if part = resolve(part); part.Kind != yaml.MappingNode {
			l.fail(value, "<<: expected a mapping, found %s", describe(part))
			continue
		}
		out = append(out, l.content(part, depth+1)...)
	}
	return out
}

// read reads the chosen files.
func (l *loader) read() socs.Firmware {
	fw := make(socs.Firmware)
	for _, slot := range l.slots {
		e, ok := l.chosen[slot.Name]
		if !ok {
			continue
		}
		data, err := readFile(e.path, maxFirmware)
		if err != nil {
			l.problems = append(l.problems, Problem{
				File: e.file, Line: e.line, Col: e.col, source: e.source, Firmware: true,
				Msg: fmt.Sprintf("%s: %s: %v%s", slot.Name, e.path, err, whence(e.path, err)),
			})
			continue
		}
		fw[slot.Name] = socs.Image{Path: e.path, Data: data, Params: e.params}
	}
	return fw
}

// whence tells where a relative path was looked up in vain.
func whence(path string, err error) string {
	wd, werr := os.Getwd()
	if filepath.IsAbs(path) || !errors.Is(err, fs.ErrNotExist) || werr != nil {
		return ""
	}
	return fmt.Sprintf(" (in %s; see %s)", wd, relativeKey)
}

// readFile reads a regular file that is neither empty nor longer than limit bytes.
func readFile(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path) // before opening: a FIFO would wait for its writer
	switch {
	case err != nil:
		return nil, cause(err)
	case info.IsDir():
		return nil, errors.New("is a directory, expected a file")
	case !info.Mode().IsRegular():
		return nil, errors.New("is not a regular file")
	case info.Size() == 0:
		return nil, errors.New("the file is empty")
	case info.Size() > limit:
		return nil, fmt.Errorf("the file has %d bytes, more than the %d that are taken", info.Size(), limit)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	// With room for a byte more, which shows a file that grows. No buffer grows: the images may be large.
	data := make([]byte, info.Size()+1)
	n, err := io.ReadFull(f, data)
	switch {
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, cause(err)
	case int64(n) != info.Size():
		return nil, errors.New("the file changes while it is read")
	}
	return data[:n:n], nil
}

// cause leaves out the path, which the message has already.
func cause(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}

// resolve follows an alias to what it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	for range maxMerges {
		if n.Kind != yaml.AliasNode || n.Alias == nil {
			break
		}
		n = n.Alias
	}
	return n
}

// text returns a string scalar.
func text(n *yaml.Node) (string, bool) {
	n = resolve(n)
	return n.Value, n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str"
}

// scalar returns a value that a slot's key may have: string, int or bool.
func scalar(n *yaml.Node) (any, bool) {
	n = resolve(n)
	if n.Kind != yaml.ScalarNode {
		return nil, false
	}
	switch n.ShortTag() {
	case "!!str":
		return n.Value, true
	case "!!int":
		var v int64
		err := n.Decode(&v)
		if short := int(v); int64(short) == v {
			return short, err == nil
		}
		return v, err == nil
	case "!!bool":
		var v bool
		err := n.Decode(&v)
		return v, err == nil
	}
	return nil, false
}

// describe names what a node is, for "found ...".
func describe(n *yaml.Node) string {
	n = resolve(n)
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		v := shorten(n.Value)
		switch n.ShortTag() {
		case "!!str":
			return fmt.Sprintf("the string %q", v)
		case "!!int":
			return "the integer " + v + " (put it in quotes if it is text)"
		case "!!bool":
			return v + " (put it in quotes if it is text)"
		case "!!null":
			return "nothing"
		}
		return fmt.Sprintf("%s %q", strings.TrimPrefix(n.ShortTag(), "!!"), v)
	}
	return "something else"
}

func shorten(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "..."
	}
	return s
}

// suggest words what was probably meant, else all that there is.
func suggest(near, all []string) string {
	if len(near) > 0 {
		return fmt.Sprintf(": did you mean %q?", near[0])
	}
	return " (known: " + strings.Join(all, ", ") + ")"
}

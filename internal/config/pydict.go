package config

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxPyDepth is how deep the brackets of a Python literal may be nested.
const maxPyDepth = 32

// pyError is a syntax error at a place in the argument.
type pyError struct {
	line, col int
	msg       string
}

func (e *pyError) Error() string { return fmt.Sprintf("%d:%d: %s", e.line, e.col, e.msg) }

// parsePyDict reads a Python dict literal, as ast.literal_eval does, into the tree that the same
// configuration in YAML has: the Python Language Reference, 2.4 (literals) and 6.2. It takes strings
// (both quotes, triple quotes, r and u prefixes, escapes but \N{}, adjacent ones joined), integers
// and floats, True, False, None, dicts, lists and tuples; not bytes, sets or expressions.
// The error is a *pyError.
func parsePyDict(s string) (root *yaml.Node, err error) {
	p := &pyParser{s: s}
	defer func() {
		switch e := recover().(type) {
		case nil:
		case *pyError:
			root, err = nil, e
		default:
			panic(e)
		}
	}()
	p.space()
	if !p.at('{') {
		p.fail("expected {")
	}
	root = p.value(0)
	p.space()
	if p.i < len(p.s) {
		p.fail("expected the end after the closing }")
	}
	return root, nil
}

// pyParser is at byte i of s. Its methods leave by panic with a *pyError.
type pyParser struct {
	s string
	i int
}

func (p *pyParser) fail(format string, args ...any) {
	line, col := p.place(p.i)
	panic(&pyError{line, col, fmt.Sprintf(format, args...)})
}

func (p *pyParser) place(i int) (line, col int) {
	before := p.s[:i]
	return 1 + strings.Count(before, "\n"), i - strings.LastIndexByte(before, '\n')
}

func (p *pyParser) node(start int, kind yaml.Kind, tag, value string) *yaml.Node {
	line, col := p.place(start)
	return &yaml.Node{Kind: kind, Tag: tag, Value: value, Line: line, Column: col}
}

func (p *pyParser) at(c byte) bool { return p.i < len(p.s) && p.s[p.i] == c }

// space skips blanks, line ends and comments.
func (p *pyParser) space() {
	for p.i < len(p.s) {
		switch p.s[p.i] {
		case ' ', '\t', '\n', '\r', '\f':
			p.i++
		case '#':
			for p.i < len(p.s) && p.s[p.i] != '\n' {
				p.i++
			}
		default:
			return
		}
	}
}

func (p *pyParser) value(depth int) *yaml.Node {
	if depth > maxPyDepth {
		p.fail("brackets nested more than %d deep", maxPyDepth)
	}
	p.space()
	if p.i == len(p.s) {
		p.fail("expected a value, found the end")
	}
	switch c := p.s[p.i]; {
	case c == '{':
		return p.dict(depth)
	case c == '[':
		return p.list(depth, ']')
	case c == '(':
		return p.list(depth, ')')
	case c == '\'' || c == '"':
		return p.strings()
	case c >= '0' && c <= '9', c == '-', c == '+', c == '.':
		return p.number()
	}
	return p.word()
}

func (p *pyParser) dict(depth int) *yaml.Node {
	n := p.node(p.i, yaml.MappingNode, "!!map", "")
	for p.i++; ; p.i++ { // over { and ,
		if p.space(); p.at('}') {
			break
		}
		key := p.value(depth + 1)
		if p.space(); !p.at(':') {
			p.fail("expected : after a key")
		}
		p.i++
		n.Content = append(n.Content, key, p.value(depth+1))
		if p.space(); p.at('}') {
			break
		}
		if !p.at(',') {
			p.fail("expected , or }")
		}
	}
	p.i++
	return n
}

// list reads a list, a tuple, or a value in parentheses.
func (p *pyParser) list(depth int, end byte) *yaml.Node {
	n := p.node(p.i, yaml.SequenceNode, "!!seq", "")
	for p.i++; ; p.i++ {
		if p.space(); p.at(end) {
			break
		}
		n.Content = append(n.Content, p.value(depth+1))
		if p.space(); p.at(end) {
			if end == ')' && len(n.Content) == 1 {
				n = n.Content[0]
			}
			break
		}
		if !p.at(',') {
			p.fail("expected , or %c", end)
		}
	}
	p.i++
	return n
}

// word reads a constant, or a string with a prefix.
func (p *pyParser) word() *yaml.Node {
	start := p.i
	for p.i < len(p.s) && (isAlnum(p.s[p.i]) || p.s[p.i] == '_') {
		p.i++
	}
	switch word := p.s[start:p.i]; word {
	case "True", "False":
		return p.node(start, yaml.ScalarNode, "!!bool", strings.ToLower(word))
	case "None":
		return p.node(start, yaml.ScalarNode, "!!null", "null")
	case "r", "R", "u", "U":
		if p.at('\'') || p.at('"') {
			p.i = start
			return p.strings()
		}
	case "":
	default:
		p.i = start
		p.fail("expected a value, found %q (text needs quotes)", shorten(word))
	}
	p.i = start
	r, _ := utf8.DecodeRuneInString(p.s[p.i:])
	p.fail("expected a value, found %q", r)
	return nil
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func (p *pyParser) number() *yaml.Node {
	start := p.i
	for p.i < len(p.s) && (isAlnum(p.s[p.i]) || strings.IndexByte("_.+-", p.s[p.i]) >= 0) {
		p.i++
	}
	text := p.s[start:p.i]
	if len(text) > 64 {
		p.i = start
		p.fail("a number of %d characters", len(text))
	}
	// big.Int reads Python's prefixes and underscores; a leading zero means octal to it and is an
	// error to Python.
	digits := strings.TrimLeft(text, "+-")
	v, ok := new(big.Int).SetString(strings.TrimPrefix(text, "+"), 0)
	if ok && len(text)-len(digits) <= 1 && !octalLooking(digits) {
		return p.node(start, yaml.ScalarNode, "!!int", v.String())
	}
	// Not big.ParseFloat: its time grows with the exponent.
	if f, err := strconv.ParseFloat(text, 64); err == nil && strings.ContainsAny(text, ".eE") && !strings.ContainsAny(text, "xX") {
		return p.node(start, yaml.ScalarNode, "!!float", strconv.FormatFloat(f, 'g', -1, 64))
	}
	p.i = start
	p.fail("%q is not a number", text)
	return nil
}

func octalLooking(digits string) bool {
	return len(digits) > 1 && digits[0] == '0' && (digits[1] >= '1' && digits[1] <= '9' || digits[1] == '_')
}

// strings reads string literals that stand next to each other as one.
func (p *pyParser) strings() *yaml.Node {
	start := p.i
	var b strings.Builder
	for {
		p.literal(&b)
		p.space()
		next := p.s[p.i:]
		if next != "" && strings.IndexByte("rRuU", next[0]) >= 0 {
			next = next[1:]
		}
		if next == "" || next[0] != '\'' && next[0] != '"' {
			return p.node(start, yaml.ScalarNode, "!!str", b.String())
		}
	}
}

func (p *pyParser) literal(b *strings.Builder) {
	raw := false
	if c := p.s[p.i]; c != '\'' && c != '"' {
		raw = c == 'r' || c == 'R'
		p.i++
	}
	quote := p.s[p.i : p.i+1]
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(p.s[p.i:], triple) {
		quote = triple
	}
	open := p.i
	for p.i += len(quote); !strings.HasPrefix(p.s[p.i:], quote); {
		switch {
		case p.i == len(p.s) || p.s[p.i] == '\n' && len(quote) == 1:
			p.i = open
			p.fail("a string without its closing %s", quote)
		case p.s[p.i] != '\\':
			b.WriteByte(p.s[p.i])
			p.i++
		case raw && p.i+1 < len(p.s):
			b.WriteString(p.s[p.i : p.i+2])
			p.i += 2
		default:
			p.escape(b)
		}
	}
	p.i += len(quote)
}

// escape reads a backslash and what belongs to it: Python Language Reference, 2.4.1.1.
func (p *pyParser) escape(b *strings.Builder) {
	if p.i+1 == len(p.s) {
		p.fail("a backslash at the end")
	}
	simple := map[byte]string{
		'\n': "", '\\': "\\", '\'': "'", '"': "\"", 'a': "\a", 'b': "\b", 'f': "\f", 'n': "\n", 'r': "\r", 't': "\t", 'v': "\v",
	}
	c := p.s[p.i+1]
	if s, ok := simple[c]; ok {
		b.WriteString(s)
		p.i += 2
		return
	}
	switch c {
	case 'x':
		p.code(b, 2, 2, 16)
	case 'u':
		p.code(b, 2, 4, 16)
	case 'U':
		p.code(b, 2, 8, 16)
	case '0', '1', '2', '3', '4', '5', '6', '7':
		n := 1
		for n < 3 && p.i+1+n < len(p.s) && p.s[p.i+1+n] >= '0' && p.s[p.i+1+n] <= '7' {
			n++
		}
		p.code(b, 1, n, 8)
	case 'N':
		p.fail(`the escape \N{...} is not supported`)
	default: // stays as it is
		b.WriteByte('\\')
		p.i++
	}
}

// code writes the character whose number has n digits, which begin skip bytes from here.
func (p *pyParser) code(b *strings.Builder, skip, n, base int) {
	var v rune
	for i := range n {
		j := p.i + skip + i
		d := 99
		if j < len(p.s) {
			d = strings.IndexByte("0123456789abcdef", lower(p.s[j]))
		}
		if d < 0 || d >= base {
			p.fail("an escape with too few digits")
		}
		if v = v*rune(base) + rune(d); v > utf8.MaxRune {
			p.fail("an escape beyond the last character")
		}
	}
	if !utf8.ValidRune(v) {
		p.fail("an escape for half a surrogate pair")
	}
	b.WriteRune(v)
	p.i += skip + n
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

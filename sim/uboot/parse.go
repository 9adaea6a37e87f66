package uboot

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// The language, as far as hush has it in U-Boot's scripts: simple commands of words with quotes, $x and ${x}; ; and
// newlines, && and ||; if, then, elif, else, fi; while, until, do, done; for x in ...; comments.

// node is a part of a command line.
type node struct {
	kind  kind
	words []word  // of a command, or what for goes over
	name  string  // for's variable
	test  []*node // conditions, of if and while
	body  []*node
	other []*node // else
	join  string  // what comes between this one and the one before: "", "&&" or "||"
}

type kind int

const (
	simple kind = iota
	ifKind
	whileKind
	untilKind
	forKind
)

// word is a word before its variables are replaced.
type word []segment

type segment struct {
	text   string
	name   bool // text is a variable's
	quoted bool
}

// token is a word, or an operator: ";", "&&", "||".
type token struct {
	op   string
	word word
}

// plain is a word that is the same before and after: what a keyword can be.
func (t token) plain() string {
	if t.op == "" && len(t.word) == 1 && !t.word[0].quoted && !t.word[0].name {
		return t.word[0].text
	}
	return ""
}

const (
	maxLine  = 64 << 10
	maxDepth = 20
)

func lex(s string) ([]token, error) {
	if len(s) > maxLine {
		return nil, errors.New("the line is too long")
	}
	var out []token
	var cur word
	in := false
	add := func(text string, name, quoted bool) {
		in = true
		if n := len(cur); n > 0 && !name && !cur[n-1].name && cur[n-1].quoted == quoted {
			cur[n-1].text += text
			return
		}
		cur = append(cur, segment{text, name, quoted})
	}
	end := func() {
		if in {
			out = append(out, token{word: cur})
		}
		cur, in = nil, false
	}
	double := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			add(s[i:i+1], false, true)
		case c == '\'' && !double:
			n := strings.IndexByte(s[i+1:], '\'')
			if n < 0 {
				return nil, errors.New("unbalanced quote")
			}
			add(s[i+1:i+1+n], false, true)
			i += n + 1
		case c == '"':
			double = !double
			add("", false, true)
		case c == '$' && i+1 < len(s):
			name, n := variable(s[i+1:])
			if n == 0 {
				add("$", false, double)
				break
			}
			add(name, true, double)
			i += n
		case double:
			add(s[i:i+1], false, true)
		case c == ' ' || c == '\t' || c == '\r':
			end()
		case c == '#' && !in:
			n := strings.IndexByte(s[i:], '\n')
			if n < 0 {
				n = len(s) - i
			}
			i += n - 1
		case c == ';' || c == '\n':
			end()
			out = append(out, token{op: ";"})
		case (c == '&' || c == '|') && i+1 < len(s) && s[i+1] == c:
			end()
			out = append(out, token{op: s[i : i+2]})
			i++
		default:
			add(s[i:i+1], false, false)
		}
	}
	if double {
		return nil, errors.New("unbalanced quote")
	}
	end()
	return out, nil
}

// variable is the name behind a $, and how many bytes it takes.
func variable(s string) (string, int) {
	if s[0] == '{' {
		n := strings.IndexByte(s, '}')
		if n < 0 {
			return "", 0
		}
		return s[1:n], n + 1
	}
	if s[0] == '?' {
		return "?", 1
	}
	n := 0
	for n < len(s) && (s[n] == '_' || '0' <= s[n] && s[n] <= '9' || 'a' <= s[n] && s[n] <= 'z' || 'A' <= s[n] && s[n] <= 'Z') {
		n++
	}
	return s[:n], n
}

type parser struct {
	tokens []token
	depth  int
}

func parse(s string) ([]*node, error) {
	tokens, err := lex(s)
	if err != nil {
		return nil, err
	}
	p := &parser{tokens: tokens}
	list, err := p.list()
	if err == nil && len(p.tokens) > 0 {
		err = fmt.Errorf("unexpected %q", p.tokens[0].plain())
	}
	return list, err
}

// list parses commands up to one of the keywords, which it leaves.
func (p *parser) list(until ...string) ([]*node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, errors.New("nested too deep")
	}
	defer func() { p.depth-- }()
	var out []*node
	join := ""
	for len(p.tokens) > 0 {
		t := p.tokens[0]
		if t.op != "" {
			if join != "" || t.op != ";" && len(out) == 0 {
				return nil, fmt.Errorf("unexpected %q", t.op)
			}
			p.tokens = p.tokens[1:]
			if t.op != ";" {
				join = t.op
			}
			continue
		}
		for _, k := range until {
			if t.plain() == k {
				return out, nil
			}
		}
		n, err := p.one()
		if err != nil {
			return nil, err
		}
		n.join = join
		join = ""
		out = append(out, n)
	}
	if join != "" {
		return nil, errors.New("a command is missing")
	}
	if len(until) > 0 {
		return nil, fmt.Errorf("%s is missing", until[len(until)-1])
	}
	return out, nil
}

// keyword takes the next token, which list has stopped at.
func (p *parser) keyword() string {
	k := p.tokens[0].plain()
	p.tokens = p.tokens[1:]
	return k
}

func (p *parser) one() (n *node, err error) {
	switch k := p.tokens[0].plain(); k {
	case "if":
		return p.ifNode()
	case "while", "until":
		p.keyword()
		n = &node{kind: whileKind}
		if k == "until" {
			n.kind = untilKind
		}
		if n.test, err = p.list("do"); err != nil {
			return nil, err
		}
		p.keyword()
		if n.body, err = p.list("done"); err != nil {
			return nil, err
		}
		p.keyword()
		return n, nil
	case "for":
		p.keyword()
		n = &node{kind: forKind}
		if len(p.tokens) < 2 || p.tokens[0].plain() == "" || p.tokens[1].plain() != "in" {
			return nil, errors.New("for: expected NAME in WORDS")
		}
		n.name = p.keyword()
		p.keyword()
		for len(p.tokens) > 0 && p.tokens[0].op == "" {
			n.words = append(n.words, p.tokens[0].word)
			p.tokens = p.tokens[1:]
		}
		if _, err = p.list("do"); err != nil {
			return nil, err
		}
		p.keyword()
		if n.body, err = p.list("done"); err != nil {
			return nil, err
		}
		p.keyword()
		return n, nil
	case "then", "elif", "else", "fi", "do", "done":
		return nil, fmt.Errorf("unexpected %q", k)
	}
	n = &node{}
	for len(p.tokens) > 0 && p.tokens[0].op == "" {
		n.words = append(n.words, p.tokens[0].word)
		p.tokens = p.tokens[1:]
	}
	return n, nil
}

func (p *parser) ifNode() (n *node, err error) {
	if p.depth++; p.depth > maxDepth {
		return nil, errors.New("nested too deep")
	}
	defer func() { p.depth-- }()
	p.keyword()
	n = &node{kind: ifKind}
	if n.test, err = p.list("then"); err != nil {
		return nil, err
	}
	p.keyword()
	if n.body, err = p.list("elif", "else", "fi"); err != nil {
		return nil, err
	}
	switch p.tokens[0].plain() {
	case "elif":
		other, err := p.ifNode()
		n.other = []*node{other}
		return n, err
	case "else":
		p.keyword()
		if n.other, err = p.list("fi"); err != nil {
			return nil, err
		}
	}
	p.keyword()
	return n, nil
}

// run runs commands one after the other. What it returns is the last one's.
func (m *Machine) run(ctx context.Context, list []*node, budget *int) error {
	var err error
	for _, n := range list {
		if n.join == "&&" && err != nil || n.join == "||" && err == nil {
			continue
		}
		if err = m.node(ctx, n, budget); err != nil && ends(err) {
			return err
		}
		m.status = "0"
		if err != nil {
			m.status = "1"
		}
	}
	return err
}

func (m *Machine) node(ctx context.Context, n *node, budget *int) error {
	if *budget--; *budget < 0 {
		return errBudget
	}
	switch n.kind {
	case ifKind:
		err := m.run(ctx, n.test, budget)
		if err != nil && ends(err) {
			return err
		}
		if err == nil {
			return m.run(ctx, n.body, budget)
		}
		return m.run(ctx, n.other, budget)
	case whileKind, untilKind:
		for {
			err := m.run(ctx, n.test, budget)
			if err != nil && ends(err) {
				return err
			}
			if *budget--; *budget < 0 {
				return errBudget
			}
			if (err == nil) != (n.kind == whileKind) {
				return nil
			}
			if err := m.run(ctx, n.body, budget); err != nil && ends(err) {
				return err
			}
		}
	case forKind:
		var err error
		for _, v := range m.expand(n.words) {
			m.env[n.name] = v
			if err = m.run(ctx, n.body, budget); err != nil && ends(err) {
				return err
			}
		}
		return err
	}
	args := m.expand(n.words)
	if len(args) == 0 {
		return nil
	}
	if name, value, ok := strings.Cut(args[0], "="); ok && len(args) == 1 && name != "" {
		m.env[name] = value // a variable of the shell; here they are all one
		return nil
	}
	return m.command(ctx, args)
}

// expand replaces variables. What they stand for is cut into words, unless it is quoted.
func (m *Machine) expand(words []word) []string {
	var out []string
	for _, w := range words {
		var s strings.Builder
		in := false
		for _, g := range w {
			text := g.text
			if g.name {
				text = m.env[g.text]
				if g.text == "?" {
					text = m.status
				}
			}
			if g.quoted || !g.name {
				s.WriteString(text)
				in = true
				continue
			}
			fields := strings.Fields(text)
			for i, f := range fields {
				if in && (i > 0 || strings.HasPrefix(text, " ")) {
					out = append(out, s.String())
					s.Reset()
				}
				s.WriteString(f)
				in = true
			}
		}
		if in {
			out = append(out, s.String())
		}
	}
	return out
}

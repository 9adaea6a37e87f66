package uuu

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// What a script may be at most.
const (
	maxScript = 1 << 20 // bytes
	maxLines  = 10_000
	maxLine   = 4096 // bytes, as fastboot's commands
)

// The language that is known: that of uuu 1.5.
const versionMajor, versionMinor = 1, 5

// Protocol is what a board speaks at a stage.
type Protocol string

// The protocols, as scripts name them.
const (
	CFG  Protocol = "CFG" // none: the line changes the table of devices
	SDP  Protocol = "SDP"
	SDPS Protocol = "SDPS"
	SDPU Protocol = "SDPU"
	SDPV Protocol = "SDPV"
	FB   Protocol = "FB"
	FBK  Protocol = "FBK"
)

var protocols = map[string]Protocol{
	"CFG": CFG, "SDP": SDP, "SDPS": SDPS, "SDPU": SDPU, "SDPV": SDPV, "FB": FB, "FASTBOOT": FB, "FBK": FBK,
}

// Error is a mistake in a script.
type Error struct {
	Script    string
	Line, Col int // from 1, Col in bytes; of the script as it is written, before its arguments are filled in
	Err       error
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %v", e.Script, e.Line, e.Col, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Script is a script that was parsed.
type Script struct {
	Name  string // for messages
	Lines []Line // those with a command, in their order

	files   files
	devices []device
}

// Line is a line with a command.
type Line struct {
	N       int // from 1
	Proto   Protocol
	Text    string        // as it is run
	Timeout time.Duration // of [-t]; 0: none is given

	cmd command
}

// command is what a line does.
type command interface {
	// sends tells what goes to the board, a line each.
	sends(s *Script) []string
	// run does it.
	run(ctx context.Context, x *session) error
}

// parse parses a script's text.
func parse(name, text string, args *arguments, at files) (*Script, error) {
	s := &Script{Name: name, files: at, devices: devices()}
	fail := func(line int, col int, err error) error { return &Error{name, line, col, err} }
	if len(text) > maxScript {
		return nil, fail(1, 1, fmt.Errorf("%d bytes, more than the %d of the longest script", len(text), maxScript))
	}
	n := 0
	for raw := range strings.Lines(text) {
		n++
		raw = strings.TrimRight(raw, "\r\n")
		switch {
		case n > maxLines:
			return nil, fail(n, 1, fmt.Errorf("more than %d lines", maxLines))
		case len(raw) > maxLine:
			return nil, fail(n, maxLine+1, fmt.Errorf("more than %d bytes in a line", maxLine))
		case strings.ContainsRune(raw, 0):
			return nil, fail(n, strings.IndexByte(raw, 0)+1, errors.New("a NUL: this is no script"))
		}
		if begin := strings.TrimLeft(raw, " \t"); len(begin) <= 1 || begin[0] == '#' {
			continue
		}
		filled := args.fill(raw)
		if len(filled.text) > 2*maxLine {
			return nil, fail(n, 1, fmt.Errorf("more than %d bytes in a line once its arguments are filled in", 2*maxLine))
		}
		l, err := s.line(filled.text)
		if wrong, ok := errors.AsType[*columnError](err); ok {
			return nil, fail(n, filled.column(wrong.col)+1, wrong.err)
		}
		if err != nil {
			return nil, fail(n, 1, err)
		}
		if l.cmd != nil {
			l.N = n
			s.Lines = append(s.Lines, l)
		}
	}
	if len(s.Lines) == 0 {
		return nil, fail(max(n, 1), 1, errors.New("no command in it"))
	}
	return s, nil
}

// columnError is a mistake at a byte of a line.
type columnError struct {
	col int // from 0
	err error
}

func (e *columnError) Error() string { return e.err.Error() }
func (e *columnError) Unwrap() error { return e.err }

// word is a word of a line, quotes removed.
type word struct {
	text string
	col  int // where it begins
	end  int // where it ends, quotes included
}

func (w word) errorf(format string, args ...any) error {
	return &columnError{w.col, fmt.Errorf(format, args...)}
}

// nextWord takes the word at or behind a column. Quotes group a word only where they begin it, as in uuu.
func nextWord(line string, col int) (w word, ok bool, err error) {
	for col < len(line) && (line[col] == ' ' || line[col] == '\t') {
		col++
	}
	if col == len(line) {
		return word{col: col, end: col}, false, nil
	}
	if line[col] == '"' {
		n := strings.IndexByte(line[col+1:], '"')
		if n < 0 {
			return word{}, false, &columnError{col, errors.New("the quotation mark has no second one")}
		}
		return word{line[col+1 : col+1+n], col, col + n + 2}, true, nil
	}
	end := col
	for end < len(line) && line[end] != ' ' && line[end] != '\t' {
		end++
	}
	return word{line[col:end], col, end}, true, nil
}

// allWords takes all words from a column on.
func allWords(line string, col int) ([]word, error) {
	var all []word
	for {
		w, ok, err := nextWord(line, col)
		if err != nil || !ok {
			return all, err
		}
		all, col = append(all, w), w.end
	}
}

// line parses one line.
func (s *Script) line(text string) (Line, error) {
	first, _, err := nextWord(text, 0)
	if err != nil {
		return Line{}, err
	}
	if strings.EqualFold(first.text, "uuu_version") {
		v, _, err := nextWord(text, first.end)
		if err != nil {
			return Line{}, err
		}
		return Line{}, checkVersion(v)
	}
	colon := strings.IndexByte(text, ':')
	if colon < 0 {
		return Line{}, first.errorf("%q: expected a protocol and a colon (%s), uuu_version or a comment", first.text, protocolNames)
	}
	l := Line{Text: strings.TrimSpace(text)}
	head := text[first.col:colon]
	name, option, hasOption := strings.Cut(head, "[")
	proto, ok := protocols[strings.ToUpper(strings.TrimSpace(name))]
	if !ok {
		return Line{}, first.errorf("protocol %q: expected one of %s", strings.TrimSpace(name), protocolNames)
	}
	l.Proto = proto
	if hasOption {
		if l.Timeout, err = timeout(option, first.col+len(name)); err != nil {
			return Line{}, err
		}
	}
	l.cmd, err = s.command(proto, text, colon+1)
	return l, err
}

const protocolNames = "CFG, SDP, SDPS, SDPU, SDPV, FB, FBK"

// timeout parses what stands in brackets behind a protocol: "-t 1000]".
func timeout(option string, col int) (time.Duration, error) {
	wrong := func() error {
		return &columnError{col, fmt.Errorf("[%s: expected [-t MILLISECONDS]", option)}
	}
	inside, ok := strings.CutSuffix(strings.TrimSpace(option), "]")
	words := strings.Fields(inside)
	if !ok || len(words) != 2 || words[0] != "-t" {
		return 0, wrong()
	}
	n, err := parseNumber(words[1], 31)
	if err != nil || n == 0 {
		return 0, wrong()
	}
	return time.Duration(n) * time.Millisecond, nil
}

// checkVersion refuses scripts for a uuu that is newer than the language known here.
func checkVersion(w word) error {
	part := strings.Split(w.text, ".")
	var v [3]uint64
	for i, p := range part {
		n, err := strconv.ParseUint(p, 10, 12)
		if err != nil || i == len(v) {
			return w.errorf("version %q: expected up to three numbers, as in 1.5.21", w.text)
		}
		v[i] = n
	}
	if v[0] > versionMajor || v[0] == versionMajor && v[1] > versionMinor {
		return w.errorf("the script is for uuu %s: snag knows the language of uuu %d.%d; a script that needs no more may say so", w.text, versionMajor, versionMinor)
	}
	return nil
}

// parseNumber reads a decimal number, or a hexadecimal one behind 0x.
func parseNumber(s string, bits int) (uint64, error) {
	digits, base := s, 10
	if rest, ok := strings.CutPrefix(s, "0x"); ok {
		digits, base = rest, 16
	}
	if strings.HasPrefix(digits, "+") {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseUint(digits, base, bits)
}

func (w word) number(bits int) (uint64, error) {
	n, err := parseNumber(w.text, bits)
	if err != nil {
		return 0, w.errorf("number %q: expected digits, or 0x and hexadecimal digits, of %d bits at most", w.text, bits)
	}
	return n, nil
}

// options are the options of a command, by name, and the words that are none.
type options struct {
	at    word // the command
	given map[string]word
	value map[string]word
	rest  []word
}

// parseOptions sorts the words behind a command. known are the options: true, if a value follows.
func parseOptions(at word, text string, known map[string]bool) (*options, error) {
	o := &options{at: at, given: make(map[string]word), value: make(map[string]word)}
	words, err := allWords(text, at.end)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(words); i++ {
		w := words[i]
		if !strings.HasPrefix(w.text, "-") || text[w.col] == '"' {
			o.rest = append(o.rest, w)
			continue
		}
		hasValue, ok := known[w.text]
		if !ok {
			return nil, w.errorf("%s: no option of %s", w.text, at.text)
		}
		o.given[w.text] = w
		if hasValue {
			if i++; i == len(words) {
				return nil, w.errorf("%s: expected a value behind it", w.text)
			}
			o.value[w.text] = words[i]
		}
	}
	return o, nil
}

// optionalValue takes the word behind an option as its value, if there is one: uuu's own scripts have "jump -ivt" without a number.
func (o *options) optionalValue(name string) {
	at, ok := o.given[name]
	if ok && len(o.rest) > 0 && o.rest[0].col > at.end && o.rest[0].col <= at.end+1 {
		o.value[name], o.rest = o.rest[0], o.rest[1:]
	}
}

// words makes sure of the number of words that are no options.
func (o *options) words(min, max int, what string) error {
	switch n := len(o.rest); {
	case n < min:
		return o.at.errorf("%s: expected %s", o.at.text, what)
	case n > max:
		return o.rest[max].errorf("%q: nothing more is expected behind %s", o.rest[max].text, what)
	}
	return nil
}

func (o *options) has(name string) bool { _, ok := o.given[name]; return ok }

// number is an option's value, or def.
func (o *options) number(name string, bits int, def uint64) (uint64, error) {
	w, ok := o.value[name]
	if !ok {
		return def, nil
	}
	return w.number(bits)
}

// unsupported refuses an option.
func (o *options) unsupported(name, why string) error {
	if w, ok := o.given[name]; ok {
		return w.errorf("%s: %s (docs/uuu.md)", name, why)
	}
	return nil
}

// command parses what stands behind the colon.
func (s *Script) command(proto Protocol, text string, col int) (command, error) {
	w, ok, err := nextWord(text, col)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, w.errorf("expected a command behind %s:", proto)
	}
	if proto == CFG {
		return nil, s.configure(w, text)
	}
	if c, ok, err := s.common(proto, w, text); ok || err != nil {
		return c, err
	}
	name := strings.ToLower(w.text)
	switch proto {
	case SDPS:
		if name == "boot" {
			return s.streamCommand(w, text)
		}
	case SDP, SDPU, SDPV:
		if c, ok, err := s.sdpCommand(proto, name, w, text); ok || err != nil {
			return c, err
		}
	case FB:
		if c, ok, err := s.fastbootCommand(name, w, text); ok || err != nil {
			return c, err
		}
	case FBK:
		if c, ok, err := s.kernelCommand(name, w, text); ok || err != nil {
			return c, err
		}
	}
	return nil, w.errorf("%s has no command %q", proto, w.text)
}

// tail is what stands behind a word, as it is.
func tail(text string, w word) string { return strings.TrimSpace(text[min(w.end, len(text)):]) }

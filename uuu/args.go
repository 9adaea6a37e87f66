package uuu

import (
	"fmt"
	"slices"
	"strings"
)

// argument is one that a script takes.
type argument struct {
	name     string // "_flash.bin"
	fallback string // another argument's name, whose value it has if it is not given; empty: it must be given
	doc      string
}

// declared finds a script's arguments, in the order in which they appear: words that begin with "_", and comments of the form
//
//	# @_image [_flash.bin] | what it is for
//
// which say that _image may be left out, and is what _flash.bin is then.
func declared(text string) []argument {
	var all []argument
	get := func(name string) *argument {
		i := slices.IndexFunc(all, func(a argument) bool { return a.name == name })
		if i < 0 {
			i = len(all)
			all = append(all, argument{name: name})
		}
		return &all[i]
	}
	for line := range strings.Lines(text) {
		if c, ok := strings.CutPrefix(line, "#"); ok {
			spec, doc, _ := strings.Cut(c, "|")
			words := strings.Fields(spec)
			if len(words) == 0 || !strings.HasPrefix(words[0], "@_") {
				continue
			}
			a := get(words[0][1:])
			a.doc = strings.TrimSpace(doc)
			if len(words) > 1 {
				a.fallback = strings.Trim(words[1], "[]")
			}
			continue
		}
		for _, w := range strings.Fields(line) {
			w, _, _ = strings.Cut(strings.Trim(w, `"`), "/")
			if len(w) > 1 && w[0] == '_' {
				get(w)
			}
		}
	}
	return all
}

// arguments are the values of a script's arguments. Nil: nothing is to be filled in.
type arguments struct{ value map[string]string }

// bind gives the arguments that a script takes their values, by their order.
func bind(takes []argument, values []string) (*arguments, error) {
	a := &arguments{value: make(map[string]string)}
	if len(values) > len(takes) {
		err := fmt.Errorf("%d arguments, of which the script takes %d", len(values), len(takes))
		if len(takes) > 0 {
			err = fmt.Errorf("%w: %s", err, describe(takes))
		}
		return nil, err
	}
	for i, one := range takes {
		if i < len(values) {
			a.value[one.name] = streamName(values[i])
			continue
		}
		v, ok := a.value[one.fallback]
		if !ok {
			return nil, fmt.Errorf("the script needs arguments: %s", describe(takes))
		}
		a.value[one.name] = v
	}
	return a, nil
}

// describe lists arguments: "_flash.bin (boot loader), [_image] (what is written)".
func describe(takes []argument) string {
	var s []string
	for _, a := range takes {
		one := a.name
		if a.fallback != "" {
			one = "[" + one + "]"
		}
		if a.doc != "" {
			one += " (" + a.doc + ")"
		}
		s = append(s, one)
	}
	return strings.Join(s, ", ")
}

// streamName makes an argument that is a compressed file what uuu calls its contents. uuu does so for .bz2 and .zst; for .gz nobody wants anything else.
func streamName(s string) string {
	for _, ext := range []string{".bz2", ".zst", ".gz"} {
		if strings.HasSuffix(s, ext) {
			return s + "/*"
		}
	}
	return s
}

// filled is a line in which arguments were replaced.
type filled struct {
	text string
	cuts []cut
}

// cut is where an argument stands in a filled line, and where its name was.
type cut struct{ at, n, from, name int }

// fill replaces arguments at the begin of words.
func (a *arguments) fill(line string) filled {
	if a == nil {
		return filled{text: line}
	}
	var f filled
	var b strings.Builder
	for i := 0; i < len(line); {
		begin := i == 0 || line[i-1] == ' ' || line[i-1] == '\t' || line[i-1] == '"'
		end := i
		if begin && line[i] == '_' {
			for end < len(line) && !strings.ContainsRune(" \t\"", rune(line[end])) {
				end++
			}
		}
		name, rest := a.longest(line[i:end])
		if name == "" {
			b.WriteByte(line[i])
			i++
			continue
		}
		v := a.value[name]
		if quoted := i > 0 && line[i-1] == '"'; rest == "" && !quoted && strings.ContainsAny(v, " \t") {
			v = `"` + v + `"`
		}
		f.cuts = append(f.cuts, cut{b.Len(), len(v), i, len(name)})
		b.WriteString(v)
		i += len(name)
	}
	f.text = b.String()
	return f
}

// longest finds the argument that a word is, or, longest first, that it begins with ("_image/*").
func (a *arguments) longest(w string) (name, rest string) {
	for n := range a.value {
		if strings.HasPrefix(w, n) && len(n) > len(name) && (len(w) == len(n) || w[len(n)] == '/') {
			name = n
		}
	}
	return name, w[len(name):]
}

// column is where a column of the filled line was before.
func (f filled) column(col int) int {
	shift := 0
	for _, c := range f.cuts {
		switch {
		case col < c.at:
			return col + shift
		case col < c.at+c.n:
			return c.from
		}
		shift += c.name - c.n
	}
	return col + shift
}

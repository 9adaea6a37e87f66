package uuu

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

//go:embed builtin/*.uuu
var builtin embed.FS

// auto is the script in a directory or an archive.
const auto = "uuu.auto"

// Builtins lists the names of the built-in scripts.
func Builtins() []string {
	entries, _ := builtin.ReadDir("builtin")
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".uuu"))
	}
	return names
}

// Builtin is the text of a built-in script.
func Builtin(name string) (string, bool) {
	b, err := builtin.ReadFile("builtin/" + name + ".uuu")
	return string(b), err == nil
}

// Usage is what a built-in script takes, and is for.
func Usage(name string) (arguments, doc string) {
	text, _ := Builtin(name)
	var args []string
	for _, a := range declared(text) {
		s := strings.ToUpper(strings.TrimPrefix(a.name, "_"))
		if a.fallback != "" {
			s = "[" + s + "]"
		}
		args = append(args, s)
	}
	for line := range strings.Lines(text) {
		if c, ok := strings.CutPrefix(line, "# "); ok {
			return strings.Join(args, " "), strings.TrimSpace(c)
		}
	}
	return strings.Join(args, " "), ""
}

// Load finds and parses a script. name is, in this order,
//
//   - a protocol with its colon ("FB:"): it and args are one command,
//   - a built-in script's name ("./spl" is a file),
//   - a directory or zip archive: uuu.auto in it,
//   - a script, from whose directory on its files are named,
//   - any other file: a boot loader, which the built-in script spl starts.
//
// args are the script's, their names relative to the working directory. An error is an *Error, or says what is wrong with name or args.
func Load(name string, args []string) (*Script, error) {
	if strings.HasSuffix(name, ":") {
		return parse("command", name+" "+strings.Join(quote(args), " "), nil, files{})
	}
	if text, ok := Builtin(name); ok {
		return load(name, text, args, files{})
	}
	info, err := os.Stat(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w; nor is it a built-in script: those are %s", err, strings.Join(Builtins(), ", "))
		}
		return nil, err
	}
	at := files{filepath.Dir(name)}
	file := filepath.Base(name)
	if info.IsDir() || isZip(name) {
		at, file = files{name}, auto
	}
	limit := int64(maxWhole)
	if file == auto { // which is no boot loader
		limit = maxScript
	}
	b, err := at.read(file, limit)
	if err != nil && file == auto {
		err = fmt.Errorf("%s: expected a script called %s in it: %w", name, auto, err)
	}
	if err != nil {
		return nil, err
	}
	if file != auto && !isScript(b) {
		text, _ := Builtin("spl")
		return load("spl", text, append([]string{name}, args...), files{})
	}
	shown := name
	if file == auto {
		shown = filepath.Join(name, auto)
	}
	b = bytes.TrimPrefix(b, []byte(byteOrder))
	if len(b) > maxScript {
		return nil, &Error{shown, 1, 1, fmt.Errorf("%d bytes, more than the %d of the longest script", len(b), maxScript)}
	}
	return load(shown, string(b), args, at)
}

// load fills in the arguments of a script, and parses it. A script of the user's that is given none, and declares none in comments, is taken as it is.
func load(name, text string, args []string, at files) (*Script, error) {
	takes := declared(text)
	_, own := Builtin(name)
	var bound *arguments
	if len(takes) > 0 && (own || len(args) > 0 || strings.Contains(text, "# @_")) || len(args) > 0 {
		for i, a := range args {
			if !isURL(a) && !filepath.IsAbs(a) && at.dir != "" {
				if abs, err := filepath.Abs(a); err == nil {
					args = slices.Clone(args)
					args[i] = abs
				}
			}
		}
		var err error
		if bound, err = bind(takes, args); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return parse(name, text, bound, at)
}

// byteOrder is what some editors put before a text (U+FEFF in UTF-8).
const byteOrder = "\xef\xbb\xbf"

// isScript tells a script from a boot loader: by "uuu_version", or by its first line that is no comment; else by its being text, for a
// script with a mistake there is not to be sent to a board.
func isScript(b []byte) bool {
	b = bytes.TrimPrefix(b, []byte(byteOrder))
	for line := range strings.Lines(string(b[:min(len(b), maxScript)])) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		head, _, ok := strings.Cut(line, ":")
		head, _, _ = strings.Cut(head, "[")
		_, known := protocols[strings.ToUpper(strings.TrimSpace(head))]
		if ok && known || len(line) >= 11 && strings.EqualFold(line[:11], "uuu_version") {
			return true
		}
		break
	}
	return isText(b[:min(len(b), 512)])
}

// isText reports whether what a file begins with is text. Its last character may be cut off.
func isText(b []byte) bool {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 && len(b) >= utf8.UTFMax || unicode.IsControl(r) && !unicode.IsSpace(r) {
			return false
		}
		b = b[n:]
	}
	return true
}

func isZip(name string) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	var head [4]byte
	n, _ := f.Read(head[:])
	return n == len(head) && string(head[:]) == "PK\x03\x04"
}

// quote puts words with spaces into quotes, as a shell has taken them away.
func quote(args []string) []string {
	var out []string
	for _, a := range args {
		if strings.ContainsAny(a, " \t") && !strings.Contains(a, `"`) {
			a = `"` + a + `"`
		}
		out = append(out, a)
	}
	return out
}

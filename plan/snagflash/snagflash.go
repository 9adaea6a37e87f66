// Package snagflash makes plans of what Snagboot's snagflash takes: the commands of its -f, and the command files of
// its -I.
//
// A command of -f is one of fastboot's, with its arguments behind a colon: "download:boot.img", "flash:0:1",
// "oem-run:saveenv". A command file has one command a line, of another language, with variables:
//
//	set target mmc0
//	set fb-addr 0x82000000
//	gpt name=boot,size=64M;name=root,size=-
//	flash rootfs.img 0 root
//	run reset
//
// Everything is parsed before a board is touched. Where snagflash does something else than its documentation says, the
// documentation counts. docs/flash.md has every command and flag.
//
// Source: Snagboot 3.0, docs/snagflash.md.
package snagflash

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"snag/flash/image"
	"snag/plan"
	"snag/socs"
)

// Patience is how long snagflash lets a board be silent.
const Patience = time.Minute

// words are the commands of -f: what is sent, and what stands behind the colon; empty: nothing may.
var words = map[string]struct{ sent, argument string }{
	"getvar": {"getvar:", "a variable"}, "erase": {"erase:", "a partition"}, "flash": {"flash:", "a partition"},
	"download": {"", "a file"}, "flash_sparse": {"", "FILE:PARTITION"},
	"boot": {"boot", ""}, "continue": {"continue", ""}, "reboot": {"reboot", ""}, "reboot_bootloader": {"reboot-bootloader", ""},
	"powerdown": {"powerdown", ""}, "reset": {"", ""},
	"ucmd": {"UCmd:", "a command of U-Boot"}, "acmd": {"ACmd:", "a command of U-Boot"}, "oem_run": {"", "a command of U-Boot"},
	"oem_format": {"oem format", ""}, "oem_partconf": {"oem partconf:", "its arguments"}, "oem_bootbus": {"oem bootbus:", "its arguments"},
}

// Command makes a step of one command of -f. path makes a file's name one that can be opened; nil: it stays.
func Command(text string, path func(string) (string, error)) (plan.Action, error) {
	word, argument, colon := strings.Cut(text, ":")
	name := strings.ReplaceAll(strings.TrimSpace(word), "-", "_")
	w, ok := words[name]
	switch {
	case !ok:
		var known []string
		for n := range words {
			known = append(known, n)
		}
		sort.Strings(known)
		if near := socs.Nearest(name, known); len(near) > 0 {
			return nil, fmt.Errorf("unknown fastboot command %q: did you mean %s?", word, near[0])
		}
		return nil, fmt.Errorf("unknown fastboot command %q: expected one of %s", word, strings.Join(known, ", "))
	case w.argument == "" && colon:
		return nil, fmt.Errorf("%s: nothing may stand behind it, found %q", word, argument)
	case w.argument != "" && argument == "":
		return nil, fmt.Errorf("%s: expected %s behind a colon", word, w.argument)
	case strings.ContainsFunc(argument, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return nil, fmt.Errorf("%q: control characters", text)
	}
	if path == nil {
		path = func(s string) (string, error) { return s, nil }
	}
	switch name {
	case "download":
		file, err := path(argument)
		return &plan.Download{File: file}, err
	case "flash_sparse":
		file, partition, ok := strings.Cut(argument, ":")
		if !ok || file == "" || partition == "" {
			return nil, fmt.Errorf("%s: expected FILE:PARTITION", word)
		}
		to, err := plan.ParseTarget(plan.ToFastboot, partition)
		if err != nil {
			return nil, err
		}
		file, err = path(file)
		return &plan.Flash{Source: plan.Source{Image: file, Options: image.Options{NoBmap: true}}, To: to}, err
	case "oem_run":
		return &plan.UBoot{Command: argument}, nil
	case "reset":
		return &plan.Reset{}, nil
	}
	return &plan.Command{Text: w.sent + argument}, nil
}

// Commands makes a plan of the commands of -f.
func Commands(list []string) (*plan.Plan, error) {
	p := &plan.Plan{}
	for _, text := range list {
		a, err := Command(text, nil)
		if err != nil {
			return nil, err
		}
		p.Steps = append(p.Steps, plan.Step{Action: a})
	}
	return p, nil
}

// Load makes a plan of a command file.
func Load(path string) (*plan.Plan, error) {
	text, err := plan.Read(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, text)
}

// Parse makes a plan of a command file's text. The errors are *plan.Errors, joined.
func Parse(name string, text []byte) (*plan.Plan, error) {
	if len(text) > plan.MaxFile {
		return nil, &plan.Error{File: name, Err: fmt.Errorf("more than %d bytes", plan.MaxFile)}
	}
	s := Session{File: name}
	p := &plan.Plan{Name: name}
	var errs []error
	n := 0
	for line := range bytes.Lines(text) {
		n++
		actions, err := s.Line(string(line))
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			errs = append(errs, &plan.Error{File: name, Line: n, Col: 1, Err: err})
		}
		for _, a := range actions {
			p.Steps = append(p.Steps, plan.Step{Line: n, Action: a})
		}
	}
	if len(errs) == 0 && len(p.Steps) == 0 {
		errs = append(errs, &plan.Error{File: name, Err: errors.New("no command in it")})
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return p, nil
}

// Session is the variables of a command file, or of a prompt.
type Session struct {
	File string // the command file; empty at a prompt
	vars map[string]string
}

// variables are those that mean something.
var variables = []string{"target", "fb-addr", "eraseblk-size", "fb-size", "paths-relative-to"}

var (
	setting = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^([\w-]+)\s+([\w-]+)$`) })
	mmc     = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^mmc(\d{1,3})$`) })
	mtdName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[\w.+-]{1,64}$`) })
)

// Line makes steps of a line. The error is io.EOF if it ends the session.
func (s *Session) Line(text string) ([]plan.Action, error) {
	text = strings.TrimSpace(text)
	if text == "" || text[0] == '#' {
		return nil, nil
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return nil, errors.New("control characters")
	}
	word, rest, _ := strings.Cut(strings.ReplaceAll(text, "\t", " "), " ")
	rest = strings.TrimSpace(rest)
	switch word {
	case "exit", "quit":
		return nil, io.EOF
	case "help":
		return []plan.Action{&plan.Note{Text: Help}}, nil
	case "set":
		m := setting().FindStringSubmatch(rest)
		if m == nil {
			return nil, errors.New("set: expected VARIABLE VALUE, of letters, digits, _ and -")
		}
		if !slices.Contains(variables, m[1]) {
			return nil, fmt.Errorf("set %s: no such variable: there are %s", m[1], strings.Join(variables, ", "))
		}
		if s.vars == nil {
			s.vars = map[string]string{}
		}
		s.vars[m[1]] = m[2]
		return nil, nil
	case "print":
		return s.print(rest)
	case "run":
		a, err := Command(rest, s.path)
		if err != nil {
			return nil, fmt.Errorf("run: %w", err)
		}
		return []plan.Action{a}, nil
	case "gpt":
		return s.gpt(rest)
	case "flash":
		a, err := s.flash(rest)
		if err != nil {
			return nil, fmt.Errorf("flash: %w", err)
		}
		return []plan.Action{a}, nil
	}
	return nil, fmt.Errorf("unknown command %q: expected set, print, run, gpt, flash, help or exit", word)
}

// Help lists the commands of a line.
const Help = "set VARIABLE VALUE (target, fb-addr, eraseblk-size, fb-size, paths-relative-to); print [VARIABLE]; " +
	"run FASTBOOT-COMMAND; gpt PARTITIONS; flash IMAGE OFFSET [PARTITION | hwpart N]; exit"

func (s *Session) print(name string) ([]plan.Action, error) {
	names := []string{name}
	if name == "" {
		names = nil
		for n := range s.vars {
			names = append(names, n)
		}
		sort.Strings(names)
	}
	var out []plan.Action
	for _, n := range names {
		v, ok := s.vars[n]
		if !ok {
			return nil, fmt.Errorf("print: %s is not set", n)
		}
		out = append(out, &plan.Note{Text: n + ": " + v})
	}
	return out, nil
}

// need is a variable that must be set.
func (s *Session) need(name string) (string, error) {
	if v, ok := s.vars[name]; ok {
		return v, nil
	}
	return "", fmt.Errorf("the variable %s is not set: set %s VALUE before", name, name)
}

func (s *Session) gpt(partitions string) ([]plan.Action, error) {
	target, err := s.need("target")
	if err != nil {
		return nil, fmt.Errorf("gpt: %w", err)
	}
	m := mmc().FindStringSubmatch(target)
	switch {
	case m == nil:
		return nil, fmt.Errorf("gpt: %s has no partition table: only mmc targets do", target)
	case partitions == "":
		return nil, errors.New("gpt: expected partitions, such as name=boot,size=64M;name=root,size=-")
	case strings.Contains(partitions, "'"):
		return nil, errors.New("gpt: a quote would end what U-Boot's shell is told")
	}
	n, _ := strconv.Atoi(m[1])
	return []plan.Action{
		&plan.UBoot{Command: fmt.Sprintf("gpt write mmc %x '%s'", n, partitions)},
		&plan.UBoot{Command: fmt.Sprintf("part list mmc %x", n)},
	}, nil
}

// path is what paths-relative-to makes of a file's name.
func (s *Session) path(name string) (string, error) {
	how, ok := s.vars["paths-relative-to"]
	switch {
	case filepath.IsAbs(name), !ok, how == "CWD":
		return name, nil
	case how != "THIS_FILE":
		return "", fmt.Errorf("paths-relative-to is %s: expected CWD or THIS_FILE", how)
	case s.File == "":
		return "", errors.New("paths-relative-to is THIS_FILE, and there is no command file")
	}
	return filepath.Join(filepath.Dir(s.File), name), nil
}

func (s *Session) flash(rest string) (plan.Action, error) {
	name, rest := rest, rest
	if quoted, ok := strings.CutPrefix(rest, `"`); ok {
		if name, rest, ok = strings.Cut(quoted, `"`); !ok {
			return nil, errors.New("the quote has no end")
		}
	} else {
		name, rest, _ = strings.Cut(rest, " ")
	}
	words := strings.Fields(rest)
	if name == "" {
		return nil, errors.New("expected IMAGE OFFSET [PARTITION | hwpart N]")
	}
	a := &plan.Flash{}
	var err error
	if a.Image, err = s.path(name); err != nil {
		return nil, err
	}
	offset := int64(0)
	if len(words) > 0 {
		if offset, err = number("offset", words[0]); err != nil {
			return nil, err
		}
		words = words[1:]
	}
	if a.To, err = s.target(words); err != nil {
		return nil, err
	}
	a.To.Offset = offset
	if v, ok := s.vars["fb-addr"]; ok {
		n, err := number("fb-addr", v)
		if err != nil {
			return nil, err
		}
		a.To.Buffer = uint64(n)
	}
	if v, ok := s.vars["fb-size"]; ok {
		if a.To.BufferSize, err = number("fb-size", v); err != nil {
			return nil, err
		}
	}
	return a, a.To.Check()
}

// target is where flash writes: what the variable says, and the words behind the offset.
func (s *Session) target(words []string) (plan.Target, error) {
	target, err := s.need("target")
	if err != nil {
		return plan.Target{}, err
	}
	m := mmc().FindStringSubmatch(target)
	if m == nil {
		if len(words) > 1 {
			return plan.Target{}, fmt.Errorf("%q: expected one MTD partition", strings.Join(words, " "))
		}
		if len(words) == 1 {
			target = words[0]
		}
		t, err := plan.ParseTarget(plan.ToMTD, target)
		if v, ok := s.vars["eraseblk-size"]; ok && err == nil {
			t.EraseBlock, err = number("eraseblk-size", v)
		}
		t.NOR = strings.HasPrefix(s.vars["target"], "nor") || strings.HasPrefix(s.vars["target"], "spi-nor")
		return t, err
	}
	device := m[1]
	switch {
	case len(words) == 0:
	case len(words) == 2 && words[0] == "hwpart":
		n, err := strconv.ParseUint(words[1], 10, 3)
		if err != nil {
			return plan.Target{}, fmt.Errorf("hwpart %s: expected 0 to 7", words[1])
		}
		device += fmt.Sprintf(".%d", n)
	case len(words) == 1:
		if !mtdName().MatchString(words[0]) {
			return plan.Target{}, fmt.Errorf("partition %q: expected letters, digits and _.+-", words[0])
		}
		device += ":" + words[0]
	default:
		return plan.Target{}, fmt.Errorf("%q: expected a partition, or hwpart N", strings.Join(words, " "))
	}
	return plan.ParseTarget(plan.ToMMC, device)
}

// number reads a number as Python's int(text, 0) does: decimal, or hexadecimal behind 0x.
func number(what, text string) (int64, error) {
	n, err := strconv.ParseInt(text, 0, 63)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s %q: expected a number, 0x for a hexadecimal one", what, text)
	}
	return n, nil
}

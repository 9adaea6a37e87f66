package uuu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"snag/event"
)

// The commands that every protocol has (libuuu/cmd.cpp).

// errDone is the end of a script.
var errDone = errors.New("done")

// common parses a command of every protocol; ok is false if it is none.
func (s *Script) common(proto Protocol, w word, text string) (c command, ok bool, err error) {
	rest := tail(text, w)
	need := func(c command, what string) (command, bool, error) {
		if rest == "" {
			return nil, true, w.errorf("%s: expected %s", w.text, what)
		}
		return c, true, nil
	}
	switch strings.ToLower(w.text) {
	case "done":
		return done{}, true, nil
	case "delay":
		o, err := parseOptions(w, text, nil)
		if err == nil {
			err = o.words(1, 1, "milliseconds")
		}
		if err != nil {
			return nil, true, err
		}
		n, err := o.rest[0].number(31)
		return delay(time.Duration(n) * time.Millisecond), true, err
	case "sh", "shell":
		return need(shell(rest), "a command of the host")
	case "<":
		return need(output{proto, rest}, "a command of the host, whose output is the command")
	case "@":
		return need(expand{proto, rest}, "a command with @NAME@ in it")
	case "error":
		return failure(rest), true, nil
	case "if":
		c, err := s.condition(proto, w, text)
		return c, true, err
	}
	return nil, false, nil
}

type done struct{}

func (done) sends(*Script) []string              { return []string{"nothing: the script ends here"} }
func (done) run(context.Context, *session) error { return errDone }

type delay time.Duration

func (d delay) sends(*Script) []string {
	return []string{"nothing, for " + time.Duration(d).String()}
}

func (d delay) run(ctx context.Context, _ *session) error {
	t := time.NewTimer(time.Duration(d))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

type failure string

func (f failure) sends(*Script) []string { return []string{"nothing: the script fails here"} }

func (f failure) run(context.Context, *session) error {
	return errors.New("the script gives up: " + string(f))
}

// shell is a command of the host.
type shell string

func (c shell) sends(*Script) []string { return []string{"nothing; the host runs: " + string(c)} }

func (c shell) run(ctx context.Context, x *session) error {
	out, err := x.host(ctx, string(c))
	for line := range strings.Lines(string(out)) {
		x.emit(event.Note{Text: strings.TrimRight(line, "\r\n")})
	}
	return err
}

// output is a command whose text a program of the host prints.
type output struct {
	proto Protocol
	text  string
}

func (c output) sends(*Script) []string {
	return []string{"the first line that this prints: " + c.text}
}

func (c output) run(ctx context.Context, x *session) error {
	out, err := x.host(ctx, c.text)
	if err != nil {
		return err
	}
	first, _, _ := bytes.Cut(out, []byte("\n"))
	return x.runText(ctx, c.proto, strings.TrimRight(string(first), "\r"))
}

// maxOutput is what is kept of the output of a command of the host.
const maxOutput = 64 << 10

// host runs a command of the host, which is told by the environment which board it is for.
func (x *session) host(ctx context.Context, line string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", line)
	if info, err := os.Stat(x.script.files.dir); err == nil && info.IsDir() {
		cmd.Dir = x.script.files.dir
	}
	d := x.stage.USB.Device()
	cmd.Env = append(os.Environ(), "SNAG_PORT="+string(d.Port), "SNAG_USB_ID="+d.ID.String(), "SNAG_SERIAL="+d.Serial, "SNAG_CHIP="+x.device.chip)
	var out bounded
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return out.Bytes(), fmt.Errorf("the host's command %q: %w", line, err)
	}
	return out.Bytes(), nil
}

// bounded keeps the begin of what is written.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), max(0, maxOutput-b.Len()))])
	return len(p), nil
}

// expand is a command with variables of the environment in it.
type expand struct {
	proto Protocol
	text  string
}

func (c expand) sends(*Script) []string {
	return []string{"with @NAME@ filled in from the environment: " + c.text}
}

func (c expand) run(ctx context.Context, x *session) error {
	return x.runText(ctx, c.proto, substitute(c.text, func(name string) string {
		first, _, _ := strings.Cut(x.getenv(name), "\n")
		return first
	}))
}

// substitute replaces @NAME@.
func substitute(text string, value func(string) string) string {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(text, "@")
		b.WriteString(before)
		name, after, closed := strings.Cut(rest, "@")
		if !ok {
			return b.String()
		}
		if !closed || strings.ContainsAny(name, " \t") { // no name
			b.WriteByte('@')
			text = rest
			continue
		}
		b.WriteString(value(name))
		text = after
	}
}

// conditional runs a command if two texts are the same, or if they are not.
type conditional struct {
	a, b string
	not  bool
	text string
	then command
}

// condition parses "if A == B then COMMAND".
func (s *Script) condition(proto Protocol, at word, text string) (command, error) {
	c := conditional{}
	col := at.end
	for i := range 4 {
		w, ok, err := nextWord(text, col)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, w.errorf("if: expected A == B then COMMAND, or A != B then COMMAND")
		}
		col = w.end
		switch i {
		case 0:
			c.a = w.text
		case 1:
			if w.text != "==" && w.text != "!=" {
				return nil, w.errorf("if: %q, expected == or !=", w.text)
			}
			c.not = w.text == "!="
		case 2:
			c.b = w.text
		case 3:
			if !strings.EqualFold(w.text, "then") {
				return nil, w.errorf("if: %q, expected then", w.text)
			}
		}
	}
	c.text = strings.TrimSpace(text[col:])
	if w, _, err := nextWord(text, col); err == nil && strings.EqualFold(w.text, "if") {
		return nil, w.errorf("an if within an if")
	}
	var err error
	c.then, err = s.command(proto, text, col)
	return c, err
}

func (c conditional) sends(s *Script) []string {
	op := "is"
	if c.not {
		op = "is not"
	}
	out := []string{fmt.Sprintf("if %s %s %s:", c.a, op, c.b)}
	for _, line := range c.then.sends(s) {
		out = append(out, "  "+line)
	}
	return out
}

func (c conditional) run(ctx context.Context, x *session) error {
	upper := func(s string) string { return strings.ToUpper(substitute(s, x.variable)) }
	if (upper(c.a) == upper(c.b)) == c.not {
		return nil
	}
	return c.then.run(ctx, x)
}

// variable is what @NAME@ means to if.
func (x *session) variable(name string) string {
	d := x.stage.USB.Device()
	switch strings.ToUpper(name) {
	case "VID":
		return fmt.Sprintf("0x%04X", d.ID.Vendor)
	case "PID":
		return fmt.Sprintf("0x%04X", d.ID.Product)
	case "BCD":
		return fmt.Sprintf("0x%04X", d.Release)
	case "CHIP":
		return x.device.chip
	}
	return x.variables[strings.ToUpper(name)]
}

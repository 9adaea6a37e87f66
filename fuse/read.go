package fuse

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"snag/usb/fastboot"
)

// UBoot runs U-Boot's commands: a *fastboot.Client.
type UBoot interface {
	Run(ctx context.Context, line string, patience time.Duration) error
	GetVar(ctx context.Context, name string) (string, error)
	Console(ctx context.Context, line string) ([]string, error)
}

// How long U-Boot may be silent: it burns a word within milliseconds.
const (
	readTime = 5 * time.Second
	burnTime = 20 * time.Second
)

// errNoWay says that this U-Boot can show no fuses.
var errNoWay = errors.New("this U-Boot does not show fuses over fastboot")

// reader reads fuses: U-Boot's commands print what they read on the console, which does not come over fastboot. Where
// U-Boot records its console (CONFIG_CONSOLE_RECORD and CONFIG_FASTBOOT_CMD_OEM_CONSOLE) that text is fetched;
// otherwise the controller's register in which the last sensing has left its result, by "setexpr".
type reader struct {
	UBoot
	layout  *layout
	console bool
}

// newReader finds out how this U-Boot shows fuses.
func newReader(ctx context.Context, u UBoot, l *layout) (*reader, error) {
	r := &reader{UBoot: u, layout: l}
	_, err := u.Console(ctx, "") // and what was recorded before is out of the way
	refused, ok := errors.AsType[*fastboot.FailError](err)
	if err != nil && !ok {
		return nil, err
	}
	// A recording that is full fails for good ("Error reading console").
	r.console = refused == nil
	if !r.console {
		if err := u.Run(ctx, "setexpr fastboot."+variable+" 1", readTime); err != nil {
			if _, ok := errors.AsType[*fastboot.FailError](err); ok || errors.Is(err, fastboot.ErrUnsupported) {
				err = fmt.Errorf("%w: %w", errNoWay, err)
			}
			return nil, err
		}
	}
	return r, nil
}

// variable is U-Boot's, by which values come over fastboot: getvar looks into the environment for "fastboot." and its
// name first.
const variable = "snag"

// sense reads n words of the fuses themselves.
func (r *reader) sense(ctx context.Context, p Place, n int) ([]uint32, error) {
	if r.console {
		return r.printed(ctx, "sense", p, n)
	}
	var values []uint32
	for i := range n {
		at := Place{p.Bank, p.Word + i}
		if err := r.Run(ctx, fmt.Sprintf("fuse sense %#x %#x", at.Bank, at.Word), readTime); err != nil {
			return nil, err
		}
		v, err := r.register(ctx, r.layout.data(at))
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}

// shadow reads n words of the shadow registers, which have what the fuses were at the last reset, or what was written
// there since.
func (r *reader) shadow(ctx context.Context, p Place, n int) ([]uint32, error) {
	if r.console {
		return r.printed(ctx, "read", p, n)
	}
	var values []uint32
	for i := range n {
		v, err := r.register(ctx, r.layout.shadow(Place{p.Bank, p.Word + i}))
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}

// register reads a register.
func (r *reader) register(ctx context.Context, address uint32) (uint32, error) {
	if err := r.Run(ctx, fmt.Sprintf("setexpr.l fastboot.%s *0x%08x", variable, address), readTime); err != nil {
		return 0, err
	}
	text, err := r.GetVar(ctx, variable)
	if err != nil {
		return 0, err
	}
	v, ok := hex(strings.TrimPrefix(text, "0x"))
	if !ok {
		return 0, fmt.Errorf("getvar:%s: %.40q, expected a word in hexadecimal", variable, text)
	}
	return v, nil
}

// printed has U-Boot print n words, and reads that.
func (r *reader) printed(ctx context.Context, op string, p Place, n int) ([]uint32, error) {
	if _, err := r.Console(ctx, ""); err != nil {
		return nil, err
	}
	command := fmt.Sprintf("fuse %s %#x %#x %d", op, p.Bank, p.Word, n)
	if err := r.Run(ctx, command, readTime); err != nil {
		return nil, err
	}
	lines, err := r.Console(ctx, "")
	if err != nil {
		return nil, err
	}
	values, err := parse(lines, op, p, n)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	return values, nil
}

// maxLines bounds what of a console is looked at: the command prints two lines, and one for each four words.
const maxLines = 1000

// parse finds in what U-Boot has printed the n words that a command showed (cmd/fuse.c):
//
//	Sensing bank 9:            or "Reading bank 9:"
//
//	Word 0x00000000: ccddeeff 556600bb 00223344
//
// four words a line. Other texts may stand around that, but not among the words; and there must be all of it, once, and
// of that bank.
func parse(lines []string, op string, p Place, n int) ([]uint32, error) {
	heading := map[string]string{"sense": "Sensing", "read": "Reading"}[op]
	if len(lines) > maxLines {
		return nil, fmt.Errorf("%d lines on the console, more than the command can print", len(lines))
	}
	var values []uint32
	begun := false
	for _, line := range lines {
		f := strings.Fields(line)
		switch {
		case len(f) == 3 && f[0] == heading && f[1] == "bank":
			if begun {
				return nil, fmt.Errorf("%q: the console has it twice", line)
			}
			if f[2] != strconv.Itoa(p.Bank)+":" {
				return nil, fmt.Errorf("%q: expected bank %d", line, p.Bank)
			}
			begun = true
		case len(f) == 1 && f[0] == "ERROR", strings.Contains(line, "mxc_ocotp"):
			return nil, fmt.Errorf("U-Boot says %q", line)
		case !begun, len(f) == 0, f[0] != "Word":
		case len(f) < 3 || len(f) > 2+4:
			return nil, fmt.Errorf("%q: expected up to four words of fuses", line)
		default:
			if want := fmt.Sprintf("0x%08x:", p.Word+len(values)); f[1] != want {
				return nil, fmt.Errorf("%q: expected word %s", line, want)
			}
			for _, s := range f[2:] {
				v, ok := hex(s)
				if !ok || len(s) != 8 {
					return nil, fmt.Errorf("%q: expected words of eight hexadecimal digits", line)
				}
				values = append(values, v)
			}
			if len(f) < 2+4 && len(values) < n || len(values) > n {
				return nil, fmt.Errorf("%q: expected %d words", line, n)
			}
		}
	}
	if len(values) != n {
		return nil, fmt.Errorf("%d words on the console, expected %d: %.200q", len(values), n, strings.Join(lines, "\n"))
	}
	return values, nil
}

// hex parses up to eight hexadecimal digits.
func hex(s string) (uint32, bool) {
	if s == "" || len(s) > 8 || strings.ContainsAny(s, "+-_") {
		return 0, false
	}
	v, err := strconv.ParseUint(s, 16, 32)
	return uint32(v), err == nil
}

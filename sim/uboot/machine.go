package uboot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Machine is a board on which U-Boot runs. Its fields are set before the first command; it runs one at a time.
type Machine struct {
	// Env is the environment as it is after a reset.
	Env map[string]string
	// RAM is where memory begins, RAMSize how much there is; zero: 256 MiB at 0x40000000.
	RAM     uint64
	RAMSize int64

	MMC []*MMC // by their numbers; nil: there is none
	MTD []*MTD // flash of any kind, by their names; "sf probe BUS:CS" finds a NOR flash of that number, "nand" the first NAND

	// Commands are those of this board beside the built-in ones, by name. One of a built-in's name hides that.
	Commands map[string]Command
	// Registers, if not nil, are what can be read outside memory, a word at a time; ok is false where nothing is.
	Registers func(addr uint64) (value uint32, ok bool)
	// Missing are built-in commands that were left out of the build.
	Missing []string
	// Takes is how long commands take, by their first words, or fewer of them: "mmc erase", "sf".
	Takes map[string]time.Duration
	// Reset, if not nil, is called when the machine is reset: for what the commands of this board keep.
	Reset func()
	// Violation is told what the host did wrong, if not nil.
	Violation func(format string, args ...any)

	on      bool
	env     map[string]string
	status  string // $?
	runs    int    // of "run" within each other
	memory  *Store
	mmc     int   // the current one
	part    int   // and its hardware partition
	sf      *MTD  // what was probed
	console lines // what was printed
}

// Command is a command of the shell. args[0] is its name. The error is what went wrong, which is printed; any makes the
// command fail, and those that wrap [ErrReset], [ErrLeave] or the context's end the command line.
type Command func(ctx context.Context, m *Machine, args []string) error

// What ends U-Boot's shell.
var (
	ErrReset = errors.New("the board is reset")
	ErrLeave = errors.New("U-Boot starts something else") // bootm, booti, go
)

// errUsage is the answer to arguments that a command does not take.
var errUsage = errors.New("usage")

// Base is where memory begins.
func (m *Machine) Base() uint64 {
	if m.RAMSize == 0 {
		m.RAM, m.RAMSize = 0x40000000, 256<<20
	}
	return m.RAM
}

// Power resets the machine: memory, and what was set in the environment, is lost.
func (m *Machine) Power() {
	m.Base()
	m.on = true
	m.env = maps.Clone(m.Env)
	if m.env == nil {
		m.env = map[string]string{}
	}
	m.memory = NewStore(m.RAMSize, 0)
	m.mmc, m.part, m.sf = slices.IndexFunc(m.MMC, func(d *MMC) bool { return d != nil }), 0, nil
	m.console = lines{}
	for _, d := range m.MTD {
		if d.Violation == nil {
			d.Violation = m.violation
		}
	}
	if m.Reset != nil {
		m.Reset()
	}
}

// Run runs a command line. An error that wraps [ErrReset] or [ErrLeave] says that U-Boot ends there; any other is the
// line's failure.
func (m *Machine) Run(ctx context.Context, line string) error {
	if !m.on {
		m.Power()
	}
	list, err := parse(line)
	if err != nil {
		m.Printf("syntax error: %v\n", err)
		return err
	}
	budget := maxSteps
	return m.run(ctx, list, &budget)
}

// maxSteps bounds what one line can have run: a loop without end hangs a board, but no test.
const maxSteps = 10_000

// Getenv is an environment variable's value; empty if there is none.
func (m *Machine) Getenv(name string) string { return m.env[name] }

// Setenv sets an environment variable, or removes it if the value is empty.
func (m *Machine) Setenv(name, value string) {
	if !m.on {
		m.Power()
	}
	if value == "" {
		delete(m.env, name)
		return
	}
	m.env[name] = value
}

// Environment are all variables.
func (m *Machine) Environment() map[string]string { return maps.Clone(m.env) }

// Printf prints to the console.
func (m *Machine) Printf(format string, args ...any) {
	m.console.write(fmt.Sprintf(format, args...))
}

// Console returns what was printed since the last time, as U-Boot's record of it has it: of too much, the begin.
func (m *Machine) Console() []string { return m.console.take() }

// lines are a record of the console (CONFIG_CONSOLE_RECORD_OUT_SIZE).
type lines struct{ text strings.Builder }

const maxConsole = 64 << 10

func (l *lines) write(s string) {
	l.text.WriteString(s[:min(len(s), maxConsole-l.text.Len())])
}

func (l *lines) take() []string {
	s := strings.TrimSuffix(l.text.String(), "\n")
	l.text.Reset()
	if s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}

func (m *Machine) violation(format string, args ...any) {
	if m.Violation != nil {
		m.Violation(format, args...)
	}
}

// Write puts bytes into memory. An address that is none resets the board (a data abort).
func (m *Machine) Write(addr uint64, p []byte) error {
	if err := m.within(addr, int64(len(p))); err != nil {
		return err
	}
	_, err := m.memory.WriteAt(p, int64(addr-m.RAM))
	return err
}

// Read gets bytes from memory, as Write puts them there, or a word from a register.
func (m *Machine) Read(addr uint64, p []byte) error {
	if m.Registers != nil && len(p) == 4 {
		if v, ok := m.Registers(addr); ok {
			binary.LittleEndian.PutUint32(p, v)
			return nil
		}
	}
	if err := m.within(addr, int64(len(p))); err != nil {
		return err
	}
	_, err := m.memory.ReadAt(p, int64(addr-m.RAM))
	return err
}

func (m *Machine) within(addr uint64, n int64) error {
	if !m.on {
		m.Power()
	}
	if addr < m.RAM || addr-m.RAM > uint64(m.RAMSize) || n > m.RAMSize-int64(addr-m.RAM) {
		m.violation("bytes %#x to %#x are not in memory", addr, addr+uint64(n))
		return fmt.Errorf("data abort at %#x: %w", addr, ErrReset)
	}
	return nil
}

// sleep is how long a command takes.
func (m *Machine) sleep(ctx context.Context, args []string) error {
	for n := len(args); n > 0; n-- {
		if d := m.Takes[strings.Join(args[:n], " ")]; d > 0 {
			t := time.NewTimer(d)
			defer t.Stop()
			select {
			case <-t.C:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return ctx.Err()
}

// command runs a simple command.
func (m *Machine) command(ctx context.Context, args []string) error {
	c := m.Commands[args[0]]
	if name, _, _ := strings.Cut(args[0], "."); c == nil && !slices.Contains(m.Missing, name) {
		c = builtIn(args[0])
	}
	if c == nil {
		m.Printf("Unknown command '%s' - try 'help'\n", args[0])
		return fmt.Errorf("unknown command %q", args[0])
	}
	if err := m.sleep(ctx, args); err != nil {
		return err
	}
	err := c(ctx, m, args)
	if err != nil && !errors.Is(err, errFalse) {
		m.Printf("%s: %v\n", args[0], err)
	}
	return err
}

// errFalse is a failure that says nothing: test's, itest's, false's.
var errFalse = errors.New("false")

// ends reports whether an error ends the whole line.
func ends(err error) bool {
	return errors.Is(err, ErrReset) || errors.Is(err, ErrLeave) || errors.Is(err, errBudget) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

var errBudget = errors.New("the command line does not end")

package uboot

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// builtIn is a command of U-Boot's own, nil if there is none of that name. Sizes stand behind a dot: "mw.b".
func builtIn(name string) Command {
	base, size, dotted := strings.Cut(name, ".")
	if dotted && !slices.Contains([]string{"mw", "md", "cmp", "cp", "itest", "setexpr"}, base) || dotted && width(size) == 0 {
		return nil
	}
	switch base {
	case "true":
		return func(context.Context, *Machine, []string) error { return nil }
	case "false":
		return func(context.Context, *Machine, []string) error { return errFalse }
	case "echo":
		return func(_ context.Context, m *Machine, args []string) error {
			m.Printf("%s\n", strings.Join(args[1:], " "))
			return nil
		}
	case "version":
		return func(_ context.Context, m *Machine, _ []string) error {
			m.Printf("U-Boot 2026.10\n")
			return nil
		}
	case "reset":
		return func(context.Context, *Machine, []string) error { return ErrReset }
	case "bootm", "booti", "bootz", "boot", "go":
		return func(context.Context, *Machine, []string) error { return ErrLeave }
	case "sleep":
		return sleepCommand
	case "setenv", "env", "printenv", "saveenv", "run":
		return environment
	case "test", "[":
		return test
	case "itest":
		return itest
	case "setexpr":
		return setexpr
	case "mw", "md", "cmp", "cp", "crc32":
		return memory
	case "mmc":
		return mmcCommand
	case "gpt":
		return gptCommand
	case "part":
		return partCommand
	case "mtd":
		return mtdCommand
	case "nand":
		return nandCommand
	case "sf":
		return sfCommand
	}
	return nil
}

// width is how many bytes a size behind a dot means, 0 if it is none.
func width(size string) int {
	switch size {
	case "b":
		return 1
	case "w":
		return 2
	case "", "l":
		return 4
	case "q":
		return 8
	}
	return 0
}

// number reads a number as U-Boot's hextoul: with or without 0x. U-Boot stops at what is no digit; here that is an
// error.
func number(s string) (uint64, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(s), "0x"), 16, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no hexadecimal number", s)
	}
	return n, nil
}

// numbers reads several.
func numbers(args []string) ([]uint64, error) {
	out := make([]uint64, len(args))
	for i, s := range args {
		var err error
		if out[i], err = number(s); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func sleepCommand(ctx context.Context, _ *Machine, args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	n, err := strconv.ParseFloat(args[1], 64)
	if err != nil {
		return errUsage
	}
	t := time.NewTimer(time.Duration(n * float64(time.Second)))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func environment(ctx context.Context, m *Machine, args []string) error {
	if args[0] == "env" && len(args) > 1 {
		switch args[1] {
		case "set":
			args = append([]string{"setenv"}, args[2:]...)
		case "print":
			args = append([]string{"printenv"}, args[2:]...)
		case "save":
			args = []string{"saveenv"}
		case "run":
			args = append([]string{"run"}, args[2:]...)
		case "exists":
			if len(args) == 3 && m.env[args[2]] != "" {
				return nil
			}
			return errFalse
		case "delete":
			for _, n := range args[2:] {
				delete(m.env, n)
			}
			return nil
		case "default":
			m.env = maps.Clone(m.Env)
			return nil
		}
	}
	switch args[0] {
	case "setenv":
		if len(args) < 2 {
			return errUsage
		}
		if strings.Contains(args[1], "=") {
			return fmt.Errorf("illegal character '=' in variable name %q", args[1])
		}
		m.Setenv(args[1], strings.Join(args[2:], " "))
		return nil
	case "printenv":
		names := args[1:]
		if len(names) == 0 {
			names = slices.Sorted(maps.Keys(m.env))
		}
		var missing error
		for _, n := range names {
			if v, ok := m.env[n]; ok {
				m.Printf("%s=%s\n", n, v)
			} else {
				m.Printf("## Error: %q not defined\n", n)
				missing = errFalse
			}
		}
		return missing
	case "saveenv":
		m.Env = maps.Clone(m.env)
		return nil
	case "run":
		if len(args) < 2 {
			return errUsage
		}
		for _, n := range args[1:] {
			if m.runs++; m.runs > maxDepth {
				m.runs--
				return errBudget
			}
			err := fmt.Errorf("%q not defined", n)
			if m.env[n] != "" {
				err = m.Run(ctx, m.env[n])
			}
			m.runs--
			if err != nil {
				return err
			}
		}
		return nil
	}
	return errUsage
}

// test compares strings and numbers (cmd/test.c).
func test(_ context.Context, m *Machine, args []string) error {
	if args[0] == "[" {
		if args[len(args)-1] != "]" {
			return errors.New("expected ]")
		}
		args = args[:len(args)-1]
	}
	args = args[1:]
	result, or := true, false
	for len(args) > 0 {
		not := false
		for len(args) > 1 && args[0] == "!" {
			not, args = !not, args[1:]
		}
		var one bool
		switch {
		case len(args) >= 2 && (args[0] == "-n" || args[0] == "-z"):
			one = (args[1] == "") == (args[0] == "-z")
			args = args[2:]
		case len(args) >= 3:
			a, b := args[0], args[2]
			x, errX := strconv.ParseInt(a, 0, 64)
			y, errY := strconv.ParseInt(b, 0, 64)
			numbers := errX == nil && errY == nil
			switch args[1] {
			case "=", "==":
				one = a == b
			case "!=":
				one = a != b
			case "<":
				one = a < b
			case ">":
				one = a > b
			case "-eq":
				one = numbers && x == y
			case "-ne":
				one = numbers && x != y
			case "-lt":
				one = numbers && x < y
			case "-le":
				one = numbers && x <= y
			case "-gt":
				one = numbers && x > y
			case "-ge":
				one = numbers && x >= y
			default:
				return errUsage
			}
			args = args[3:]
		default:
			one = args[0] != ""
			args = args[1:]
		}
		one = one != not
		if or {
			result = result || one
		} else {
			result = result && one
		}
		if len(args) > 0 {
			if args[0] != "-a" && args[0] != "-o" {
				return errUsage
			}
			or, args = args[0] == "-o", args[1:]
		}
	}
	if result {
		return nil
	}
	return errFalse
}

// operand is a number, or *ADDR: what is in memory there, of so many bytes.
func (m *Machine) operand(s string, width int) (uint64, error) {
	addr, indirect := strings.CutPrefix(s, "*")
	n, err := number(addr)
	if err != nil || !indirect {
		return n & (1<<(8*width) - 1), err
	}
	b := make([]byte, 8)
	err = m.Read(n, b[:width])
	return binary.LittleEndian.Uint64(b), err
}

func itest(_ context.Context, m *Machine, args []string) error {
	_, size, _ := strings.Cut(args[0], ".")
	if len(args) != 4 {
		return errUsage
	}
	a, err := m.operand(args[1], width(size))
	if err != nil {
		return err
	}
	b, err := m.operand(args[3], width(size))
	if err != nil {
		return err
	}
	var ok bool
	switch args[2] {
	case "-eq", "==":
		ok = a == b
	case "-ne", "!=", "<>":
		ok = a != b
	case "-lt", "<":
		ok = a < b
	case "-le", "<=":
		ok = a <= b
	case "-gt", ">":
		ok = a > b
	case "-ge", ">=":
		ok = a >= b
	default:
		return errUsage
	}
	if ok {
		return nil
	}
	return errFalse
}

func setexpr(_ context.Context, m *Machine, args []string) error {
	_, size, _ := strings.Cut(args[0], ".")
	if len(args) != 3 && len(args) != 5 {
		return errUsage
	}
	n, err := m.operand(args[2], width(size))
	if err != nil {
		return err
	}
	if len(args) == 5 {
		b, err := m.operand(args[4], width(size))
		if err != nil {
			return err
		}
		switch args[3] {
		case "+":
			n += b
		case "-":
			n -= b
		case "*":
			n *= b
		case "&":
			n &= b
		case "|":
			n |= b
		case "^":
			n ^= b
		case "/", "%":
			if b == 0 {
				return errors.New("division by 0")
			}
			if args[3] == "/" {
				n /= b
			} else {
				n %= b
			}
		default:
			return errUsage
		}
		n &= 1<<(8*width(size)) - 1
	}
	m.Setenv(args[1], strconv.FormatUint(n, 16))
	return nil
}

// step is how much memory is worked on at a time.
const step = 1 << 20

// memory is mw, md, cmp, cp and crc32 (cmd/mem.c).
func memory(_ context.Context, m *Machine, args []string) error {
	base, size, _ := strings.Cut(args[0], ".")
	w := int64(width(size))
	verify := base == "crc32" && len(args) == 5 && args[1] == "-v"
	if verify && !slices.Contains(m.Missing, "crc32 -v") {
		args = slices.Delete(slices.Clone(args), 1, 2)
	}
	n, err := numbers(args[1:])
	if err != nil {
		return err
	}
	switch {
	case base == "crc32" && (len(n) == 2 || len(n) == 3):
		return m.crc32(n, verify)
	case base == "md" && (len(n) == 1 || len(n) == 2):
		count := int64(64)
		if len(n) == 2 {
			count = int64(min(n[1], 4096))
		}
		b := make([]byte, count*w)
		if err := m.Read(n[0], b); err != nil {
			return err
		}
		for at := 0; at < len(b); at += 16 {
			m.Printf("%08x: % x\n", n[0]+uint64(at), b[at:min(at+16, len(b))])
		}
		return nil
	case base == "mw" && (len(n) == 2 || len(n) == 3):
		count := uint64(1)
		if len(n) == 3 {
			count = n[2]
		}
		if count == 0 || count > uint64(m.RAMSize) {
			return errUsage
		}
		b := binary.LittleEndian.AppendUint64(nil, n[1])[:w]
		return m.pieces(n[0], int64(count)*w, func(addr uint64, size int64) error {
			return m.Write(addr, bytes.Repeat(b, int(size/w)))
		})
	case (base == "cmp" || base == "cp") && len(n) == 3:
		if n[2] == 0 || n[2] > uint64(m.RAMSize) {
			return errors.New("zero length")
		}
		return m.pieces(n[0], int64(n[2])*w, func(addr uint64, size int64) error {
			a, b := make([]byte, size), make([]byte, size)
			if err := m.Read(addr, a); err != nil {
				return err
			}
			other := n[1] + addr - n[0]
			if base == "cp" {
				return m.Write(other, a)
			}
			if err := m.Read(other, b); err != nil {
				return err
			}
			if !bytes.Equal(a, b) {
				return fmt.Errorf("memory at %#x and %#x differs", addr, other)
			}
			return nil
		})
	}
	return errUsage
}

func (m *Machine) pieces(addr uint64, n int64, f func(addr uint64, n int64) error) error {
	if err := m.within(addr, n); err != nil {
		return err
	}
	for at := int64(0); at < n; at += step {
		if err := f(addr+uint64(at), min(step, n-at)); err != nil {
			return err
		}
	}
	return nil
}

// crc32 prints, stores (most significant byte first, as common/hash.c does it) or compares.
func (m *Machine) crc32(n []uint64, verify bool) error {
	h := crc32.NewIEEE()
	if n[1] > uint64(m.RAMSize) {
		return m.within(n[0], m.RAMSize+1)
	}
	err := m.pieces(n[0], int64(n[1]), func(addr uint64, size int64) error {
		b := make([]byte, size)
		if err := m.Read(addr, b); err != nil {
			return err
		}
		h.Write(b)
		return nil
	})
	if err != nil {
		return err
	}
	m.Printf("CRC32 for %x ... %x ==> %08x\n", n[0], n[0]+n[1]-1, h.Sum32())
	switch {
	case len(n) == 3 && verify:
		if uint64(h.Sum32()) != n[2] {
			return errors.New("bad CRC")
		}
	case len(n) == 3:
		return m.Write(n[2], h.Sum(nil))
	}
	return nil
}

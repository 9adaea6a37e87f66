package ocotp

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"snag/sim/uboot"
)

// Command is U-Boot's "fuse" (cmd/fuse.c), with its texts. A "prog" without -y waits for an answer on the serial
// console, which nobody gives.
func (a *Array) Command(ctx context.Context, m *uboot.Machine, args []string) error {
	if len(args) < 4 {
		return errUsage
	}
	op, yes := args[1], args[2] == "-y"
	if args = args[2:]; yes {
		args = args[1:]
	}
	if len(args) < 2 {
		return errUsage
	}
	bank, word := index(args[0]), index(args[1])
	rest := args[2:]
	count := 1
	show := func(op Op, heading string) error {
		if len(rest) > 1 {
			return errUsage
		}
		if len(rest) == 1 {
			count = index(rest[0])
		}
		m.Printf("%s bank %d:\n", heading, bank)
		for i := range count {
			if i%4 == 0 {
				m.Printf("\nWord 0x%08x:", word+i)
			}
			v, err := a.access(op, bank, word+i, 0)
			if err != nil {
				return a.failed(m, op, err)
			}
			m.Printf(" %08x", v)
		}
		m.Printf("\n")
		return nil
	}
	switch op {
	case "read":
		return show(Read, "Reading")
	case "sense":
		return show(Sense, "Sensing")
	case "readm":
		if len(rest) == 2 {
			count = index(rest[1])
		} else if len(rest) != 1 {
			return errUsage
		}
		address := number(rest[0], 16)
		m.Printf("Reading bank %d len %d to 0x%x\n", bank, count, address)
		for i := range count {
			v, err := a.access(Read, bank, word+i, 0)
			if err != nil {
				return a.failed(m, Read, err)
			}
			if err := m.Write(uint64(address)+4*uint64(i), []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)}); err != nil {
				return err
			}
		}
		return nil
	case "cmp":
		if len(rest) != 1 {
			return errUsage
		}
		want := number(rest[0], 0)
		v, err := a.access(Read, bank, word, 0)
		if err != nil {
			return a.failed(m, Read, err)
		}
		m.Printf("Comparing bank %d:\n\nWord 0x%08x:\nValue 0x%08x:0x%08x\n", bank, word, want, v)
		if v != want {
			m.Printf("failed\n")
			return errFailed
		}
		m.Printf("passed\n")
		return nil
	case "prog", "override":
		if len(rest) == 0 {
			return errUsage
		}
		for i, s := range rest {
			v := number(s, 16)
			access := Override
			if op == "prog" {
				access = Prog
				m.Printf("Programming bank %d word 0x%08x to 0x%08x...\n", bank, word+i, v)
				if !yes {
					m.Printf("Really perform this fuse programming? <y/N>\n")
					<-ctx.Done()
					return ctx.Err()
				}
			} else {
				m.Printf("Overriding bank %d word 0x%08x with 0x%08x...\n", bank, word+i, v)
			}
			if _, err := a.access(access, bank, word+i, v); err != nil {
				return a.failed(m, access, err)
			}
		}
		return nil
	}
	return errUsage
}

var (
	errUsage  = errors.New("usage")
	errFailed = errors.New("failed")
)

// failed prints what the driver and the command say.
func (a *Array) failed(m *uboot.Machine, op Op, err error) error {
	switch {
	case errors.Is(err, errArgument):
		m.Printf("mxc_ocotp fuse_%s(): Invalid argument\n", op)
	case errors.Is(err, errProtect):
		m.Printf("mxc_ocotp fuse_%s(): Access protect error\n", op)
	}
	m.Printf("ERROR\n")
	return fmt.Errorf("fuse %s: %w", op, err)
}

// index is a number of a bank or word, or how many.
func index(s string) int { return int(min(number(s, 0), math.MaxInt32)) }

// number reads one as simple_strtoul does: up to what is no digit. Base 0 is C's.
func number(s string, base int) uint32 {
	if t := strings.ToLower(s); strings.HasPrefix(t, "0x") && base != 10 {
		s, base = t[2:], 16
	} else if base == 0 && strings.HasPrefix(s, "0") {
		base = 8
	} else if base == 0 {
		base = 10
	}
	for n := len(s); n > 0; n-- {
		if v, err := strconv.ParseUint(s[:n], base, 32); err == nil {
			return uint32(v)
		} else if errors.Is(err, strconv.ErrRange) {
			return math.MaxUint32
		}
	}
	return 0
}

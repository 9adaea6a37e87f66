package ocotp

import (
	"context"
	"encoding/binary"
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
	c := command{a, m, index(args[0]), index(args[1]), args[2:]}
	switch op {
	case "read":
		return c.show(Read, "Reading")
	case "sense":
		return c.show(Sense, "Sensing")
	case "readm":
		return c.toMemory()
	case "cmp":
		return c.compare()
	case "prog":
		return c.write(ctx, Prog, "Programming bank %d word 0x%08x to 0x%08x...\n", !yes)
	case "override":
		return c.write(ctx, Override, "Overriding bank %d word 0x%08x with 0x%08x...\n", false)
	}
	return errUsage
}

// command is a "fuse" at work.
type command struct {
	a          *Array
	m          *uboot.Machine
	bank, word int
	rest       []string // its arguments behind them
}

// show prints words, one if there is no count.
func (c command) show(op Op, heading string) error {
	count := 1
	switch len(c.rest) {
	case 0:
	case 1:
		count = index(c.rest[0])
	default:
		return errUsage
	}
	c.m.Printf("%s bank %d:\n", heading, c.bank)
	for i := range count {
		if i%4 == 0 {
			c.m.Printf("\nWord 0x%08x:", c.word+i)
		}
		v, err := c.a.access(op, c.bank, c.word+i, 0)
		if err != nil {
			return c.failed(op, err)
		}
		c.m.Printf(" %08x", v)
	}
	c.m.Printf("\n")
	return nil
}

// toMemory reads words into memory.
func (c command) toMemory() error {
	count := 1
	switch len(c.rest) {
	case 1:
	case 2:
		count = index(c.rest[1])
	default:
		return errUsage
	}
	address := number(c.rest[0], 16)
	c.m.Printf("Reading bank %d len %d to 0x%x\n", c.bank, count, address)
	for i := range count {
		v, err := c.a.access(Read, c.bank, c.word+i, 0)
		if err != nil {
			return c.failed(Read, err)
		}
		if err := c.m.Write(uint64(address)+4*uint64(i), binary.LittleEndian.AppendUint32(nil, v)); err != nil {
			return err
		}
	}
	return nil
}

// compare compares a word.
func (c command) compare() error {
	if len(c.rest) != 1 {
		return errUsage
	}
	want := number(c.rest[0], 0)
	v, err := c.a.access(Read, c.bank, c.word, 0)
	if err != nil {
		return c.failed(Read, err)
	}
	c.m.Printf("Comparing bank %d:\n\nWord 0x%08x:\nValue 0x%08x:0x%08x\n", c.bank, c.word, want, v)
	if v != want {
		c.m.Printf("failed\n")
		return errFailed
	}
	c.m.Printf("passed\n")
	return nil
}

// write programs or overrides words, or asks whether it should.
func (c command) write(ctx context.Context, op Op, says string, asks bool) error {
	if len(c.rest) == 0 {
		return errUsage
	}
	for i, s := range c.rest {
		v := number(s, 16)
		c.m.Printf(says, c.bank, c.word+i, v)
		if asks {
			c.m.Printf("Really perform this fuse programming? <y/N>\n")
			<-ctx.Done()
			return ctx.Err()
		}
		if _, err := c.a.access(op, c.bank, c.word+i, v); err != nil {
			return c.failed(op, err)
		}
	}
	return nil
}

var (
	errUsage  = errors.New("usage")
	errFailed = errors.New("failed")
)

// failed prints what the driver and the command say.
func (c command) failed(op Op, err error) error {
	switch {
	case errors.Is(err, errArgument):
		c.m.Printf("mxc_ocotp fuse_%s(): Invalid argument\n", op)
	case errors.Is(err, errProtect):
		c.m.Printf("mxc_ocotp fuse_%s(): Access protect error\n", op)
	}
	c.m.Printf("ERROR\n")
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

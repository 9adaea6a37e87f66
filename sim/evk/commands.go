package evk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"snag/sim/uboot"
)

var errUsage = errors.New("usage")

// numbers are hexadecimal ones.
func numbers(args ...string) ([]uint64, error) {
	var out []uint64
	for _, s := range args {
		n, err := strconv.ParseUint(strings.TrimPrefix(s, "0x"), 16, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is no hexadecimal number", s)
		}
		out = append(out, n)
	}
	return out, nil
}

// buffer is n bytes of memory.
func buffer(m *uboot.Machine, addr, n uint64) ([]byte, error) {
	if n == 0 || n > NANDSize {
		return nil, fmt.Errorf("%d bytes", n)
	}
	b := make([]byte, n)
	return b, m.Read(addr, b)
}

// nandbcb is "nandbcb init ADDRESS PARTITION SIZE" and "fspinand init CHIP ADDRESS SIZE": the image goes to the NAND
// with the tables that the ROM looks for. Here it is the image alone, in the partition nandboot.
func (b *Board) nandbcb(_ context.Context, m *uboot.Machine, args []string) error {
	if len(args) != 5 || args[1] != "init" {
		return errUsage
	}
	part, addr := args[3], args[2]
	if args[0] == "fspinand" {
		part, addr = "nandboot", args[3]
	}
	n, err := numbers(addr, args[4])
	if err != nil {
		return err
	}
	p, err := buffer(m, n[0], n[1])
	if err != nil {
		return err
	}
	for _, at := range b.NAND.Parts {
		if at.Name == part {
			if rest := len(p) % int(b.NAND.Page); rest != 0 {
				p = append(p, make([]byte, int(b.NAND.Page)-rest)...)
			}
			return b.NAND.WriteGood(at, p, 0)
		}
	}
	return fmt.Errorf("no partition %q", part)
}

// flexSPI begins the header of an image for a NOR flash.
const flexSPI = 0x42464346

// qspihdr is "qspihdr dump ADDRESS", which fails without a header there, and "qspihdr init ADDRESS SIZE [safe]": the
// image goes to the NOR flash.
func (b *Board) qspihdr(_ context.Context, m *uboot.Machine, args []string) error {
	if len(args) < 3 {
		return errUsage
	}
	n, err := numbers(args[2:min(len(args), 4)]...)
	if err != nil {
		return err
	}
	head, err := buffer(m, n[0], 4)
	if err != nil {
		return err
	}
	header := binary.LittleEndian.Uint32(head) == flexSPI
	switch {
	case args[1] == "dump" && len(n) == 1:
		if !header {
			return errors.New("no header")
		}
		m.Printf("FlexSPI header\n")
		return nil
	case args[1] == "init" && len(n) == 2:
		p, err := buffer(m, n[0], n[1])
		if err != nil {
			return err
		}
		return b.NOR.WriteGood(uboot.MTDPart{Name: b.NOR.Name, Size: b.NOR.Size()}, p, 0)
	}
	return errUsage
}

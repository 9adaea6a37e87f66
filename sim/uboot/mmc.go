package uboot

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// BlockSize is that of an MMC.
const BlockSize = 512

// MMC is an eMMC or an SD card.
type MMC struct {
	// Areas are its hardware partitions: 0 the user area, 1 and 2 the boot partitions, 4 to 7 the general purpose ones.
	// Nil: there is none.
	Areas [8]*Store
	// Group is the size of an erase group in blocks; 0: 1024.
	Group int64
	// Broken are blocks of the user area that cannot be written.
	Broken map[int64]bool
	// PartConf is what "mmc partconf" has set: acknowledge, boot partition, access.
	PartConf [3]int
}

// NewMMC makes an eMMC with a user area and boot partitions of these sizes, which are multiples of 512; boot 0: it is
// an SD card.
func NewMMC(size, boot int64) *MMC {
	d := &MMC{Areas: [8]*Store{0: NewStore(size, 0)}}
	if boot > 0 {
		d.Areas[1], d.Areas[2] = NewStore(boot, 0), NewStore(boot, 0)
	}
	return d
}

func (d *MMC) group() int64 {
	if d.Group == 0 {
		return 1024
	}
	return d.Group
}

// Write writes whole blocks.
func (d *MMC) Write(area int, lba int64, p []byte) error {
	n := int64(len(p)) / BlockSize
	if err := d.check(area, lba, n); err != nil {
		return err
	}
	if area == 0 && d.Broken != nil {
		for b := lba; b < lba+n; b++ {
			if d.Broken[b] {
				return fmt.Errorf("block %#x cannot be written", b)
			}
		}
	}
	_, err := d.Areas[area].WriteAt(p, lba*BlockSize)
	return err
}

func (d *MMC) check(area int, lba, n int64) error {
	if area < 0 || area > 7 || d.Areas[area] == nil {
		return fmt.Errorf("no hardware partition %d", area)
	}
	if blocks := d.Areas[area].Size() / BlockSize; lba < 0 || n <= 0 || lba > blocks || n > blocks-lba {
		return fmt.Errorf("MMC: block number %#x exceeds max(%#x)", lba+n, blocks)
	}
	return nil
}

// card is the card of a number.
func (m *Machine) card(s string) (*MMC, int, error) {
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil || int(n) >= len(m.MMC) || m.MMC[n] == nil {
		return nil, 0, fmt.Errorf("no mmc device at slot %.20s", s)
	}
	return m.MMC[n], int(n), nil
}

// Card is the card that "mmc" is about, and its hardware partition; nil if there is none.
func (m *Machine) Card() (*MMC, int) {
	if !m.on {
		m.Power()
	}
	if m.mmc < 0 || m.mmc >= len(m.MMC) {
		return nil, 0
	}
	return m.MMC[m.mmc], m.part
}

// mmcCommand is mmc (cmd/mmc.c).
func mmcCommand(_ context.Context, m *Machine, args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	switch args[1] {
	case "list":
		for i, d := range m.MMC {
			if d != nil {
				m.Printf("mmc%d: %d\n", i, i)
			}
		}
		return nil
	case "dev":
		return m.mmcDev(args[2:])
	case "partconf":
		return m.partConf(args[2:])
	case "bootbus":
		_, _, err := m.card(strings.Join(args[2:3], ""))
		return err
	}
	d, area := m.Card()
	if d == nil {
		return errors.New("no MMC device available")
	}
	switch args[1] {
	case "info", "rescan":
		m.Printf("Device: mmc%d\nCapacity: %d MiB\n", m.mmc, d.Areas[0].Size()>>20)
		return nil
	case "part":
		table, err := ReadGPT(d.Areas[0])
		if err != nil {
			return err
		}
		m.printGPT(table)
		return nil
	case "read", "write":
		if len(args) != 5 {
			return errUsage
		}
		n, err := numbers(args[2:])
		if err != nil {
			return err
		}
		return m.mmcCopy(d, area, args[1] == "write", n[0], int64(n[1]), int64(n[2]))
	case "erase":
		if len(args) != 4 {
			return errUsage
		}
		n, err := numbers(args[2:])
		if err != nil {
			return err
		}
		if err := d.check(area, int64(n[0]), int64(n[1])); err != nil {
			return err
		}
		// What is not whole groups U-Boot widens, with a warning (drivers/mmc/mmc_write.c, mmc_berase).
		g := d.group()
		first := int64(n[0]) / g * g
		end := min((int64(n[0])+int64(n[1])+g-1)/g*g, d.Areas[area].Size()/BlockSize)
		if first != int64(n[0]) || end != int64(n[0]+n[1]) {
			m.Printf("Caution! Your devices Erase group is %#x\nThe erase range would be change to %#x~%#x\n", g, first, end-1)
		}
		return d.Areas[area].Erase(first*BlockSize, (end-first)*BlockSize)
	}
	return errUsage
}

func (m *Machine) mmcDev(args []string) error {
	n, area := m.mmc, 0
	if len(args) > 0 {
		var err error
		if _, n, err = m.card(args[0]); err != nil {
			return err
		}
	}
	if len(args) > 1 {
		p, err := strconv.ParseUint(args[1], 10, 3)
		if err != nil {
			return fmt.Errorf("#part_num shouldn't be larger than 7: %.20s", args[1])
		}
		area = int(p)
	}
	if n < 0 || n >= len(m.MMC) || m.MMC[n] == nil || m.MMC[n].Areas[area] == nil {
		return errors.New("switch to partition: ERROR")
	}
	m.mmc, m.part = n, area
	m.Printf("switch to partitions #%d, OK\nmmc%d(part %d) is current device\n", area, n, area)
	return nil
}

func (m *Machine) partConf(args []string) error {
	if len(args) != 1 && len(args) != 4 {
		return errUsage
	}
	d, _, err := m.card(args[0])
	if err != nil {
		return err
	}
	if d.Areas[1] == nil {
		return errors.New("not a eMMC device")
	}
	for i, s := range args[1:] {
		n, err := strconv.ParseUint(s, 10, 3)
		if err != nil {
			return errUsage
		}
		d.PartConf[i] = int(n)
	}
	m.Printf("EXT_CSD[179], PARTITION_CONFIG: %v\n", d.PartConf)
	return nil
}

// mmcCopy is read and write: between memory and blocks.
func (m *Machine) mmcCopy(d *MMC, area int, write bool, addr uint64, lba, n int64) error {
	if err := d.check(area, lba, n); err != nil {
		return err
	}
	buf := make([]byte, step)
	return m.pieces(addr, n*BlockSize, func(at uint64, size int64) error {
		b := buf[:size]
		block := lba + int64(at-addr)/BlockSize
		if !write {
			if _, err := d.Areas[area].ReadAt(b, block*BlockSize); err != nil {
				return err
			}
			return m.Write(at, b)
		}
		if err := m.Read(at, b); err != nil {
			return err
		}
		return d.Write(area, block, b)
	})
}

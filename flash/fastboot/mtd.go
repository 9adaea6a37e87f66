package fastboot

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"snag/flash"
	"snag/flash/image"
	"snag/usb/fastboot"
)

// MTD is flash memory that U-Boot erases and writes by its mtd commands, or by sf: NAND and NOR. It is a
// [flash.Target].
//
// All of NAND from the offset on is erased before anything is written, since U-Boot moves what bad blocks would hold to
// behind them, up to the partition's end; so it is best named by a partition. Of NOR only what the image takes is
// erased. What an image leaves out is written as ff, as if erased.
type MTD struct {
	Client *fastboot.Client
	Name   string // partition or chip, as in "mtd list"; with SF BUS:CS, or nothing
	SF     bool   // by "sf", for a U-Boot without mtd
	NOR    bool   // there are no bad blocks; always so with SF
	Block  int64  // size of an erase block; 0: asked for by "oem console", which few U-Boots have; not needed with SF
	Offset int64  // a multiple of it
	Buffer uint64 // as in [MMC]
}

// sfBlock is a multiple of the size of every SPI NOR's erase blocks.
const sfBlock = 256 << 10

const (
	norRate  = 100_000 // bytes per second
	worstBad = 1024    // bad blocks in a row
)

func (t MTD) String() string {
	if t.SF {
		return strings.TrimSpace("fastboot, SPI flash " + t.Name)
	}
	return "fastboot, mtd " + t.Name
}

// Write implements [flash.Target].
func (t MTD) Write(ctx context.Context, im *image.Image, o flash.Options) error {
	defer im.Close()
	if err := t.write(ctx, im, o); err != nil {
		return fmt.Errorf("%s: %w", t, err)
	}
	return nil
}

func (t MTD) write(ctx context.Context, im *image.Image, o flash.Options) error {
	m, err := t.open(ctx)
	if err != nil {
		return err
	}
	if t.Offset > 0 && !t.NOR && im.Size < 0 {
		return errors.New("an offset needs an image whose size is known before")
	}
	// One block is left for what is read back.
	most := (m.size - t.Block) / t.Block * t.Block
	if o.Verify {
		most = m.size / 2 / t.Block * t.Block
	}
	if most <= 0 {
		return fmt.Errorf("U-Boot's buffer has %d bytes, too few for two erase blocks of %d", m.size, t.Block)
	}
	if err := t.room(ctx, m, im); err != nil {
		return err
	}
	if !t.NOR {
		if err := t.eraseAll(ctx, m, im.Size); err != nil {
			return err
		}
	}
	w := &mtdWriter{MTD: t, m: m, most: most, r: reporter(o), at: t.Offset}
	k := cutter{unit: t.Block, most: most, pad: 0xff}
	if t.SF {
		k.unit = 1
	}
	return ahead(ctx, func(ctx context.Context, next func() (*buffer, error), hand func(*buffer) error) error {
		return k.cut(ctx, im, next, hand)
	}, func(ctx context.Context, b *buffer) error {
		if err := w.slice(ctx, b); err != nil {
			return fmt.Errorf("%s: bytes %d-%d: %w", im.Name, b.off, b.end-1, err)
		}
		return nil
	})
}

// open finds the flash, and completes t with what is to be known of it.
func (t *MTD) open(ctx context.Context) (*memory, error) {
	if !t.SF || t.Name != "" {
		if err := shellName(t.Name); err != nil {
			return nil, err
		}
	}
	m, err := newMemory(ctx, t.Client, t.Buffer)
	if err != nil {
		return nil, err
	}
	if t.SF {
		t.NOR, t.Block = true, sfBlock
		if err := m.run(ctx, 0, "%s", strings.TrimSpace("sf probe "+t.Name)); err != nil {
			return nil, fmt.Errorf("no such flash: %w", err)
		}
	} else if t.Block == 0 {
		if t.Block, err = t.ask(ctx); err != nil {
			return nil, err
		}
	}
	switch {
	case t.Block < 512 || t.Block > 64<<20:
		return nil, fmt.Errorf("erase blocks of %d bytes: expected 512 to %d", t.Block, 64<<20)
	case t.Offset < 0 || t.Offset%t.Block != 0 && !t.SF || t.Offset%4096 != 0 && t.SF:
		return nil, fmt.Errorf("offset %#x: expected a multiple of the erase block's size", t.Offset)
	}
	return m, nil
}

// room reads the last block that an image of known size takes, to find out whether it is there before anything is done.
func (t MTD) room(ctx context.Context, m *memory, im *image.Image) error {
	if im.Size < 0 {
		return nil
	}
	last := t.Offset + (im.Size-1)/t.Block*t.Block
	if t.SF {
		last = t.Offset + im.Size - 1
	}
	if err := t.read(ctx, m, 0, last, t.least()); err != nil {
		return fmt.Errorf("%s has %d bytes, and what is at %#x cannot be read: there is no such flash, or it is too small: %w", im.Name, im.Size, last, err)
	}
	return nil
}

// least is what is read to see whether it is there.
func (t MTD) least() int64 {
	if t.SF {
		return 1
	}
	return t.Block
}

// ask finds the size of erase blocks in what "mtd list" prints.
func (t MTD) ask(ctx context.Context) (int64, error) {
	help := func(err error) error {
		return fmt.Errorf("the size of erase blocks must be given: U-Boot tells it by oem console only: %w", err)
	}
	if _, err := t.Client.Console(ctx, ""); err != nil {
		return 0, help(err)
	}
	if err := t.Client.Run(ctx, "mtd list", 0); err != nil {
		return 0, err
	}
	text, err := t.Client.Console(ctx, "")
	if err != nil {
		return 0, help(err)
	}
	n, err := eraseBlock(text, t.Name)
	if err != nil {
		return 0, help(err)
	}
	return n, nil
}

// eraseBlock looks in the text of "mtd list" for the chip that has a name, or has a partition of that name.
func eraseBlock(text []string, name string) (block int64, err error) {
	for _, line := range text {
		line = strings.TrimSpace(line)
		if size, ok := strings.CutPrefix(line, "- block size: 0x"); ok {
			size, _, _ = strings.Cut(size, " ")
			if block, err = strconv.ParseInt(size, 16, 40); err != nil {
				return 0, fmt.Errorf("mtd list: %q", line)
			}
		}
		if strings.HasPrefix(line, "* ") {
			block = 0
		}
		if strings.HasPrefix(line, "- 0x") && strings.HasSuffix(line, fmt.Sprintf(": %q", name)) && block > 0 {
			return block, nil
		}
	}
	return 0, fmt.Errorf("mtd list does not have %q", name)
}

func (t MTD) eraseAll(ctx context.Context, m *memory, size int64) error {
	line := "mtd erase " + t.Name
	if t.Offset > 0 {
		line += fmt.Sprintf(" %#x %#x", t.Offset, (size+t.Block-1)/t.Block*t.Block)
	}
	return m.run(ctx, fastboot.EraseTime, "%s", line)
}

func (t MTD) read(ctx context.Context, m *memory, at, off, n int64) error {
	if t.SF {
		return m.run(ctx, t.patience(n), "sf read %#x %#x %#x", m.addr+uint64(at), off, n)
	}
	return m.run(ctx, t.patience(n), "mtd read %s %#x %#x %#x", t.Name, m.addr+uint64(at), off, n)
}

func (t MTD) patience(n int64) time.Duration {
	if t.NOR {
		return fastboot.WriteTime(0) + time.Duration(n)*time.Second/norRate
	}
	return fastboot.WriteTime(n)
}

// mtdWriter writes slices.
type mtdWriter struct {
	MTD
	m    *memory
	most int64
	r    reporter

	at   int64 // where the last slice was written, or the first one goes
	n    int64 // bytes of the last one, which are still in memory; 0: none
	tail bool  // its last block is not ff
}

// slice writes one behind the one before.
func (w *mtdWriter) slice(ctx context.Context, b *buffer) error {
	switch {
	case w.n > 0 && w.NOR:
		w.at += w.n
	case w.n > 0:
		var err error
		if w.at, err = w.end(ctx); err != nil {
			return err
		}
	}
	at, n := w.at, int64(len(b.data))
	w.n = 0
	if w.NOR {
		erase := fmt.Sprintf("mtd erase %s %#x %#x", w.Name, at, n)
		if w.SF {
			erase = fmt.Sprintf("sf erase %#x +%#x", at, n)
		}
		if err := w.m.run(ctx, fastboot.EraseTime, "%s", erase); err != nil {
			return err
		}
	}
	if err := w.m.load(ctx, b.data); err != nil {
		return err
	}
	line := fmt.Sprintf("mtd write %s %#x %#x %#x", w.Name, w.m.addr, at, n)
	if w.SF {
		line = fmt.Sprintf("sf write %#x %#x %#x", w.m.addr, at, n)
	}
	if err := w.m.run(ctx, w.patience(n), "%s", line); err != nil {
		return err
	}
	w.n, w.tail = n, n < w.Block || !blank(b.data[n-w.Block:])
	w.r.wrote(b)
	if !w.r.Verify {
		return nil
	}
	if err := w.read(ctx, w.m, w.most, at, n); err != nil {
		return err
	}
	if err := w.m.compare(ctx, 0, w.most, n); err != nil {
		return checkRead(err, errDiffers)
	}
	w.r.verified(b)
	return nil
}

// end finds where the last block of the last slice went on NAND, and so where the next one goes: bad blocks have moved
// it, which U-Boot only prints. A block that is read at a bad one's offset is the next good one's, so the last offset
// counts at which it is read; behind it all is erased.
func (w *mtdWriter) end(ctx context.Context) (int64, error) {
	last := w.n - w.Block
	if !w.tail {
		return 0, fmt.Errorf("the erase block before is ff, so it cannot be told how many bad blocks there are: write an image that fits into U-Boot's buffer")
	}
	found := false
	for p := w.at + last; p < w.at+last+worstBad*w.Block; p += w.Block {
		err := w.read(ctx, w.m, w.n, p, w.Block)
		if err == nil {
			err = w.m.compare(ctx, last, w.n, w.Block)
		}
		_, refused := errors.AsType[*fastboot.FailError](err)
		switch {
		case err == nil:
			found = true
		case !refused:
			return 0, err
		case found:
			return p, nil
		}
	}
	return 0, fmt.Errorf("the last block is not found behind %#x: %w", w.at+last, errDiffers)
}

func blank(b []byte) bool {
	for _, c := range b {
		if c != 0xff {
			return false
		}
	}
	return true
}

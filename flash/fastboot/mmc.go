package fastboot

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"snag/flash"
	"snag/flash/image"
	"snag/usb/fastboot"
)

// blockSize is that of an MMC.
const blockSize = 512

// MMC is an eMMC or SD card that U-Boot writes by its mmc commands: the user area, another hardware partition, or a
// partition of the GPT. It is a [flash.Target]. What a block map leaves out is not touched; long runs of one pattern
// are not sent, U-Boot makes them.
type MMC struct {
	Client    *fastboot.Client
	Device    int    // as in "mmc dev"
	HWPart    int    // 0: the user area; 1, 2: boot partitions; 4 to 7: general purpose
	Partition string // of the GPT; empty: the offset is in the area
	Offset    int64  // bytes, a multiple of 512
	Buffer    uint64 // address of U-Boot's fastboot buffer; 0: asked for, which only NXP's U-Boot answers
	SkipZeros bool   // long runs of zeros are not written: the medium was just erased to zeros
}

func (t MMC) String() string {
	s := fmt.Sprintf("fastboot, mmc %d", t.Device)
	if t.HWPart != 0 {
		s += fmt.Sprintf(", hardware partition %d", t.HWPart)
	}
	if t.Partition != "" {
		s += ", partition " + t.Partition
	}
	return s
}

// Write implements [flash.Target]. Before anything is written it makes sure of the buffer's address, the device, the
// partition and its size, and, where the image's size is known, that the device has so many blocks.
func (t MMC) Write(ctx context.Context, im *image.Image, o flash.Options) error {
	defer im.Close()
	if err := t.write(ctx, im, o); err != nil {
		return fmt.Errorf("%s: %w", t, err)
	}
	return nil
}

func (t MMC) write(ctx context.Context, im *image.Image, o flash.Options) error {
	a, err := t.open(ctx, im)
	if err != nil {
		return err
	}
	m := a.m
	a.most = m.size / blockSize * blockSize
	if o.Verify {
		a.most = m.size / 2 / blockSize * blockSize
	}
	return a.each(ctx, im, t.SkipZeros, func(ctx context.Context, b *buffer) error { return a.slice(ctx, b, reporter(o)) })
}

// area is an opened device, and the part of it that an image is to be in.
type area struct {
	MMC
	m      *memory
	start  int64 // block
	blocks int64 // -1: up to the device's end
	most   int64 // bytes at a time
}

// open selects the device and finds the place. Nothing is written.
func (t MMC) open(ctx context.Context, im *image.Image) (*area, error) {
	switch {
	case t.Device < 0 || t.HWPart < 0 || t.HWPart > 7:
		return nil, fmt.Errorf("no such device: expected a number, and a hardware partition from 0 to 7")
	case t.Offset < 0 || t.Offset%blockSize != 0:
		return nil, fmt.Errorf("offset %d: expected a multiple of %d", t.Offset, blockSize)
	case t.Partition != "" && t.HWPart != 0:
		return nil, errors.New("a partition of the GPT and a hardware partition: expected one of them")
	}
	m, err := newMemory(ctx, t.Client, t.Buffer)
	if err != nil {
		return nil, err
	}
	dev := fmt.Sprintf("mmc dev %d", t.Device)
	if t.HWPart != 0 {
		dev += fmt.Sprintf(" %d", t.HWPart)
	}
	if err := m.run(ctx, 0, "%s", dev); err != nil {
		return nil, fmt.Errorf("no such device: %w", err)
	}
	a := &area{MMC: t, m: m}
	if a.start, a.blocks, err = t.extent(ctx, m); err != nil {
		return nil, err
	}
	a.start += t.Offset / blockSize
	if a.blocks >= 0 {
		a.blocks = max(a.blocks-t.Offset/blockSize, 0)
	}
	if im.Size >= 0 {
		need := (im.Size + blockSize - 1) / blockSize
		if a.blocks >= 0 && need > a.blocks {
			return nil, fmt.Errorf("%s has %d bytes, the partition has room for %d", im.Name, im.Size, a.blocks*blockSize)
		}
		if err := m.run(ctx, 0, "mmc read %#x %#x 1", m.addr, a.start+need-1); err != nil {
			return nil, fmt.Errorf("%s has %d bytes, and block %d cannot be read: the device is too small: %w", im.Name, im.Size, a.start+need-1, err)
		}
	}
	return a, nil
}

// each does something with each slice of an image.
func (a *area) each(ctx context.Context, im *image.Image, skipZeros bool, do func(context.Context, *buffer) error) error {
	k := cutter{unit: blockSize, most: a.most, gaps: true, skip: skipZeros, fills: true}
	err := ahead(ctx, func(ctx context.Context, next func() (*buffer, error), hand func(*buffer) error) error {
		return k.cut(ctx, im, next, hand)
	}, func(ctx context.Context, b *buffer) error {
		if a.blocks >= 0 && b.off+b.written > a.blocks*blockSize {
			return fmt.Errorf("%s: bytes %d-%d: the partition has room for %d", im.Name, b.off, b.end-1, a.blocks*blockSize)
		}
		if err := do(ctx, b); err != nil {
			return inSlice(im, b, err)
		}
		return nil
	})
	if a.HWPart != 0 && a.Client.Err() == nil && ctx.Err() == nil { // what comes after expects the user area
		err = errors.Join(err, a.m.run(ctx, 0, "mmc dev %d 0", a.Device))
	}
	return err
}

// load has the begin of U-Boot's buffer hold a slice, or as much of its pattern as is written at a time.
func (a *area) load(ctx context.Context, b *buffer) error {
	if b.fill {
		return a.m.fill(ctx, [4]byte(b.data), min(b.written, a.most))
	}
	return a.m.load(ctx, b.data)
}

// commands calls f for what one command can do of a slice: n bytes of whole blocks from lba on, of which all but the
// padding are the image's.
func (a *area) commands(b *buffer, f func(lba, n, bytes int64) error) error {
	for at := int64(0); at < b.written; at += a.most {
		if err := f(a.start+(b.off+at)/blockSize, min(a.most, b.written-at), min(a.most, b.end-b.off-at)); err != nil {
			return err
		}
	}
	return nil
}

func (a *area) read(ctx context.Context, addr uint64, lba, n int64) error {
	return a.m.run(ctx, fastboot.WriteTime(n), "mmc read %#x %#x %#x", addr, lba, n/blockSize)
}

// slice writes one slice, and compares it if that is asked for.
func (a *area) slice(ctx context.Context, b *buffer, r reporter) error {
	if err := a.load(ctx, b); err != nil {
		return err
	}
	err := a.commands(b, func(lba, n, _ int64) error {
		return a.m.run(ctx, fastboot.WriteTime(n), "mmc write %#x %#x %#x", a.m.addr, lba, n/blockSize)
	})
	if err != nil {
		return err
	}
	r.wrote(b)
	if !r.Verify {
		return nil
	}
	err = a.commands(b, func(lba, n, _ int64) error {
		if err := a.read(ctx, a.m.addr+uint64(a.most), lba, n); err != nil {
			return err
		}
		return checkRead(a.m.compare(ctx, 0, a.most, n), errDiffers)
	})
	if err != nil {
		return err
	}
	r.verified(b)
	return nil
}

// extent is the partition's first block and how many it has: -1 without one.
func (t MMC) extent(ctx context.Context, m *memory) (start, blocks int64, err error) {
	if t.Partition == "" {
		return 0, -1, nil
	}
	if err := shellName(t.Partition); err != nil {
		return 0, 0, err
	}
	err = m.run(ctx, 0, "gpt setenv mmc %d %s", t.Device, t.Partition)
	values := []string{"${gpt_partition_addr}", "${gpt_partition_size}"}
	if _, refused := errors.AsType[*fastboot.FailError](err); refused { // a U-Boot without gpt may have part
		values = []string{"${snag_start}", "${snag_size}"}
		err = m.run(ctx, 0, "part start mmc %d %s snag_start && part size mmc %[1]d %[2]s snag_size", t.Device, t.Partition)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("no such partition (or U-Boot has neither gpt nor part): %w", err)
	}
	for i, to := range []*int64{&start, &blocks} {
		text, err := variable(ctx, t.Client, values[i])
		if err != nil {
			return 0, 0, err
		}
		if *to, err = strconv.ParseInt(strings.TrimPrefix(text, "0x"), 16, 50); err != nil {
			return 0, 0, fmt.Errorf("U-Boot says %q for where the partition is", text)
		}
	}
	return start, blocks, nil
}

// shellName refuses names that U-Boot's shell would not take as they are.
func shellName(s string) error {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-.+:,@", r))
	}) {
		return fmt.Errorf("name %q: expected letters, digits and _-.+:,@ only, since it goes to U-Boot's shell", s)
	}
	return nil
}

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

// MMC is an eMMC or SD card that U-Boot writes by its mmc commands: the user area, another hardware partition, or a partition of the
// GPT. It is a [flash.Target]. What a block map leaves out is not touched; long runs of one pattern are not sent, U-Boot makes them.
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

// Write implements [flash.Target]. Before anything is written it makes sure of the buffer's address, the device, the partition and its
// size, and, where the image's size is known, that the device has so many blocks.
func (t MMC) Write(ctx context.Context, im *image.Image, o flash.Options) error {
	defer im.Close()
	if err := t.write(ctx, im, o); err != nil {
		return fmt.Errorf("%s: %w", t, err)
	}
	return nil
}

func (t MMC) write(ctx context.Context, im *image.Image, o flash.Options) error {
	switch {
	case t.Device < 0 || t.HWPart < 0 || t.HWPart > 7:
		return fmt.Errorf("no such device: expected a number, and a hardware partition from 0 to 7")
	case t.Offset < 0 || t.Offset%blockSize != 0:
		return fmt.Errorf("offset %d: expected a multiple of %d", t.Offset, blockSize)
	case t.Partition != "" && t.HWPart != 0:
		return errors.New("a partition of the GPT and a hardware partition: expected one of them")
	}
	m, err := newMemory(ctx, t.Client, t.Buffer)
	if err != nil {
		return err
	}
	dev := fmt.Sprintf("mmc dev %d", t.Device)
	if t.HWPart != 0 {
		dev += fmt.Sprintf(" %d", t.HWPart)
	}
	if err := m.run(ctx, 0, "%s", dev); err != nil {
		return fmt.Errorf("no such device: %w", err)
	}
	start, blocks, err := t.extent(ctx, m)
	if err != nil {
		return err
	}
	start += t.Offset / blockSize
	if blocks >= 0 {
		blocks -= t.Offset / blockSize
	}
	if im.Size >= 0 {
		need := (im.Size + blockSize - 1) / blockSize
		if blocks >= 0 && need > blocks {
			return fmt.Errorf("%s has %d bytes, the partition has room for %d", im.Name, im.Size, max(blocks, 0)*blockSize)
		}
		if err := m.run(ctx, 0, "mmc read %#x %#x 1", m.addr, start+need-1); err != nil {
			return fmt.Errorf("%s has %d bytes, and block %d cannot be read: the device is too small: %w", im.Name, im.Size, start+need-1, err)
		}
	}
	most := m.size / blockSize * blockSize
	if o.Verify {
		most = m.size / 2 / blockSize * blockSize
	}
	k := cutter{unit: blockSize, most: most, gaps: true, skip: t.SkipZeros, fills: true}
	err = ahead(ctx, func(ctx context.Context, next func() (*buffer, error), hand func(*buffer) error) error {
		return k.cut(ctx, im, next, hand)
	}, func(ctx context.Context, b *buffer) error {
		if blocks >= 0 && b.off+b.written > blocks*blockSize {
			return fmt.Errorf("%s: bytes %d-%d: the partition has room for %d", im.Name, b.off, b.end-1, blocks*blockSize)
		}
		if err := t.slice(ctx, m, b, start, most, reporter(o)); err != nil {
			return fmt.Errorf("%s: bytes %d-%d: %w", im.Name, b.off, b.end-1, err)
		}
		return nil
	})
	if t.HWPart != 0 && t.Client.Err() == nil && ctx.Err() == nil { // what comes after expects the user area
		err = errors.Join(err, m.run(ctx, 0, "mmc dev %d 0", t.Device))
	}
	return err
}

// slice writes one slice, and compares it if that is asked for.
func (t MMC) slice(ctx context.Context, m *memory, b *buffer, start, most int64, r reporter) error {
	if b.fill {
		if err := m.fill(ctx, [4]byte(b.data), min(b.written, most)); err != nil {
			return err
		}
	} else if err := m.load(ctx, b.data); err != nil {
		return err
	}
	// each calls a command for what can be written at a time.
	each := func(f func(lba, n int64) error) error {
		for at := int64(0); at < b.written; at += most {
			if err := f(start+(b.off+at)/blockSize, min(most, b.written-at)); err != nil {
				return err
			}
		}
		return nil
	}
	err := each(func(lba, n int64) error {
		return m.run(ctx, fastboot.WriteTime(n), "mmc write %#x %#x %#x", m.addr, lba, n/blockSize)
	})
	if err != nil {
		return err
	}
	r.wrote(b)
	if !r.Verify {
		return nil
	}
	err = each(func(lba, n int64) error {
		if err := m.run(ctx, fastboot.WriteTime(n), "mmc read %#x %#x %#x", m.addr+uint64(most), lba, n/blockSize); err != nil {
			return err
		}
		return checkRead(m.compare(ctx, 0, most, n))
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

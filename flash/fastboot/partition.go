package fastboot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"snag/flash"
	"snag/flash/image"
	"snag/usb/fastboot"
)

// Partition is what "flash NAME" writes: a partition by its name, or one of the names that U-Boot has beside them. It
// is a [flash.Target].
//
// What is a whole image and fits into the device's buffer is sent as it is. All else goes as Android sparse images:
// what is larger, what has a block map, what is one already. The names that U-Boot writes without looking for a sparse
// image (eMMC boot partitions, gpt, mbr, zimage) get the bytes alone.
//
// Nothing can be read back by fastboot alone: Verify is refused. [MMC] and [MTD] can.
type Partition struct {
	Client    *fastboot.Client
	Name      string
	Piece     int64         // most bytes of a download; 0: 32 MiB for sparse images, and what the device takes for others
	Sparse    bool          // also what would fit goes as a sparse image
	SkipZeros bool          // of sparse images: zeros are not written, for the medium was just erased to zeros
	Patience  time.Duration // least time that the device may be silent
}

// ErrNoVerify says that what is written to a target cannot be read back.
var ErrNoVerify = errors.New("what was written cannot be read back")

func (p Partition) String() string { return "fastboot, partition " + p.Name }

// whole are the names that U-Boot writes as they are (drivers/fastboot/fb_mmc.c, fastboot_mmc_flash_write).
var whole = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(mmc[0-9]+boot[01]|gpt|mbr|zimage.*)$`) })

// Write implements [flash.Target].
func (p Partition) Write(ctx context.Context, im *image.Image, o flash.Options) error {
	defer im.Close()
	if p.Name == "" || strings.ContainsAny(p.Name, "\x00\n") {
		return fmt.Errorf("partition %q: no name", p.Name)
	}
	if o.Verify {
		return fmt.Errorf("%s: %w by fastboot's flash; name the device (mmc, mtd) to write with U-Boot's commands", p, ErrNoVerify)
	}
	limit, err := p.Client.MaxDownload(ctx)
	if err != nil {
		return err
	}
	if limit == 0 {
		limit = usualPiece
	}
	if p.Piece > 0 {
		limit = min(limit, p.Piece)
	}
	size, err := p.size(ctx)
	if err != nil {
		return err
	}
	if size > 0 && im.Size > size {
		return fmt.Errorf("%s: %s has %d bytes, the partition %d (partition-size)", p, im.Name, im.Size, size)
	}
	progress := func(n int64) {
		if o.Progress != nil {
			o.Progress(flash.Writing, n)
		}
	}
	fits := im.Size >= 0 && im.Size <= limit
	switch only := whole().MatchString(p.Name); {
	case only && !fits:
		return fmt.Errorf("%s: %s has %s, the device takes %d at a time, and %s only in one: use mmc, with its hardware partition", p, im.Name, sizeText(im.Size), limit, p.Name)
	case only, fits && im.Map == nil && im.Format == "raw" && !p.Sparse:
		return p.whole(ctx, im, progress)
	}
	block, err := p.Client.BlockSize(ctx)
	if err != nil {
		return err
	}
	if block == 0 && size > 0 && size%4096 != 0 {
		block = 512 // or the last block might not fit
	}
	err = FlashSparse(ctx, p.Client, im, p.Name, SparseOptions{Piece: p.Piece, Block: block, SkipZeros: p.SkipZeros, Patience: p.Patience, Progress: progress})
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	return nil
}

func sizeText(n int64) string {
	if n < 0 {
		return "a size that only its end will tell"
	}
	return fmt.Sprintf("%d bytes", n)
}

// size is the partition's, 0 if the device does not tell. AOSP's host reads it as hexadecimal even without 0x.
func (p Partition) size(ctx context.Context) (int64, error) {
	text, err := p.Client.GetVar(ctx, "partition-size:"+p.Name)
	if _, refused := errors.AsType[*fastboot.FailError](err); refused {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimPrefix(strings.ToLower(strings.TrimSpace(text)), "0x"), 16, 64)
	if err != nil || n < 0 {
		return 0, nil
	}
	return n, nil
}

// whole sends an image as it is, in one download.
func (p Partition) whole(ctx context.Context, im *image.Image, progress func(int64)) error {
	size := im.Size
	if err := p.Client.Download(ctx, &reader{im: im, size: size}, size, nil); err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	if err := p.Client.Flash(ctx, p.Name, max(p.Patience, fastboot.WriteTime(size))); err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	progress(size)
	return nil
}

// reader reads an image as one stream of so many bytes. What is not to be written is zeros.
type reader struct {
	im    *image.Image
	size  int64
	at    int64
	piece image.Piece
	have  bool
	end   bool
}

func (r *reader) Read(b []byte) (int, error) {
	for !r.end && (!r.have || r.at >= r.piece.Off+r.piece.N) {
		if r.have {
			r.piece.Release()
			r.have = false
		}
		var err error
		if r.piece, err = r.im.Next(); err == io.EOF {
			r.end = true
			break
		} else if err != nil {
			return 0, err
		}
		r.have = true
	}
	to := r.size
	if r.have {
		to = r.piece.Off + r.piece.N
		if r.at < r.piece.Off {
			to = r.piece.Off
		}
	}
	n := int(min(int64(len(b)), to-r.at))
	if n <= 0 {
		return 0, io.EOF
	}
	b = b[:n]
	if r.have && r.at >= r.piece.Off {
		expand(b, r.piece, r.at)
	} else {
		clear(b)
	}
	r.at += int64(n)
	return n, nil
}

// expand makes the bytes of a piece from off on.
func expand(b []byte, p image.Piece, off int64) {
	switch {
	case p.Kind == image.Data:
		copy(b, p.Data[off-p.Off:])
	case p.Zero():
		clear(b)
	default:
		for i := range b {
			b[i] = p.Pattern[(off-p.Off+int64(i))%4]
		}
	}
}

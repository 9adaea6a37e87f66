package uuu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"snag/event/progress"
	target "snag/flash/fastboot"
	"snag/flash/image"
	"snag/usb/fastboot"
)

// sparseMagic begins an Android sparse image (AOSP, system/core/libsparse/sparse_format.h).
const sparseMagic = "\x3a\xff\x26\xed"

// flash is "flash".
type flash struct {
	partition string
	file      word
	sparse    bool   // the file is to be made Android sparse images of (-raw2sparse)
	noBmap    bool   // all of it, whatever a block map says
	bmap      word   // the block map's file; none: the one beside the image, if there is any
	piece     int64  // how large these images may be; 0: as uuu's
	burnTag   bool   // of the image of a card only the boot loader is meant
	limit     uint64 // and its tag is looked for up to here
}

// flashCommand parses "flash [OPTIONS] PARTITION FILE". uuu wants the options in one order only.
func (s *Script) flashCommand(w word, text string) (command, error) {
	o, err := parseOptions(w, text, map[string]bool{
		"-raw2sparse": false, "-no-bmap": false, "-bmap": true, "-scanterm": false, "-scanlimited": true, "-S": true,
	})
	if err != nil {
		return nil, err
	}
	if err := o.words(2, 2, "a partition and a file"); err != nil {
		return nil, err
	}
	c := flash{partition: o.rest[0].text, file: o.rest[1], sparse: o.has("-raw2sparse"), noBmap: o.has("-no-bmap"), burnTag: o.has("-scanterm")}
	for _, name := range []string{"-bmap", "-no-bmap"} {
		if o.has(name) && !c.sparse {
			return nil, o.given[name].errorf("%s: expected -raw2sparse too", name)
		}
	}
	if o.has("-bmap") && c.noBmap {
		return nil, o.given["-bmap"].errorf("-bmap and -no-bmap")
	}
	if c.burnTag && c.sparse {
		return nil, o.given["-scanterm"].errorf("-scanterm and -raw2sparse: either the boot loader or the whole image")
	}
	piece, err := o.number("-S", 40, 0)
	if err != nil {
		return nil, err
	}
	if w, ok := o.value["-S"]; ok && piece < target.MinPiece {
		return nil, w.errorf("-S %d: expected %d or more", piece, target.MinPiece)
	}
	c.piece = int64(piece)
	if c.limit, err = o.number("-scanlimited", 63, 0); err != nil {
		return nil, err
	}
	if b, ok := o.value["-bmap"]; ok {
		if err := s.files.check(b); err != nil {
			return nil, err
		}
		if _, inside, err := split(s.files.path(b.text)); err != nil || inside != "" {
			return nil, b.errorf("%s: a block map in an archive is not taken: unpack it", b.text)
		}
		c.bmap = b
	}
	if c.sparse && image.IsURL(c.file.text) {
		return c, nil
	}
	return c, s.files.check(c.file)
}

func (c flash) sends(s *Script) []string {
	out := []string{"getvar:max-download-size"}
	switch {
	case c.sparse:
		what := "Android sparse images of " + c.file.text
		switch {
		case c.noBmap:
			what += ", whole"
		case c.bmap.text != "":
			what += ", of what " + c.bmap.text + " maps"
		default:
			what += ", of what its block map maps, if it has one"
		}
		if c.piece > 0 {
			what += fmt.Sprintf(", %d bytes at most", c.piece)
		}
		out = append(out, "for each piece: download: of "+what)
	case c.burnTag:
		return append(out, c.tagged().tryReadText(s), "flash:"+c.partition)
	case s.sparse(c.file.text):
		out = append(out, "for each piece: download: of "+c.file.text+", an Android sparse image")
	default:
		out = append(out, downloadText(s.size(c.file.text), c.file.text))
	}
	return append(out, "flash:"+c.partition)
}

// sparse reports whether a file is an Android sparse image.
func (s *Script) sparse(name string) bool {
	if s.size(name) < 0 { // a pipe is opened once
		return false
	}
	c, err := s.files.open(name)
	if err != nil {
		return false
	}
	defer c.Close()
	head := make([]byte, len(sparseMagic))
	_, err = io.ReadFull(c, head)
	return err == nil && string(head) == sparseMagic
}

// tagged is the boot loader in the image of a card.
func (c flash) tagged() source {
	return source{file: c.file, burnTag: true, limit: c.limit}
}

func (src source) tryReadText(s *Script) string {
	img, err := src.read(s)
	if err != nil {
		return "nothing: " + err.Error()
	}
	return downloadText(int64(len(img.Data)), "the boot loader in "+src.file.text)
}

func (c flash) run(ctx context.Context, x *session) error {
	client, err := x.open(ctx)
	if err != nil {
		return err
	}
	limit, err := client.MaxDownload(ctx)
	if err != nil {
		return err
	}
	if c.sparse {
		return c.inPieces(ctx, x, client)
	}
	if c.burnTag {
		img, err := c.tagged().read(x.script)
		if err != nil {
			return err
		}
		t := x.begin(c.file.text, int64(len(img.Data)))
		if err := client.Download(ctx, bytes.NewReader(img.Data), int64(len(img.Data)), t.At); err != nil {
			return err
		}
		return c.flashed(ctx, x, client, t)
	}
	f, err := x.script.files.open(c.file.text)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, len(sparseMagic))
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return err
	}
	var r io.Reader = io.MultiReader(bytes.NewReader(head[:n]), f)
	size := f.size
	isSparse := string(head[:n]) == sparseMagic
	if size < 0 && !isSparse {
		most := int64(maxWhole)
		if limit > 0 {
			most = min(most, limit)
		}
		b, err := io.ReadAll(io.LimitReader(r, most+1))
		if err != nil {
			return fmt.Errorf("%s: %w", c.file.text, err)
		}
		r, size = bytes.NewReader(b), int64(len(b))
	}
	switch {
	case isSparse: // anew, whatever its size: U-Boot errs behind a CRC-32 in it, and behind a longer header (lib/image-sparse.c)
		return c.inPieces(ctx, x, client)
	case limit > 0 && size > limit:
		return fmt.Errorf("%s has more than the %d bytes that U-Boot takes at a time, and is no Android sparse image: use flash -raw2sparse", c.file.text, limit)
	}
	t := x.begin(c.file.text, size)
	if err := client.Download(ctx, r, size, t.At); err != nil {
		return err
	}
	return c.flashed(ctx, x, client, t)
}

// flashed has U-Boot write what was downloaded.
func (c flash) flashed(ctx context.Context, x *session, client *fastboot.Client, t *progress.Transfer[int64]) error {
	if err := client.Flash(ctx, c.partition, x.line.Timeout); err != nil {
		return err
	}
	t.Done()
	return nil
}

// pieces are "write" and "crc": a file goes to the device, or is compared with what is there, a part at a time, each by
// a command of U-Boot's in which @off and @size are numbers of blocks.
type pieces struct {
	crc    bool
	file   string
	format string
	block  uint64
	each   uint64
	seek   uint64 // bytes on the device
	skip   uint64 // bytes of the file
	goOn   bool   // behind a part that failed
}

// What a format stands for if the line has none.
const (
	writeFormat = "mmc write ${fastboot_buffer} @off @size"
	crcFormat   = "mmc read $loadaddr @off @size"
)

func (s *Script) piecesCommand(crc bool, w word, text string) (command, error) {
	o, err := parseOptions(w, text, map[string]bool{
		"-f": true, "-format": true, "-blksz": true, "-each": true, "-seek": true, "-skip": true, "-nostop": false,
	})
	if err != nil {
		return nil, err
	}
	if err := o.words(0, 0, "its options"); err != nil {
		return nil, err
	}
	if !o.has("-f") {
		return nil, w.errorf("%s: expected -f FILE", w.text)
	}
	c := pieces{crc: crc, file: o.value["-f"].text, format: writeFormat, goOn: o.has("-nostop")}
	if crc {
		c.format = crcFormat
	}
	if f, ok := o.value["-format"]; ok {
		c.format = f.text
	}
	for _, n := range []struct {
		name string
		def  uint64
		to   *uint64
	}{{"-blksz", 512, &c.block}, {"-each", 0x4000000, &c.each}, {"-seek", 0, &c.seek}, {"-skip", 0, &c.skip}} {
		if *n.to, err = o.number(n.name, 62, n.def); err != nil {
			return nil, err
		}
	}
	switch {
	case c.block == 0 || c.block > 1<<20:
		return nil, o.value["-blksz"].errorf("-blksz %d: expected 1 to %d", c.block, 1<<20)
	case c.each == 0 || c.each%c.block != 0 || c.each > maxWhole:
		return nil, w.errorf("-each %#x: expected whole blocks of %d bytes, %#x bytes at most", c.each, c.block, maxWhole)
	case c.seek%c.block != 0:
		return nil, o.value["-seek"].errorf("-seek %#x: expected whole blocks of %d bytes", c.seek, c.block)
	}
	return c, s.files.check(o.value["-f"])
}

// commands are those for a part of the file that begins at off.
func (c pieces) commands(off, n uint64, sum uint32) []string {
	text := strings.NewReplacer(
		"@off", fmt.Sprintf("%#x", (c.seek+off)/c.block),
		"@size", fmt.Sprintf("%#x", (n+c.block-1)/c.block),
	).Replace(c.format)
	if !c.crc {
		return []string{text}
	}
	return []string{text, fmt.Sprintf("crc32 -v $loadaddr %#x %08x", n, sum)}
}

func (c pieces) sends(s *Script) []string {
	const shown = 3 // parts
	size := s.size(c.file)
	if size < 0 {
		return []string{fmt.Sprintf("parts of %d bytes of %s", c.each, c.file)}
	}
	var out []string
	var data io.Reader // to make sums of
	if c.crc {
		f, err := s.files.open(c.file)
		if err != nil {
			return []string{"nothing: " + err.Error()}
		}
		defer f.Close()
		if _, err := io.CopyN(io.Discard, f, int64(c.skip)); err != nil && err != io.EOF {
			return []string{"nothing: " + err.Error()}
		}
		data = f
	}
	rest := uint64(max(0, size-int64(min(c.skip, uint64(size)))))
	for i, off := 0, uint64(0); off < rest; i, off = i+1, off+c.each {
		if i == shown {
			out = append(out, fmt.Sprintf("and so on, %d parts in all", (rest+c.each-1)/c.each))
			break
		}
		n := min(c.each, rest-off)
		sum := crc32.NewIEEE()
		if !c.crc {
			out = append(out, downloadText(int64(n), fmt.Sprintf("%s from %#x on", c.file, c.skip+off)))
		} else if _, err := io.CopyN(sum, data, int64(n)); err != nil {
			return append(out, "nothing: "+err.Error())
		}
		for _, line := range c.commands(off, n, sum.Sum32()) {
			out = append(out, "UCmd:"+line)
		}
	}
	return out
}

func (c pieces) run(ctx context.Context, x *session) error {
	client, err := x.open(ctx)
	if err != nil {
		return err
	}
	limit, err := client.MaxDownload(ctx)
	if err != nil {
		return err
	}
	if limit > 0 && !c.crc && c.each > uint64(limit) {
		c.each = uint64(limit) / c.block * c.block
		if c.each == 0 {
			return fmt.Errorf("U-Boot's buffer has %d bytes, less than a block", limit)
		}
	}
	f, err := x.script.files.open(c.file)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(io.Discard, f, int64(c.skip)); err != nil {
		return fmt.Errorf("%s: it has less than the %d bytes of -skip: %w", c.file, c.skip, err)
	}
	total := max(0, f.size-int64(c.skip))
	t := x.begin(c.file, total)
	buf := make([]byte, min(c.each, uint64(max(total, 1<<20))))
	var failed []error
	for off := uint64(0); ; {
		n, err := io.ReadFull(f, buf)
		if n == 0 && err == io.EOF {
			break
		}
		if err != nil && err != io.ErrUnexpectedEOF {
			return fmt.Errorf("%s: %w", c.file, err)
		}
		if err := c.part(ctx, x, client, buf[:n], off); err != nil {
			_, refused := errors.AsType[*fastboot.FailError](err)
			err = fmt.Errorf("bytes %#x-%#x of %s: %w", c.skip+off, c.skip+off+uint64(n)-1, c.file, err)
			if !c.goOn || !refused {
				return err
			}
			failed = append(failed, err)
		}
		off += uint64(n)
		t.Total = max(total, int64(off))
		t.At(int64(off))
		if n < len(buf) {
			break
		}
	}
	if failed != nil {
		return errors.Join(failed...)
	}
	t.Done()
	return nil
}

// part writes or compares one part.
func (c pieces) part(ctx context.Context, x *session, client *fastboot.Client, b []byte, off uint64) error {
	if !c.crc {
		if err := client.Download(ctx, bytes.NewReader(b), int64(len(b)), nil); err != nil {
			return err
		}
	}
	patience := x.patience(fastboot.WriteTime(int64(len(b))))
	for _, line := range c.commands(off, uint64(len(b)), crc32.ChecksumIEEE(b)) {
		if err := client.Run(ctx, line, patience); err != nil {
			return err
		}
	}
	return nil
}

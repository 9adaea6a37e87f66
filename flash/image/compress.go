package image

import (
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/mikelolasagasti/xz"
	"github.com/pierrec/lz4/v4"
)

// maxWindow is how far back a compressed file may refer, and so what decompressing one takes of memory: as much as
// "zstd -d" allows, and twice what the highest level of xz uses.
const maxWindow = 128 << 20

// headSize is how many bytes tell what a file is: a tar archive has its magic number at 257.
const headSize = 512

// compression is a kind of compressed file.
type compression struct {
	name  string
	magic string
	also  func(head []byte) bool                       // what must be true besides, if it is not nil
	open  func(r io.Reader) (io.Reader, func(), error) // nil: it is known, but not to be read
}

var compressions = []compression{
	{"gzip", "\x1f\x8b\x08", nil, openGzip},
	{"zstd", "\x28\xb5\x2f\xfd", nil, openZstd},
	{"xz", "\xfd7zXZ\x00", nil, openXZ},
	{"bzip2", "BZh", bzip2Block, openBzip2},
	{"lz4", "\x04\x22\x4d\x18", nil, openLZ4},
	{"lz4", "\x02\x21\x4c\x18", nil, openLZ4}, // the legacy format
	{"lzop", "\x89LZO\x00\r\n\x1a\n", nil, nil},
	{"lzip", "LZIP", nil, nil},
	{"lzma", "\x5d\x00\x00", lzmaSize, nil},
	{"compress (.Z)", "\x1f\x9d", nil, nil},
	{"zip", "PK\x03\x04", nil, nil},
	{"7z", "7z\xbc\xaf\x27\x1c", nil, nil},
	{"rar", "Rar!\x1a\x07", nil, nil},
	{"snappy", "\xff\x06\x00\x00sNaPpY", nil, nil},
	{"lrzip", "LRZI", nil, nil},
	{"cabinet", "MSCF\x00\x00\x00\x00", nil, nil},
	{"tar", "", tarMagic, nil},
}

// identify returns the kind of compressed file that begins with head, or nil.
func identify(head []byte) *compression {
	if skippable(head) {
		// A frame to be skipped is of zstd or lz4; what follows it decides, if it can be seen.
		rest := head
		for skippable(rest) {
			n := 8 + int(uint32(rest[4])|uint32(rest[5])<<8|uint32(rest[6])<<16|uint32(rest[7])<<24)
			rest = rest[min(n, len(rest)):]
		}
		if bytes.HasPrefix(rest, []byte("\x04\x22\x4d\x18")) {
			return &compressions[4]
		}
		return &compressions[1]
	}
	for i, c := range compressions {
		if bytes.HasPrefix(head, []byte(c.magic)) && (c.also == nil || c.also(head)) {
			return &compressions[i]
		}
	}
	return nil
}

func skippable(head []byte) bool {
	return len(head) >= 8 && head[0]&0xf0 == 0x50 && bytes.HasPrefix(head[1:], []byte("\x2a\x4d\x18"))
}

func bzip2Block(head []byte) bool {
	return len(head) >= 10 && head[3] >= '1' && head[3] <= '9' &&
		(bytes.HasPrefix(head[4:], []byte("\x31\x41\x59\x26\x53\x59")) || bytes.HasPrefix(head[4:], []byte("\x17\x72\x45\x38\x50\x90")))
}

// lzmaSize tells a .lzma file from other bytes: the size it gives is unknown or small enough.
func lzmaSize(head []byte) bool {
	return len(head) > 13 && (bytes.Equal(head[5:13], bytes.Repeat([]byte{0xff}, 8)) || head[11] == 0 && head[12] == 0)
}

func tarMagic(head []byte) bool { return len(head) >= 262 && string(head[257:262]) == "ustar" }

// virtualDisk returns what is wrong with an image of a disk that is in a format of virtual machines, or of Windows.
func virtualDisk(head []byte) error {
	for _, f := range []struct {
		name  string
		at    int
		magic string
	}{
		{"qcow2", 0, "QFI\xfb"}, {"VMDK", 0, "KDMV"}, {"VDI", 64, "\x7f\x10\xda\xbe"}, {"VHD", 0, "conectix"}, {"VHDX", 0, "vhdxfile"},
	} {
		if len(head) >= f.at && bytes.HasPrefix(head[f.at:], []byte(f.magic)) {
			return fmt.Errorf("a %s image of a virtual machine's disk, which is not written: make it a raw one first (qemu-img convert -O raw)", f.name)
		}
	}
	if len(head) >= 4 && bytes.HasPrefix(head[4:], []byte("SignedImage ")) {
		return errors.New("a Full Flash Update (FFU) of Windows, which is not written")
	}
	return nil
}

// compressedNames are the ends of names that promise a compressed file. A name never decides how a file is read; but
// one that says "compressed" of a file that does not look like it is not written as it is.
var compressedNames = []string{".gz", ".zst", ".xz", ".bz2", ".lz4", ".lzo", ".lz", ".lzma", ".br", ".Z", ".zip", ".7z", ".rar", ".sz", ".lrz", ".tgz", ".tar"}

// checkName refuses a file whose name says that it is compressed, though its bytes do not. In a URL it is the path that
// counts.
func checkName(name string) error {
	if u, err := url.Parse(name); IsURL(name) && err == nil {
		name = u.Path
	}
	if ext := path.Ext(name); slices.Contains(compressedNames, ext) {
		return fmt.Errorf("named like a compressed file (%s), but its first bytes are of none that is known: rename it if it is an image, or say that it is to be written as it is", ext)
	}
	return nil
}

// refuse is the error for a kind that is known but not read.
func (c *compression) refuse() error {
	readable := []string{}
	for _, r := range compressions {
		if r.open != nil && !slices.Contains(readable, r.name) {
			readable = append(readable, r.name)
		}
	}
	return fmt.Errorf("a %s file, which is not written: unpack it first (%s are read as they are)", c.name, strings.Join(readable, ", "))
}

func openGzip(r io.Reader) (io.Reader, func(), error) {
	z, err := gzip.NewReader(r)
	return z, func() {}, err
}

func openXZ(r io.Reader) (io.Reader, func(), error) {
	z, err := xz.NewReader(r, maxWindow)
	return z, func() {}, err
}

func openBzip2(r io.Reader) (io.Reader, func(), error) { return bzip2.NewReader(r), func() {}, nil }

func openLZ4(r io.Reader) (io.Reader, func(), error) { return lz4.NewReader(r), func() {}, nil }

// decompressed names the compression in errors, and keeps the first.
type decompressed struct {
	r    io.Reader
	in   *counter
	name string
	err  error
}

// runner is a reader that may know, without writing them out, that its next n bytes are all v. It may skip these.
type runner interface {
	run() (v byte, n int64)
	skip(n int64)
}

func (d *decompressed) run() (v byte, n int64) {
	if r, ok := d.r.(runner); ok && d.err == nil {
		return r.run()
	}
	return 0, 0
}

func (d *decompressed) skip(n int64) { d.r.(runner).skip(n) }

func (d *decompressed) Read(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	n, err := d.r.Read(p)
	if err != nil && err != io.EOF {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("the %s file ends early, after %d bytes", d.name, d.in.n.Load())
		} else {
			err = fmt.Errorf("the %s file is damaged at byte %d or before: %w", d.name, d.in.n.Load(), err)
		}
	}
	d.err = err
	return n, err
}

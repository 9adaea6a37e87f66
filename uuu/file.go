package uuu

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"

	"snag/flash/image"
)

// maxWhole bounds a file that is kept in memory: a boot image, or what is downloaded to U-Boot's buffer.
const maxWhole = 1 << 30

// files are the files that a script names, relative to a directory or to an archive.
//
// A path may lead through archives and compressed files: "dir.zip/inside", "x.tar/inside", "image.gz/*"
// (libuuu/buffer.cpp); "*" is the one thing in a compressed file. What it is they tell by their first bytes, not by
// their names.
type files struct{ dir string }

// maxWindow bounds what a compressed file may make its reader keep.
const maxWindow = 128 << 20

// path is a name as it is to be opened.
func (f files) path(name string) string {
	if filepath.IsAbs(name) || f.dir == "" || image.IsURL(name) {
		return filepath.FromSlash(name)
	}
	return filepath.Join(f.dir, filepath.FromSlash(name))
}

// errURL says what to do with an address.
var errURL = errors.New("addresses of the network are taken by flash -raw2sparse only: fetch the file first")

// split finds the file in a path: path is file, or file/inside.
func split(path string) (file, inside string, err error) {
	for i := 0; i <= len(path); i++ {
		if i < len(path) && path[i] != filepath.Separator || i == 0 {
			continue
		}
		info, err := os.Stat(path[:i])
		switch {
		case err != nil && errors.Is(err, fs.ErrNotExist):
			return "", "", err
		case err != nil:
			return "", "", err
		case !info.IsDir() && i < len(path):
			return path[:i], path[i+1:], nil
		case info.IsDir() && i == len(path):
			return "", "", &fs.PathError{Op: "open", Path: path, Err: errors.New("is a directory")}
		}
	}
	return path, "", nil
}

// content is an opened file.
type content struct {
	io.Reader
	size  int64 // -1: only the end will tell
	close func() error
}

func (c *content) Close() error { return c.close() }

// open opens what a script names.
func (f files) open(name string) (*content, error) {
	if image.IsURL(name) {
		return nil, errURL
	}
	file, inside, err := split(f.path(name))
	if err != nil {
		return nil, err
	}
	r, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	c, err := within(r, inside)
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// within opens what is in a file.
func within(r *os.File, inside string) (*content, error) {
	info, err := r.Stat()
	if err != nil {
		return nil, err
	}
	c := &content{r, info.Size(), r.Close}
	if !info.Mode().IsRegular() {
		c.size = -1
	}
	if inside == "" {
		return c, nil
	}
	var head [4]byte
	if n, _ := r.ReadAt(head[:], 0); n == len(head) && string(head[:]) == "PK\x03\x04" {
		return zipped(r, info.Size(), inside)
	}
	return unpack(c, inside)
}

// encrypted is a flag of a file in a zip archive (APPNOTE.TXT, 4.4.4), which package zip does not look at.
const encrypted = 1

// zipped opens a file of a zip archive, whose directory is at its end.
func zipped(r *os.File, size int64, inside string) (*content, error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, err
	}
	// The longest name that the path begins with.
	for name := inside; ; {
		for _, f := range z.File {
			if f.Name != filepath.ToSlash(name) || f.FileInfo().IsDir() {
				continue
			}
			if f.Flags&encrypted != 0 {
				return nil, fmt.Errorf("%s is encrypted in the archive: unpack it first", name)
			}
			in, err := f.Open()
			if err != nil {
				return nil, err
			}
			c := &content{in, int64(f.UncompressedSize64), func() error { return errors.Join(in.Close(), r.Close()) }}
			if name == inside {
				return c, nil
			}
			return unpack(c, inside[len(name)+1:])
		}
		i := strings.LastIndexByte(name, filepath.Separator)
		if i < 0 {
			return nil, fmt.Errorf("no %s in the archive: %w", inside, fs.ErrNotExist)
		}
		name = name[:i]
	}
}

// unpack opens what is in a stream.
func unpack(c *content, inside string) (*content, error) {
	b := bufio.NewReaderSize(c, 64<<10)
	head, _ := b.Peek(512)
	first, rest, _ := strings.Cut(inside, string(filepath.Separator))
	var r io.Reader
	var err error
	switch {
	case len(head) == 512 && string(head[257:262]) == "ustar":
		return untar(tar.NewReader(b), c.close, inside)
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		r, err = gzip.NewReader(b)
	case bytes.HasPrefix(head, []byte("BZh")):
		r = bzip2.NewReader(b)
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")):
		var d *zstd.Decoder
		if d, err = zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow)); err == nil {
			r = d
			done := c.close
			c.close = func() error { d.Close(); return done() }
		}
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		r, err = xz.NewReader(b, maxWindow)
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		return nil, errors.New("a zip archive within an archive or a compressed file is not read: unpack it first")
	case len(head) == 512 && head[510] == 0x55 && head[511] == 0xaa:
		return nil, errors.New("it looks like the image of a card: files in its FAT partition are not taken, mount it and name them there")
	default:
		return nil, fmt.Errorf("nothing that has a %s in it is known: neither zip, tar, gzip, bzip2, zstd nor xz", inside)
	}
	if err != nil {
		return nil, err
	}
	if first != "*" {
		return nil, fmt.Errorf("it is a compressed file, whose contents are called *, not %s", first)
	}
	out := &content{r, -1, c.close}
	if rest == "" {
		return out, nil
	}
	return unpack(out, rest)
}

// untar opens a file of a tar archive.
func untar(t *tar.Reader, done func() error, inside string) (*content, error) {
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil, fmt.Errorf("no %s in the archive: %w", inside, fs.ErrNotExist)
		}
		if err != nil {
			return nil, err
		}
		name := filepath.FromSlash(strings.TrimPrefix(h.Name, "./"))
		rest, ok := strings.CutPrefix(inside, name)
		switch {
		case !ok || h.Typeflag != tar.TypeReg:
		case rest == "":
			return &content{t, h.Size, done}, nil
		case rest[0] == filepath.Separator:
			return unpack(&content{t, h.Size, done}, rest[1:])
		}
	}
}

// trusted is how much memory is taken for what an archive says of a file's size.
const trusted = 64 << 20

// read reads a file of at most limit bytes.
func (f files) read(name string, limit int64) ([]byte, error) {
	c, err := f.open(name)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	tooLong := func() error {
		return fmt.Errorf("%s: more than %d bytes, which are taken in one piece", name, limit)
	}
	if c.size > limit {
		return nil, tooLong()
	}
	var b bytes.Buffer
	if c.size > 0 {
		b.Grow(int(min(c.size, trusted)) + bytes.MinRead)
	}
	if _, err := io.Copy(&b, io.LimitReader(c, limit+1)); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if int64(b.Len()) > limit {
		return nil, tooLong()
	}
	return b.Bytes(), nil
}

// check opens a file for a look. A pipe or device is not opened before it is needed.
func (f files) check(w word) error {
	if file, inside, err := split(f.path(w.text)); err == nil && inside == "" {
		if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() {
			return nil
		}
	}
	c, err := f.open(w.text)
	if err != nil {
		return &columnError{w.col, err}
	}
	return c.Close()
}

package firmware

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

const (
	bootfilesMax      = 4096 // entries
	bootfilesMaxLinks = 8    // from link to link
)

// Bootfiles is an archive of what the boot loaders of Broadcom's SoCs ask their USB host for: bootfiles.bin of
// Raspberry Pi's usbboot, a tar archive (bootfiles.c, Readme.md) with a directory for each SoC, or of one SoC without.
type Bootfiles struct {
	Files []Bootfile // in the archive's order; of files with the same name the last one
	Size  int        // bytes up to the end of the last file
}

// Bootfile is a file of the archive.
type Bootfile struct {
	Name   string // "2711/bootcode4.bin"
	Data   []byte // part of the parsed slice
	Offset int
	Link   string // what it is a link to; empty: it is none
	Again  int    // how many entries of the same name came before
}

// ParseBootfiles reads the archive. Files and links to files of the archive are taken, other entries are not. One that
// is damaged is returned up to there, with the error.
func ParseBootfiles(b []byte) (*Bootfiles, error) {
	src := bytes.NewReader(b)
	archive := tar.NewReader(src)
	found := map[string]Bootfile{}
	var order []string
	f := &Bootfiles{}
	var bad error
entries:
	for n := 0; ; n++ {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && n == bootfilesMax {
			err = fmt.Errorf("it has more than %d entries", bootfilesMax)
		}
		if err != nil && n == 0 {
			return nil, fmt.Errorf("no tar archive: %w", err)
		}
		if err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = ErrTruncated
			}
			bad = fmt.Errorf("tar: after %d entries: %w", n, err)
			break
		}
		at := len(b) - src.Len()
		file := Bootfile{Name: path.Clean("/" + h.Name)[1:], Offset: at}
		switch h.Typeflag {
		case tar.TypeReg:
			if _, sparse := h.PAXRecords["GNU.sparse.major"]; sparse {
				bad = fmt.Errorf("tar: %s is sparse: make the archive without that", printable(file.Name))
				continue
			}
			if h.Size > int64(src.Len()) {
				bad = fmt.Errorf("tar: %w: %s has %d bytes, the archive ends after %d of them", ErrTruncated, printable(file.Name), h.Size, src.Len())
				break entries
			}
			file.Data = b[at : at+int(h.Size) : at+int(h.Size)]
			f.Size = at + int(h.Size)
		case tar.TypeLink:
			file.Link = path.Clean("/" + h.Linkname)[1:]
		case tar.TypeSymlink:
			file.Link = path.Join(path.Dir("/"+file.Name), h.Linkname)[1:]
		default:
			continue
		}
		if before, again := found[file.Name]; again {
			file.Again = before.Again + 1
			order = slices.DeleteFunc(order, func(s string) bool { return s == file.Name })
		}
		found[file.Name] = file
		order = append(order, file.Name)
	}
	for _, name := range order {
		file := found[name]
		to := file
		for n := 0; to.Link != "" && n < bootfilesMaxLinks; n++ {
			to = found[to.Link]
		}
		if to.Data == nil {
			continue // a link to nowhere
		}
		file.Data, file.Offset = to.Data, to.Offset
		f.Files = append(f.Files, file)
	}
	return f, bad
}

// Find finds a file in a directory of the archive, or else at its top. Case does not matter.
func (f *Bootfiles) Find(dir, name string) (Bootfile, bool) {
	for _, full := range []string{dir + "/" + name, name} {
		if i := slices.IndexFunc(f.Files, func(b Bootfile) bool { return strings.EqualFold(b.Name, full) }); i >= 0 {
			return f.Files[i], true
		}
	}
	return Bootfile{}, false
}

// bootcodes are the second stages, of BCM2835 to 2837, BCM2711 and BCM2712.
var bootcodes = []string{"bootcode.bin", "bootcode4.bin", "bootcode5.bin"}

// isBootfiles says whether a tar archive has a second stage.
func isBootfiles(b []byte) bool {
	if !matches(b, 257, "ustar") {
		return false
	}
	f, _ := ParseBootfiles(b)
	return f != nil && slices.ContainsFunc(f.Files, func(b Bootfile) bool { return slices.Contains(bootcodes, path.Base(b.Name)) })
}

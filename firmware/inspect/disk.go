package inspect

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"snag/firmware"
	"snag/firmware/fat"
)

// maxFiles is how many files of an archive or a file system are listed.
const maxFiles = 512

// bootfiles lists an archive of boot files.
func (r *Report) bootfiles() {
	f, err := firmware.ParseBootfiles(r.data)
	r.problem(err)
	if f == nil {
		return
	}
	p := &Part{Kind: kindArchive, Text: fmt.Sprintf("tar archive, files: %d", len(f.Files)), Size: f.Size}
	for i, b := range f.Files {
		if i == maxFiles {
			r.note("%d more files are not listed", len(f.Files)-i)
			break
		}
		text := b.Name
		if b.Link != "" {
			text += " -> " + b.Link
		}
		if b.Again > 0 {
			r.note("%s is in the archive %d times: the last one counts", shown(b.Name), b.Again+1)
		}
		p.Parts = append(p.Parts, &Part{Kind: kindFile, Text: shown(text), Offset: b.Offset, Size: len(b.Data)})
	}
	r.add(p)
}

// disk lists the root directory of a disk with a FAT file system.
func (r *Report) disk() {
	d, err := fat.Open(r.data)
	if err != nil {
		if !errors.Is(err, fat.ErrNone) {
			r.problem(err)
		}
		return
	}
	p := &Part{Kind: kindFileSystem, Text: fmt.Sprintf("FAT%d, clusters of %d bytes, %d bytes free", d.Bits, d.Cluster, d.Free()), Offset: d.Offset, Size: d.Size}
	if d.Label != "" {
		p.Text = fmt.Sprintf("%q: %s", shown(d.Label), p.Text)
	}
	for i, f := range d.Files() {
		if i == maxFiles {
			r.note("more files are not listed")
			break
		}
		text := f.Name
		if f.Dir {
			text += "/"
		}
		part := &Part{Kind: kindFile, Text: shown(text), Offset: d.Offset, Size: f.Size}
		if f.Offset > 0 {
			part.Offset += f.Offset
		}
		p.Parts = append(p.Parts, part)
	}
	const config = "config.txt" // small, and what all of a Raspberry Pi's boot files hang on
	if _, err := d.Read(config); err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.problem(err)
	}
	r.add(p)
}

// shown is a file's name fit for a terminal: quoted unless it is harmless.
func shown(name string) string {
	if q := strconv.Quote(name); len(q) != len(name)+2 {
		return q
	}
	return name
}

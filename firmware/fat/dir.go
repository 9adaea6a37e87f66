package fat

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"unicode/utf16"
)

// A directory entry, little-endian (section "FAT Directory Structure"):
//
//	offset size field
//	0      11   name and extension, upper case, padded with spaces; first byte 0: the end, e5: free, 05: e5
//	11     1    attributes
//	12     1    bit 3: the name is to be shown in lower case, bit 4: the extension
//	13     7    time and date of creation, date of access
//	20     2    upper half of the first cluster
//	22     4    time and date of the last change
//	26     2    lower half of the first cluster
//	28     4    bytes
//
// Parts of a long name stand before it, the last one first:
//
//	0      1    number, from 1; bit 6: the last one
//	1      10   five characters, UTF-16; what follows the end is 0, then ffff
//	11     1    0f
//	13     1    sum of the short name
//	14     12   six characters
//	28     4    two characters
const (
	entryEnd  = 0x00
	entryFree = 0xe5

	attrVolume  = 0x08
	attrDir     = 0x10
	attrArchive = 0x20
	attrLong    = 0x0f
	attrMask    = 0x3f

	lowerBase, lowerExt = 0x08, 0x10

	lastLong     = 0x40
	longChars    = 13
	maxLongParts = 20 // 255 characters
)

// date1980 is 1980-01-01, when FAT's time begins: what is written here has no date.
const date1980 = 1<<5 | 1

// File is an entry of the root directory.
type File struct {
	Name string // the long one, if there is one
	Dir  bool   // a directory
	Size int    // bytes of a file

	Offset int // where its first cluster begins, from the boot sector; 0: it has none

	short   string
	cluster int
	slots   []int // where its entries are, the parts of its long name first
}

// slotsDo calls f for the place of each entry of the root directory, until it returns false.
func (v *Volume) slotsDo(f func(at int) bool) {
	for _, p := range v.root {
		for at := p; at+entrySize <= p+v.piece; at += entrySize {
			if !f(at) {
				return
			}
		}
	}
}

// Files lists the root directory, in its order.
func (v *Volume) Files() []File {
	var all []File
	var long [][longChars]uint16 // the parts that came, the last one first
	var sum byte
	var slots []int
	v.slotsDo(func(at int) bool {
		e := v.data[at:][:entrySize]
		switch {
		case e[0] == entryEnd:
			return false
		case e[0] == entryFree:
			long, slots = nil, nil
			return true
		case e[11]&attrMask == attrLong:
			n := int(e[0] &^ lastLong)
			if e[0]&lastLong != 0 {
				long, slots, sum = nil, nil, e[13]
			}
			if n == 0 || n > maxLongParts || e[13] != sum || e[0]&lastLong == 0 && (len(long) == 0 || n != v.part(slots[len(slots)-1])-1) {
				long, slots = nil, nil
				return true
			}
			long, slots = append(long, longPart(e)), append(slots, at)
			return true
		case e[11]&attrVolume != 0:
			long, slots = nil, nil
			return true
		}
		file := File{
			Dir: e[11]&attrDir != 0, Size: int(binary.LittleEndian.Uint32(e[28:])), short: shortName(e, 0),
			cluster: int(binary.LittleEndian.Uint16(e[26:])),
		}
		if v.Bits == 32 {
			file.cluster |= int(binary.LittleEndian.Uint16(e[20:])&0xfff) << 16
		}
		if file.Dir {
			file.Size = 0
		}
		if v.valid(file.cluster) {
			file.Offset = v.at(file.cluster)
		}
		if len(slots) > 0 && v.part(slots[len(slots)-1]) == 1 && sum == checksum(e[:11]) {
			file.Name = longName(long)
		} else {
			slots = nil
		}
		file.Name = cmp.Or(file.Name, shortName(e, e[12]))
		file.slots = append(slots, at)
		long, slots = nil, nil
		all = append(all, file)
		return true
	})
	return all
}

// part is the number of a long name's part.
func (v *Volume) part(at int) int { return int(v.data[at] &^ lastLong) }

// longPart is the characters of a long name's part.
func longPart(e []byte) (part [longChars]uint16) {
	i := 0
	for _, piece := range [][]byte{e[1:11], e[14:26], e[28:32]} {
		for ; len(piece) > 0; piece = piece[2:] {
			part[i] = binary.LittleEndian.Uint16(piece)
			i++
		}
	}
	return part
}

// longName puts the parts together, of which the last one comes first.
func longName(parts [][longChars]uint16) string {
	var all []uint16
	for _, p := range slices.Backward(parts) {
		all = append(all, p[:]...)
	}
	if end := slices.Index(all, 0); end >= 0 {
		all = all[:end]
	}
	return string(utf16.Decode(all))
}

// shortName is that of an entry, in lower case as far as the bits have it.
func shortName(e []byte, lower byte) string {
	base, ext := bytes.Clone(e[:8]), e[8:11]
	if base[0] == 0x05 {
		base[0] = entryFree
	}
	name, end := trimmed(base), trimmed(ext)
	if lower&lowerBase != 0 {
		name = strings.ToLower(name)
	}
	if lower&lowerExt != 0 {
		end = strings.ToLower(end)
	}
	if end != "" {
		name += "." + end
	}
	return name
}

func trimmed(b []byte) string { return strings.TrimRight(string(b), " \x00") }

// checksum is the sum of a short name that its long name's parts have.
func checksum(short []byte) (sum byte) {
	for _, c := range short {
		sum = sum>>1 | sum<<7
		sum += c
	}
	return sum
}

// find finds an entry by name.
func (v *Volume) find(name string) (File, error) {
	files := v.Files()
	i := slices.IndexFunc(files, func(f File) bool { return strings.EqualFold(f.Name, name) || strings.EqualFold(f.short, name) })
	if i < 0 {
		return File{}, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return files[i], nil
}

// Has says whether there is a file, or a directory, of that name.
func (v *Volume) Has(name string) bool {
	_, err := v.find(name)
	return err == nil
}

// Read reads a file. The error is a *fs.PathError: fs.ErrNotExist, ErrDamaged, or fs.ErrInvalid for a directory.
func (v *Volume) Read(name string) ([]byte, error) {
	f, err := v.find(name)
	if err != nil {
		return nil, err
	}
	fail := func(err error) error { return &fs.PathError{Op: "read", Path: name, Err: err} }
	if f.Dir {
		return nil, fail(fmt.Errorf("%w: it is a directory", fs.ErrInvalid))
	}
	chain, err := v.chain(f.cluster, f.Size)
	if err != nil {
		return nil, fail(err)
	}
	if len(chain)*v.Cluster < f.Size {
		return nil, fail(fmt.Errorf("%w: it has %d bytes, and clusters for %d", ErrDamaged, f.Size, len(chain)*v.Cluster))
	}
	data := make([]byte, 0, f.Size)
	for _, c := range chain {
		data = append(data, v.data[v.at(c):][:min(v.Cluster, f.Size-len(data))]...)
	}
	return data, nil
}

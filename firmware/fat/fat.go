// Package fat reads and changes FAT12, FAT16 and FAT32 file systems in memory: the root directory's files, which is
// where the boot loaders of SoCs look for theirs.
//
// The format is that of Microsoft's "FAT: General Overview of On-Disk Format", version 1.03. [Open] finds the file
// system in an image of a disk, [Parse] takes one that is given. [Volume.Files] and [Volume.Read] look at it,
// [Volume.Write] and [Volume.Remove] change the bytes that were given, in both copies of the allocation table. Names
// are compared as FAT does, without case. Nothing that an image says of itself is believed beyond its own length.
package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// ErrNone says that there is no FAT file system.
var ErrNone = errors.New("no FAT file system")

// ErrNoRoom says that a file does not fit.
var ErrNoRoom = errors.New("no room")

// ErrDamaged says that what the file system says of a file cannot be.
var ErrDamaged = errors.New("damaged file system")

// Volume is a file system.
type Volume struct {
	Bits     int    // 12, 16 or 32
	Label    string // as the boot sector has it
	Sector   int    // bytes
	Cluster  int    // bytes
	Clusters int    // how many there are
	Size     int    // bytes of all of it

	data    []byte
	table   int // where the allocation table begins that counts
	tables  []int
	root    []int // where the root directory's pieces lie; of FAT12 and 16 one
	piece   int   // their length
	chained []int // FAT32: the root directory's clusters
	first   int   // where cluster 2 begins
	info    int   // FAT32: where the FSInfo sector is; 0: there is none
}

const (
	maxTables  = 4
	maxRoot    = 2 << 20 // bytes of a directory: 65536 entries
	entrySize  = 32
	firstValid = 2 // the first cluster's number
)

// Parse reads the boot sector at the beginning of b, little-endian:
//
//	offset size field
//	0      3    jump: eb xx 90 or e9 xx xx
//	11     2    bytes in a sector
//	13     1    sectors in a cluster
//	14     2    reserved sectors, this one the first of them
//	16     1    allocation tables
//	17     2    entries of the root directory; 0 on FAT32
//	19     2    sectors; 0: see 32
//	22     2    sectors of an allocation table; 0: see 36
//	32     4    sectors
//	36     4    FAT32: sectors of an allocation table
//	40     2    FAT32: bit 7: bits 3-0 say which table counts alone
//	44     4    FAT32: the root directory's first cluster
//	48     2    FAT32: sector of the FSInfo
//	43, 71 11   label (FAT12 and 16, FAT32), if the byte 5 before it is 29h
//	510    2    55 aa
//
// The error wraps ErrNone if that is not one. What follows the file system in b does not belong to it.
func Parse(b []byte) (*Volume, error) {
	if len(b) < 512 || b[510] != 0x55 || b[511] != 0xaa || b[0] != 0xe9 && (b[0] != 0xeb || b[2] != 0x90) {
		return nil, fmt.Errorf("%w: no boot sector with a jump in front and 55 aa at its end", ErrNone)
	}
	le := binary.LittleEndian
	word := func(off int) int { return int(le.Uint16(b[off:])) }
	sector, perCluster, reserved, tables, entries := word(11), int(b[13]), word(14), int(b[16]), word(17)
	sectors, tableSectors := int64(word(19)), int64(word(22))
	if sectors == 0 {
		sectors = int64(le.Uint32(b[32:]))
	}
	fat32 := tableSectors == 0
	if fat32 {
		tableSectors = int64(le.Uint32(b[36:]))
	}
	switch {
	case sector < 512 || sector > 4096 || bits.OnesCount(uint(sector)) != 1,
		bits.OnesCount(uint(perCluster)) != 1, reserved == 0, tables == 0 || tables > maxTables, sectors == 0, tableSectors == 0:
		return nil, fmt.Errorf("%w: the boot sector's parameters make no sense", ErrNone)
	case sectors*int64(sector) > int64(len(b)):
		return nil, fmt.Errorf("FAT: truncated: the boot sector announces %d bytes, there are %d", sectors*int64(sector), len(b))
	}
	firstSector := int64(reserved) + int64(tables)*tableSectors + int64(entries*entrySize+sector-1)/int64(sector)
	if firstSector >= sectors {
		return nil, fmt.Errorf("%w: allocation tables and root directory fill all of it", ErrNone)
	}
	v := &Volume{Bits: 12, Sector: sector, Cluster: perCluster * sector, Size: int(sectors) * sector, first: int(firstSector) * sector}
	v.data = b[:v.Size:v.Size]
	v.Clusters = int((sectors - firstSector) / int64(perCluster))
	switch { // section "FAT Type Determination"
	case v.Clusters >= 65525:
		v.Bits = 32
	case v.Clusters >= 4085:
		v.Bits = 16
	}
	if fat32 != (v.Bits == 32) || fat32 && entries != 0 || !fat32 && entries == 0 {
		return nil, fmt.Errorf("%w: %d clusters make it FAT%d, which its boot sector does not look like", ErrNone, v.Clusters, v.Bits)
	}
	if need := (int64(v.Clusters+firstValid)*int64(v.Bits) + 7) / 8; tableSectors*int64(sector) < need {
		return nil, fmt.Errorf("FAT: damaged: %d clusters have no room in a table of %d bytes", v.Clusters, tableSectors*int64(sector))
	}
	active, alone := 0, false
	label := 43
	if fat32 {
		label = 71
		active, alone = int(b[40]&0xf), b[40]&0x80 != 0
	}
	if alone && active >= tables || !alone {
		active = 0
	}
	for n := range tables {
		if !alone || n == active {
			v.tables = append(v.tables, (reserved+n*int(tableSectors))*sector)
		}
	}
	v.table = v.tables[0]
	if b[label-5] == 0x29 {
		v.Label = trimmed(b[label:][:11])
	}
	if !fat32 {
		v.root, v.piece = []int{(reserved + tables*int(tableSectors)) * sector}, entries*entrySize
		return v, nil
	}
	if at := word(48); at > 0 && at < reserved && isInfo(b[at*sector:]) {
		v.info = at * sector
	}
	v.piece = v.Cluster
	var err error
	if v.chained, err = v.chain(int(le.Uint32(b[44:])&0x0fffffff), maxRoot); err != nil {
		return nil, fmt.Errorf("FAT: the root directory: %w", err)
	}
	for _, c := range v.chained {
		v.root = append(v.root, v.at(c))
	}
	return v, nil
}

// isInfo says whether it is a FSInfo sector: "RRaA" at 0, "rrAa" at 484, free clusters (or ffffffff) at 488, where to
// look for them first at 492.
func isInfo(b []byte) bool {
	return len(b) >= 512 && string(b[:4]) == "RRaA" && string(b[484:488]) == "rrAa"
}

// at is where a cluster begins.
func (v *Volume) at(cluster int) int { return v.first + (cluster-firstValid)*v.Cluster }

// valid says whether there is a cluster of that number.
func (v *Volume) valid(cluster int) bool {
	return cluster >= firstValid && cluster < v.Clusters+firstValid
}

// next reads a cluster's entry of the allocation table: the number of the next cluster of the chain, 0 if it is free,
// or at least end.
func (v *Volume) next(cluster int) int {
	switch v.Bits {
	case 32:
		return int(binary.LittleEndian.Uint32(v.data[v.table+4*cluster:]) & 0x0fffffff)
	case 16:
		return int(binary.LittleEndian.Uint16(v.data[v.table+2*cluster:]))
	}
	w := binary.LittleEndian.Uint16(v.data[v.table+cluster+cluster/2:])
	if cluster&1 == 1 {
		return int(w >> 4)
	}
	return int(w & 0xfff)
}

// end is the least entry that ends a chain.
func (v *Volume) end() int { return 1<<min(v.Bits, 28) - 8 }

// set writes a cluster's entry, into all tables.
func (v *Volume) set(cluster, next int) {
	for _, t := range v.tables {
		switch v.Bits {
		case 32:
			b := v.data[t+4*cluster:] // the upper four bits are reserved
			binary.LittleEndian.PutUint32(b, binary.LittleEndian.Uint32(b)&0xf0000000|uint32(next))
		case 16:
			binary.LittleEndian.PutUint16(v.data[t+2*cluster:], uint16(next))
		default:
			b := v.data[t+cluster+cluster/2:]
			w := binary.LittleEndian.Uint16(b)
			if cluster&1 == 1 {
				w = w&0xf | uint16(next)<<4
			} else {
				w = w&0xf000 | uint16(next)
			}
			binary.LittleEndian.PutUint16(b, w)
		}
	}
}

// chain follows a chain of clusters that may hold so many bytes at most, and one cluster more. 0 is the chain of an
// empty file.
func (v *Volume) chain(cluster, most int) ([]int, error) {
	var all []int
	if cluster == 0 {
		return nil, nil
	}
	for most = min(most/v.Cluster+1, v.Clusters); ; most-- {
		switch {
		case !v.valid(cluster):
			return nil, fmt.Errorf("%w: its chain of clusters leads to number %d of %d", ErrDamaged, cluster, v.Clusters)
		case most == 0:
			return nil, fmt.Errorf("%w: its chain of clusters is longer than it may be", ErrDamaged)
		}
		all = append(all, cluster)
		if cluster = v.next(cluster); cluster >= v.end() {
			return all, nil
		}
	}
}

// Free counts the bytes that are free.
func (v *Volume) Free() int { return v.free() * v.Cluster }

func (v *Volume) free() (n int) {
	for c := firstValid; c < v.Clusters+firstValid; c++ {
		if v.next(c) == 0 {
			n++
		}
	}
	return n
}

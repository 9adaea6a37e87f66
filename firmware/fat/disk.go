package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Disk is an image of a disk with a FAT file system.
type Disk struct {
	*Volume
	Partition int // that the file system is in, from 1; 0: it is the whole disk
	GPT       bool
	Offset    int // where it begins, bytes
}

// diskSector is the unit of partition tables in images of disks.
const diskSector = 512

// types are those of FAT in a boot sector's partition table: FAT12, FAT16 (up to 32 MiB, above, by LBA), FAT32 (and by
// LBA).
var types = []byte{0x01, 0x04, 0x06, 0x0b, 0x0c, 0x0e}

const typeGPT = 0xee

// Open finds the file system in an image of a disk: in the first partition that can have one, or without partitions.
// The boot sector's partition table has four entries of 16 bytes from 446 on, little-endian:
//
//	offset size field
//	0      1    80: active, 0: not, which does not matter here
//	4      1    type
//	8      4    first sector
//	12     4    sectors
//
// That of a GPT says where it is (UEFI Specification 2.10, section 5.3). The error wraps ErrNone if there is no such
// file system.
func Open(image []byte) (*Disk, error) {
	if len(image) < diskSector || image[510] != 0x55 || image[511] != 0xaa {
		return nil, fmt.Errorf("%w: no boot sector with 55 aa at its end", ErrNone)
	}
	v, err := Parse(image)
	if err == nil {
		return &Disk{Volume: v}, nil
	}
	if !errors.Is(err, ErrNone) {
		return nil, err
	}
	for n := range 4 {
		e := image[446+16*n:][:16]
		if e[0]&0x7f != 0 {
			return nil, fmt.Errorf("%w: the boot sector has neither that nor a partition table", ErrNone)
		}
		start := int64(binary.LittleEndian.Uint32(e[8:]))
		switch {
		case e[4] == typeGPT:
			return openGPT(image)
		case !slices.Contains(types, e[4]):
			continue
		}
		return open(image, n+1, start, int64(binary.LittleEndian.Uint32(e[12:])))
	}
	return nil, fmt.Errorf("%w: the partition table has no partition for one", ErrNone)
}

// open reads the file system of a partition.
func open(image []byte, partition int, start, sectors int64) (*Disk, error) {
	if start <= 0 || start*diskSector >= int64(len(image)) {
		return nil, fmt.Errorf("FAT: truncated: partition %d begins at sector %d, the image has %d", partition, start, len(image)/diskSector)
	}
	part := image[start*diskSector:]
	if sectors > 0 && sectors*diskSector < int64(len(part)) {
		part = part[:sectors*diskSector]
	}
	v, err := Parse(part)
	if err != nil {
		return nil, fmt.Errorf("partition %d: %w", partition, err)
	}
	return &Disk{Volume: v, Partition: partition, Offset: int(start) * diskSector}, nil
}

// The types of GPT partitions that may have the file system: EFI System Partition, and Microsoft's basic data.
var guids = []string{
	"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b",
	"\xa2\xa0\xd0\xeb\xe5\xb9\x33\x44\x87\xc0\x68\xb6\xb7\x26\x99\xc7",
}

// maxGPT is how many partitions are looked at.
const maxGPT = 128

// openGPT looks at the header in sector 1 ("EFI PART"; at 72 the table's first sector, at 80 its entries, at 84 their
// size) and at the entries (type at 0, first and last sector at 32 and 40).
func openGPT(image []byte) (*Disk, error) {
	if len(image) < 2*diskSector || string(image[diskSector:][:8]) != "EFI PART" {
		return nil, fmt.Errorf("%w: the GUID partition table is missing", ErrNone)
	}
	le := binary.LittleEndian
	h := image[diskSector:]
	at, n, size := le.Uint64(h[72:]), le.Uint32(h[80:]), uint64(le.Uint32(h[84:]))
	if size < 128 || size > 4096 || at > uint64(len(image)/diskSector) {
		return nil, fmt.Errorf("%w: the GUID partition table is damaged", ErrNone)
	}
	table := image[at*diskSector:]
	for i := range uint64(min(n, maxGPT)) {
		if (i+1)*size > uint64(len(table)) {
			break
		}
		e := table[i*size:]
		first, last := le.Uint64(e[32:]), le.Uint64(e[40:])
		if !slices.Contains(guids, string(e[:16])) {
			continue
		}
		if first > last || last > uint64(len(image)) {
			return nil, fmt.Errorf("FAT: truncated: partition %d is from sector %d to %d, the image has %d", i+1, first, last, len(image)/diskSector)
		}
		d, err := open(image, int(i+1), int64(first), int64(last-first+1))
		if d != nil {
			d.GPT = true
		}
		return d, err
	}
	return nil, fmt.Errorf("%w: the GUID partition table has no partition for one", ErrNone)
}

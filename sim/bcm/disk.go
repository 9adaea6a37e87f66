package bcm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"
)

// disk is boot.img as the second stage reads it: a FAT file system in the first partition that is not empty, or without
// partitions (Microsoft, "FAT: General Overview of On-Disk Format").
type disk struct {
	b                    []byte
	bits                 int
	table, root, data    int // offsets
	rootSize, rootChain  int // bytes; first cluster
	cluster, lastCluster int
	alike                bool // the copies of the allocation table are
}

var errDisk = errors.New("no disk with FAT")

// openDisk finds the file system.
func openDisk(image []byte) (*disk, error) {
	le := binary.LittleEndian
	b := image
	if len(b) < 512 || b[510] != 0x55 || b[511] != 0xaa {
		return nil, errDisk
	}
	if b[0] != 0xeb && b[0] != 0xe9 {
		start := 0
		for entry := 446; entry < 510 && start == 0; entry += 16 {
			start = int(le.Uint32(b[entry+8:])) * 512
		}
		if start == 0 || start+512 > len(b) {
			return nil, errDisk
		}
		b = b[start:]
	}
	sector, reserved, tables := int(le.Uint16(b[11:])), int(le.Uint16(b[14:])), int(b[16])
	entries, sectors, size := int(le.Uint16(b[17:])), int(le.Uint16(b[19:])), int(le.Uint16(b[22:]))
	if sectors == 0 {
		sectors = int(le.Uint32(b[32:]))
	}
	if size == 0 {
		size = int(le.Uint32(b[36:]))
	}
	d := &disk{b: b, cluster: int(b[13]) * sector, table: reserved * sector, bits: 12}
	d.root = d.table + tables*size*sector
	d.rootSize = entries * 32
	d.data = d.root + (d.rootSize+sector-1)/max(sector, 1)*sector
	if d.cluster == 0 || sectors*sector > len(b) || d.data >= sectors*sector || tables == 0 || size == 0 {
		return nil, fmt.Errorf("%w: its boot sector is wrong", errDisk)
	}
	clusters := (sectors*sector - d.data) / d.cluster
	d.lastCluster = clusters + 1
	if clusters >= 4085 {
		d.bits = 16
	}
	if clusters >= 65525 {
		d.bits, d.rootChain = 32, int(le.Uint32(b[44:]))
	}
	if size*sector*8 < (clusters+2)*d.bits {
		return nil, fmt.Errorf("%w: its table is too small", errDisk)
	}
	first := b[d.table:][:size*sector]
	d.alike = true
	for n := range tables {
		d.alike = d.alike && bytes.Equal(first, b[d.table+n*size*sector:][:size*sector])
	}
	return d, nil
}

// read reads a chain of clusters.
func (d *disk) read(cluster int) ([]byte, error) {
	var all []byte
	for range d.lastCluster {
		if cluster < 2 || cluster > d.lastCluster {
			return nil, fmt.Errorf("a file with cluster %d of %d", cluster, d.lastCluster)
		}
		all = append(all, d.b[d.data+(cluster-2)*d.cluster:][:d.cluster]...)
		switch t := d.b[d.table:]; d.bits {
		case 32:
			cluster = int(binary.LittleEndian.Uint32(t[cluster*4:]) & 0xfffffff)
		case 16:
			cluster = int(binary.LittleEndian.Uint16(t[cluster*2:]))
			if cluster >= 0xfff8 {
				cluster |= 0xffffff8
			}
		default:
			at := cluster * 3 / 2
			v := int(t[at]) | int(t[at+1])<<8
			if cluster%2 == 1 {
				v >>= 4
			}
			if cluster = v & 0xfff; cluster >= 0xff8 {
				cluster |= 0xffffff8
			}
		}
		if cluster >= 0xffffff8 {
			return all, nil
		}
	}
	return nil, errors.New("a file without end")
}

// file reads a file of the root directory, by its short name or its long one.
func (d *disk) file(name string) ([]byte, error) {
	dir := d.b[d.root:][:d.rootSize]
	if d.bits == 32 {
		var err error
		if dir, err = d.read(d.rootChain); err != nil {
			return nil, err
		}
	}
	long := ""
	for ; len(dir) >= 32 && dir[0] != 0; dir = dir[32:] {
		e := dir[:32]
		switch {
		case e[0] == 0xe5:
			long = ""
			continue
		case e[11] == 0x0f:
			var part []uint16
			for _, at := range []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
				if c := binary.LittleEndian.Uint16(e[at:]); c != 0 && c != 0xffff {
					part = append(part, c)
				}
			}
			long = string(utf16.Decode(part)) + long
			continue
		}
		short := strings.TrimSpace(string(e[:8]))
		if ext := strings.TrimSpace(string(e[8:11])); ext != "" {
			short += "." + ext
		}
		if e[11]&0x18 == 0 && (strings.EqualFold(short, name) || strings.EqualFold(long, name)) {
			size, first := int(binary.LittleEndian.Uint32(e[28:])), int(binary.LittleEndian.Uint16(e[26:]))|int(binary.LittleEndian.Uint16(e[20:]))<<16
			if size == 0 {
				return nil, nil
			}
			if d.bits != 32 {
				first &= 0xffff
			}
			data, err := d.read(first)
			if err != nil || len(data) < size {
				return nil, fmt.Errorf("%s: %d bytes, %d are there: %v", name, size, len(data), err)
			}
			return data[:size], nil
		}
		long = ""
	}
	return nil, fmt.Errorf("there is no %s", name)
}

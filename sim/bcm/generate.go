package bcm

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// Generate makes firmware of about a size for a board, by its names in a configuration: bootfiles, config and u-boot,
// for a SoC that boots from a RAM disk boot too. The kernel has size bytes, U-Boot half of that. It differs from seed
// to seed.
func Generate(m Model, size int, seed uint64) map[string][]byte {
	r := rand.New(rand.NewPCG(seed, uint64(len(m.Name))))
	program := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		copy(b, "\x7f\x80\xff\xfe") // no text
		return b
	}
	files := map[string][]byte{m.Bootcode: program(70_001)}
	all := map[string][]byte{"u-boot": uboot(program(size/2), m.Name == "bcm2835" || m.Name == "bcm2836")}
	if m.memsys == 0 {
		files["start.elf"], files["fixup.dat"], files[m.tree], files[m.kernel] = program(50_000), program(6000), program(20_000), program(size)
		files["cmdline.txt"] = []byte("console=ttyS0\n")
		all["config"] = []byte("uart_2ndstage=1\n")
	} else {
		files["mcb.bin"], files["bootmain"] = program(7092), program(200_000)
		for n := range m.memsys {
			files[fmt.Sprintf("memsys%02d.bin", n)] = program(20_492)
		}
		for _, name := range m.extra {
			files[name] = program(16384)
		}
		all["config"] = []byte("boot_ramdisk=1\nuart_2ndstage=1\n")
		all["boot"] = Disk(size*5/2+200_000, map[string][]byte{
			"config.txt": []byte("# of the image\nkernel=" + m.kernel + "\n"), m.kernel: program(size),
			"start4.elf": program(30_000), "fixup4.dat": program(5000), "cmdline.txt": []byte("quiet\n"),
		})
	}
	all["bootfiles"] = Archive(m.Dir, files)
	return all
}

// uboot makes what looks like U-Boot: a branch over an address or over vectors, and its banner.
func uboot(b []byte, arm32 bool) []byte {
	le := binary.LittleEndian
	if arm32 {
		le.PutUint32(b, 0xea0000b8)
		for i := 1; i < 8; i++ {
			le.PutUint32(b[4*i:], 0xe59ff014)
		}
		for i := 8; i < 16; i++ {
			le.PutUint32(b[4*i:], 0x8060)
		}
	} else {
		le.PutUint32(b, 0x1400000a)
		le.PutUint32(b[4:], 0xd503201f)
		le.PutUint64(b[8:], 0x80000)
	}
	copy(b[1024:], "U-Boot 2026.01 (virtual)\x00")
	return b
}

// Archive makes bootfiles.bin: a tar archive with the files in a directory.
func Archive(dir string, files map[string][]byte) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755})
	for _, name := range slices.Sorted(maps.Keys(files)) {
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: dir + "/" + name, Mode: 0o644, Size: int64(len(files[name]))})
		w.Write(files[name])
	}
	w.Close()
	return b.Bytes()
}

// Disk makes an image of a disk with one partition of at least so many bytes: FAT12 or FAT16 with one sector a cluster,
// or two. Long names have no short form of their own.
func Disk(size int, files map[string][]byte) []byte {
	const sector, start, entries = 512, 64, 512
	le := binary.LittleEndian
	per, bits := 1, 12
	clusters := size/sector + 1
	if clusters >= 4085 {
		bits = 16
	}
	for ; clusters/per >= 65500; per *= 2 {
	}
	clusters = (clusters + per - 1) / per
	table := ((clusters+2)*bits/8 + sector) / sector
	first := 1 + 2*table + entries*32/sector
	total := first + clusters*per
	image := make([]byte, (start+total)*sector)
	p := image[446:]
	p[0], p[4] = 0x80, 0x0e
	le.PutUint32(p[8:], start)
	le.PutUint32(p[12:], uint32(total))
	image[510], image[511] = 0x55, 0xaa

	b := image[start*sector:]
	copy(b, "\xeb\x3c\x90virtual ")
	le.PutUint16(b[11:], sector)
	b[13], b[14], b[16] = byte(per), 1, 2
	le.PutUint16(b[17:], entries)
	le.PutUint32(b[32:], uint32(total))
	le.PutUint16(b[22:], uint16(table))
	b[21], b[510], b[511] = 0xf8, 0x55, 0xaa
	set := func(cluster, next int) {
		for n := range 2 {
			t := b[(1+n*table)*sector:]
			if bits == 16 {
				le.PutUint16(t[cluster*2:], uint16(next))
				continue
			}
			v := le.Uint16(t[cluster*3/2:])
			if cluster%2 == 1 {
				v = v&0x000f | uint16(next)<<4
			} else {
				v = v&0xf000 | uint16(next)
			}
			le.PutUint16(t[cluster*3/2:], v)
		}
	}
	end := 1<<bits - 1
	set(0, end&^7)
	set(1, end)
	dir, next := b[(1+2*table)*sector:], 2
	for _, name := range slices.Sorted(maps.Keys(files)) {
		data := files[name]
		base, ext, _ := strings.Cut(strings.ToUpper(name), ".")
		if len(base) > 8 {
			base = base[:6] + "~1"
			sum := byte(0)
			for _, c := range []byte(fmt.Sprintf("%-8s%-3s", base, ext)) {
				sum = sum>>1 + sum<<7 + c
			}
			dir = longEntries(dir, name, sum)
		}
		e := dir[:32]
		copy(e, fmt.Sprintf("%-8s%-3s", base, ext))
		e[11] = 0x20
		le.PutUint32(e[28:], uint32(len(data)))
		if len(data) > 0 {
			le.PutUint16(e[26:], uint16(next))
		}
		copy(b[(first+(next-2)*per)*sector:], data)
		for n := (len(data) + per*sector - 1) / (per * sector); n > 0; n-- {
			if n == 1 {
				set(next, end)
			} else {
				set(next, next+1)
			}
			next++
		}
		dir = dir[32:]
	}
	return image
}

// longEntries writes a long name, and returns what follows it.
func longEntries(dir []byte, name string, sum byte) []byte {
	units := []rune(name) // ASCII
	parts := (len(units) + 12) / 13
	for n := parts; n > 0; n-- {
		e := dir[:32]
		e[0], e[11], e[13] = byte(n), 0x0f, sum
		if n == parts {
			e[0] |= 0x40
		}
		for i, at := range []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
			c := uint16(0xffff)
			if k := (n-1)*13 + i; k < len(units) {
				c = uint16(units[k])
			} else if k == len(units) {
				c = 0
			}
			binary.LittleEndian.PutUint16(e[at:], c)
		}
		dir = dir[32:]
	}
	return dir
}

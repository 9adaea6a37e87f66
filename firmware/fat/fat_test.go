package fat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"snag/internal/lab"
)

// pattern is data that no two files have in common.
func pattern(n, seed int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + seed)
	}
	return b
}

// format is a file system as mkfs.fat of dosfstools makes it.
type format struct {
	bits, kib int
	args      string
}

var formats = []format{
	{12, 1440, "-F 12"}, {12, 4000, "-F 12 -s 4 -f 1"}, {16, 4096, "-F 16 -s 1"}, {16, 40_000, "-F 16 -r 128"}, {16, 20_000, "-F 16 -S 1024 -s 1"},
	{32, 40_000, "-F 32 -s 1"}, {32, 300_000, "-F 32 -S 4096 -s 1"}, {32, 80_000, "-F 32 -s 2 -f 1"},
}

// make makes it, with files, in a temporary directory.
func (f format) make(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	image := filepath.Join(dir, "fat.img")
	run(t, lab.Command(t, "mkfs.fat", "dosfstools", append(strings.Fields(f.args), "-n", "BOOT", "-C", image, fmt.Sprint(f.kib))...))
	for _, name := range slices.Sorted(maps.Keys(files)) {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, files[name], 0o644); err != nil {
			t.Fatal(err)
		}
		run(t, lab.Command(t, "mcopy", "mtools", "-i", image, file, "::"+name))
	}
	return image
}

func run(t *testing.T, cmd *exec.Cmd) []byte {
	t.Helper()
	cmd.Env = append(cmd.Environ(), "MTOOLS_SKIP_CHECK=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, out, &stderr)
	}
	return out
}

// What dosfstools and mtools make is read, and what is written here they find right: dosfstools' fsck.fat has nothing
// to say of it, and mtools read it.
func TestForeign(t *testing.T) {
	if testing.Short() {
		t.Skip("short tests fetch no packages (dosfstools, mtools)")
	}
	for _, f := range formats {
		t.Run(f.args, func(t *testing.T) {
			t.Parallel()
			files := map[string][]byte{
				"config.txt": []byte("arm_64bit=1\n"), "KERNEL8.IMG": pattern(300_001, 1), "empty": nil, "bcm2711-rpi-4-b.dtb": pattern(50_000, 2),
				"A name with 255 characters" + strings.Repeat("x", 225) + ".end": pattern(1, 3), "start4.elf": pattern(8192, 4),
			}
			image := f.make(t, files)
			run(t, lab.Command(t, "mmd", "mtools", "-i", image, "::overlays"))
			b, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			v, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			if v.Bits != f.bits || v.Label != "BOOT" || v.Size > f.kib<<10 {
				t.Errorf("FAT%d %q, %d bytes", v.Bits, v.Label, v.Size)
			}
			dirs := 0
			for _, file := range v.Files() {
				want, ok := files[file.Name]
				if file.Dir {
					dirs++
				} else if !ok || file.Size != len(want) || len(want) > 0 && file.Offset == 0 {
					t.Errorf("%+v", file)
				}
			}
			if n := len(v.Files()); n != len(files)+1 || dirs != 1 {
				t.Errorf("%d files, %d directories", n, dirs)
			}

			write := func(name string, data []byte) {
				t.Helper()
				if err := v.Write(name, data); err != nil {
					t.Fatal(err)
				}
				for old := range files {
					if strings.EqualFold(old, name) {
						delete(files, old)
					}
				}
				files[name] = data
			}
			write("u-boot.bin", pattern(600_000, 6))
			write("config.txt", []byte("kernel=u-boot.bin\n"))
			write("kernel8.img", pattern(400_000, 7))
			write("kernel8.img", pattern(10, 8))
			write("start4.elf", nil)
			for i := range 40 { // more than what the root directory's first cluster has
				write(fmt.Sprintf("f%d.txt", i), pattern(i*100, i))
			}
			if err := v.Remove("BCM2711-RPI-4-B.dtb"); err != nil {
				t.Fatal(err)
			}
			delete(files, "bcm2711-rpi-4-b.dtb")
			if err := errors.Join(v.Remove("f7.txt"), v.Remove("f7.txt")); err != nil {
				t.Fatal(err)
			}
			delete(files, "f7.txt")
			if err := v.Write("overlays", nil); err == nil {
				t.Error("a directory was overwritten")
			}

			if err := os.WriteFile(image, b, 0o644); err != nil {
				t.Fatal(err)
			}
			out := run(t, lab.Command(t, "fsck.fat", "dosfstools", "-n", "-v", image))
			for _, bad := range []string{"Reclaim", "differ", "wrong", "Wrong", "orphan", "Orphan"} {
				if bytes.Contains(out, []byte(bad)) {
					t.Errorf("fsck.fat:\n%s", out)
					break
				}
			}
			for name, want := range files {
				got, err := v.Read(strings.ToUpper(name))
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes, %v, want %d", name, len(got), err, len(want))
				}
				if got := run(t, lab.Command(t, "mtype", "mtools", "-i", image, "::"+name)); !bytes.Equal(got, want) {
					t.Errorf("mtools: %s: %d bytes, want %d", name, len(got), len(want))
				}
			}
			if list := string(run(t, lab.Command(t, "mdir", "mtools", "-b", "-i", image, "::"))); !strings.Contains(list, "::/u-boot.bin\n") || strings.Contains(list, "dtb") {
				t.Errorf("mtools list:\n%s", list)
			}
		})
	}
}

// small is a FAT12 of so many clusters of 512 bytes, with 16 entries in its root directory.
func small(clusters int) []byte {
	const reserved, root, table = 1, 1, 1
	b := make([]byte, (reserved+2*table+root+clusters)*512)
	copy(b, "\xeb\x3c\x90mkfs.fat")
	le := binary.LittleEndian
	le.PutUint16(b[11:], 512)
	b[13], b[14], b[16] = 1, reserved, 2
	le.PutUint16(b[17:], 16)
	le.PutUint16(b[19:], uint16(len(b)/512))
	le.PutUint16(b[22:], table)
	b[38] = 0x29
	copy(b[43:], "SMALL      FAT12   ")
	b[510], b[511] = 0x55, 0xaa
	for _, t := range []int{512, 1024} {
		copy(b[t:], "\xf8\xff\xff")
	}
	return b
}

// big is a FAT32 of some clusters more than FAT16 can have, none of them written to.
func big() []byte {
	const reserved, clusters, table = 32, 65600, 513
	b := make([]byte, (reserved+2*table+clusters)*512)
	copy(b, "\xeb\x58\x90mkfs.fat")
	le := binary.LittleEndian
	le.PutUint16(b[11:], 512)
	b[13], b[14], b[16] = 1, reserved, 2
	le.PutUint32(b[32:], uint32(len(b)/512))
	le.PutUint32(b[36:], table)
	le.PutUint32(b[44:], 2)
	le.PutUint16(b[48:], 1)
	copy(b[512:], "RRaA")
	copy(b[512+484:], "rrAa")
	b[510], b[511] = 0x55, 0xaa
	for _, t := range []int{reserved * 512, (reserved + table) * 512} {
		copy(b[t:], "\xf8\xff\xff\x0f\xff\xff\xff\x0f\xff\xff\xff\x0f")
	}
	return b
}

// Every cluster is used, the last one too, and what does not fit changes nothing.
func TestRoom(t *testing.T) {
	b := small(100)
	v, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if v.Free() != 100*512 {
		t.Errorf("%d bytes are free", v.Free())
	}
	if err := v.Write("all.bin", pattern(100*512, 1)); err != nil {
		t.Fatal(err)
	}
	before := bytes.Clone(b)
	for _, tc := range []struct {
		name string
		n    int
		err  error
	}{
		{"one.bin", 1, ErrNoRoom}, {"all.bin", 100*512 + 1, ErrNoRoom}, {"no.thing", 1, fs.ErrInvalid}, {"Upper.bin", 1, fs.ErrInvalid}, {"a.b.c", 1, fs.ErrInvalid}, {"", 1, fs.ErrInvalid},
	} {
		if err := v.Write(tc.name, make([]byte, tc.n)); !errors.Is(err, tc.err) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.err)
		}
	}
	if !bytes.Equal(b, before) {
		t.Error("what was refused has changed something")
	}
	if err := v.Write("all.bin", pattern(99*512, 2)); err != nil {
		t.Fatal(err)
	}
	for i := range 15 {
		if err := v.Write(fmt.Sprintf("%d", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Write("more", nil); !errors.Is(err, ErrNoRoom) || !strings.Contains(err.Error(), "the root directory is full") {
		t.Error(err)
	}
	if data, err := v.Read("ALL.BIN"); err != nil || !bytes.Equal(data, pattern(99*512, 2)) || v.Free() != 512 {
		t.Errorf("%d bytes, %v; %d free", len(data), err, v.Free())
	}
	if !bytes.Equal(b[512:1024], b[1024:1536]) {
		t.Error("the tables differ")
	}
}

// A FAT32's root directory grows, and its FSInfo is kept.
func TestGrow(t *testing.T) {
	b := big()
	v, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 { // 16 entries a cluster
		if err := v.Write(fmt.Sprintf("%d", i), []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	again, err := Parse(b)
	if err != nil || len(again.Files()) != 40 {
		t.Fatalf("%d files, %v", len(again.Files()), err)
	}
	if free := binary.LittleEndian.Uint32(b[512+488:]); int(free)*512 != v.Free() || again.Free() != v.Free() || free != 65600-40-3 {
		t.Errorf("FSInfo says %d, %d free", free, v.Free()/512)
	}
}

// What a damaged file system says of a file is not believed.
func TestDamaged(t *testing.T) {
	set := func(off int, bytes ...byte) func(*Volume, []byte) {
		return func(_ *Volume, b []byte) { copy(b[off:], bytes) }
	}
	const entry, root = 0, 512 + 1024
	for _, tc := range []struct {
		name   string
		damage func(*Volume, []byte)
		says   string
	}{
		{"chain that never ends", func(v *Volume, _ []byte) { v.set(4, 2) }, "its chain of clusters is longer than it may be"},
		{"chain into nowhere", func(v *Volume, _ []byte) { v.set(3, 0xff0) }, "leads to number 4080 of 100"},
		{"chain to a free cluster", func(v *Volume, _ []byte) { v.set(3, 0) }, "leads to number 0 of 100"},
		{"chain too short", func(v *Volume, _ []byte) { v.set(3, 0xfff) }, "it has 2000 bytes, and clusters for 1024"},
		{"size", set(root+entry+28, 0xff, 0xff, 0xff, 0xff), "it has 4294967295 bytes, and clusters for 2048"},
		{"no first cluster", set(root+entry+26, 0, 0), "it has 2000 bytes, and clusters for 0"},
		{"first cluster 1", set(root+entry+26, 1, 0), "leads to number 1 of 100"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := small(100)
			v, err := Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			if err := v.Write("file.bin", pattern(2000, 1)); err != nil {
				t.Fatal(err)
			}
			tc.damage(v, b)
			data, err := v.Read("file.bin")
			if err == nil || !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%d bytes, %v, want %q", len(data), err, tc.says)
			}
		})
	}
}

// disk puts a file system into a partition.
func disk(volume []byte, typ byte) []byte {
	b := make([]byte, 64*512, 64*512+len(volume))
	e := b[446:]
	e[4] = typ
	binary.LittleEndian.PutUint32(e[8:], 64)
	binary.LittleEndian.PutUint32(e[12:], uint32(len(volume)/512))
	b[510], b[511] = 0x55, 0xaa
	return append(b, volume...)
}

// gpt puts it into the second partition of a GUID partition table.
func gpt(volume []byte) []byte {
	b := disk(volume, typeGPT)
	le := binary.LittleEndian
	h := b[512:]
	copy(h, "EFI PART")
	le.PutUint64(h[72:], 2)
	le.PutUint32(h[80:], 128)
	le.PutUint32(h[84:], 128)
	for i, guid := range []string{strings.Repeat("x", 16), guids[1]} {
		e := b[1024+i*128:]
		copy(e, guid)
		le.PutUint64(e[32:], 64)
		le.PutUint64(e[40:], 64+uint64(len(volume)/512)-1)
	}
	return b
}

func TestOpen(t *testing.T) {
	volume := small(100)
	edit := func(b []byte, off int, bytes ...byte) []byte {
		copy(b[off:], bytes)
		return b
	}
	for _, tc := range []struct {
		name      string
		image     []byte
		partition int
		says      string
	}{
		{"bare", volume, 0, ""},
		{"active", edit(disk(volume, 0x0e), 446, 0x80), 1, ""},
		{"not active", disk(volume, 0x0c), 1, ""},
		{"second", edit(edit(disk(volume, 0x83), 446+16+4, 0x01), 446+16+8, 64), 2, ""},
		{"GPT", gpt(volume), 2, ""},
		{"nothing", nil, 0, "no FAT file system: no boot sector"},
		{"no signature", edit(disk(volume, 1), 510, 0), 0, "no boot sector with 55 aa"},
		{"other types", disk(volume, 0x83), 0, "the partition table has no partition for one"},
		{"code", edit(disk(volume, 1), 446, 0x12), 0, "neither that nor a partition table"},
		{"behind the end", disk(volume, 1)[:64*512], 0, "truncated: partition 1 begins at sector 64, the image has 64"},
		{"cut", disk(volume, 1)[:64*512+40*512], 0, "partition 1: FAT: truncated: the boot sector announces 53248 bytes, there are 20480"},
		{"bare, cut", volume[:5000], 0, "truncated: the boot sector announces 53248 bytes, there are 5000"},
		{"no file system", disk(make([]byte, 10_000), 1), 0, "partition 1: no FAT file system"},
		{"no GPT", disk(volume, typeGPT), 0, "the GUID partition table is missing"},
		{"GPT of nonsense", edit(gpt(volume), 512+72, 0xff, 0xff, 0xff, 0xff, 0xff), 0, "the GUID partition table is damaged"},
		{"GPT with a partition of nonsense", edit(gpt(volume), 1024+128+40, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), 0, "partition 2 is from sector 64 to 18446744073709551615"},
		{"too small a table", small(600), 0, "600 clusters have no room in a table of 512 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, err := Open(tc.image)
			if tc.says == "" {
				if err != nil || d.Partition != tc.partition || d.Label != "SMALL" || d.GPT != (tc.name == "GPT") {
					t.Errorf("%+v, %v", d, err)
				}
			} else if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v, want %q", err, tc.says)
			}
		})
	}
}

func TestParse(t *testing.T) {
	for off, says := range map[int]string{
		0: "no boot sector with a jump", 511: "no boot sector with a jump", 11: "the boot sector's parameters make no sense", 13: "make no sense",
		14: "make no sense", 16: "make no sense", 22: "100 clusters make it FAT12, which its boot sector does not look like",
		17: "101 clusters make it FAT12, which its boot sector does not look like",
	} {
		b := small(100)
		b[off], b[off+off&1] = 0, 0
		if off == 22 {
			copy(b[36:], []byte{1, 0, 0, 0})
		}
		if _, err := Parse(b); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), says) {
			t.Errorf("at %d: %v, want %q", off, err, says)
		}
	}
}

func FuzzOpen(f *testing.F) {
	v := small(8)
	if p, err := Parse(v); err != nil || p.Write("config.txt", []byte("x")) != nil || p.Write("u-boot.bin", pattern(2000, 1)) != nil {
		f.Fatal(err)
	}
	long := bytes.Clone(v)
	copy(long[1536+64:], "\x41l\x00o\x00n\x00g\x00n\x00\x0f\x00\x00a\x00m\x00e\x00\x00\x00\xff\xff\xff\xff\x00\x00\xff\xff\xff\xffLONGNA~1   ")
	f.Add(v)
	f.Add(long)
	chained := bytes.Clone(v)
	copy(chained[520:], "\x03\x00\x00\x00\xff\xff\xff\x0f") // of small32
	f.Add(chained)
	f.Fuzz(func(t *testing.T, b []byte) {
		look(t, b)
		if len(b) > 1536 { // behind the checks of the boot sector
			c := small(8)
			copy(c[512:], b[512:])
			look(t, c)
			use(t, small32(b))
		}
	})
}

// small32 is a FAT32 of fewer clusters than one can have; nil if its root directory is damaged.
func small32(b []byte) *Volume {
	v, err := Parse(small(8))
	if err != nil {
		panic(err)
	}
	v.Bits = 32
	copy(v.data[512:], b[512:])
	copy(v.data[1024:1536], v.data[512:])
	if v.chained, err = v.chain(2, maxRoot); err != nil {
		return nil
	}
	v.root, v.piece = nil, v.Cluster
	for _, c := range v.chained {
		v.root = append(v.root, v.at(c))
	}
	return v
}

// look reads and writes everywhere.
func look(t *testing.T, b []byte) {
	d, err := Open(b)
	if err != nil {
		return
	}
	use(t, d.Volume)
	if _, err := Open(b); err != nil {
		t.Error(err)
	}
}

func use(t *testing.T, v *Volume) {
	if v == nil {
		return
	}
	for i, f := range v.Files() {
		if i == 100 {
			break
		}
		if f.Offset < 0 || f.Offset >= v.Size {
			t.Errorf("%+v", f)
		}
		if data, err := v.Read(f.Name); err == nil && len(data) > v.Size {
			t.Errorf("%s has %d bytes of %d", f.Name, len(data), v.Size)
		}
	}
	data := pattern(3000, 1)
	if v.Write("u-boot.bin", data) == nil {
		if again, err := v.Read("u-boot.bin"); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%d bytes, %v", len(again), err)
		}
		if err := v.Remove("u-boot.bin"); err != nil {
			t.Error(err)
		}
	}
}

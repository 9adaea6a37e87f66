package uboot

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
)

// GPT is a partition table (UEFI, section 5.3). On the medium, little-endian: block 0 is a protective MBR, block 1 the header,
//
//	off size
//	0   8    "EFI PART"
//	8   4    revision, 00010000
//	12  4    size of the header, 92
//	16  4    CRC-32 of it, with 0 here
//	24  8    its block; 32 8: that of the other copy
//	40  8    first block for partitions; 48 8: the last
//	56  16   the disk's GUID
//	72  8    first block of the entries
//	80  4    how many; 84 4: the size of one; 88 4: their CRC-32
//
// and behind it the entries: type GUID (16), GUID (16), first block (8), last block (8), attributes (8), name in UTF-16 (72). The other
// copy is at the end, entries first.
type GPT struct {
	First, Last int64 // blocks for partitions
	Disk        [16]byte
	Parts       []Part
}

// Part is a partition.
type Part struct {
	Name       string
	Type, ID   [16]byte
	First, End int64 // blocks, End not included
	Attributes uint64
}

const (
	entries   = 128
	entrySize = 128
)

// ReadGPT reads the table of a medium, its copy at the end if the first is broken.
func ReadGPT(s *Store) (*GPT, error) {
	t, err := readGPT(s, s.Size(), 1)
	if err == nil {
		return t, nil
	}
	if t, err := readGPT(s, s.Size(), s.Size()/BlockSize-1); err == nil {
		return t, nil
	}
	return nil, err
}

// ParseGPT reads what "flash gpt" takes: MBR, header and entries, for a medium of so many bytes.
func ParseGPT(b []byte, size int64) (*GPT, error) {
	if len(b) < BlockSize || b[510] != 0x55 || b[511] != 0xaa {
		return nil, errors.New("no protective MBR")
	}
	return readGPT(bytes.NewReader(b), size, 1)
}

func readGPT(r io.ReaderAt, size, lba int64) (*GPT, error) {
	le := binary.LittleEndian
	h := make([]byte, BlockSize)
	if _, err := r.ReadAt(h, lba*BlockSize); err != nil {
		return nil, fmt.Errorf("GPT: %w", err)
	}
	length := le.Uint32(h[12:])
	if string(h[:8]) != "EFI PART" || length < 92 || length > BlockSize {
		return nil, errors.New("GPT: no header")
	}
	sum := le.Uint32(h[16:])
	clear(h[16:20])
	if crc32.ChecksumIEEE(h[:length]) != sum {
		return nil, errors.New("GPT: the header's CRC-32 is wrong")
	}
	t := &GPT{First: int64(le.Uint64(h[40:])), Last: int64(le.Uint64(h[48:])), Disk: [16]byte(h[56:])}
	at, n, each := le.Uint64(h[72:]), le.Uint32(h[80:]), le.Uint32(h[84:])
	blocks := size / BlockSize
	if int64(le.Uint64(h[24:])) != lba || t.First < 0 || t.Last < t.First || t.Last >= blocks || each < entrySize || each > 4096 || n > 1024 || at >= uint64(blocks) {
		return nil, errors.New("GPT: the header is not this medium's")
	}
	table := make([]byte, int(n)*int(each))
	if _, err := r.ReadAt(table, int64(at)*BlockSize); err != nil {
		return nil, fmt.Errorf("GPT: entries: %w", err)
	}
	if crc32.ChecksumIEEE(table) != le.Uint32(h[88:]) {
		return nil, errors.New("GPT: the entries' CRC-32 is wrong")
	}
	for ; len(table) > 0; table = table[each:] {
		p := Part{Type: [16]byte(table), ID: [16]byte(table[16:]), First: int64(le.Uint64(table[32:])), End: int64(le.Uint64(table[40:])) + 1, Attributes: le.Uint64(table[48:])}
		if p.Type == [16]byte{} {
			continue
		}
		if p.First < t.First || p.End <= p.First || p.End > t.Last+1 {
			return nil, fmt.Errorf("GPT: a partition from block %#x to %#x", p.First, p.End)
		}
		var name []uint16
		for i := 56; i < 128; i += 2 {
			if c := le.Uint16(table[i:]); c != 0 {
				name = append(name, c)
				continue
			}
			break
		}
		p.Name = string(utf16.Decode(name))
		t.Parts = append(t.Parts, p)
	}
	return t, nil
}

// Encode makes MBR, header and entries of a medium of so many bytes, and its last blocks: entries and header.
func (t *GPT) Encode(size int64) (primary, backup []byte) {
	le := binary.LittleEndian
	blocks := size / BlockSize
	table := make([]byte, entries*entrySize)
	for i, p := range t.Parts {
		e := table[i*entrySize:]
		copy(e, p.Type[:])
		copy(e[16:], p.ID[:])
		le.PutUint64(e[32:], uint64(p.First))
		le.PutUint64(e[40:], uint64(p.End-1))
		le.PutUint64(e[48:], p.Attributes)
		for j, c := range utf16.Encode([]rune(p.Name)) {
			if j < 36 {
				le.PutUint16(e[56+2*j:], c)
			}
		}
	}
	header := func(own, other, at int64) []byte {
		h := make([]byte, BlockSize)
		copy(h, "EFI PART")
		le.PutUint32(h[8:], 0x10000)
		le.PutUint32(h[12:], 92)
		le.PutUint64(h[24:], uint64(own))
		le.PutUint64(h[32:], uint64(other))
		le.PutUint64(h[40:], uint64(t.First))
		le.PutUint64(h[48:], uint64(t.Last))
		copy(h[56:], t.Disk[:])
		le.PutUint64(h[72:], uint64(at))
		le.PutUint32(h[80:], entries)
		le.PutUint32(h[84:], entrySize)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(table))
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
		return h
	}
	mbr := make([]byte, BlockSize)
	mbr[446+4] = 0xee
	copy(mbr[446+1:], "\x00\x02\x00")
	copy(mbr[446+5:], "\xff\xff\xff")
	le.PutUint32(mbr[446+8:], 1)
	le.PutUint32(mbr[446+12:], uint32(min(blocks-1, 0xffffffff)))
	mbr[510], mbr[511] = 0x55, 0xaa
	primary = slices.Concat(mbr, header(1, blocks-1, 2), table)
	backup = slices.Concat(table, header(blocks-1, 1, blocks-1-entries*entrySize/BlockSize))
	return primary, backup
}

// WriteTo writes both copies. All blocks must be there.
func (t *GPT) WriteTo(d *MMC) error {
	size := d.Areas[0].Size()
	primary, backup := t.Encode(size)
	if err := d.Write(0, 0, primary); err != nil {
		return err
	}
	return d.Write(0, (size-int64(len(backup)))/BlockSize, backup)
}

// Find returns a partition.
func (t *GPT) Find(name string) (Part, int, bool) {
	i := slices.IndexFunc(t.Parts, func(p Part) bool { return p.Name == name })
	if i < 0 {
		return Part{}, 0, false
	}
	return t.Parts[i], i, true
}

// basicData is the type of partitions that have no other (PARTITION_BASIC_DATA_GUID).
const basicData = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"

// typeWords are the types that U-Boot has words for (lib/uuid.c, list_guid).
var typeWords = map[string]string{
	"system": "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "mbr": "024dee41-33e7-11d3-9d69-0008c781f39f", "msft": "e3c9e316-0b5c-4db8-817d-f92df00215ae",
	"data": basicData, "linux": "0fc63daf-8483-4772-8e79-3d69d8477de4", "raid": "a19d880f-05fc-4d3b-a006-743f0f84911e",
	"swap": "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", "lvm": "e6d6d379-f507-44c2-a23c-238f2a3df928",
}

// LayGPT makes the table that a description means: "name=boot,size=8MiB;name=rootfs,size=-", as "gpt write" and "oem format" have
// it. uuid_disk, uuid, type and start are optional.
func LayGPT(text string, size int64) (*GPT, error) {
	blocks := size / BlockSize
	t := &GPT{First: 34, Last: blocks - 34}
	if t.Last < t.First {
		return nil, errors.New("the medium is too small")
	}
	t.Disk = guess(text)
	next := t.First
	for i, one := range strings.Split(strings.TrimSuffix(strings.TrimSpace(text), ";"), ";") {
		p := Part{ID: guess(fmt.Sprint(i, one))}
		p.Type, _ = guid(basicData)
		start, length := next, int64(-1)
		for _, field := range strings.Split(one, ",") {
			key, value, _ := strings.Cut(strings.TrimSpace(field), "=")
			var err error
			switch key {
			case "uuid_disk":
				if i > 0 {
					return nil, errors.New("uuid_disk is not the first")
				}
				t.Disk, err = guid(value)
			case "uuid":
				p.ID, err = guid(value)
			case "type":
				p.Type, err = guid(cmp.Or(typeWords[value], value))
			case "name":
				p.Name = value
			case "start":
				start, err = units(value)
				start /= BlockSize
			case "size":
				if value == "-" || value == "0" {
					length = t.Last + 1 - start
					break
				}
				length, err = units(value)
				length = (length + BlockSize - 1) / BlockSize
			case "bootable":
				p.Attributes |= 4
			case "":
			default:
				err = fmt.Errorf("unknown key %.20q", key)
			}
			if err != nil {
				return nil, fmt.Errorf("partition %d: %w", i, err)
			}
		}
		if strings.HasPrefix(strings.TrimSpace(one), "uuid_disk") && length < 0 && p.Name == "" {
			continue
		}
		p.First, p.End = start, start+length
		if p.Name == "" || length <= 0 || start < t.First || start > t.Last || length > t.Last+1-start {
			return nil, fmt.Errorf("partition %d, %q: blocks %#x to %#x of %#x", i, p.Name, start, p.End, t.Last)
		}
		if len(t.Parts) == entries {
			return nil, errors.New("too many partitions")
		}
		t.Parts = append(t.Parts, p)
		next = p.End
	}
	return t, nil
}

// units reads a size: decimal or 0x, with KiB, MiB or GiB.
func units(s string) (int64, error) {
	digits := strings.TrimRight(s, "KMGTiBkmg")
	n, err := strconv.ParseUint(digits, 0, 40)
	if err != nil {
		return 0, err
	}
	switch strings.ToUpper(s[len(digits):]) {
	case "", "B":
	case "K", "KIB":
		n <<= 10
	case "M", "MIB":
		n <<= 20
	case "G", "GIB":
		n <<= 30
	default:
		return 0, fmt.Errorf("size %.20q", s)
	}
	if n >= 1<<62 {
		return 0, fmt.Errorf("size %.20q", s)
	}
	return int64(n), nil
}

// guid reads one as it is written: its first three numbers are stored least significant byte first.
func guid(s string) (g [16]byte, err error) {
	b, err := hex16(s)
	if err != nil {
		return g, fmt.Errorf("GUID %.40q", s)
	}
	copy(g[:], b)
	slices.Reverse(g[0:4])
	slices.Reverse(g[4:6])
	slices.Reverse(g[6:8])
	return g, nil
}

func hex16(s string) ([]byte, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err == nil && len(b) != 16 {
		err = errors.New("expected 16 bytes")
	}
	return b, err
}

// guess makes up a GUID, the same for the same text.
func guess(text string) [16]byte {
	h := sha256.Sum256([]byte(text))
	return [16]byte(h[:16])
}

func (m *Machine) printGPT(t *GPT) {
	m.Printf("Part\tStart LBA\tEnd LBA\t\tName\n")
	for i, p := range t.Parts {
		m.Printf("%3d\t0x%08x\t0x%08x\t%q\n", i+1, p.First, p.End-1, p.Name)
	}
}

// gptCommand is gpt (cmd/gpt.c): write, verify, setenv, enumerate.
func gptCommand(_ context.Context, m *Machine, args []string) error {
	if len(args) < 4 || args[2] != "mmc" {
		return errUsage
	}
	d, _, err := m.card(args[3])
	if err != nil {
		return err
	}
	switch {
	case args[1] == "write" && len(args) == 5:
		t, err := LayGPT(args[4], d.Areas[0].Size())
		if err != nil {
			return err
		}
		return t.WriteTo(d)
	case args[1] == "verify" && len(args) <= 5:
		t, err := ReadGPT(d.Areas[0])
		if err != nil || len(args) < 5 {
			return err
		}
		want, err := LayGPT(args[4], d.Areas[0].Size())
		if err != nil {
			return err
		}
		same := func(a, b Part) bool { return a.Name == b.Name && a.First == b.First && a.End == b.End }
		if !slices.EqualFunc(t.Parts, want.Parts, same) {
			return errors.New("the partitions are others")
		}
		return nil
	case args[1] == "setenv" && len(args) == 5:
		p, i, err := m.find(d, args[4])
		if err != nil {
			return err
		}
		m.Setenv("gpt_partition_addr", strconv.FormatInt(p.First, 16))
		m.Setenv("gpt_partition_size", strconv.FormatInt(p.End-p.First, 16))
		m.Setenv("gpt_partition_name", p.Name)
		m.Setenv("gpt_partition_entry", strconv.FormatInt(int64(i+1), 16))
		m.Setenv("gpt_partition_bootable", strconv.FormatUint(p.Attributes>>2&1, 10))
		return nil
	}
	return errUsage
}

func (m *Machine) find(d *MMC, name string) (Part, int, error) {
	t, err := ReadGPT(d.Areas[0])
	if err != nil {
		return Part{}, 0, err
	}
	p, i, ok := t.Find(name)
	if !ok {
		return p, i, fmt.Errorf("no partition %q", name)
	}
	return p, i, nil
}

// partCommand is part (cmd/part.c): list, start, size, number.
func partCommand(_ context.Context, m *Machine, args []string) error {
	if len(args) < 4 || args[2] != "mmc" {
		return errUsage
	}
	d, _, err := m.card(args[3])
	if err != nil {
		return err
	}
	t, err := ReadGPT(d.Areas[0])
	if err != nil {
		return err
	}
	if args[1] == "list" {
		m.printGPT(t)
		return nil
	}
	if len(args) != 5 && len(args) != 6 {
		return errUsage
	}
	p, i, ok := t.Find(args[4])
	if n, err := strconv.ParseUint(args[4], 10, 16); err == nil && n >= 1 && int(n) <= len(t.Parts) {
		i = int(n) - 1
		p, ok = t.Parts[i], true
	}
	if !ok {
		return fmt.Errorf("no partition %q", args[4])
	}
	value := map[string]int64{"start": p.First, "size": p.End - p.First, "number": int64(i + 1)}
	v, known := value[args[1]]
	if !known {
		return errUsage
	}
	if len(args) == 6 {
		m.Setenv(args[5], fmt.Sprintf("0x%x", v))
	} else {
		m.Printf("%x\n", v)
	}
	return nil
}

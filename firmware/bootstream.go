package firmware

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Boot streams (.sb, version 1) of i.MX23 and i.MX28: i.MX28 reference manual, 12.11 "Boot Image Format"; U-Boot's
// tools/mxsimage.h. Little-endian, in blocks of 16 bytes. The header:
//
//	offset size field
//	0      20   SHA-1 of the rest of the header; its first 16 bytes are the initialisation vector, too
//	20     4    "STMP"
//	24     2    version: major 1, minor 0 to 2
//	26     2    flags: bit 0 show progress
//	28     4    size of the image, in blocks
//	32     4    first boot tag, in blocks
//	36     4    section to boot
//	40     2    number of keys
//	42     2    key dictionary, in blocks
//	44     2    size of this header, in blocks
//	46     2    number of sections
//	48     2    size of a section header, in blocks
//	50     2    padding
//	52     4    "sgtl", since version 1.1
//	56     8    time, microseconds since 2000
//	64     12   product version: three times a number in BCD, big-endian, and padding
//	76     12   component version
//	88     2    drive tag
//	90     6    padding
//
// A section header is number, offset and size in blocks, flags (bit 0 bootable); four bytes each. A key of the
// dictionary is 16 bytes of CBC-MAC of header and section headers, then the key of the commands, both made with the
// device's key: all zero until the owner burns another. A command:
//
//	offset size field
//	0      1    checksum: 0x5a and the sum of the other bytes
//	1      1    tag: 0 nop, 1 tag, 2 load, 3 fill, 4 jump, 5 call, 6 mode
//	2      2    flags: bit 0 last tag, DCD of a load, HAB of a call or jump (i.MX28)
//	4      4    address
//	8      4    count of bytes
//	12     4    CRC-32 of a load (most significant bit first, no final inversion); pattern of a fill; argument of jump and call; mode
//
// A load's data follow it, padded to whole blocks. The image ends with the SHA-1 of all before, padded to two blocks.
// Commands, data and that are encrypted (AES-128-CBC) if there is a key.
const (
	sbBlock      = 16
	sbHeaderSize = 96
)

// BootStream is a parsed .sb image.
type BootStream struct {
	Major, Minor byte
	Flags        uint16
	Size         int // as the header says
	Time         time.Time
	Product      string // version
	Component    string
	BootSection  uint32
	Keys         int
	Sections     []BootStreamSection

	// Opened says that the commands could be read: there are no keys, or one is made with a device key of zero.
	Opened bool
}

// BootStreamSection is one section; Commands are there if the stream could be opened.
type BootStreamSection struct {
	ID           uint32
	Offset, Size int
	Bootable     bool
	Commands     []BootStreamCommand
}

// BootStreamCommand is one command of a section.
type BootStreamCommand struct {
	Offset int // in the file
	Name   string
	HAB    bool // a call or jump through HAB: Address is that of an IVT
	DCD    bool // a load of a DCD
	Last   bool // of a tag

	Address, Count, Arg uint32
}

var sbCommands = map[byte]string{0: "nop", 1: "tag", 2: "load", 3: "fill", 4: "jump", 5: "call", 6: "mode"}

const (
	sbTag  = 1
	sbLoad = 2
)

// ParseBootStream reads a boot stream and verifies the SHA-1 of its header; and if it is not encrypted, or with the key
// of devices that have none of their own, the commands' checksums, the CRC of what they load, and the SHA-1 of the
// image. The error joins everything that is wrong; what could be read is returned beside it.
func ParseBootStream(b []byte) (*BootStream, error) {
	if len(b) < 24 || string(b[20:24]) != "STMP" {
		return nil, errors.New("no boot stream: no STMP at byte 20")
	}
	if len(b) < sbHeaderSize {
		return nil, fmt.Errorf("boot stream: %w: %d bytes, the header alone has %d", ErrTruncated, len(b), sbHeaderSize)
	}
	le := binary.LittleEndian
	s := &BootStream{
		Major: b[24], Minor: b[25], Flags: le.Uint16(b[26:]), BootSection: le.Uint32(b[36:]), Keys: int(le.Uint16(b[40:])),
		Product: sbVersion(b[64:]), Component: sbVersion(b[76:]),
		Time: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(min(le.Uint64(b[56:]), 1<<52)) * time.Microsecond),
	}
	if sum := sha1.Sum(b[20:sbHeaderSize]); !bytes.Equal(sum[:], b[:20]) {
		return s, fmt.Errorf("boot stream: SHA-1 of the header is %x, the header says %x", sum, b[:20])
	}
	if s.Major != 1 {
		return s, fmt.Errorf("boot stream: version %d.%d, expected 1", s.Major, s.Minor)
	}
	blocks, sections := int64(le.Uint32(b[28:])), int(le.Uint16(b[46:]))
	header, each := int(le.Uint16(b[44:])), int(le.Uint16(b[48:]))
	dict := int(le.Uint16(b[42:]))
	if blocks*sbBlock > int64(len(b)) {
		return s, fmt.Errorf("boot stream: %w: the header announces %d bytes, the file has %d", ErrTruncated, blocks*sbBlock, len(b))
	}
	s.Size = int(blocks) * sbBlock
	image := b[:s.Size]
	if header != sbHeaderSize/sbBlock || each != 1 {
		return s, fmt.Errorf("boot stream: header of %d blocks and section headers of %d, expected 6 and 1", header, each)
	}
	heads := sbHeaderSize + sections*sbBlock // the end of the section headers
	if heads > s.Size || (dict+2*s.Keys)*sbBlock > s.Size || s.Keys > 0 && dict*sbBlock < heads {
		return s, fmt.Errorf("boot stream: %d sections and %d keys at %#x do not go into its %d bytes", sections, s.Keys, dict*sbBlock, s.Size)
	}
	var errs []error
	left := int64(s.Size) // sections that overlapped could cost more than the file's size tells
	for i := range sections {
		h := image[sbHeaderSize+i*sbBlock:]
		off, size := int64(le.Uint32(h[4:]))*sbBlock, int64(le.Uint32(h[8:]))*sbBlock
		if off < int64(heads) || off+size > int64(s.Size) {
			errs = append(errs, fmt.Errorf("boot stream: section %d of %d bytes at %#x lies outside of the image", le.Uint32(h), size, off))
			break
		}
		if left -= size; left < 0 {
			errs = append(errs, errors.New("boot stream: its sections overlap"))
			break
		}
		s.Sections = append(s.Sections, BootStreamSection{ID: le.Uint32(h), Offset: int(off), Size: int(size), Bootable: h[12]&1 != 0})
	}
	key, ok := sbKey(image[:heads], image[dict*sbBlock:][:2*s.Keys*sbBlock])
	if !ok {
		return s, errors.Join(errs...)
	}
	s.Opened = true
	if err := sbVerify(image, key); err != nil {
		errs = append(errs, err)
	}
	for i := range s.Sections {
		if err := s.Sections[i].open(image, key); err != nil {
			errs = append(errs, fmt.Errorf("boot stream: section %d: %w", s.Sections[i].ID, err))
		}
	}
	return s, errors.Join(errs...)
}

// sbVersion is a version number: three 16-bit numbers in BCD, big-endian, each with two bytes of padding.
func sbVersion(b []byte) string {
	be := binary.BigEndian
	return fmt.Sprintf("%x.%x.%x", be.Uint16(b), be.Uint16(b[4:]), be.Uint16(b[8:]))
}

// sbKey finds the key of the commands in a dictionary: the entry whose MAC is one of a device key of zero. A
// nil key is that of a stream that is not encrypted.
func sbKey(heads, dict []byte) (key cipher.Block, ok bool) {
	if len(dict) == 0 {
		return nil, true
	}
	zero, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		return nil, false
	}
	mac := bytes.Clone(heads)
	cipher.NewCBCEncrypter(zero, make([]byte, sbBlock)).CryptBlocks(mac, mac)
	mac = mac[len(mac)-sbBlock:]
	for ; len(dict) > 0; dict = dict[2*sbBlock:] {
		if !bytes.Equal(dict[:sbBlock], mac) {
			continue
		}
		k := make([]byte, sbBlock)
		cipher.NewCBCDecrypter(zero, heads[:sbBlock]).CryptBlocks(k, dict[sbBlock:2*sbBlock])
		key, err := aes.NewCipher(k)
		return key, err == nil
	}
	return nil, false
}

// sbPlain returns a mode that decrypts what begins at a place where the vector is the header's.
func sbPlain(image []byte, key cipher.Block) func(dst, src []byte) {
	if key == nil {
		return func(dst, src []byte) { copy(dst, src) }
	}
	return cipher.NewCBCDecrypter(key, image[:sbBlock]).CryptBlocks
}

// sbVerify compares the SHA-1 at the end of the image.
func sbVerify(image []byte, key cipher.Block) error {
	body, tail := image[:len(image)-2*sbBlock], image[len(image)-2*sbBlock:]
	want := make([]byte, len(tail))
	sbPlain(image, key)(want, tail)
	if got := sha1.Sum(body); !bytes.Equal(got[:], want[:sha1.Size]) {
		return fmt.Errorf("boot stream: SHA-1 of the image is %x, the image says %x", got, want[:sha1.Size])
	}
	return nil
}

// open reads a section's commands, and verifies their checksums.
func (s *BootStreamSection) open(image []byte, key cipher.Block) error {
	plain := sbPlain(image, key)
	le := binary.LittleEndian
	cmd := make([]byte, sbBlock)
	for off, end := s.Offset, s.Offset+s.Size; off < end; {
		plain(cmd, image[off:off+sbBlock])
		sum := byte(0x5a)
		for _, c := range cmd[1:] {
			sum += c
		}
		if sum != cmd[0] {
			return fmt.Errorf("the command at %#x has checksum %02x, expected %02x", off, cmd[0], sum)
		}
		flag := cmd[2]&1 != 0
		c := BootStreamCommand{
			Offset: off, Name: nameOf(sbCommands, cmd[1]), Address: le.Uint32(cmd[4:]), Count: le.Uint32(cmd[8:]), Arg: le.Uint32(cmd[12:]),
			HAB: flag && (cmd[1] == 4 || cmd[1] == 5), DCD: flag && cmd[1] == sbLoad, Last: flag && cmd[1] == sbTag,
		}
		s.Commands = append(s.Commands, c)
		off += sbBlock
		switch cmd[1] {
		case sbTag:
			plain = sbPlain(image, key)
		case sbLoad:
			n := (int64(c.Count) + sbBlock - 1) &^ (sbBlock - 1)
			if n > int64(end-off) {
				return fmt.Errorf("the load at %#x announces %d bytes, the section has %d", c.Offset, c.Count, end-off)
			}
			data := make([]byte, n)
			plain(data, image[off:off+int(n)])
			if crc := sbCRC(data); crc != c.Arg {
				return fmt.Errorf("the CRC of the load at %#x is %08x, the command says %08x", c.Offset, crc, c.Arg)
			}
			off += int(n)
		}
	}
	return nil
}

// sbCRC is the CRC-32 of a load: polynomial 0x04c11db7, most significant bit first, from all ones, not inverted.
func sbCRC(b []byte) uint32 {
	table, crc := sbCRCTable(), ^uint32(0)
	for _, c := range b {
		crc = crc<<8 ^ table[byte(crc>>24)^c]
	}
	return crc
}

var sbCRCTable = sync.OnceValue(func() *[256]uint32 {
	var t [256]uint32
	for i := range t {
		crc := uint32(i) << 24
		for range 8 {
			if crc&(1<<31) != 0 {
				crc = crc<<1 ^ 0x04c11db7
			} else {
				crc <<= 1
			}
		}
		t[i] = crc
	}
	return &t
})

package dfu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// What the stages look at. All numbers are little-endian unless it is said.

// checkSTM32 looks at an STM32 header: "STM2" at 0, the sum of the payload's bytes at 68, its length at 76, the
// header's version at 72 (1: 256 bytes; 2: 512).
func checkSTM32(b []byte) error {
	if len(b) < 256 || string(b[:4]) != "STM2" {
		return errors.New("it has no STM32 header")
	}
	size := 256
	if b[74] == 2 {
		size = 512
	}
	n := binary.LittleEndian.Uint32(b[76:])
	if len(b) < size || uint64(n) > uint64(len(b)-size) {
		return fmt.Errorf("its STM32 header says %d bytes of payload, the file has %d", n, len(b)-size)
	}
	sum := uint32(0)
	for _, c := range b[size : size+int(n)] {
		sum += uint32(c)
	}
	if want := binary.LittleEndian.Uint32(b[68:]); sum != want {
		return fmt.Errorf("the sum of its payload is %#x, its STM32 header says %#x", sum, want)
	}
	return nil
}

// checkFIP looks at the two words by which TF-A knows a FIP.
func checkFIP(b []byte) error {
	if len(b) < 16 || binary.LittleEndian.Uint32(b) != 0xaa640001 || binary.LittleEndian.Uint32(b[4:]) == 0 {
		return errors.New("it has no FIP header")
	}
	return nil
}

// checkX509 looks for the certificate that K3's ROM wants in front, a DER sequence with a length of two bytes.
func checkX509(b []byte) error {
	if len(b) < 4 || b[0] != 0x30 || b[1] != 0x82 {
		return errors.New("it does not begin with a certificate")
	}
	if n := 4 + int(binary.BigEndian.Uint16(b[2:])); n >= len(b) {
		return fmt.Errorf("its certificate has %d bytes, and there is nothing behind it", n)
	}
	return nil
}

// checkFIT looks at the header of a flattened device tree, big-endian: d00dfeed at 0, the size at 4.
func checkFIT(b []byte) error {
	if len(b) < 40 || binary.BigEndian.Uint32(b) != 0xd00dfeed {
		return errors.New("it is no FIT")
	}
	if n := binary.BigEndian.Uint32(b[4:]); uint64(n) > uint64(len(b)) {
		return fmt.Errorf("its tree has %d bytes, the file %d", n, len(b))
	}
	return nil
}

// checkSPKG looks for one good header of eight: "RZN1" at 0, the CRC-32 of the 20 bytes before it at 20, and in the
// upper 24 bits at 8 the length of what is behind the headers.
func checkSPKG(b []byte) error {
	for i := 0; i < 8 && len(b) >= 192; i++ {
		h := b[24*i : 24*i+24]
		if string(h[:4]) != "RZN1" || crc32.ChecksumIEEE(h[:20]) != binary.LittleEndian.Uint32(h[20:]) {
			continue
		}
		n := binary.LittleEndian.Uint32(h[8:]) >> 8
		if int(n) > len(b)-192 || n < 4 {
			return fmt.Errorf("its header says %d bytes, there are %d", n, len(b)-192)
		}
		payload := b[192 : 192+n]
		if crc32.ChecksumIEEE(payload[:n-4]) != binary.LittleEndian.Uint32(payload[n-4:]) {
			return errors.New("its payload does not have the CRC behind it")
		}
		return nil
	}
	return errors.New("it has no good SPKG header")
}

// checkZynqMP looks at a boot header: the words at 0x20 and 0x24, the inverted sum of those from 0x20 to 0x44 at 0x48,
// and that what the ROM loads (source at 0x30, lengths at 0x38 and 0x40) is there.
func checkZynqMP(b []byte) error {
	if len(b) < 0x8b8 || binary.LittleEndian.Uint32(b[0x20:]) != 0xaa995566 || string(b[0x24:0x28]) != "XNLX" {
		return errors.New("it has no ZynqMP boot header")
	}
	if sum := ^words(b[0x20:0x48]); sum != binary.LittleEndian.Uint32(b[0x48:]) {
		return fmt.Errorf("the checksum of its boot header is %#x", sum)
	}
	need := uint64(binary.LittleEndian.Uint32(b[0x30:])) + uint64(binary.LittleEndian.Uint32(b[0x38:])) + uint64(binary.LittleEndian.Uint32(b[0x40:]))
	if need > uint64(len(b)) {
		return fmt.Errorf("its FSBL ends at byte %d, the file has %d", need, len(b))
	}
	return nil
}

// checkZynqMPFull looks in addition at what the FSBL goes by: the image header table, with its checksum at 0x3c and
// more than one partition.
func checkZynqMPFull(b []byte) error {
	if err := checkZynqMP(b); err != nil {
		return err
	}
	at := binary.LittleEndian.Uint32(b[0x98:])
	if uint64(at)+64 > uint64(len(b)) {
		return fmt.Errorf("its image header table is at byte %d of %d", at, len(b))
	}
	table := b[at : at+64]
	if sum := ^words(table[:0x3c]); sum != binary.LittleEndian.Uint32(table[0x3c:]) {
		return fmt.Errorf("the checksum of its image header table is %#x", sum)
	}
	if n := binary.LittleEndian.Uint32(table[4:]); n < 2 || n > 32 {
		return fmt.Errorf("it has %d partitions, the FSBL wants 2 to 32", n)
	}
	return nil
}

// words is the sum of words.
func words(b []byte) (sum uint32) {
	for ; len(b) >= 4; b = b[4:] {
		sum += binary.LittleEndian.Uint32(b)
	}
	return sum
}

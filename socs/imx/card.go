package imx

import (
	"encoding/binary"

	"snag/firmware"
)

// bootArea cuts an image of a whole card, or of an eMMC, before its first partition: what stands there is the boot
// loader's. cut tells whether it is one. Partition tables: UEFI 2.10, section 5.2 (MBR; the entry's type is its byte 4,
// its first block in bytes 8 to 11) and 5.3 (GPT; header in block 1, where its entries are in bytes 72 to 79, their
// number and size in bytes 80 and 84; the first block of an entry in bytes 32 to 39).
func bootArea(data []byte) (area []byte, cut bool) {
	const block = 512
	if len(data) < 2*block || data[510] != 0x55 || data[511] != 0xaa {
		return data, false
	}
	le := binary.LittleEndian
	first := uint64(0) // block
	lower := func(lba uint64) {
		if lba > 1 && (first == 0 || lba < first) {
			first = lba
		}
	}
	for entry := data[446:510]; len(entry) > 0; entry = entry[16:] {
		if entry[4] != 0 {
			lower(uint64(le.Uint32(entry[8:])))
		}
	}
	if h := data[block:]; string(h[:8]) == "EFI PART" {
		at, n, size := le.Uint64(h[72:]), le.Uint32(h[80:]), le.Uint32(h[84:])
		const most = 128 // entries, as all tools make them
		for i := range uint64(min(n, most)) {
			off := at*block + i*uint64(size)
			if at > uint64(len(data)) || size < 128 || size > 4096 || off+128 > uint64(len(data)) {
				break
			}
			if entry := data[off:]; entry[0]|entry[1]|entry[2]|entry[3] != 0 {
				lower(le.Uint64(entry[32:]))
			}
		}
	}
	if first == 0 || first > uint64(len(data))/block {
		return data, false
	}
	return data[:first*block], true
}

// boot returns the part of a file that holds boot stages, if it is an image of a whole card.
func (c *checker) boot(slot string, data []byte) []byte {
	if start, size, ok := firmware.FindBurnTag(data); ok {
		c.Note(slot, "the file is an image of a whole card: only the boot image in it is used, %d bytes at %#x", size, start)
		return data[start:][:size]
	}
	area, cut := bootArea(data)
	if cut {
		c.Note(slot, "the file is an image of a whole card: only what stands before its first partition (%d bytes) is used", len(area))
	}
	return area
}

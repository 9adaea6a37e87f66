package bmap

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
)

// Encode writes m as version 2.0, whatever m.Version says. It fails on a map that [Parse] would not take.
func (m *Map) Encode() ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("block map: %w", err)
	}
	mapped := int64(0)
	for _, r := range m.Ranges {
		mapped += r.Last - r.First + 1
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `<?xml version="1.0" encoding="UTF-8" ?>
<!-- A block map: what of an image must be written, and the checksums of it.
     Made by snag, for bmaptool and whatever else reads version 2.0. -->
<bmap version="2.0">
    <ImageSize> %d </ImageSize>
    <BlockSize> %d </BlockSize>
    <BlocksCount> %d </BlocksCount>
    <!-- %.1f %% of the blocks hold data -->
    <MappedBlocksCount> %d </MappedBlocksCount>
`, m.ImageSize, m.BlockSize, m.Blocks(), 100*float64(mapped)/float64(m.Blocks()), mapped)
	sumAt := 0
	if m.Checksum != "" {
		h, err := NewHash(m.Checksum)
		if err != nil {
			return nil, fmt.Errorf("block map: %w", err)
		}
		fmt.Fprintf(&b, "    <ChecksumType> %s </ChecksumType>\n    <BmapFileChecksum> ", m.Checksum)
		sumAt = b.Len()
		fmt.Fprintf(&b, "%s </BmapFileChecksum>\n", strings.Repeat("0", 2*h.Size()))
	}
	b.WriteString("    <BlockMap>\n")
	for _, r := range m.Ranges {
		b.WriteString("        <Range")
		if r.Sum != nil {
			fmt.Fprintf(&b, ` chksum="%x"`, r.Sum)
		}
		if r.First == r.Last {
			fmt.Fprintf(&b, "> %d </Range>\n", r.First)
		} else {
			fmt.Fprintf(&b, "> %d-%d </Range>\n", r.First, r.Last)
		}
	}
	b.WriteString("    </BlockMap>\n</bmap>\n")
	if m.Checksum != "" {
		h, _ := NewHash(m.Checksum)
		h.Write(b.Bytes())
		hex.Encode(b.Bytes()[sumAt:], h.Sum(nil))
	}
	return b.Bytes(), nil
}

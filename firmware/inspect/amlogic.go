package inspect

import (
	"fmt"

	"snag/firmware"
)

// aml takes a BL2 apart, and the FIP behind it. That of a card stands behind a sector.
func (r *Report) aml(card bool) int {
	const sector = 512
	off := 0
	if card {
		off = sector
		r.add(&Part{Kind: kindData, Text: "the card's first sector, without partitions", Size: sector})
	}
	p, end := r.amlImage(off, r.data[off:])
	if p == nil {
		return 0
	}
	r.add(p)
	if info := firmware.Identify(r.data[end:]); info.Kind == firmware.KindAMLFIP {
		return r.amlFIP(end)
	}
	return end
}

// amlImage is the part of an image with an "@AML" header, and where it ends; nil if there is none.
func (r *Report) amlImage(off int, data []byte) (*Part, int) {
	a, err := firmware.ParseAML(data)
	r.problem(err)
	if a == nil {
		return nil, off
	}
	text := "Amlogic boot image"
	check := Check{"sha256", outcome(a.Verified)}
	switch {
	case a.BL3:
		text += ", for BL2"
	case a.Signed:
		text += fmt.Sprintf(", version %d.%d, signed (which was not verified)", a.Major, a.Minor)
		check.Result = Unverified
	default:
		text += fmt.Sprintf(", version %d.%d", a.Major, a.Minor)
	}
	p := &Part{Kind: kindAML, Text: text, Offset: off, Size: a.Size}
	body := program(off+a.Start, a.Program)
	body.Checks = []Check{check}
	p.Parts = []*Part{{Kind: kindHeader, Text: "header (@AML)", Offset: off, Size: min(a.Start, len(data))}, body}
	return p, off + a.Size
}

// amlFIP takes apart what a BL2 loads.
func (r *Report) amlFIP(off int) int {
	data := r.data[off:]
	f, err := firmware.ParseAMLFIP(data)
	r.problem(err)
	if f == nil {
		return off
	}
	p := &Part{Kind: kindFIP, Offset: off, Size: f.Size}
	r.add(p)
	for n, piece := range f.Pieces {
		p.Text = fmt.Sprintf("firmware image package of Amlogic, encrypted, pieces: %d", len(f.Pieces))
		text := fmt.Sprintf("image %d", n)
		if n == 0 {
			text = "table of contents"
		}
		p.Parts = append(p.Parts, &Part{Kind: kindImage, Text: fmt.Sprintf("%s, %s of %s", text, piece.Cipher, piece.Date), Offset: off + piece.Offset, Size: piece.Size,
			Checks: []Check{{"sha256", outcome(piece.Verified)}}})
	}
	if f.FIP == nil {
		return off + f.Size
	}
	p.Text = fmt.Sprintf("firmware image package of Amlogic, images: %d", len(f.FIP.Entries))
	p.Parts = []*Part{{Kind: kindTOC, Text: fmt.Sprintf("table of contents, serial number %#x", f.FIP.Serial), Offset: off, Size: f.FIP.Table}}
	for _, e := range f.FIP.Entries {
		img := &Part{Kind: kindImage, Text: e.Text, Offset: off + e.Offset, Size: len(e.Data)}
		if firmware.Identify(head(e.Data)).Kind == firmware.KindAML {
			if inner, _ := r.amlImage(img.Offset, e.Data); inner != nil {
				img.Parts = []*Part{inner}
			}
		}
		p.Parts = append(p.Parts, img)
	}
	return off + f.Size
}

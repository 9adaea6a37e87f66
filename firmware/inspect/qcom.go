package inspect

import (
	"fmt"

	"snag/firmware"
)

func (r *Report) mbn() int {
	m, err := firmware.ParseMBN(r.data)
	r.problem(err)
	if m == nil {
		return 0
	}
	text := fmt.Sprintf("MBN header, version %d, image id %d", m.Version, m.ID)
	if m.SBL {
		text = fmt.Sprintf("MBN header of a first stage (SBL1), image id %d", m.ID)
	}
	p := &Part{Kind: kindMBN, Text: text, Load: addr(m.Load), Entry: addr(m.Load)}
	at := 0
	add := func(part *Part) {
		if part.Size > 0 {
			p.Parts = append(p.Parts, part)
			at += part.Size
		}
	}
	add(&Part{Kind: kindHeader, Text: "header", Size: m.HeaderSize})
	code := program(at, m.Code)
	code.Load, code.Entry = addr(m.Load), addr(m.Load)
	add(code)
	add(&Part{Kind: kindSignature, Text: "signature (which was not verified)", Offset: at, Size: len(m.Signature)})
	add(&Part{Kind: kindCertificate, Text: "certificates", Offset: at, Size: len(m.Certificate)})
	p.Size = at
	r.add(p)
	return at
}

// hashes is the hash segment that Qualcomm's ELF files have, and what it says of the program headers' bytes.
func (r *Report) hashes() (*Part, map[int][]Check) {
	h, err := firmware.ParseMBNHashes(r.data)
	if h == nil {
		return nil, nil
	}
	r.problem(err)
	p := &Part{Kind: kindHashes, Text: fmt.Sprintf("Qualcomm hash segment, version %d", h.Version), Offset: h.Offset, Size: h.Size}
	checks := map[int][]Check{}
	for _, d := range h.Digests {
		checks[d.Header] = []Check{{h.Algo, outcome(d.OK)}}
		if !d.OK {
			r.problem(fmt.Errorf("ELF: the bytes of program header %d have another %s than the hash segment says", d.Header, h.Algo))
		}
	}
	if h.Rest > 0 {
		p.Text += fmt.Sprintf(", with %d bytes of signatures and certificates (which were not verified)", h.Rest)
	}
	return p, checks
}

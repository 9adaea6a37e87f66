package inspect

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"snag/firmware"
)

// The images of the families whose ROMs speak DFU or fastboot.

// outcome is that of a check whose error the parser joined to others.
func outcome(ok bool) Result {
	if ok {
		return OK
	}
	return Bad
}

func (r *Report) stm32() int {
	s, err := firmware.ParseSTM32(r.data)
	r.problem(err)
	if s == nil {
		return 0
	}
	words := []string{fmt.Sprintf("STM32 image: %s", s.TypeName())}
	if s.Version != 0 {
		words = append(words, fmt.Sprintf("version %d", s.Version))
	}
	if s.Signed {
		words = append(words, "signed (which was not verified)")
	}
	if s.Encrypted {
		words = append(words, "encrypted")
	}
	p := &Part{Kind: kindSTM32, Text: strings.Join(words, ", "), Size: s.HeaderSize + len(s.Payload), Load: addr(s.Load), Entry: addr(s.Entry)}
	header := &Part{Kind: kindHeader, Text: fmt.Sprintf("STM32 header, version %d.%d", s.Major, s.Minor), Size: s.HeaderSize}
	for _, e := range s.Extensions {
		header.Parts = append(header.Parts, &Part{Kind: kindHeader, Text: "extension header: " + e.Name(), Offset: e.Offset, Size: e.Size})
	}
	body := program(s.HeaderSize, s.Payload)
	body.Load, body.Entry, body.Checks = addr(s.Load), addr(s.Entry), []Check{{"sum32", outcome(err == nil)}}
	p.Parts = []*Part{header, body}
	r.add(p)
	return p.Size
}

func (r *Report) fip() int {
	f, err := firmware.ParseFIP(r.data)
	r.problem(err)
	if f == nil {
		return 0
	}
	p := &Part{Kind: kindFIP, Text: fmt.Sprintf("firmware image package, images: %d", len(f.Entries)), Size: f.Size}
	p.Parts = []*Part{{Kind: kindTOC, Text: fmt.Sprintf("table of contents, serial number %#x", f.Serial), Size: f.Table}}
	for _, e := range f.Entries {
		img := program(e.Offset, e.Data)
		if img.Text == "program" {
			img.Text = e.Text
		} else {
			img.Text = e.Text + ": " + img.Text
		}
		img.Kind = kindImage
		p.Parts = append(p.Parts, img)
	}
	r.add(p)
	return p.Size
}

func (r *Report) ti() int {
	p := r.tiImage(0, r.data)
	if p == nil {
		return 0
	}
	r.add(p)
	return p.Size
}

// tiImage is the part of an image with TI's certificate; nil if that cannot be read.
func (r *Report) tiImage(off int, data []byte) *Part {
	t, err := firmware.ParseTIImage(data)
	r.problem(err)
	if t == nil {
		return nil
	}
	words := []string{"TI K3 image"}
	if t.Combined {
		words = []string{fmt.Sprintf("combined TI K3 image, components: %d", len(t.Components))}
	}
	words = append(words, fmt.Sprintf("software revision %d", t.Revision))
	if t.Encrypted {
		words = append(words, "encrypted")
	}
	if t.Debug != nil {
		words = append(words, fmt.Sprintf("debug type %d", t.Debug.Type))
	}
	p := &Part{Kind: kindTI, Text: strings.Join(words, ", "), Offset: off, Size: t.Size}
	var names []string
	for _, e := range t.Extensions {
		names = append(names, e.Name)
	}
	p.Parts = []*Part{{Kind: kindCertificate, Text: "X.509 certificate (which was not verified): " + strings.Join(names, ", "), Offset: off, Size: t.CertSize}}
	for _, c := range t.Components {
		text := c.TypeName()
		if c.Type != 0 {
			text += fmt.Sprintf(", core %d", c.Core)
		}
		body := program(off+c.Offset, data[c.Offset:c.Offset+c.Size])
		if body.Text != "program" {
			text += ": " + body.Text
		}
		body.Kind, body.Text = kindImage, text
		if c.HasLoad {
			body.Load = addr(c.Load)
		}
		if c.Algo != "" {
			check := Check{c.Algo, outcome(c.Verified)}
			if !c.Known {
				check.Result = Unverified
			}
			body.Checks = []Check{check}
		}
		p.Parts = append(p.Parts, body)
	}
	return p
}

func (r *Report) spkg() int {
	s, err := firmware.ParseSPKG(r.data)
	r.problem(err)
	if s == nil {
		return 0
	}
	const crc = 4
	size := min(s.HeaderSize+len(s.Payload)+crc, len(r.data))
	p := &Part{Kind: kindSPKG, Text: "RZ/N1 image", Size: size, Load: addr(s.Load), Entry: addr(s.Load + s.Offset)}
	header := &Part{Kind: kindHeader, Text: fmt.Sprintf("SPKG header, version %d, sound copies: %d of 8", s.Version, s.Headers), Size: s.HeaderSize, Checks: []Check{{"crc32", outcome(s.Headers == 8)}}}
	if s.ECC {
		header.Text += fmt.Sprintf(", ECC scheme %d in blocks of %d", s.Scheme, s.Block)
	}
	p.Parts = []*Part{header}
	body := s.Program()
	start := s.HeaderSize + len(s.Payload) - len(body)
	if s.DummyBLp {
		p.Parts = append(p.Parts, &Part{Kind: kindHeader, Text: "security header (BLp), empty", Offset: s.HeaderSize, Size: start - s.HeaderSize})
	}
	prog := program(start, body)
	prog.Load, prog.Entry, prog.Checks = addr(s.Load+uint32(start-s.HeaderSize)), p.Entry, []Check{{"crc32", outcome(s.Sum == s.CRC && !errors.Is(err, firmware.ErrTruncated))}}
	if s.Thumb {
		prog.Text += ", started in Thumb mode"
	}
	p.Parts = append(p.Parts, prog)
	r.add(p)
	return p.Size
}

func (r *Report) zynqmp() int {
	z, err := firmware.ParseZynqMP(r.data)
	r.problem(err)
	if z == nil {
		return 0
	}
	p := &Part{Kind: kindZynqMP, Text: "ZynqMP boot image", Load: addr(z.Load), Entry: addr(z.Load)}
	end := min(z.HeadersEnd, len(r.data))
	add := func(q *Part) {
		p.Parts = append(p.Parts, q)
		end = max(end, min(q.Offset+q.Size, len(r.data)))
	}
	text := "boot header"
	if z.Encryption != 0 {
		text += fmt.Sprintf(", encrypted (key source %#08x)", z.Encryption)
	}
	if z.Registers > 0 {
		text += fmt.Sprintf(", register writes: %d", z.Registers)
	}
	add(&Part{Kind: kindHeader, Text: text, Size: min(z.Source, firmware.ZynqMPHeaderSize), Checks: []Check{{"sum32", outcome(z.Sum == z.Checksum)}}})
	piece := func(name string, start, size int) *Part {
		start = min(start, len(r.data))
		q := program(start, r.data[start:min(start+size, len(r.data))])
		if q.Text == "program" {
			q.Text = name
		} else {
			q.Text = name + ": " + q.Text
		}
		return q
	}
	if z.PMUFW > 0 {
		add(piece("PMU firmware, loaded by the ROM", z.Source, z.PMUFW))
	}
	fsbl := piece("FSBL", z.FSBLStart, z.FSBL)
	fsbl.Load, fsbl.Entry = addr(z.Load), addr(z.Load)
	add(fsbl)
	if t := z.Table; t != nil {
		add(&Part{Kind: kindTOC, Text: fmt.Sprintf("image header table, version %#x", t.Version), Offset: t.Offset, Size: 64, Checks: []Check{{"sum32", outcome(t.Sum == t.Checksum)}}})
		for _, i := range z.Images {
			add(&Part{Kind: kindHeader, Text: fmt.Sprintf("image header %q, partitions: %d", i.Name, i.Partitions), Offset: i.Offset, Size: i.Size})
		}
		for n, q := range z.Partitions {
			add(r.zynqPartition(n, q))
		}
	}
	if err == nil && z.Complete() {
		if first, err := z.FirstStage(r.data); err != nil {
			r.problem(err)
		} else {
			r.note("the first stage taken out of it, for the ROM, has %d bytes", len(first))
		}
	}
	p.Size = end
	r.add(p)
	return end
}

// zynqPartition is partition n of a boot image. The first is what the ROM loads, which has a part already.
func (r *Report) zynqPartition(n int, q firmware.ZynqMPPartition) *Part {
	words := []string{fmt.Sprintf("partition %d: %s", n, q.CPU())}
	if q.Device() != "" && q.Device() != "PS" && q.Device() != q.CPU() {
		words = append(words, "for "+q.Device())
	}
	if q.EL() != 0 {
		words = append(words, fmt.Sprintf("EL%d", q.EL()))
	}
	for _, w := range []struct {
		is   bool
		word string
	}{{q.Secure(), "secure"}, {q.Encrypted(), "encrypted"}, {q.Signed(), "signed (which was not verified)"}} {
		if w.is {
			words = append(words, w.word)
		}
	}
	if n == 0 {
		words = append(words, "loaded by the ROM")
	} else {
		words = append(words, "loaded by "+q.Owner())
	}
	p := &Part{Kind: kindPartition, Text: strings.Join(words, ", "), Offset: q.Start, Size: q.Size, Load: addr(q.Load), Entry: addr(q.Entry)}
	p.Parts = []*Part{{Kind: kindHeader, Text: "partition header", Offset: q.Offset, Size: 64, Checks: []Check{{"sum32", outcome(q.Sum == q.Checksum)}}}}
	if start := min(q.Start, len(r.data)); n > 0 && !q.Encrypted() {
		if body := program(start, r.data[start:min(start+q.Length, len(r.data))]); body.Text != "program" {
			p.Text += ": " + body.Text
		}
	}
	return p
}

func (r *Report) elf() int {
	e, err := firmware.ParseELF(r.data)
	r.problem(err)
	if e == nil {
		return 0
	}
	p := &Part{Kind: kindELF, Text: fmt.Sprintf("ELF file, %d bits, %s, for %s", e.Bits, e.TypeName(), e.MachineName()), Size: len(r.data), Entry: addr(e.Entry)}
	hashes, checks := r.hashes()
	var loads []int // program headers of the segments
	for n, h := range e.Headers {
		if h.Type == 1 { // PT_LOAD
			loads = append(loads, n)
		}
	}
	for n, s := range e.Segments {
		var access string
		for i, c := range "xwr" {
			if s.Flags>>i&1 != 0 {
				access = string(c) + access
			}
		}
		p.Parts = append(p.Parts, &Part{Kind: kindSegment, Text: fmt.Sprintf("segment %d, %s, %d bytes in memory", n, orDash(access), s.Memory), Offset: s.Offset, Size: len(s.Data),
			Load: addr(s.Physical), Checks: checks[loads[n]]})
		delete(checks, loads[n])
	}
	if hashes != nil {
		for _, n := range slices.Sorted(maps.Keys(checks)) { // the headers
			hashes.Checks = append(hashes.Checks, checks[n]...)
		}
		p.Parts = append(p.Parts, hashes)
	}
	r.add(p)
	return 0
}

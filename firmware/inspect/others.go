package inspect

import (
	"fmt"
	"strings"

	"snag/firmware"
)

func (r *Report) uImage(off int) int {
	u, err := firmware.ParseUImage(r.data[off:])
	r.problem(err)
	if u == nil {
		return 0
	}
	const header = 64
	check := Check{"crc32", OK}
	if err != nil {
		check.Result = Bad
	}
	p := &Part{Kind: kindUImage, Text: fmt.Sprintf("uImage %q: %s %s for %s, compression %s, of %s", u.Name, u.OS, u.Type, u.Arch, u.Compression, u.Time.Format("2006-01-02")),
		Offset: off, Size: header + len(u.Data)}
	body := program(off+header, u.Data)
	body.Load, body.Entry, body.Checks = addr(u.Load), addr(u.Entry), []Check{check}
	p.Parts = []*Part{{Kind: kindHeader, Text: "header", Offset: off, Size: header, Checks: []Check{{"crc32", OK}}}, body}
	r.add(p)
	return off + header + len(u.Data)
}

func (r *Report) fit(off int) int {
	b := r.data[off:]
	f, err := firmware.ParseFIT(b)
	r.problem(err)
	if f == nil {
		return 0
	}
	for _, text := range f.Unverified() {
		r.note("%s", text)
	}
	t, err := firmware.ParseFDT(b)
	if err != nil {
		return 0
	}
	end := t.Size
	room := 16 * len(b) // bytes that may be looked into: images may overlap
	p := &Part{Kind: kindFIT, Text: fmt.Sprintf("FIT %q", f.Description), Offset: off}
	p.Parts = []*Part{{Kind: kindHeader, Text: fmt.Sprintf("tree, images: %d, configurations: %d", len(f.Images), len(f.Configs)), Offset: off, Size: t.Size}}
	for _, i := range f.Images {
		words := []string{fmt.Sprintf("image %q", i.Name)}
		for _, w := range []string{i.Type, i.Arch, i.OS, i.Description} {
			if w != "" {
				words = append(words, w)
			}
		}
		if i.Compression != "" && i.Compression != "none" {
			words = append(words, i.Compression)
		}
		img := &Part{Kind: kindImage, Text: strings.Join(words, ", "), Offset: off + i.Offset, Size: len(i.Data)}
		if i.HasLoad {
			img.Load = addr(i.Load)
		}
		if i.Entry != 0 {
			img.Entry = addr(i.Entry)
		}
		for _, h := range i.Hashes {
			c := Check{h.Algo, Bad}
			switch {
			case !h.Known:
				c.Result = Unverified
			case h.OK:
				c.Result = OK
			}
			img.Checks = append(img.Checks, c)
		}
		if i.Data == nil {
			img.Offset = off
		}
		if len(i.Data) <= room && firmware.Identify(head(i.Data)).Kind == firmware.KindTIX509 {
			room -= len(i.Data)
			if signed := r.tiImage(img.Offset, i.Data); signed != nil {
				img.Parts = []*Part{signed}
			}
		}
		end = max(end, i.Offset+len(i.Data))
		p.Parts = append(p.Parts, img)
	}
	p.Size = end
	r.add(p)
	return off + end
}

func (r *Report) mlo() int {
	m, err := firmware.ParseMLO(r.data)
	r.problem(err)
	if m == nil {
		return 0
	}
	p := &Part{Kind: kindMLO, Text: "MLO for " + firmware.TISoC(m.Load), Load: addr(m.Load), Entry: addr(m.Load)}
	off := 0
	if len(m.Items) > 0 {
		toc := &Part{Kind: kindTOC, Text: "table of contents", Size: 512}
		for _, i := range m.Items {
			toc.Parts = append(toc.Parts, &Part{Kind: kindData, Text: i.Name, Offset: int(i.Start), Size: int(i.Size)})
		}
		p.Parts = append(p.Parts, toc)
		off = toc.Size
	}
	p.Parts = append(p.Parts, &Part{Kind: kindHeader, Text: "GP header", Offset: off, Size: 8})
	off += 8
	body := program(off, m.Data)
	body.Load, body.Entry = addr(m.Load), addr(m.Load)
	p.Parts = append(p.Parts, body)
	p.Size = off + len(m.Data)
	r.add(p)
	return p.Size
}

func (r *Report) egon() int {
	e, err := firmware.ParseEGON(r.data)
	r.problem(err)
	if e == nil {
		return 0
	}
	const header, splHeader = 32, 96
	text := "eGON boot0"
	if e.SPL {
		text = fmt.Sprintf("eGON SPL, header version %d.%d", e.Major, e.Minor)
	}
	if e.DeviceTree != "" {
		text += ", device tree " + e.DeviceTree
	}
	p := &Part{Kind: kindEGON, Text: text, Size: len(e.Data)}
	size := min(len(e.Data), header)
	if e.SPL {
		size = min(len(e.Data), splHeader)
	}
	p.Parts = []*Part{{Kind: kindHeader, Text: "eGON header", Size: size}, program(size, e.Data[size:])}
	p.Checks = []Check{{"sum32", outcome(err == nil)}}
	r.add(p)
	if off, err := e.UBoot(r.data); err != nil {
		r.note("%s", err)
	} else if info := firmware.Identify(r.data[off:]); info.Kind != firmware.KindUImage && info.Kind != firmware.KindFIT {
		r.note("where U-Boot belongs, at %#x, is %s", off, info.Text)
	}
	return len(e.Data)
}

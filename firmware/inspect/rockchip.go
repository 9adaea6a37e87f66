package inspect

import (
	"fmt"
	"strings"

	"snag/firmware"
)

// rockchipLoader is Rockchip's container.
func (r *Report) rockchipLoader() int {
	l, err := firmware.ParseRockchipLoader(r.data)
	r.problem(err)
	if l == nil {
		return 0
	}
	text := fmt.Sprintf("Rockchip loader (%s) for %s, version %d.%02d", strings.TrimSpace(l.Tag), l.Chip, l.Major, l.Minor)
	if !l.Time.IsZero() {
		text += ", of " + l.Time.Format("2006-01-02")
	}
	if l.Signed {
		text += ", signed (which was not verified)"
	}
	p := &Part{Kind: kindRKLoader, Text: text, Size: l.Size, Checks: []Check{{"crc32", outcome(err == nil)}}}
	p.Parts = []*Part{{Kind: kindTOC, Text: "header and entries", Size: l.Table}}
	for _, t := range []struct {
		what string
		list []firmware.RockchipEntry
	}{{"471 (internal memory)", l.Code471}, {"472 (DRAM)", l.Code472}, {"for flash", l.Flash}} {
		for _, e := range t.list {
			// The sections as the ROM starts them; what is for flash is encrypted by sectors, of which the first is
			// enough here.
			code, how := e.Data, ""
			if _, ok := firmware.RockchipCode(code); !ok {
				head := e.Data[:min(len(e.Data), 512)]
				if t.what[0] == '4' {
					head = e.Data
				}
				if plain := firmware.RockchipRC4(head); rockchipKnown(plain) {
					code, how = plain, ", encrypted (RC4)"
				}
			}
			img := &Part{Kind: kindImage, Text: fmt.Sprintf("%s: %q%s%s", t.what, e.Name, rockchipWhat(code), how), Offset: e.Offset, Size: len(e.Data)}
			if e.Delay > 0 {
				img.Text += fmt.Sprintf(", then a delay of %s", e.Delay)
			}
			p.Parts = append(p.Parts, img)
		}
	}
	r.add(p)
	return p.Size
}

func rockchipKnown(b []byte) bool {
	_, ok := firmware.RockchipCode(b)
	return ok
}

// rockchipWhat names code that is not encrypted.
func rockchipWhat(b []byte) string {
	if firmware.RockchipPlug(b) {
		return ", Rockchip's USB plug or miniloader"
	}
	if info := firmware.Identify(b); info.Kind == firmware.KindARM || info.Kind == firmware.KindARM64 {
		return ", " + strings.TrimPrefix(info.Text, "a ")
	}
	if tag, _ := firmware.RockchipCode(b); tag != "" {
		return ", tagged " + tag
	}
	return ""
}

// rockchipIDBlock is what a Rockchip ROM loads from media.
func (r *Report) rockchipIDBlock() int {
	d, err := firmware.ParseRockchipIDBlock(r.data)
	r.problem(err)
	if d == nil || len(d.Images) == 0 {
		return 0
	}
	words := []string{fmt.Sprintf("Rockchip ID block, version %d", d.Version)}
	if d.Tag != "" {
		words = append(words, "tagged "+d.Tag)
	}
	if d.RC4 {
		words = append(words, "encrypted (RC4, by sectors)")
	}
	if d.SPI {
		words = append(words, "spread for SPI flash")
	}
	check := func(ok bool) []Check {
		if d.Hash == "" {
			return nil
		}
		return []Check{{d.Hash, outcome(ok)}}
	}
	p := &Part{Kind: kindRKIDBlock, Text: strings.Join(words, ", "), Size: d.Size}
	p.Parts = []*Part{{Kind: kindHeader, Text: "ID block", Size: min(2048, len(r.data)), Checks: check(d.HashOK)}}
	for n, i := range d.Images {
		text := [...]string{"471 (internal memory)", "472 (DRAM)", "third image", "fourth image"}[n]
		p.Parts = append(p.Parts, &Part{Kind: kindImage, Text: text + rockchipWhat(i.Data), Offset: i.Offset, Size: i.Size, Checks: check(i.HashOK)})
	}
	r.add(p)
	return p.Size
}

// withFIT takes U-Boot's SPL off a FIT that is behind it, as in what its build makes for 472. Without a FIT there is no
// more than the program.
func (r *Report) withFIT(info firmware.Info) int {
	at, take := r.next(0)
	if take == nil || string(r.data[at:at+4]) != "\xd0\x0d\xfe\xed" {
		return 0
	}
	r.add(plain(info, r.data[:at]))
	return at
}

package inspect

import (
	"errors"
	"fmt"
	"strings"

	"snag/firmware"
)

// ivts adds the next image with an IVT, and what was passed over before it. A plugin ends where the image behind it
// begins.
func (r *Report) ivts(from int) int {
	v, err := firmware.FindIVT(r.data, from)
	if err != nil {
		r.problem(err)
		return 0
	}
	for _, s := range v.Skipped {
		if hdmi, err := firmware.ParseIVT(r.data, s.Offset); s.HDMI && err == nil {
			r.add(&Part{Kind: kindHDMI, Text: "HDMI or DisplayPort firmware, which is not for the ROM's USB mode", Offset: s.Offset,
				Size: min(hdmi.Announced(), len(r.data)-s.Offset), Load: addr(hdmi.Self), Entry: addr(hdmi.Entry)})
		} else {
			r.note("passed over: %s", s.Reason)
		}
	}
	end := min(v.End(), len(r.data))
	if v.IsPlugin() {
		if second, err := firmware.FindIVT(r.data, v.Offset+firmware.IVTSize); err != nil {
			r.note("a plugin without an image behind it: %v", err)
		} else {
			end = second.Offset
		}
	}
	r.add(r.ivtImage(v, end))
	return end
}

// ivtImage is the part of one IVT; the image ends at end.
func (r *Report) ivtImage(v *firmware.IVT, end int) *Part {
	p := &Part{Kind: kindIVTImage, Text: "i.MX image", Offset: v.Offset, Size: end - v.Offset, Load: addr(v.Self), Entry: addr(v.Entry)}
	if v.IsPlugin() {
		p.Text = "i.MX plugin"
	}
	if missing := v.End() - len(r.data); missing > 0 && !v.IsPlugin() {
		r.note("the boot data announce %d bytes more than the file has: room for a signature, or the file was cut", missing)
	}
	if _, _, err := v.Image(r.data); err != nil {
		r.problem(err)
	}
	at := func(a uint32) int { return v.Offset + int(int64(a)-int64(v.Self)) }
	p.Parts = append(p.Parts,
		&Part{Kind: kindIVT, Text: fmt.Sprintf("IVT, version %#x", v.Version), Offset: v.Offset, Size: firmware.IVTSize, Load: addr(v.Self)},
		&Part{Kind: kindBootData, Text: fmt.Sprintf("boot data: %d bytes at %#x", v.BootData.Length, v.BootData.Start), Offset: at(v.BootDataAddr), Size: 12, Load: addr(v.BootDataAddr)},
	)
	stop := end // of the program
	if b, err := v.DCDBytes(r.data); err != nil {
		r.problem(fmt.Errorf("IVT at %#x: %w", v.Offset, err))
	} else if b != nil {
		cmds, err := firmware.ParseDCD(b)
		part := dcd(cmds, at(v.DCD), len(b), addr(v.DCD))
		if err != nil {
			r.problem(fmt.Errorf("IVT at %#x: %w", v.Offset, err))
			part.Text += ", damaged"
		}
		p.Parts = append(p.Parts, part)
	}
	b, err := v.CSFBytes(r.data)
	switch {
	case err != nil && errors.Is(err, firmware.ErrTruncated):
		r.note("the image has room for a signature (CSF at %#x), which the file does not have: it is not signed", v.CSF)
	case err != nil:
		r.note("the image has room for a signature (CSF at %#x), but there is none: it is not signed", v.CSF)
	case b != nil:
		stop = min(stop, at(v.CSF))
	}
	if start := at(v.Entry); v.Entry > v.Self && start < stop {
		body := program(start, r.data[start:stop])
		body.Load, body.Entry = addr(v.Entry), addr(v.Entry)
		p.Parts = append(p.Parts, body)
	}
	if b != nil {
		p.Parts = append(p.Parts, r.csf(b, at(v.CSF), v.CSF))
	}
	return p
}

func (r *Report) csf(b []byte, off int, load uint32) *Part {
	cmds, err := firmware.ParseCSF(b)
	r.problem(err)
	p := &Part{Kind: kindCSF, Text: fmt.Sprintf("CSF: %d commands; the signature was not verified", len(cmds)), Offset: off, Size: len(b), Load: addr(load)}
	for _, c := range cmds {
		text := c.Name
		for _, b := range c.Blocks {
			text += fmt.Sprintf(", %d bytes at %#x", b.Size, b.Address)
		}
		p.Commands = append(p.Commands, Command{Offset: off + c.Offset, Op: c.Name, Text: text})
	}
	return p
}

// dcd is the part of a DCD.
func dcd(cmds []firmware.DCDCommand, off, size int, load *uint64) *Part {
	p := &Part{Kind: kindDCD, Offset: off, Size: size, Load: load}
	var counts [firmware.DCDUnlock + 1]int
	for _, c := range cmds {
		counts[c.Op]++
		cmd := Command{Offset: off + c.Offset, Op: c.Op.String(), Address: c.Address, Value: c.Value, Width: c.Width, Text: dcdText(c)}
		if c.Op == firmware.DCDCheck {
			cmd.Condition = c.Condition.String()
		}
		if c.HasCount {
			cmd.Count = &c.Count
		}
		p.Commands = append(p.Commands, cmd)
	}
	var words []string
	for op, n := range counts {
		if n > 0 {
			word := strings.TrimSuffix(firmware.DCDOp(op).String(), " bits")
			if n > 1 {
				word += "s"
			}
			words = append(words, fmt.Sprintf("%d %s", n, word))
		}
	}
	p.Text = "DCD: " + strings.Join(words, ", ")
	if len(words) == 0 {
		p.Text = "DCD: empty"
	}
	return p
}

func dcdText(c firmware.DCDCommand) string {
	place := fmt.Sprintf("%#08x", c.Address)
	if c.Width != 4 {
		place += fmt.Sprintf(" (%d bits)", 8*c.Width)
	}
	switch c.Op {
	case firmware.DCDWrite:
		return fmt.Sprintf("write %s = %#08x", place, c.Value)
	case firmware.DCDClear:
		return fmt.Sprintf("clear %s bits %#08x", place, c.Value)
	case firmware.DCDSet:
		return fmt.Sprintf("set %s bits %#08x", place, c.Value)
	case firmware.DCDCheck:
		text := fmt.Sprintf("wait for %s bits %#08x %s", place, c.Value, c.Condition)
		if c.HasCount {
			text += fmt.Sprintf(", %d times", c.Count)
		}
		return text
	case firmware.DCDUnlock:
		return fmt.Sprintf("unlock engine %#02x: % x", c.Engine, c.Data)
	}
	return c.Op.String()
}

func (r *Report) flashHeader() int {
	h, err := firmware.FindFlashHeader(r.data, 0)
	if err != nil {
		r.problem(err)
		return 0
	}
	body, load, err := h.Image(r.data)
	if err != nil {
		r.problem(err)
		body = r.data[h.Offset:]
	}
	p := &Part{Kind: kindIVTImage, Text: "i.MX image", Offset: h.Offset, Size: len(body), Load: addr(load), Entry: addr(h.Entry)}
	p.Parts = []*Part{{Kind: kindFlashHdr, Text: "flash header, version 1", Offset: h.Offset, Size: 28, Load: addr(h.Self)}}
	if h.DCD != 0 {
		off := h.Offset + int(h.DCD-h.Self)
		p.Parts = append(p.Parts, dcd(h.Instructions, off, 8+12*len(h.Instructions), addr(h.DCD)))
	}
	if start := int64(h.Entry) - int64(h.Self); start < int64(len(body)) {
		prog := program(h.Offset+int(start), body[start:])
		prog.Load, prog.Entry = addr(h.Entry), addr(h.Entry)
		p.Parts = append(p.Parts, prog)
	}
	r.add(p)
	return h.Offset + len(body)
}

func (r *Report) containers(s *firmware.ContainerSet, err error) int {
	r.problem(err)
	if s == nil {
		return 0
	}
	set := &Part{Kind: kindSet, Text: "container set", Offset: s.Offset, Size: s.Size}
	end := s.Offset + s.Size
	if s.Whole {
		set.Text = "container"
		end = s.Offset
	}
	for n, c := range s.Containers {
		text := fmt.Sprintf("container %d, version %d, software version %d", n, c.Version, c.SWVersion)
		if by := c.SignedBy(); by != "" {
			text += ", signed by " + by + " (which was not verified)"
		}
		p := &Part{Kind: kindContainer, Text: text, Offset: c.Offset, Size: c.Length}
		for n, i := range c.Images {
			text := fmt.Sprintf("image %d: %s, core %d", n, i.TypeName(), i.Core())
			check := Check{i.Algo, OK}
			switch {
			case i.Unverified != "":
				text += ", " + i.Unverified
				check.Result = Unverified
			case !i.Verified:
				check.Result = Bad
			}
			p.Parts = append(p.Parts, &Part{Kind: kindImage, Text: text, Offset: i.Offset, Size: i.Size, Load: addr(i.Load), Entry: addr(i.Entry), Checks: []Check{check}})
			if s.Whole {
				end = max(end, min(i.Offset+i.Size, len(r.data)))
			}
		}
		if sig := c.Signature; sig != nil {
			p.Parts = append(p.Parts, &Part{Kind: kindSignature, Text: "signature block", Offset: sig.Offset, Size: sig.Length})
		}
		if s.Whole {
			end = max(end, min(c.Offset+c.Length, len(r.data)))
		}
		set.Parts = append(set.Parts, p)
	}
	if s.Whole { // how far it goes is its images' to say
		set.Size = end - s.Offset
	}
	r.add(set)
	return max(end, s.Offset+min(s.Next, set.Size))
}

func (r *Report) bootStream() int {
	s, err := firmware.ParseBootStream(r.data)
	r.problem(err)
	if s == nil {
		return 0
	}
	p := &Part{Kind: kindBootStream, Text: fmt.Sprintf("boot stream, version %d.%d, product %s, component %s, of %s", s.Major, s.Minor, s.Product, s.Component,
		s.Time.Format("2006-01-02")), Size: s.Size, Checks: []Check{{"sha1", OK}}}
	if err != nil {
		p.Checks[0].Result = Bad
	}
	if !s.Opened && err == nil {
		r.note("the boot stream is encrypted with a key of the board's owner: its commands cannot be read, nor the image's SHA-1 verified")
		p.Checks[0].Result = Unverified
	}
	for _, sec := range s.Sections {
		text := fmt.Sprintf("section %d", sec.ID)
		if sec.Bootable {
			text += ", bootable"
		}
		if s.Opened {
			text += fmt.Sprintf(": %d commands", len(sec.Commands))
		}
		part := &Part{Kind: kindSection, Text: text, Offset: sec.Offset, Size: sec.Size}
		for _, c := range sec.Commands {
			cmd := Command{Offset: c.Offset, Op: c.Name, Address: c.Address, Value: c.Arg, Text: streamText(c)}
			if c.Name == "load" || c.Name == "fill" {
				cmd.Count = &c.Count
			}
			part.Commands = append(part.Commands, cmd)
		}
		p.Parts = append(p.Parts, part)
	}
	r.add(p)
	return s.Size
}

func streamText(c firmware.BootStreamCommand) string {
	switch c.Name {
	case "load":
		text := fmt.Sprintf("load %d bytes to %#x", c.Count, c.Address)
		if c.DCD {
			text += ", a DCD"
		}
		return text
	case "fill":
		return fmt.Sprintf("fill %d bytes at %#x with %#x", c.Count, c.Address, c.Arg)
	case "jump", "call":
		text := fmt.Sprintf("%s %#x with %#x", c.Name, c.Address, c.Arg)
		if c.HAB {
			text = fmt.Sprintf("%s what the IVT at %#x says", c.Name, c.Address)
		}
		return text
	case "mode":
		return fmt.Sprintf("mode %d", c.Arg)
	}
	return c.Name
}

package uuu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"snag/event"
	"snag/firmware"
	"snag/socs"
	"snag/socs/imx"
)

// The commands of boot ROMs and of SPL (libuuu/sdp.cpp, sdps.cpp).

// maxBoot bounds a file for a ROM or an SPL. Of the image of a card no more than maxArea is looked at: boot loaders
// stand before the first partition.
const (
	maxBoot = 256 << 20
	maxArea = 64 << 20
)

// isCard tells the image of a card, by the signature of its partition table (UEFI 2.10, 5.2.1).
func isCard(b []byte) bool { return len(b) >= 512 && b[510] == 0x55 && b[511] == 0xaa }

// readBoot reads a file for a ROM or an SPL.
func (f files) readBoot(name string) ([]byte, error) {
	c, err := f.open(name)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	b, err := io.ReadAll(io.LimitReader(c, maxArea))
	if err == nil && len(b) == maxArea && !isCard(b) {
		var rest []byte
		rest, err = io.ReadAll(io.LimitReader(c, maxBoot-maxArea+1))
		b = append(b, rest...)
	}
	if err == nil && len(b) > maxBoot {
		err = fmt.Errorf("more than %d bytes", maxBoot)
	}
	return b, err
}

// source is a file that ROM or SPL is given, or a part of it.
type source struct {
	file    word
	offset  uint64
	header  bool   // a FlexSPI header is to be skipped
	burnTag bool   // the file is the image of a card, with a tag behind the boot loader
	limit   uint64 // how far that tag is looked for; 0: to the end
}

// The options that say which part of a file is meant.
var sourceOptions = map[string]bool{"-f": true, "-offset": true, "-skipfhdr": false, "-scanterm": false, "-scanlimited": true}

func with(more map[string]bool) map[string]bool {
	all := make(map[string]bool)
	for _, m := range []map[string]bool{sourceOptions, more} {
		for k, v := range m {
			all[k] = v
		}
	}
	return all
}

// source takes the options of a file.
func (s *Script) source(o *options) (source, error) {
	src := source{file: o.value["-f"], header: o.has("-skipfhdr"), burnTag: o.has("-scanterm")}
	if !o.has("-f") {
		return src, o.at.errorf("%s: expected -f FILE", o.at.text)
	}
	var err error
	if src.offset, err = o.number("-offset", 31, 0); err != nil {
		return src, err
	}
	if src.limit, err = o.number("-scanlimited", 63, 0); err != nil {
		return src, err
	}
	return src, s.files.check(src.file)
}

// read reads the part that is meant.
func (src source) read(s *Script) (socs.Image, error) {
	img := socs.Image{Path: src.file.text}
	data, err := s.files.readBoot(src.file.text)
	if err != nil {
		return img, &socs.FirmwareError{Slot: "file", Path: src.file.text, Err: err}
	}
	refuse := func(hint, format string, args ...any) (socs.Image, error) {
		return img, &socs.FirmwareError{Slot: "file", Path: src.file.text, Err: fmt.Errorf(format, args...), Hint: hint}
	}
	// Only in an image of a card; a boot loader itself is taken as it is, as by uuu.
	if src.burnTag && isCard(data) {
		head := data
		if src.limit > 0 {
			head = data[:min(uint64(len(data)), src.limit)]
		}
		start, size, ok := firmware.FindBurnTag(head)
		if !ok {
			return refuse("build the image with uuu_bootloader_tag, or name the boot loader's own file", "it is the image of a card, and no tag (UUUBURN...) in it ends a boot loader")
		}
		data = data[start:][:size]
	}
	if src.header {
		if off, ok := firmware.FlexSPIHeader(data, 0); ok && off+firmware.FlexSPISize < len(data) {
			data = data[off+firmware.FlexSPISize:]
		}
	}
	if src.offset >= uint64(len(data)) {
		return refuse("", "it has %d bytes: none at -offset %#x", len(data), src.offset)
	}
	data = data[src.offset:]
	img.Data = data
	return img, nil
}

// tryRead is read for a dry run.
func (src source) tryRead(s *Script, tell func(img socs.Image) []string) []string {
	if info, err := os.Stat(s.files.path(src.file.text)); err == nil && !info.Mode().IsRegular() {
		return []string{"what " + src.file.text + " has, which is no file"}
	}
	img, err := src.read(s)
	if err != nil {
		return []string{"nothing: " + err.Error()}
	}
	return tell(img)
}

// streamBoot is "SDPS: boot".
type streamBoot struct{ source }

func (s *Script) streamCommand(w word, text string) (command, error) {
	o, err := parseOptions(w, text, sourceOptions)
	if err != nil {
		return nil, err
	}
	if err := o.words(0, 0, "-f FILE"); err != nil {
		return nil, err
	}
	src, err := s.source(o)
	return streamBoot{src}, err
}

func (c streamBoot) sends(s *Script) []string {
	return c.tryRead(s, func(img socs.Image) []string {
		switch info := firmware.Identify(img.Data); info.Kind {
		case firmware.KindContainer:
			if set, _ := firmware.FindContainers(img.Data); set != nil {
				return []string{fmt.Sprintf("stream of %d bytes; i.MX8Q, 95, 94: of the first container set, %d bytes", len(img.Data)-set.Offset, set.Size)}
			}
		case firmware.KindIVT:
			if v, err := firmware.FindIVT(img.Data, 0); err == nil {
				return []string{fmt.Sprintf("stream of %d bytes, from %#x on", len(img.Data)-v.Offset, v.Offset)}
			}
		}
		return []string{fmt.Sprintf("stream of %d bytes", len(img.Data))}
	})
}

func (c streamBoot) run(ctx context.Context, x *session) error {
	img, err := c.read(x.script)
	if err != nil {
		return err
	}
	t, err := x.rom(ctx)
	if err != nil {
		return err
	}
	more, err := t.Stream(ctx, img)
	x.second(more)
	return err
}

// sdpCommand parses the commands of SDP, SDPU and SDPV; ok is false if there is none of that name.
func (s *Script) sdpCommand(proto Protocol, name string, w word, text string) (c command, ok bool, err error) {
	known := map[string]map[string]bool{
		"boot":   with(map[string]bool{"-nojump": false, "-cleardcd": false, "-dcdaddr": true, "-barebox": false}),
		"dcd":    with(map[string]bool{"-dcdaddr": true}),
		"write":  with(map[string]bool{"-addr": true, "-ivt": true, "-skipspl": false, "-barebox-bl33": false}),
		"jump":   with(map[string]bool{"-addr": true, "-ivt": false, "-plugin": false, "-cleardcd": false}),
		"rdmem":  {"-addr": true, "-format": true},
		"wrmem":  {"-addr": true, "-format": true, "-value": true},
		"status": {}, "blog": {},
	}[name]
	if known == nil || proto != SDP && name != "write" && name != "jump" && name != "blog" {
		return nil, false, nil
	}
	o, err := parseOptions(w, text, known)
	if err == nil && name == "jump" {
		o.optionalValue("-ivt")
	}
	if err == nil {
		err = o.words(0, 0, "its options")
	}
	for _, name := range []string{"-barebox", "-barebox-bl33"} {
		if err == nil {
			err = o.unsupported(name, "barebox in two steps is not taken: snag recover, or an image with U-Boot")
		}
	}
	if err != nil {
		return nil, true, err
	}
	switch name {
	case "boot":
		c, err = s.bootCommand(o)
	case "dcd":
		c, err = s.dcdCommand(o)
	case "write":
		c, err = s.writeCommand(proto, o)
	case "jump":
		c, err = s.jumpCommand(proto, o)
	case "rdmem", "wrmem":
		c, err = memoryCommand(name == "wrmem", o)
	case "status":
		c = status{}
	case "blog":
		c = bootLog{}
	}
	return c, true, err
}

// boot is "SDP: boot".
type boot struct {
	source
	opt imx.BootOptions
}

func (s *Script) bootCommand(o *options) (command, error) {
	src, err := s.source(o)
	if err != nil {
		return nil, err
	}
	dcd, err := o.number("-dcdaddr", 32, 0)
	return boot{src, imx.BootOptions{DCDAddr: uint32(dcd), ClearDCD: o.has("-cleardcd"), NoJump: o.has("-nojump")}}, err
}

func (c boot) sends(s *Script) []string {
	return c.tryRead(s, func(img socs.Image) []string {
		data := img.Data
		v, err := firmware.FindIVT(data, 0)
		if err != nil {
			return []string{"nothing: it has no IVT (" + err.Error() + ")"}
		}
		image, addr, err := v.Image(data)
		if err != nil {
			return []string{"nothing: " + err.Error()}
		}
		var out []string
		if raw, err := v.DCDBytes(data); err == nil && raw != nil {
			out = append(out, fmt.Sprintf("DCD_WRITE (%d bytes)", len(raw)))
		}
		out = append(out, fmt.Sprintf("WRITE_FILE (%d bytes to %#08x)", len(image), addr))
		if c.opt.NoJump {
			return out
		}
		if !c.opt.ClearDCD {
			out = append(out, "SKIP_DCD_HEADER (i.MX6Q, D, SL, SX: the IVT was written without the DCD's address)")
		}
		return append(out, fmt.Sprintf("JUMP_ADDRESS %#08x", addr))
	})
}

func (c boot) run(ctx context.Context, x *session) error {
	img, err := c.read(x.script)
	if err != nil {
		return err
	}
	t, err := x.rom(ctx)
	if err != nil {
		return err
	}
	more, err := t.Boot(ctx, img, c.opt)
	x.second(more)
	return err
}

// findIVT finds the n-th IVT of a file, from 0.
func findIVT(img socs.Image, n uint64) (*firmware.IVT, error) {
	refuse := func(err error) error { return &socs.FirmwareError{Slot: "file", Path: img.Path, Err: err} }
	from := 0
	for i := uint64(0); ; i++ {
		v, err := firmware.FindIVT(img.Data, from)
		if err != nil && i > 0 {
			return nil, refuse(fmt.Errorf("it has %d IVTs, expected one more: -ivt counts from 0", i))
		}
		if err != nil {
			return nil, refuse(err)
		}
		if i == n {
			return v, nil
		}
		from = v.Offset + firmware.IVTSize
	}
}

// dcd is "SDP: dcd".
type dcd struct {
	source
	addr uint32
}

func (s *Script) dcdCommand(o *options) (command, error) {
	src, err := s.source(o)
	if err != nil {
		return nil, err
	}
	addr, err := o.number("-dcdaddr", 32, 0)
	return dcd{src, uint32(addr)}, err
}

// table is the DCD of a file; nil if it has none.
func (c dcd) table(img socs.Image) ([]byte, error) {
	v, err := findIVT(img, 0)
	if err != nil {
		return nil, err
	}
	raw, err := v.DCDBytes(img.Data)
	if err != nil {
		return nil, &socs.FirmwareError{Slot: "file", Path: img.Path, Err: err}
	}
	return raw, nil
}

func (c dcd) sends(s *Script) []string {
	return c.tryRead(s, func(img socs.Image) []string {
		raw, err := c.table(img)
		if err != nil || raw == nil {
			return []string{"nothing: it has no DCD"}
		}
		return []string{fmt.Sprintf("DCD_WRITE (%d bytes)", len(raw))}
	})
}

func (c dcd) run(ctx context.Context, x *session) error {
	img, err := c.read(x.script)
	if err != nil {
		return err
	}
	raw, err := c.table(img)
	if err != nil || raw == nil {
		return err
	}
	t, err := x.rom(ctx)
	if err != nil {
		return err
	}
	return t.DCD(ctx, c.addr, raw)
}

// write is "write" of SDP, SDPU and SDPV.
type write struct {
	source
	addr    uint32
	toIVT   bool // to the address of the n-th IVT, from there on
	ivt     uint64
	skipSPL bool
}

func (s *Script) writeCommand(proto Protocol, o *options) (command, error) {
	src, err := s.source(o)
	if err != nil {
		return nil, err
	}
	c := write{source: src, toIVT: o.has("-ivt"), skipSPL: o.has("-skipspl")}
	switch {
	case c.skipSPL && proto != SDPV:
		return nil, o.given["-skipspl"].errorf("-skipspl is SDPV's: the other SPLs do not search for U-Boot; use -offset")
	case c.toIVT && o.has("-addr"):
		return nil, o.given["-ivt"].errorf("-ivt and -addr: the address is either the IVT's or given")
	}
	if c.ivt, err = o.number("-ivt", 8, 0); err != nil {
		return nil, err
	}
	addr, err := o.number("-addr", 32, 0)
	c.addr = uint32(addr)
	if proto == SDP && !c.toIVT && !o.has("-addr") {
		c.toIVT = true // there is no other address, as for boot
	}
	return c, err
}

// part is what is written, and to where.
func (c write) part(img socs.Image) ([]byte, uint32, error) {
	switch {
	case c.skipSPL:
		off, _, err := imx.FindSecond(img.Data)
		if err == nil && off >= len(img.Data) {
			err = errors.New("nothing stands behind the SPL")
		}
		if err != nil {
			return nil, 0, &socs.FirmwareError{Slot: "file", Path: img.Path, Err: err, Hint: "give flash.bin, which has SPL and U-Boot"}
		}
		return img.Data[off:], c.addr, nil
	case c.toIVT:
		v, err := findIVT(img, c.ivt)
		if err != nil {
			return nil, 0, err
		}
		data, addr, err := v.Image(img.Data)
		if err != nil {
			return nil, 0, &socs.FirmwareError{Slot: "file", Path: img.Path, Err: err}
		}
		return data, addr, nil
	}
	return img.Data, c.addr, nil
}

func (c write) sends(s *Script) []string {
	return c.tryRead(s, func(img socs.Image) []string {
		data, addr, err := c.part(img)
		if err != nil {
			return []string{"nothing: " + err.Error()}
		}
		return []string{fmt.Sprintf("WRITE_FILE (%d bytes to %#08x)", len(data), addr)}
	})
}

func (c write) run(ctx context.Context, x *session) error {
	img, err := c.read(x.script)
	if err != nil {
		return err
	}
	data, addr, err := c.part(img)
	if err != nil {
		return err
	}
	t, err := x.rom(ctx)
	if err != nil {
		return err
	}
	return t.Write(ctx, addr, img.Path, data)
}

// jump is "jump" of SDP, SDPU and SDPV.
type jump struct {
	source  // of the image that is jumped to; of ROMs, unless there is an address
	addr    uint32
	hasFile bool
	ivt     uint64
	clear   bool
}

func (s *Script) jumpCommand(proto Protocol, o *options) (command, error) {
	c := jump{clear: o.has("-cleardcd"), hasFile: proto == SDP && o.has("-f")}
	var err error
	switch {
	case o.has("-f"):
		if c.source, err = s.source(o); err != nil {
			return nil, err
		}
	case proto == SDP && !o.has("-addr"):
		return nil, o.at.errorf("jump: expected -f FILE or -addr ADDRESS")
	}
	if o.has("-plugin") && !c.hasFile {
		return nil, o.given["-plugin"].errorf("-plugin: expected -f FILE too")
	}
	if c.ivt, err = o.number("-ivt", 8, 0); err != nil {
		return nil, err
	}
	addr, err := o.number("-addr", 32, 0)
	c.addr = uint32(addr)
	if o.has("-addr") {
		c.hasFile = false
	}
	return c, err
}

func (c jump) sends(s *Script) []string {
	if !c.hasFile {
		return []string{fmt.Sprintf("JUMP_ADDRESS %#08x", c.addr)}
	}
	return c.tryRead(s, func(img socs.Image) []string {
		v, err := findIVT(img, c.ivt)
		if err != nil {
			return []string{"nothing: " + err.Error()}
		}
		skip := "SKIP_DCD_HEADER (i.MX6Q, D, SL, SX: WRITE_FILE of the IVT without the DCD's address)"
		if c.clear {
			skip = "WRITE_FILE of the IVT without the DCD's address"
		}
		return []string{skip, fmt.Sprintf("JUMP_ADDRESS %#08x", v.Self)}
	})
}

func (c jump) run(ctx context.Context, x *session) error {
	t, err := x.rom(ctx)
	if err != nil {
		return err
	}
	if !c.hasFile {
		return t.Jump(ctx, c.addr)
	}
	img, err := c.read(x.script)
	if err != nil {
		return err
	}
	v, err := findIVT(img, c.ivt)
	if err != nil {
		return err
	}
	return t.JumpImage(ctx, v, img.Data, c.clear)
}

// memory is "SDP: rdmem" and "SDP: wrmem".
type memory struct {
	write bool
	addr  uint32
	width int // bits
	value uint32
}

func memoryCommand(write bool, o *options) (command, error) {
	need := []string{"-addr", "-format"}
	if write {
		need = append(need, "-value")
	}
	n := make(map[string]uint64)
	for _, name := range need {
		if !o.has(name) {
			return nil, o.at.errorf("%s: expected %s NUMBER", o.at.text, name)
		}
		var err error
		if n[name], err = o.number(name, 32, 0); err != nil {
			return nil, err
		}
	}
	c := memory{write, uint32(n["-addr"]), int(n["-format"]), uint32(n["-value"])}
	if c.width != 8 && c.width != 16 && c.width != 32 {
		return nil, o.value["-format"].errorf("-format %d: expected 8, 16 or 32 bits", c.width)
	}
	return c, nil
}

func (c memory) sends(*Script) []string {
	if c.write {
		return []string{fmt.Sprintf("WRITE_REGISTER %#08x, %d bits, %#x", c.addr, c.width, c.value)}
	}
	return []string{fmt.Sprintf("READ_REGISTER %#08x, %d bits", c.addr, c.width)}
}

func (c memory) run(ctx context.Context, x *session) error {
	t, err := x.rom(ctx)
	if err != nil {
		return err
	}
	if c.write {
		return t.WriteMemory(ctx, c.addr, c.width, c.value)
	}
	v, err := t.ReadMemory(ctx, c.addr, c.width)
	if err == nil {
		x.emit(event.Note{Text: fmt.Sprintf("%#08x: %#0*x", c.addr, c.width/4, v)})
	}
	return err
}

// status is "SDP: status".
type status struct{}

func (status) sends(*Script) []string { return []string{"ERROR_STATUS"} }

func (status) run(ctx context.Context, x *session) error {
	t, err := x.rom(ctx)
	if err != nil {
		return err
	}
	text, err := t.Status(ctx)
	if err == nil {
		x.emit(event.Note{Text: "status " + text})
	}
	return err
}

// bootLog is "blog": what a ROM tells is shown while the stage is there, without being asked for.
type bootLog struct{}

func (bootLog) sends(*Script) []string              { return []string{"nothing: a ROM's log is read anyway"} }
func (bootLog) run(context.Context, *session) error { return nil }

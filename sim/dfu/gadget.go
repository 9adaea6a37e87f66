package dfu

import (
	"errors"
	"slices"

	"snag/sim/usbdev"
)

// Alt is an alternate setting of a gadget (family [Gadget]), with the medium behind it.
type Alt struct {
	Name string
	Size int    // of the medium, in bytes
	Data []byte // that is on it before; zeros follow
	// File is one of a file system: it is written at its end, is as long as what was sent last, and must fit into the
	// buffer.
	File bool
	// DfuSe: where it begins, and the size of its pages. It is erased but for Data.
	Address uint32
	Page    int
}

// defaultAlts are those of a gadget that is not given others.
var defaultAlts = []Alt{
	{Name: "boot", Size: 4 << 20}, {Name: "rootfs", Size: 16 << 20}, {Name: "uImage", Size: 8 << 20, File: true},
}

// RunTime is what a gadget does before it is in DFU mode.
type RunTime string

const (
	Detaches  RunTime = "detaches"         // it leaves the bus at DETACH
	WantsBus  RunTime = "waits for reset"  // it waits for a reset after DETACH
	DetachesQ RunTime = "detaches, silent" // it answers no GETSTATUS in run-time mode, and leaves at DETACH
)

// medium is what is behind a setting. It outlives power cycles.
type medium struct {
	Alt
	data []byte
}

func newMedium(a Alt) *medium {
	m := &medium{Alt: a, data: slices.Clone(a.Data)}
	if !a.File {
		m.data = append(m.data, make([]byte, a.Size-len(a.Data))...)
	}
	if a.Page > 0 {
		m.erase(len(a.Data), a.Size)
	}
	return m
}

func (m *medium) erase(from, to int) {
	for i := from; i < to; i++ {
		m.data[i] = 0xff
	}
}

// sector is the block size of an eMMC. U-Boot writes whole ones.
const sector = 512

// entity is U-Boot's state of a setting with a medium (drivers/dfu/dfu.c). An ABORT does not reset it.
type entity struct {
	inited bool
	next   uint16
	buf    []byte
	offset int
	left   int // of an upload
}

// gadget makes the stages of a gadget.
func (c *Config) gadget() []stage {
	st := stage{
		name: StageGadget, kind: kindUBoot, release: 0x0224, maker: "U-Boot", product: "USB download gadget",
		attributes: 0x0f, transfer: 4096, stays: true, media: true,
	}
	for _, a := range c.Alts {
		st.alts = append(st.alts, alt{name: a.Name, medium: newMedium(a)})
	}
	if c.DfuSe {
		st.kind, st.attributes, st.transfer, st.version = kindDfuSe, 0x0b, 2048, 0x011a
		st.product = "STM32 BOOTLOADER"
	}
	if c.NoUpload {
		st.attributes &^= canUpload
	}
	if c.Intolerant {
		st.attributes = st.attributes&canUpload | 1
	}
	if c.RunTime == "" {
		return []stage{st}
	}
	app := stage{
		name: StageApp, kind: kindApp, release: 0x0100, maker: "Virtual", product: "a product that does its work",
		attributes: 0x0f, detach: 1000, transfer: 4096, alts: []alt{{name: "run-time"}}, runTime: true,
	}
	if c.RunTime == WantsBus {
		app.attributes &^= willDetach
	}
	return []stage{app, st}
}

// Bits of bmAttributes.
const (
	canUpload  = 2
	willDetach = 8
)

// Medium returns a copy of what is behind a setting of a gadget, nil if there is no such setting.
func (b *Board) Medium(name string) (data []byte) {
	b.board.Edit(func(*Report) {
		for _, s := range b.way {
			for _, a := range s.alts {
				if a.medium != nil && a.name == name {
					data = slices.Clone(a.medium.data)
				}
			}
		}
	})
	return data
}

// store is what U-Boot does with a block, which may be empty (dfu_write).
func (d *device) store(m *medium, number uint16, data []byte) {
	e := &d.entities[d.alt]
	if !e.inited {
		*e = entity{inited: true}
	}
	if number != e.next {
		e.inited, d.pending = false, errUnknown
		return
	}
	e.next++
	size := d.b.cfg.Buffer
	if len(e.buf)+len(data) > size {
		d.drain(m, e)
	}
	e.buf = append(e.buf, data...)
	if len(data) == 0 || len(e.buf)+len(data) > size {
		d.drain(m, e)
	}
}

// drain writes the buffer through (dfu_write_buffer_drain, dfu_mmc.c).
func (d *device) drain(m *medium, e *entity) {
	n := len(e.buf)
	if n == 0 || d.pending != 0 {
		return
	}
	d.busy += d.b.cfg.Drain
	if !m.File {
		n = (n + sector - 1) / sector * sector
	}
	if e.offset+n > m.Size {
		e.inited, d.pending = false, errUnknown
		return
	}
	if m.File && e.offset == 0 {
		m.data = nil
	}
	b := append(e.buf, make([]byte, n-len(e.buf))...)
	d.edit(func(*Stage) {
		if m.File {
			m.data = append(m.data, b...)
		} else {
			copy(m.data[e.offset:], b)
		}
	})
	e.offset, e.buf = e.offset+n, e.buf[:0]
}

// uploadMedium answers an UPLOAD.
func (d *device) uploadMedium(m *medium, number uint16, data []byte) (n int, err error) {
	switch {
	case d.b.cfg.NoUpload:
		d.violation("UPLOAD, which the device has said that it cannot do")
		return 0, d.fail(errStalledPkt)
	case d.st.kind == kindDfuSe:
		n, err = d.readMemory(m, number, data)
	default:
		n, err = d.load(m, number, data)
	}
	if err != nil {
		return 0, err
	}
	if d.state = dfuIdle; n == len(data) {
		d.state = dfuUploadIdle
	}
	d.edit(func(s *Stage) { s.Uploads++ })
	return n, nil
}

// load is what U-Boot does with an UPLOAD (dfu_read).
func (d *device) load(m *medium, number uint16, data []byte) (int, error) {
	e := &d.entities[d.alt]
	if !e.inited {
		*e = entity{inited: true, left: len(m.data)}
	}
	if d.state == dfuIdle {
		number = 0 // it does not look
	}
	if number != e.next {
		return 0, usbdev.ErrStall // and stays as it is
	}
	e.next++
	n := copy(data, m.data[len(m.data)-e.left:])
	if e.left -= n; n < len(data) {
		e.inited = false
	}
	return n, nil
}

// flush ends a download (dfu_flush). If it fails the dfu command ends, and with it the gadget, without a word.
func (d *device) flush(a *alt) {
	e := &d.entities[d.alt]
	d.drain(a.medium, e)
	e.inited = false
	if d.gone || d.pending != 0 {
		d.leave(errors.New("the last part could not be written, and the dfu command ended"))
		d.hung = true
	}
}

// Commands of DfuSe, as data of block 0 (UM0424, section 3.2).
const (
	seSetAddress = 0x21
	seErase      = 0x41
	seFirst      = 2
	errProg      = 6
)

// program is what a device with DfuSe does with a block.
func (d *device) program(m *medium, number uint16, data []byte) {
	d.edit(func(*Stage) {
		if number != 0 {
			at := int64(d.pointer) - int64(m.Address) + int64(number-seFirst)*int64(d.st.transfer)
			switch {
			case number < seFirst || at < 0 || at+int64(len(data)) > int64(m.Size):
				d.pending = errAddress
			case slices.ContainsFunc(m.data[at:at+int64(len(data))], func(b byte) bool { return b != 0xff }):
				d.pending = errProg
			default:
				copy(m.data[at:], data)
			}
			return
		}
		var addr uint32
		if len(data) == 5 {
			addr = uint32(data[1]) | uint32(data[2])<<8 | uint32(data[3])<<16 | uint32(data[4])<<24
		}
		in := int64(addr) - int64(m.Address)
		switch {
		case len(data) == 1 && data[0] == seErase:
			m.erase(0, m.Size)
		case len(data) != 5 || data[0] != seErase && data[0] != seSetAddress:
			d.pending = errStalledPkt
		case in < 0 || in >= int64(m.Size):
			d.pending = errAddress
		case data[0] == seErase:
			page := int(in) / m.Page * m.Page
			m.erase(page, min(page+m.Page, m.Size))
			d.busy += d.b.cfg.Drain
		default:
			d.pointer = addr
		}
	})
}

// readMemory answers an UPLOAD of DfuSe.
func (d *device) readMemory(m *medium, number uint16, data []byte) (int, error) {
	if number == 0 {
		return copy(data, []byte{0, seSetAddress, seErase}), nil
	}
	at := int64(d.pointer) - int64(m.Address) + int64(number-seFirst)*int64(d.st.transfer)
	if number < seFirst || at < 0 || at > int64(m.Size) {
		return 0, d.fail(errAddress)
	}
	return copy(data, m.data[at:]), nil
}

// app answers in run-time mode (DFU 1.1, figure A.1).
func (d *device) app(s usbdev.Setup, data []byte) (int, error) {
	switch {
	case s.Request == reqGetStatus && d.b.cfg.RunTime != DetachesQ:
		return d.answer(data, d.state, 0), nil
	case s.Request == reqGetState:
		return copy(data, []byte{d.state}), nil
	case s.Request == reqDetach && d.state == dfuAppIdle:
		d.edit(func(s *Stage) { s.Detaches++ })
		if d.b.cfg.RunTime == WantsBus {
			d.state = dfuAppDetach
		} else {
			d.leave(nil)
		}
		return 0, nil
	case s.Request != reqGetStatus:
		d.violation("%s in run-time mode", requestNames[s.Request])
	}
	return 0, usbdev.ErrStall
}

package dfu

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"snag/sim/usbdev"
	"snag/sim/virtual"
)

// States and statuses (DFU 1.1, section 6.1.2).
const (
	dfuAppIdle           = 0
	dfuAppDetach         = 1
	dfuIdle              = 2
	dfuDownloadSync      = 3
	dfuDownloadBusy      = 4
	dfuDownloadIdle      = 5
	dfuManifestSync      = 6
	dfuManifest          = 7
	dfuManifestWaitReset = 8
	dfuUploadIdle        = 9
	dfuError             = 10

	errFile       = 2
	errAddress    = 8
	errUnknown    = 0x0e
	errStalledPkt = 0x0f
)

func stateName(s byte) string {
	return [...]string{
		"appIDLE", "appDETACH", "dfuIDLE", "dfuDNLOAD-SYNC", "dfuDNBUSY", "dfuDNLOAD-IDLE", "dfuMANIFEST-SYNC",
		"dfuMANIFEST", "dfuMANIFEST-WAIT-RESET", "dfuUPLOAD-IDLE", "dfuERROR",
	}[s]
}

// download takes a block, or the end of a file.
func (d *device) download(ctx context.Context, number uint16, data []byte) (int, error) {
	if d.state != dfuIdle && d.state != dfuDownloadIdle {
		d.violation("DNLOAD in %s", stateName(d.state))
		if d.st.kind == kindTFA {
			return 0, d.refuse("download in a wrong state")
		}
		return 0, d.fail(errStalledPkt)
	}
	if len(data) == 0 && d.state == dfuIdle {
		d.violation("the end of a file without a file")
		return 0, d.fail(errStalledPkt)
	}
	if len(data) > int(d.st.transfer) {
		d.violation("a block of %d bytes, more than wTransferSize %d", len(data), d.st.transfer)
		return 0, d.fail(errStalledPkt)
	}
	if d.state == dfuIdle {
		d.file, d.blocks, d.next = nil, 0, 0
	}
	a := &d.st.alts[d.alt]
	if d.st.phases != nil { // TF-A, and the ROM that TF-A is alike
		if len(d.wants) == 0 || a.phase != d.wants[0] || d.failed != "" {
			d.violation("DNLOAD to %q, which is not the phase's", a.name)
			return 0, d.refuse("download to another phase")
		}
	} else if d.st.kind == kindROM && a.limit == 0 {
		d.violation("DNLOAD to %q", a.name)
		return 0, d.fail(errStalledPkt)
	}
	if err := d.fault(ctx, len(data)); err != nil {
		return 0, err
	}
	if d.st.kind == kindUBoot {
		if number != d.next {
			d.violation("block %d where %d is next", number, d.next)
			d.pending = errUnknown
		}
		d.next++
	}
	if d.flip && len(data) > 0 {
		data, d.flip = slices.Clone(data), false
		data[0] ^= 1
	}
	if d.st.media && d.st.kind == kindUBoot {
		d.store(a.medium, number, data)
	}
	if len(data) == 0 {
		return 0, d.finish(a)
	}
	if d.st.kind == kindDfuSe {
		d.program(a.medium, number, data)
	}
	d.take(data)
	if a.limit > 0 && len(d.file) > a.limit {
		switch d.st.kind {
		case kindTFA:
			return 0, d.refuse("the file is too large")
		case kindUBoot:
			d.pending = errUnknown
		default:
			d.pending = errAddress
		}
	}
	d.state, d.until = dfuDownloadSync, time.Time{}
	return len(data), nil
}

// take keeps the data of a block.
func (d *device) take(data []byte) {
	d.file = append(d.file, data...)
	d.blocks++
	d.total += len(data)
	d.edit(func(s *Stage) {
		s.Bytes = d.total
		s.Received()
	})
}

// finish begins the manifestation of a file.
func (d *device) finish(a *alt) error {
	d.state, d.until = dfuManifestSync, time.Time{}
	d.edit(func(s *Stage) {
		s.file(File{Alt: d.alt, Name: a.name, Bytes: len(d.file), Blocks: d.blocks}, d.file)
	})
	if a.check != nil && !d.b.cfg.AnyFile {
		err := a.check(d.file)
		d.edit(func(s *Stage) { s.Error = text(err) })
		if err != nil {
			switch {
			case d.st.kind == kindTFA:
				return d.refuse(err.Error())
			case d.st.phases != nil:
				d.pending = errFile
				return nil
			case d.st.kind == kindROM: // it says nothing
				d.leave(err)
				return nil
			}
		}
	}
	if d.pending == 0 {
		d.got[a.name] = true
	}
	if d.st.kind == kindROM && d.st.phases == nil && d.b.cfg.EarlyLeave && d.pending == 0 {
		d.leave(nil)
		d.hung = true // it does not answer any more
	}
	return nil
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// refuse ends in TF-A's phase RESET. A file that is refused at its end leaves the state as it is.
func (d *device) refuse(why string) error {
	d.failed = why
	return usbdev.ErrStall
}

// getStatus answers GETSTATUS.
func (d *device) getStatus(data []byte) (int, error) {
	if early := time.Until(d.notBefore); early > time.Millisecond {
		d.violation("GETSTATUS before bwPollTimeout was over")
	}
	var poll time.Duration
	old := d.state
	switch d.state {
	case dfuDownloadSync, dfuDownloadBusy:
		poll = d.work(d.b.cfg.Block, dfuDownloadBusy, dfuDownloadIdle)
		if d.st.kind == kindDfuSe && old == dfuDownloadSync && d.state == dfuDownloadIdle {
			d.state, poll = dfuDownloadBusy, time.Millisecond // it is so once at least; dfu-util wants that
		}
	case dfuManifestSync, dfuManifest:
		if d.state == dfuManifestSync && d.pending == 0 && d.st.kind != kindROM {
			d.state = dfuManifest // the answer is that once at least
			switch {
			case d.st.kind == kindDfuSe:
				d.leave(nil)
				d.hung = true
			case d.st.media:
				d.flush(&d.st.alts[d.alt])
			}
			if d.st.kind == kindTFA {
				poll = time.Millisecond
			}
			if d.busy+d.b.cfg.Manifest > 0 {
				poll = d.work(d.b.cfg.Manifest, dfuManifest, dfuManifest)
			}
			break
		}
		if poll = d.work(d.b.cfg.Manifest, dfuManifest, dfuIdle); d.state == dfuIdle {
			if old == dfuManifestSync { // the ROM says this state once
				d.state, d.until = dfuManifest, time.Now()
				if d.b.cfg.Model.Family == RZN1 { // it says so, starts its file and answers nothing more
					d.leave(nil)
					d.hung = true
					return d.answer(data, dfuManifest, 0), nil
				}
				return d.answer(data, dfuManifestSync, 0), nil
			}
			d.manifested()
		}
	}
	state := d.state
	if d.st.kind == kindTFA && old == dfuDownloadSync && state == dfuDownloadIdle {
		state = old // it tells the state before it advances
	}
	return d.answer(data, state, poll), nil
}

func (d *device) answer(data []byte, state byte, poll time.Duration) int {
	ms := uint32((poll + time.Millisecond - 1) / time.Millisecond)
	if d.b.cfg.ShortPoll && ms != lie {
		ms = 0
	}
	d.notBefore = time.Now().Add(time.Duration(ms) * time.Millisecond)
	return copy(data, []byte{d.status, byte(ms), byte(ms >> 8), byte(ms >> 16), state, 0})
}

// lie is the longest bwPollTimeout there can be.
const lie = 0xffffff

// work goes on with what the device is busy with: it is in one state meanwhile and in another one then. It returns the
// time that is left.
func (d *device) work(usual time.Duration, during, after byte) time.Duration {
	if d.until.IsZero() {
		d.until = time.Now().Add(usual + d.busy)
		d.busy = 0
	}
	if left := time.Until(d.until); left > 0 {
		d.state = during
		return left
	}
	d.state = after
	if d.pending != 0 {
		d.fail(d.pending)
	}
	return 0
}

// manifested has the stage go on to what its file is for.
func (d *device) manifested() {
	d.file = nil
	switch {
	case d.st.media && d.b.cfg.Intolerant:
		d.state = dfuManifestWaitReset
	case d.st.phases != nil:
		old := d.wants[0]
		d.wants = d.wants[1:]
		switch {
		case d.st.detachs && old != 0: // a flash layout is all it was asked for
			d.waits = true
		case len(d.wants) == 0:
			d.leave(nil)
		}
	case !d.st.detachs && !d.st.stays && d.complete():
		d.leave(nil)
	}
}

// complete says whether the stage has what it needs.
func (d *device) complete() bool {
	for _, n := range d.st.needs {
		if !d.got[n] {
			return false
		}
	}
	return true
}

// detach ends a stage that waits for that.
func (d *device) detach() (int, error) {
	d.edit(func(s *Stage) { s.Detaches++ })
	switch {
	case d.st.phases != nil && d.st.detachs:
		switch {
		case !d.waits:
			d.violation("DETACH while a file is wanted")
			d.leave(errors.New("it was left without its file"))
		case len(d.wants) > 0: // TF-A that has set up memory
			d.waits = false
		default:
			d.leave(nil)
		}
	case d.st.media && d.state == dfuIdle: // the dfu command ends
		d.leave(nil)
	case d.st.stays && !d.st.media:
		d.violation("DETACH to U-Boot proper, which is reset by it")
		d.leave(virtual.ErrReset)
	case d.st.kind == kindUBoot && d.state != dfuIdle:
		d.violation("DETACH in %s", stateName(d.state))
		return 0, d.fail(errUnknown)
	case d.st.kind == kindUBoot && !d.complete():
		d.violation("DETACH without %q", d.st.needs)
		d.leave(errors.New("it has nothing to start"))
	case d.st.kind == kindUBoot && d.faulty() != "":
		d.leave(errors.New(d.faulty()))
	case d.st.kind == kindUBoot:
		d.leave(nil)
	default:
		return 0, usbdev.ErrStall // dfu-util tries it everywhere
	}
	return 0, nil
}

// faulty is why the stage cannot start what it has.
func (d *device) faulty() (why string) {
	d.edit(func(s *Stage) { why = s.Error })
	return why
}

// upload answers with the phase of STM32MP, or with what else there is to read.
func (d *device) upload(number uint16, data []byte) (int, error) {
	a := &d.st.alts[d.alt]
	if d.state != dfuIdle && d.state != dfuUploadIdle {
		d.violation("UPLOAD in %s", stateName(d.state))
		return 0, d.fail(errStalledPkt)
	}
	if d.st.media {
		return d.uploadMedium(a.medium, number, data)
	}
	var b []byte
	switch {
	case a.phase == phaseVirtual && d.state == dfuIdle:
		b = d.phase()
	case a.phase == phaseVirtual, a.name == "SocId" && d.state == dfuUploadIdle:
	case a.name == "SocId":
		b = []byte("K3 of a virtual board\x00")
	case d.st.kind == kindUBoot:
	default:
		d.violation("UPLOAD from %q", a.name)
		d.failed = "upload from another phase"
		return 0, d.fail(errStalledPkt)
	}
	n := copy(data, b)
	d.state = dfuIdle
	if n == len(data) {
		d.state = dfuUploadIdle
	}
	d.edit(func(s *Stage) { s.Uploads++ })
	return n, nil
}

// phase is the answer of STM32MP's virtual partition, little-endian:
//
//	off size
//	0   1    phase
//	1   4    address; 0xffffffff: none
//	5   4    offset
//	9   ..   phase 0: 1 if DETACH is waited for; phase 0xff: why
func (d *device) phase() []byte {
	b := make([]byte, 9)
	address := uint32(0xffffffff)
	switch {
	case d.failed != "":
		b[0] = 0xff
		b = append(b, d.failed...)
	case d.waits:
		b = append(b, 1)
	case len(d.wants) > 0:
		b[0], address = byte(d.wants[0]), 0xc0000000
	}
	binary.LittleEndian.PutUint32(b[1:], address)
	return b
}

// fault carries out the faults that are due with a block of n bytes.
func (d *device) fault(ctx context.Context, n int) error {
	at := ""
	if n == 0 {
		at = Manifest
	}
	for {
		f, err := d.b.board.Due(ctx, at, d.total+n)
		switch f.Kind {
		case Fail:
			if d.gone = d.st.media && at == Manifest && f.Status == 0; d.gone {
				continue
			}
			if d.pending = f.Status; f.Status == 0 {
				d.pending = errUnknown
			}
		case Flip:
			d.flip = true
		case Busy:
			d.busy = f.For
		case Lie:
			d.busy = lie * time.Millisecond
		case Stall:
			return usbdev.ErrStall
		case Refuse:
			return d.refuse("refused by request")
		case Unplug, Reset:
			d.leave(err)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-d.gadget.Load().Gone():
				return usbdev.ErrGone
			}
		default:
			d.hung = f.Kind == Hang
			return err
		}
	}
}

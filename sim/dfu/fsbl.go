package dfu

import (
	"context"
	"errors"

	"snag/sim/usbdev"
	"snag/sim/virtual"
)

// fsbl is the state machine of Xilinx's FSBL (xfsbl_dfu_util.c), which knows three requests and no number but 0. What
// it does not know it stalls, and is in dfuERROR until the next block.
func (d *device) fsbl(ctx context.Context, s usbdev.Setup, data []byte) (int, error) {
	switch s.Request {
	case reqDetach:
		d.edit(func(t *Stage) { t.Detaches++ })
		return 0, nil
	case reqDownload:
		if len(data) > int(d.st.transfer) {
			d.violation("a block of %d bytes, more than wTransferSize %d", len(data), d.st.transfer)
			return 0, usbdev.ErrStall
		}
		if s.Value == 0 && d.state != dfuDownloadIdle {
			d.file, d.blocks = nil, 0
		}
		if err := d.fault(ctx, len(data)); err != nil {
			return 0, err
		}
		if err := virtual.Sleep(ctx, d.b.cfg.Block); err != nil {
			return 0, err
		}
		d.upset = false
		switch {
		case len(data) == 0:
			d.edit(func(t *Stage) {
				t.file(File{Alt: d.alt, Name: d.st.label, Bytes: len(d.file), Blocks: d.blocks}, d.file)
			})
			d.state = dfuIdle
			d.got[d.st.label] = true
		default:
			d.take(data)
			d.state = dfuDownloadIdle
		}
		if d.pending != 0 {
			d.fail(d.pending)
		}
		return len(data), nil
	case reqGetStatus:
		state := d.state
		if d.busy > 0 {
			poll := d.busy
			d.busy = 0
			return d.answer(data, dfuDownloadBusy, poll), nil
		}
		if d.upset {
			state = dfuError
		} else if d.b.cfg.OldFSBL && state == dfuIdle {
			state = dfuDownloadSync
			if d.idles++; d.idles == 2 {
				d.booted()
			}
		}
		return d.answer(data, state, 0), nil
	}
	d.violation("%s, which it does not know", requestNames[s.Request])
	d.upset = true
	return 0, usbdev.ErrStall
}

// count counts what decides that the download is done: the number 3. It starts at 1.
func (d *device) count() {
	switch {
	case d.alt == 1:
		if d.selects > 1 {
			d.violation("setting 1 was selected %d times", d.selects)
		}
		d.selects++
		d.state = dfuIdle
	case d.selects > 1:
		d.state = dfuAppIdle
		d.selects++
	}
	if d.selects == 3 && !d.b.cfg.OldFSBL {
		d.booted()
	}
}

// booted starts what was downloaded.
func (d *device) booted() {
	if !d.got[d.st.label] {
		d.leave(errors.New("it was left without its file"))
		return
	}
	if check := d.st.alts[1].check; check != nil && !d.b.cfg.AnyFile {
		if err := check(d.file); err != nil {
			d.edit(func(s *Stage) { s.Error = err.Error() })
			d.leave(err)
			return
		}
	}
	d.leave(nil)
}

package amlogic

import (
	"context"
	"errors"
	"fmt"

	"snag/event"
	"snag/firmware"
	"snag/socs"
	"snag/socs/stages"
	"snag/usb"
)

const (
	g12Block = 4096    // of BL2: pyamlboot's
	g12BL2   = 0x10000 // how much of the file the ROM takes
	g12File  = 1 << 25 // offsets in it are told by 16 bits, in units of 512
)

// maxAsks bounds what a BL2 may ask for. Some ten pieces are usual.
const maxAsks = 4096

// serveG12 gives the ROM BL2, and that what it asks for.
func (r *recovery) serveG12(ctx context.Context, d *device, stage *socs.Stage) error {
	img := r.job.Firmware[slotFIP]
	load, err := address(img, keyBL2Load, r.bl2)
	if err != nil {
		return err
	}
	bl2 := img.Data[:g12BL2]
	p := r.begin(stageROM, img.Path, len(bl2))
	if err := d.large(ctx, load, bl2, g12Block, p.At); err != nil {
		return err
	}
	if err := d.run(ctx, load); err != nil {
		return err
	}
	p.Done()
	p = r.begin(stageBL2, img.Path, len(img.Data)-len(bl2))
	if err := r.settle(ctx, stage, trainTime); err != nil {
		return err
	}
	return r.feed(ctx, d, stage, p, img.Data)
}

// feed gives a BL2 what it asks for, until it asks for the same again: then it has all, and starts U-Boot.
func (r *recovery) feed(ctx context.Context, d *device, stage *socs.Stage, p *stages.Transfer, file []byte) error {
	whole := endOf(file)
	var last ask
	reached, sent := 0, 0
	for seq := range maxAsks {
		a, err := d.ask(ctx)
		if seq > 0 && reached >= whole && errors.Is(stages.Gone(ctx, stage, err), usb.ErrGone) {
			r.job.Board.Emit(stageBL2, event.Warning{Text: fmt.Sprintf("BL2 left before it had told that it has everything (%v): it was given all of the file, taking that for success", err)})
			p.Done()
			return nil
		}
		if wrong, ok := errors.AsType[*answerError](err); ok {
			return r.fail("BL2 has crashed, or does not run: is the file for this board and its DRAM?", "%w", wrong)
		} else if err != nil {
			return err
		}
		if seq > 0 && a == last {
			p.Done()
			return nil
		}
		if err := a.within(len(file)); err != nil {
			return r.fail("the file is cut, or for another board", "%w", err)
		}
		if a.offset == 0 {
			r.job.Board.Emit(stageBL2, event.Warning{Text: "BL2 asks for the begin of the file, which is itself"})
		}
		// Some is asked for twice.
		err = d.piece(ctx, seq, a, file[a.offset:a.offset+a.length], func(n int) { p.At(min(sent+n, p.Total)) })
		if _, ok := errors.AsType[*answerError](err); ok {
			return r.fail("BL2 does not accept what it asked for: try another cable, and a port without hubs in between", "%w", err)
		} else if err != nil {
			return err
		}
		last, reached, sent = a, max(reached, int(a.offset)+int(a.length)), sent+int(a.length)
	}
	return r.fail("the file is for another board", "BL2 has asked for %d pieces, and does not end", maxAsks)
}

// endOf is where the images of a file end.
func endOf(file []byte) int {
	f, err := firmware.ParseAMLFIP(file[g12BL2:])
	if err != nil {
		return len(file)
	}
	return g12BL2 + f.Size
}

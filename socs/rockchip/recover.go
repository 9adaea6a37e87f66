package rockchip

import (
	"context"
	"errors"
	"fmt"
	"time"

	"snag/event"
	"snag/socs"
	"snag/socs/stages"
	"snag/usb"
)

const openTime = 5 * time.Second

const cycle = "power-cycle the board into its ROM and run snag again: the ROM is out of step, and takes nothing before"

// Recover implements socs.Backend.
func (Backend) Recover(ctx context.Context, job socs.Job) error {
	list, _, err := sections(chipOf(job.Model), job.Firmware)
	if err != nil {
		return err
	}
	r := &recovery{board: job.Board, sections: list, plug: list[len(list)-1].plug, at: stageROM, runs: stages.Runs{Did: "it was served",
		Hint: "what is sent does not start on this board: check that the files are for it, and that power and cable are good"}}
	return stages.Drive(ctx, job.Board, r.serve, func() string { return r.at }, func(err error) string { return hintFor(r.at, err) })
}

// recovery is one of a board.
type recovery struct {
	board    socs.Board
	sections []section
	plug     bool // the last is a USB plug, which comes back
	runs     stages.Runs
	sent     bool   // the ROM has everything
	at       string // the stage
}

// serve does what one enumeration needs.
func (r *recovery) serve(ctx context.Context, stage *socs.Stage) (done bool, err error) {
	if !stage.ROM {
		return false, &socs.BoardError{Stage: stageROM, Err: fmt.Errorf("expected the boot ROM on port %s, got %s", stage.Port, stage.ID), Hint: "bring the board into its ROM again"}
	}
	if r.sent { // it may be the plug that comes, or the ROM
		r.at = stagePlug
		if err := r.meet(ctx, stage); !errors.Is(err, errROM) {
			return err == nil, err
		}
	} else if d := stage.USB.Descriptors(); d.USB&1 != 0 {
		return false, &socs.BoardError{Stage: stageROM, Err: fmt.Errorf("%s on port %s is no ROM: it is the loader of the board's U-Boot, or a USB plug (bcdUSB %x)", stage.ID, stage.Port, d.USB),
			Hint: "bring the board into its ROM: hold its maskrom button at power-on, or run rkdeveloptool rd 3"}
	}
	r.sent, r.at = false, stageROM
	if err := r.runs.Begin(r.board); err != nil {
		return false, err
	}
	over, err := r.download(ctx, stage)
	r.sent = err == nil && r.plug
	return over || err == nil && !r.plug, err
}

// download sends the ROM its sections, and waits until it has started the last. over says that nothing comes after
// that.
func (r *recovery) download(ctx context.Context, stage *socs.Stage) (over bool, err error) {
	total, done := 0, 0
	for _, s := range r.sections {
		total += len(s.data)
	}
	t := stages.Begin(r.board, stageROM, r.sections[0].path, total)
	t.Since = stage.Since
	for i := range r.sections {
		s := &r.sections[i]
		err := download(ctx, stage.USB, s, func(n int) { t.At(done + n) })
		if failed, ok := errors.AsType[*downloadError](err); ok {
			failed.first = i == 0
			if i == len(r.sections)-1 && s.request == 0x472 && failed.lastPiece() && errors.Is(stages.Gone(ctx, stage, err), usb.ErrGone) {
				err = nil // it jumped before it told that it has the last piece
			}
		}
		if err != nil {
			return false, err
		}
		done += len(s.data)
		select {
		case <-time.After(s.delay):
		case <-stage.Gone:
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
	if r.sections[len(r.sections)-1].request == 0x472 {
		gone, err := left(ctx, stage.USB, stage.Gone)
		if err != nil {
			return false, err
		}
		if !gone {
			r.board.Emit(stageROM, event.Note{Text: "the board is on the bus but does not serve USB any more: what it was sent runs; see its console, which is at 1500000 baud on most"})
			over = true
		}
	}
	t.Done()
	return over, nil
}

// errROM says that what came back is the ROM.
var errROM = errors.New("the boot ROM is back, not the USB plug")

// meet looks whether what came back is the USB plug.
func (r *recovery) meet(ctx context.Context, stage *socs.Stage) error {
	r.board.Emit(stagePlug, event.StageBegun{})
	short, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	p, err := openPlug(short, stage.USB)
	switch {
	case errors.Is(err, errNoPlug) && stage.USB.Descriptors().USB&1 == 0:
		return errROM
	case err != nil:
		return err
	}
	chip, err := p.hello(ctx)
	switch {
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil && stage.USB.Descriptors().USB&1 == 0:
		return errROM
	case errors.Is(err, errNotReady):
		r.board.Emit(stagePlug, event.Warning{Text: "the USB plug says that it is not ready: it found no storage"})
	case err != nil:
		return err
	}
	if chip != "" {
		r.board.Emit(stagePlug, event.Note{Text: "the USB plug runs, on a chip that calls itself " + chip})
	}
	r.board.Emit(stagePlug, event.StageDone{Summary: event.StageSummary{Stage: stagePlug, Duration: time.Since(stage.Since)}})
	return nil
}

// hintFor tells what may have caused a failure.
func hintFor(stage string, err error) string {
	failed, _ := errors.AsType[*downloadError](err)
	switch {
	case errors.Is(err, usb.ErrBusy):
		return "end the other program (rkdeveloptool, a virtual machine) that uses the board"
	case errors.Is(err, errStays):
		return "the ROM did not start what 472 loaded: its CRC16 was wrong, it is not for this SoC, or linked to another address; check the files, and rc4; then " + cycle
	case stage == stagePlug:
		return "power-cycle the board into its ROM and run snag again; if it stays so try another loader for the SoC"
	case failed == nil:
		return cycle
	case errors.Is(err, context.DeadlineExceeded) && !failed.first:
		return "what 471 loaded did not return: it is not for this board's memory, or rc4 is to be the other way; " + cycle
	case errors.Is(err, usb.ErrStall) && failed.sent == 0 && failed.first:
		return "another program stopped in the middle of a download, or what is there is a USB plug of an earlier run: " + cycle
	case errors.Is(err, usb.ErrStall) && failed.sent == 0:
		return "the ROM dropped the section before, or the DRAM was not set up: check that the first stage is for this board, and rc4; " + cycle
	case errors.Is(err, usb.ErrStall):
		return "the file is larger than the memory that it goes to, or for another SoC; " + cycle
	}
	return cycle + "; try another cable, and a port without hubs in between"
}

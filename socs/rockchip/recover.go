package rockchip

import (
	"context"
	"errors"
	"fmt"
	"time"

	"snag/event"
	"snag/socs"
	"snag/usb"
)

// maxRuns is how often the ROM is served: it may come back from a board that was reset.
const maxRuns = 3

const (
	openTime     = 5 * time.Second
	goneTime     = time.Second // from a transfer that failed to the board's end, if that was the cause
	progressTime = 100 * time.Millisecond
)

const cycle = "power-cycle the board into its ROM and run snag again: the ROM is out of step, and takes nothing before"

// Recover implements socs.Backend.
func (Backend) Recover(ctx context.Context, job socs.Job) error {
	list, _, err := sections(chipOf(job.Model), job.Firmware)
	if err != nil {
		return err
	}
	r := &recovery{board: job.Board, sections: list, plug: list[len(list)-1].plug}
	for runs := 0; ; {
		stage, err := r.board.Next(ctx)
		if err != nil {
			return err
		}
		if !stage.ROM {
			return &socs.BoardError{Stage: stageROM, Err: fmt.Errorf("expected the boot ROM on port %s, got %s", stage.Port, stage.ID), Hint: "bring the board into its ROM again"}
		}
		if r.sent {
			err := r.meet(ctx, stage)
			if err == nil {
				return nil
			}
			switch err = explain(ctx, stage, stagePlug, err); {
			case errors.Is(err, usb.ErrGone): // it may be the plug that comes back, or the ROM
				r.away(stage, stagePlug, err)
				continue
			case !errors.Is(err, errROM):
				return err
			}
			r.sent = false
		} else if loader := stage.USB.Descriptors().USB&1 != 0; loader {
			return &socs.BoardError{Stage: stageROM, Err: fmt.Errorf("%s on port %s is no ROM: it is the loader of the board's U-Boot, or a USB plug (bcdUSB %x)", stage.ID, stage.Port, stage.USB.Descriptors().USB),
				Hint: "bring the board into its ROM: hold its maskrom button at power-on, or run rkdeveloptool rd 3"}
		}
		if runs++; runs > maxRuns {
			return &socs.BoardError{Stage: stageROM, Err: fmt.Errorf("the boot ROM is back after it was served %d times", maxRuns),
				Hint: "what is sent does not start on this board: check that the files are for it, and that power and cable are good"}
		}
		if runs > 1 {
			r.board.Emit(stageROM, event.Warning{Text: "the boot ROM is back: starting over"})
		}
		over, err := r.serve(ctx, stage)
		if over || err == nil && !r.plug {
			return nil
		}
		if err == nil {
			r.sent = true
			continue
		}
		if err = explain(ctx, stage, stageROM, err); !errors.Is(err, usb.ErrGone) {
			return err
		}
		r.away(stage, stageROM, err)
	}
}

// recovery is one of a board.
type recovery struct {
	board    socs.Board
	sections []section
	plug     bool // the last is a USB plug, which comes back
	sent     bool // the ROM has everything
}

// away tells that the board has left in the middle of a stage.
func (r *recovery) away(stage *socs.Stage, name string, err error) {
	r.board.Emit(name, event.Warning{Text: fmt.Sprintf("the board left port %s: %v; waiting for it to come back", stage.Port, err)})
}

// serve sends the ROM its sections, and waits until it has started the last. over says that nothing comes after that.
func (r *recovery) serve(ctx context.Context, stage *socs.Stage) (over bool, err error) {
	total, done := int64(0), int64(0)
	for _, s := range r.sections {
		total += int64(len(s.data))
	}
	first := &r.sections[0]
	r.board.Emit(stageROM, event.StageBegun{File: first.path, Bytes: total})
	begun, emitted := time.Now(), time.Time{}
	for i := range r.sections {
		s := &r.sections[i]
		err := download(ctx, stage.USB, s, func(n int) {
			now, at := time.Now(), done+int64(n)
			if at < total && now.Sub(emitted) < progressTime {
				return
			}
			emitted = now
			r.board.Emit(stageROM, event.Progress{Bytes: at, Total: total, Rate: float64(at) / max(now.Sub(begun), time.Millisecond).Seconds()})
		})
		if failed, ok := errors.AsType[*downloadError](err); ok {
			failed.first = i == 0
			if i == len(r.sections)-1 && s.request == 0x472 && failed.lastPiece() && r.isGone(ctx, stage, err) {
				err = nil // it jumped before it told that it has the last piece
			}
		}
		if err != nil {
			return false, err
		}
		done += int64(len(s.data))
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
	r.board.Emit(stageROM, event.StageDone{Summary: event.StageSummary{Stage: stageROM, File: first.path, Bytes: total, Duration: time.Since(stage.Since)}})
	return over, nil
}

// isGone waits a moment for the board's end, if that may be why a transfer failed.
func (r *recovery) isGone(ctx context.Context, stage *socs.Stage, err error) bool {
	if errors.Is(err, usb.ErrGone) {
		return true
	}
	if !errors.Is(err, usb.ErrProtocol) {
		return false
	}
	select {
	case <-stage.Gone:
		return true
	case <-time.After(goneTime):
	case <-ctx.Done():
	}
	return false
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

// explain says why a stage failed. The error wraps usb.ErrGone if the board left.
func explain(ctx context.Context, stage *socs.Stage, name string, err error) error {
	if errors.Is(err, usb.ErrProtocol) && !errors.Is(err, usb.ErrGone) {
		// A device that is unplugged may fail a transfer before the host notices that it is gone.
		select {
		case <-stage.Gone:
			err = fmt.Errorf("%w (%w)", err, usb.ErrGone)
		case <-ctx.Done():
		case <-time.After(goneTime):
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if errors.Is(err, usb.ErrGone) || errors.Is(err, errROM) {
		return err
	}
	return &socs.BoardError{Stage: name, Err: err, Hint: hintFor(name, err)}
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

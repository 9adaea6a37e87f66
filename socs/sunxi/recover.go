package sunxi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"snag/event"
	"snag/socs"
	"snag/socs/stages"
	"snag/usb"
	"snag/usb/fel"
)

const (
	versionTime  = 2 * time.Second       // for the ROM's first answer
	versionTries = 3                     // until it is in step
	resetTime    = 20 * time.Millisecond // from a port's reset on, for the ROM to begin anew
	splTime      = 10 * time.Second
	startTime    = 2 * time.Second // for the ROM's answer when it calls what does not return

	// settleTime is for how long the bus is quiet while SPL runs, which changes the clocks; on 64-bit parts the
	// processor is reset. sunxi-fel waits as long, Snagboot 500 ms: both found that what is sent meanwhile is lost at
	// times.
	settleTime = 250 * time.Millisecond
)

// recovery is one board on its way up.
type recovery struct {
	fw    socs.Firmware
	board socs.Board
	named *chip // of the model that the user named; nil: the family
	runs  stages.Runs
	at    string // the stage
}

// serve brings up a board from its ROM.
func (r *recovery) serve(ctx context.Context, stage *socs.Stage) (done bool, err error) {
	if !stage.ROM {
		return false, &socs.BoardError{Stage: r.at, Err: fmt.Errorf("expected the boot ROM (%s) on port %s, got %s", fel.ROM, stage.Port, stage.ID),
			Hint: "the board was reset and has booted from something else: bring it into FEL mode again"}
	}
	r.at = stageROM
	if err := r.runs.Begin(r.board); err != nil {
		return false, err
	}
	dev, version, err := r.connect(ctx, stage)
	if err != nil {
		return false, err
	}
	chip, err := r.identify(version)
	if err != nil {
		return false, err
	}
	p := check(chip, r.fw)
	if err := errors.Join(p.Errs...); err != nil {
		return false, err
	}
	if chip != r.named {
		for _, f := range p.Findings {
			r.tell(f)
		}
	}
	m := &machine{Device: dev, chip: chip}
	r.at = stageSPL
	t := stages.Begin(r.board, r.at, r.fw[slotSPL].Path, len(p.spl))
	table, err := m.prepare(ctx)
	if chip.riscv && errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return false, &socs.BoardError{Stage: r.at, Err: err,
			Hint: "D1 and D1s, which are RISC-V, tell the same ID, and cannot be recovered by snag; if it is none of them reset it into FEL mode and run snag again"}
	}
	if err != nil {
		return false, err
	}
	if err := m.runSPL(ctx, stage.Gone, p.spl, t.At); err != nil {
		return false, err
	}
	if table != nil {
		if err := m.mapDRAM(ctx, table); err != nil {
			return false, err
		}
	}
	t.Done()
	if p.uboot == nil {
		r.board.Emit(r.at, event.Note{Text: "SPL has set the DRAM up and returned to FEL, where the board waits"})
		return true, nil
	}
	r.at = stageUBoot
	return true, r.second(ctx, m, p.uboot)
}

// connect opens the ROM, and resets the port if what answers is out of step with what is asked: another program stopped
// in the middle.
func (r *recovery) connect(ctx context.Context, stage *socs.Stage) (*fel.Device, fel.Version, error) {
	short, cancel := context.WithTimeout(ctx, versionTime)
	defer cancel()
	dev, err := fel.Open(short, stage.USB)
	if err != nil {
		return nil, fel.Version{}, err
	}
	for try := 1; ; try++ {
		short, cancel := context.WithTimeout(ctx, versionTime)
		version, err := dev.Version(short)
		cancel()
		if err == nil || try == versionTries || ctx.Err() != nil || errors.Is(err, usb.ErrGone) {
			return dev, version, err
		}
		r.board.Emit(r.at, event.Warning{Text: fmt.Sprintf("the boot ROM is out of step: resetting port %s (%v)", stage.Port, err)})
		if err := stage.USB.Reset(ctx); err != nil {
			return nil, version, err
		}
		stages.Left(ctx, stage, resetTime)
	}
}

// identify finds the chip that the ROM is of.
func (r *recovery) identify(v fel.Version) (*chip, error) {
	c, err := chipByID(v.SoC)
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf("the boot ROM is that of %s (ID %#04x)", c.name, c.id)
	switch {
	case r.named == nil || r.named == c:
		r.board.Emit(r.at, event.Note{Text: text})
	case forced(r.fw):
		r.board.Emit(r.at, event.Warning{Text: fmt.Sprintf("%s, not of %s: going on with that (--force)", text, r.named.name)})
	default:
		return nil, &socs.BoardError{Stage: r.at, Err: fmt.Errorf("%s, not of %s", text, r.named.name),
			Hint: "name the board's model with --soc, and firmware for it"}
	}
	return c, nil
}

// second sends what follows SPL, and starts it.
func (r *recovery) second(ctx context.Context, m *machine, u *uboot) error {
	total := 0
	for _, p := range u.parts {
		total += len(p.data)
	}
	t, sent := stages.Begin(r.board, r.at, r.fw[slotUBoot].Path, total), 0
	for _, p := range u.parts {
		if err := m.Write(ctx, p.addr, p.data, func(n int) { t.At(sent + n) }); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		sent += len(p.data)
	}
	entry := u.entry
	if u.arm64 {
		var err error
		if entry, err = m.switchOver(ctx, entry); err != nil {
			return err
		}
	}
	m.AnswerTime = startTime
	if err := m.Exec(ctx, entry); err != nil {
		if !fel.Started(err) || ctx.Err() != nil {
			return err
		}
		r.board.Emit(r.at, event.Note{Text: "the boot ROM did not answer when it was to start U-Boot: taking that for success"})
	}
	t.Done()
	return nil
}

func (r *recovery) tell(f socs.Finding) {
	if f.Warning {
		r.board.Emit(r.at, event.Warning{Text: f.Text})
	} else {
		r.board.Emit(r.at, event.Note{Text: f.Text})
	}
}

// hint tells what may have caused a failure.
func hint(err error) string {
	_, refused := errors.AsType[*fel.RefusedError](err)
	_, wrong := errors.AsType[*fel.ProtocolError](err)
	switch {
	case errors.Is(err, usb.ErrBusy):
		return "end the other program (sunxi-fel, xfel, a virtual machine) that uses the board"
	case errors.Is(err, fel.ErrNoInterface):
		return "unplug the board and plug it in again; if it stays so this device is no boot ROM"
	case refused:
		return "reset the board into FEL mode and run snag again; check that the firmware is for this board"
	case wrong:
		return "what answers is out of step, or no boot ROM: unplug the board and its power, bring it into FEL mode and run snag again"
	case errors.Is(err, context.DeadlineExceeded):
		return "unplug the board and its power, bring it into FEL mode and run snag again; a ROM that another program stopped sending to in the middle waits for the rest"
	}
	return "reset the board into FEL mode and run snag again; try another cable, and a port without hubs in between"
}

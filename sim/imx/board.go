package imx

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"snag/sim/usbdev"
	"snag/sim/virtual"
	"snag/usb"
)

// Board is a virtual board. It lives from [New] to the end of one [Board.Run].
type Board struct {
	cfg   Config
	board *virtual.Board[*Stage]
}

// New makes a board that is not plugged in yet.
func New(cfg Config) (*Board, error) {
	c, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("virtual i.MX board: %w", err)
	}
	b := &Board{cfg: c, board: virtual.New[*Stage](c.Model.Name, c.Faults)}
	b.board.SameAddress = c.SameAddress
	return b, nil
}

// Report returns what the board has seen so far.
func (b *Board) Report() Report { return b.board.Report() }

// Settled is closed when nothing more happens by itself: the last image was started (and its gadget is on
// the bus, if there is one), the board is stuck for good, or it was unplugged.
func (b *Board) Settled() <-chan struct{} { return b.board.Settled() }

// Run plugs the board into the port and powers it until the context ends, which unplugs it. The error
// is the carrier's; what became of the board is in [Board.Report]. A board that settled stays as it
// is: its gadget on the bus, or nothing.
func (b *Board) Run(ctx context.Context, port usbdev.Port) error {
	return b.board.Run(ctx, port, func(ctx context.Context) error { return b.power(ctx, port) })
}

// Resetter is a [Machine] that has to be told of a power cycle.
type Resetter interface {
	Reset(ctx context.Context) error
}

// Rebooter is a [Machine] on which firmware runs that may reset it: AwaitReset waits for that.
type Rebooter interface {
	AwaitReset(ctx context.Context) error
}

// rest waits for the end of a board that has booted: virtual.ErrReset if its firmware resets it.
func rest(ctx context.Context, machine Machine) error {
	if m, ok := machine.(Rebooter); ok && m.AwaitReset(ctx) == nil {
		return virtual.ErrReset
	}
	<-ctx.Done() // a machine that ended does nothing any more
	return ctx.Err()
}

// power takes the board from power-on to the end of that.
func (b *Board) power(ctx context.Context, port usbdev.Port) error {
	return b.powered(ctx, func(machine Machine) error { return b.boot(ctx, port, machine) })
}

// powered runs what happens between power-on and the end of that.
func (b *Board) powered(ctx context.Context, boot func(Machine) error) error {
	machine := b.cfg.Machine
	if machine == nil {
		machine = new(Memory)
	}
	err := boot(machine)
	if m, ok := machine.(Resetter); ok && errors.Is(err, virtual.ErrReset) {
		if err := m.Reset(ctx); err != nil {
			return &virtual.CarrierError{Err: err}
		}
	}
	return err
}

// Start takes the board from power-on to the start of U-Boot and returns: for boards whose U-Boot is another model,
// which runs on the same port then. The error is how a stage ended otherwise, as that model's own stages have it:
// virtual.ErrReset for one that wants another Start.
func (b *Board) Start(ctx context.Context, port usbdev.Port) error {
	b.board.Edit(func(r *Report) { r.Outcome = virtual.Running })
	err := b.powered(ctx, func(machine Machine) error { return b.stages(ctx, port, machine) })
	if err != nil {
		b.board.Edit(func(r *Report) {
			if errors.Is(err, virtual.ErrReset) {
				r.Resets++
			} else {
				r.Outcome, r.Error = virtual.Stuck, err.Error()
			}
		})
		return err
	}
	b.board.Booted()
	return virtual.Sleep(ctx, b.cfg.GadgetDelay)
}

// stages takes the board from its ROM to the start of U-Boot.
func (b *Board) stages(ctx context.Context, port usbdev.Port, machine Machine) error {
	run := (*session).sdp
	switch b.cfg.Model.Protocol {
	case Bulk:
		run = (*session).bulk
	case SDPS:
		run = (*session).sdps
	}
	if err := b.stage(ctx, port, StageROM, machine, run); err != nil {
		return err
	}
	if b.cfg.SPL != SDPU && b.cfg.SPL != SDPV {
		return nil
	}
	if b.cfg.SPLNever {
		return errors.New("spl: it never shows on the bus")
	}
	if err := virtual.Sleep(ctx, b.cfg.SPLDelay); err != nil {
		return err
	}
	return b.stage(ctx, port, StageSPL, machine, (*session).spl)
}

// boot takes the board from its ROM to U-Boot. It returns only with an error.
func (b *Board) boot(ctx context.Context, port usbdev.Port, machine Machine) error {
	if err := b.stages(ctx, port, machine); err != nil {
		return err
	}
	b.board.Booted()
	stay := func(ctx context.Context) error {
		b.board.Settle()
		return rest(ctx, machine)
	}
	if b.cfg.Gadget == (usb.ID{}) {
		return stay(ctx)
	}
	if err := virtual.Sleep(ctx, b.cfg.GadgetDelay); err != nil {
		return err
	}
	return b.board.Stage(ctx, port, StageGadget, virtual.UBoot(b.cfg.Gadget, "FSL"), newStage(), stay)
}

// stage runs ROM or SPL from plug to unplug.
func (b *Board) stage(ctx context.Context, port usbdev.Port, name string, machine Machine, run func(*session, context.Context) error) error {
	s := b.session(name, machine)
	return b.board.Stage(ctx, port, name, s.dev, s.stage, func(ctx context.Context) error {
		running, stop := context.WithCancel(ctx)
		var pump sync.WaitGroup
		if s.dev.hid { // a bulk ROM cannot tell commands from data by their transfers, and reads its endpoint itself
			pump.Go(func() { s.dev.pump(running, s.served) })
		}
		err := run(s, ctx)
		if err == nil {
			err = virtual.Sleep(ctx, b.cfg.JumpDelay)
		}
		stop()
		pump.Wait()
		return err
	})
}

func (b *Board) session(name string, machine Machine) *session {
	return &session{b: b, stage: newStage(), dev: b.device(name), machine: machine}
}

// device makes the USB device of a stage.
func (b *Board) device(name string) *device {
	c, m := &b.cfg, &b.cfg.Model
	if name == StageSPL {
		d := usbdev.Descriptors{
			Speed: usbdev.HighSpeed, ID: c.SPLID, Release: c.SPLRelease,
			Manufacturer: "FSL", Product: "USB download gadget",
		}
		return newDevice(d, true, true, 512, 1024, b.board.Violation)
	}
	d := usbdev.Descriptors{
		Speed: m.Speed, ID: c.ROM, Release: c.Release,
		Manufacturer: "Freescale SemiConductor Inc ", Product: m.Product,
	}
	if m.ID.Vendor == nxp {
		d.Manufacturer = "NXP       SemiConductor Inc "
	}
	if m.UID {
		d.Strings = map[uint8]string{4: c.Serial}
	}
	v := newDevice(d, m.Protocol != Bulk, m.OutEP, 64, m.Data, b.board.Violation)
	v.noControl = m.NeedOut
	return v
}

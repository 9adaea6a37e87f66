package imx

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"snag/sim/usbdev"
	"snag/usb"
)

// Board is a virtual board. It lives from [New] to the end of one [Board.Run].
type Board struct {
	cfg     Config
	settled chan struct{}

	mu     sync.Mutex
	report Report
	faults []Fault // still to come
}

// New makes a board that is not plugged in yet.
func New(cfg Config) (*Board, error) {
	c, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("virtual i.MX board: %w", err)
	}
	return &Board{
		cfg:     c,
		settled: make(chan struct{}),
		faults:  slices.Clone(c.Faults),
		report:  Report{Model: c.Model.Name, Outcome: Running, Stages: []Stage{}, Violations: []Count{}},
	}, nil
}

// Report returns what the board has seen so far.
func (b *Board) Report() Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.report
	r.Stages = slices.Clone(r.Stages)
	for i := range r.Stages {
		r.Stages[i] = r.Stages[i].clone()
	}
	r.Violations = slices.Clone(r.Violations)
	return r
}

// Settled is closed when nothing more happens by itself: the last image was started (and its gadget is on
// the bus, if there is one), the board is stuck for good, or it was unplugged.
func (b *Board) Settled() <-chan struct{} { return b.settled }

// How a stage ends, other than well.
var (
	errReset  = errors.New("reset")
	errUnplug = errors.New("unplugged")
)

// resetTime is how long a power cycle keeps the board off the bus.
const resetTime = 300 * time.Millisecond

// Run plugs the board into the port and powers it until the context ends, which unplugs it. The error
// is the carrier's; what became of the board is in [Board.Report]. A board that settled stays as it
// is: its gadget on the bus, or nothing.
func (b *Board) Run(ctx context.Context, port usbdev.Port) error {
	b.edit(func(r *Report) { r.Plugged = time.Now() })
	err := b.power(ctx, port)
	detachErr := port.Detach()
	b.edit(func(r *Report) {
		if r.Outcome == Running {
			r.Outcome = Unplugged
		}
	})
	b.settle()
	if ctx.Err() != nil {
		err = nil
	}
	return errors.Join(err, detachErr)
}

func (b *Board) edit(f func(*Report)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.report)
}

func (b *Board) settle() {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.settled:
	default:
		close(b.settled)
	}
}

// Resetter is a [Machine] that has to be told of a power cycle.
type Resetter interface {
	Reset(ctx context.Context) error
}

// Rebooter is a [Machine] on which firmware runs that may reset it: AwaitReset waits for that.
type Rebooter interface {
	AwaitReset(ctx context.Context) error
}

// rest waits for the end of a board that has booted: errReset if its firmware resets it.
func rest(ctx context.Context, machine Machine) error {
	if m, ok := machine.(Rebooter); ok && m.AwaitReset(ctx) == nil {
		return errReset
	}
	<-ctx.Done() // a machine that ended does nothing any more
	return ctx.Err()
}

// power runs the board from power-on to power-on.
func (b *Board) power(ctx context.Context, port usbdev.Port) error {
	for {
		machine := b.cfg.Machine
		if machine == nil {
			machine = new(Memory)
		}
		err := b.boot(ctx, port, machine)
		var carrier *carrierError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &carrier):
			return err
		case errors.Is(err, errReset):
		case errors.Is(err, errUnplug):
			b.edit(func(r *Report) { r.Outcome = Unplugged })
			b.settle()
			<-ctx.Done()
			return ctx.Err()
		default:
			b.edit(func(r *Report) { r.Outcome, r.Error = Stuck, err.Error() })
			b.settle()
			<-ctx.Done()
			return ctx.Err()
		}
		b.edit(func(r *Report) { r.Resets, r.Outcome = r.Resets+1, Running })
		if m, ok := machine.(Resetter); ok {
			if err := m.Reset(ctx); err != nil {
				return &carrierError{err}
			}
		}
		if err := sleep(ctx, resetTime); err != nil {
			return err
		}
	}
}

// carrierError is a failure of what carries the board, not of the board.
type carrierError struct{ error }

func (e *carrierError) Unwrap() error { return e.error }

// boot takes the board from its ROM to U-Boot. It returns only with an error.
func (b *Board) boot(ctx context.Context, port usbdev.Port, machine Machine) error {
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
	if b.cfg.SPL == SDPU || b.cfg.SPL == SDPV {
		if b.cfg.SPLNever {
			return errors.New("spl: it never shows on the bus")
		}
		if err := sleep(ctx, b.cfg.SPLDelay); err != nil {
			return err
		}
		if err := b.stage(ctx, port, StageSPL, machine, (*session).spl); err != nil {
			return err
		}
	}
	b.edit(func(r *Report) { r.Outcome = Booted })
	if b.cfg.Gadget != (usb.ID{}) {
		if err := sleep(ctx, b.cfg.GadgetDelay); err != nil {
			return err
		}
		g := usbdev.NewGadget(gadgetDescriptors(b.cfg.Gadget), inert{})
		defer g.Close()
		if err := b.attach(ctx, port, g, false); err != nil {
			return err
		}
		b.edit(func(r *Report) {
			r.Stages = append(r.Stages, Stage{Name: StageGadget, ID: b.cfg.Gadget.String(), Plugged: time.Now()})
		})
	}
	b.settle()
	return errors.Join(rest(ctx, machine), port.Detach())
}

// AddressKeeper is a port that can give a device the USB address of the one before.
type AddressKeeper interface {
	AttachSame(ctx context.Context, dev usbdev.Device) error
}

func (b *Board) attach(ctx context.Context, port usbdev.Port, dev usbdev.Device, first bool) error {
	attach := port.Attach
	if keeper, ok := port.(AddressKeeper); ok && b.cfg.SameAddress && !first {
		attach = keeper.AttachSame
	}
	if err := attach(ctx, dev); err != nil {
		return &carrierError{err}
	}
	return nil
}

// stage runs ROM or SPL from plug to unplug. An error of Detach is the carrier's.
func (b *Board) stage(ctx context.Context, port usbdev.Port, name string, machine Machine, run func(*session, context.Context) error) (err error) {
	s := &session{b: b, name: name, machine: machine}
	s.dev = b.device(name, s.violation)
	s.begin(name)
	defer s.dev.Close()
	if err := b.attach(ctx, port, s.dev, name == StageROM); err != nil {
		return err
	}
	s.edit(func(t *Stage) { t.Plugged = time.Now() })
	running, stop := context.WithCancel(ctx)
	var pump sync.WaitGroup
	if s.dev.hid { // a bulk ROM cannot tell commands from data by their transfers, and reads its endpoint itself
		pump.Go(func() { s.dev.pump(running, s.served) })
	}
	err = run(s, ctx)
	if err == nil {
		err = sleep(ctx, b.cfg.JumpDelay)
	}
	detachErr := port.Detach()
	stop()
	s.dev.Close()
	pump.Wait()
	s.edit(func(t *Stage) {
		t.Left = time.Now()
		if err != nil && ctx.Err() == nil {
			t.Error = err.Error()
		}
	})
	if detachErr != nil {
		return &carrierError{detachErr}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// device makes the USB device of a stage.
func (b *Board) device(name string, violation func(string, ...any)) *device {
	c, m := &b.cfg, &b.cfg.Model
	if name == StageSPL {
		d := usbdev.Descriptors{
			Speed: usbdev.HighSpeed, ID: c.SPLID, Release: c.SPLRelease,
			Manufacturer: "FSL", Product: "USB download gadget",
		}
		return newDevice(d, true, true, 512, 1024, violation)
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
	v := newDevice(d, m.Protocol != Bulk, m.OutEP, 64, m.Data, violation)
	v.noControl = m.NeedOut
	return v
}

func gadgetDescriptors(id usb.ID) *usbdev.Descriptors {
	return &usbdev.Descriptors{
		Speed: usbdev.HighSpeed, ID: id, Manufacturer: "FSL", Product: "USB download gadget",
		Configs: []usbdev.Config{{Value: 1, Attributes: 0x40, MaxPower: 1, Interfaces: []usbdev.Interface{{
			Class: 0xff, SubClass: 0x42, Protocol: 0x03,
			Endpoints: []usbdev.Endpoint{{Address: 0x81, Type: usbdev.Bulk, MaxPacket: 512}, {Address: 0x01, Type: usbdev.Bulk, MaxPacket: 512}},
		}}}},
	}
}

// inert is a function that refuses everything.
type inert struct{}

func (inert) Configured(uint8)      {}
func (inert) Selected(uint8, uint8) {}
func (inert) Control(context.Context, usbdev.Setup, []byte) (int, error) {
	return 0, usbdev.ErrStall
}

// takeFault returns the next fault that is due at a command of a stage, or, if the command is empty, when the
// stage has received n bytes, and uses it up.
func (b *Board) takeFault(stage, command string, n int) (Fault, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, f := range b.faults {
		if f.Stage == stage && f.Command == command && (command != "" || n >= f.At) {
			b.faults = slices.Delete(b.faults, i, i+1)
			return f, true
		}
	}
	return Fault{}, false
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

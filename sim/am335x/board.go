package am335x

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"snag/sim/usbdev"
	"snag/usb"
)

// Board is a virtual board. It lives from [New] to the end of one [Board.Run].
type Board struct {
	cfg     Config
	rng     *rand.Rand // the goroutine of Run's
	settled chan struct{}

	mu     sync.Mutex
	report Report
	faults []Fault // still to come
}

// New makes a board that is not plugged in yet.
func New(cfg Config) (*Board, error) {
	c, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("virtual AM335x board: %w", err)
	}
	return &Board{
		cfg:     c,
		rng:     rand.New(rand.NewPCG(c.Seed, 0x335)),
		settled: make(chan struct{}),
		faults:  slices.Clone(c.Faults),
		report:  Report{Outcome: Running, Stages: []Stage{}, Violations: []Count{}},
	}, nil
}

// Report returns what the board has seen so far. The data of the stages is not to be changed.
func (b *Board) Report() Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.report
	r.Stages = slices.Clone(r.Stages)
	r.Violations = slices.Clone(r.Violations)
	return r
}

// Settled is closed when nothing more happens by itself: U-Boot was received (and its gadget is on
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

// power runs the board from power-on to power-on.
func (b *Board) power(ctx context.Context, port usbdev.Port) error {
	for {
		err := b.boot(ctx, port)
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
		case b.cfg.Watchdog > 0:
			if err := sleep(ctx, b.cfg.Watchdog); err != nil {
				return err
			}
		default:
			b.edit(func(r *Report) { r.Outcome, r.Error = Stuck, err.Error() })
			b.settle()
			<-ctx.Done()
			return ctx.Err()
		}
		b.edit(func(r *Report) { r.Resets++ })
		if err := sleep(ctx, resetTime); err != nil {
			return err
		}
	}
}

// carrierError is a failure of what carries the board, not of the board.
type carrierError struct{ error }

func (e *carrierError) Unwrap() error { return e.error }

// boot takes the board from its ROM to U-Boot. It returns only with an error.
func (b *Board) boot(ctx context.Context, port usbdev.Port) error {
	if err := b.stage(ctx, port, StageROM); err != nil {
		return err
	}
	if b.cfg.SPLNever {
		return errors.New("spl: it never shows on the bus")
	}
	if err := sleep(ctx, b.cfg.SPLDelay); err != nil {
		return err
	}
	if err := b.stage(ctx, port, StageSPL); err != nil {
		return err
	}
	if b.cfg.Gadget != (usb.ID{}) {
		if err := sleep(ctx, b.cfg.GadgetDelay); err != nil {
			return err
		}
		g := usbdev.NewGadget(gadgetDescriptors(b.cfg.Gadget), inert{})
		defer g.Close()
		if err := port.Attach(ctx, g); err != nil {
			return &carrierError{err}
		}
		b.edit(func(r *Report) {
			r.Stages = append(r.Stages, Stage{Name: StageGadget, ID: b.cfg.Gadget.String(), Plugged: time.Now()})
		})
	}
	b.settle()
	<-ctx.Done()
	return ctx.Err()
}

// stage runs ROM or SPL from plug to unplug. An error of Detach is the carrier's.
func (b *Board) stage(ctx context.Context, port usbdev.Port, name string) (err error) {
	dev, client := b.device(name)
	b.mu.Lock()
	index := len(b.report.Stages)
	b.report.Stages = append(b.report.Stages, Stage{Name: name, ID: dev.Descriptors().ID.String(), MAC: client.String()})
	b.mu.Unlock()
	c := newClient(b, dev.Link, client, name, index)
	if err := port.Attach(ctx, dev); err != nil {
		dev.Close()
		return &carrierError{err}
	}
	c.edit(func(s *Stage) { s.Plugged = time.Now() })
	defer func() {
		detachErr := port.Detach()
		dev.Close()
		c.close()
		c.edit(func(s *Stage) {
			s.Left = time.Now()
			if err != nil && ctx.Err() == nil {
				s.Error = err.Error()
			}
		})
		if detachErr != nil {
			err = &carrierError{detachErr}
		}
	}()
	c.start(ctx)
	if name == StageROM {
		err = c.rom(ctx)
	} else {
		err = c.spl(ctx)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	b.edit(func(r *Report) {
		r.Stages[index].Complete = true
		if name == StageSPL {
			r.Outcome = Booted // whatever happens to the cable from here on
		}
	})
	return sleep(ctx, b.cfg.JumpDelay)
}

// Endpoints, as user-space tools for these boards find them: the ROM's bulk OUT is 2, SPL's is 1.
const (
	epNotify = 0x82
	epIn     = 0x81
	epROMOut = 0x02
	epSPLOut = 0x01

	bulkMax = 512
)

// device makes the network adapter of a stage and tells the board's MAC on it.
func (b *Board) device(name string) (*usbdev.Ethernet, mac) {
	c := &b.cfg
	malformed := func(err error) { b.violation(name, err.Error()) }
	if name == StageROM {
		return usbdev.NewEthernet(usbdev.EthernetConfig{
			Descriptors: usbdev.Descriptors{
				Speed: usbdev.HighSpeed, Class: 2, ID: c.ROM, Release: 0x0100,
				Manufacturer: "Texas Instruments, Inc", Product: "AM335x USB",
				Configs: []usbdev.Config{usbdev.RNDISConfig(1, epNotify, epIn, epROMOut, bulkMax)},
			},
			HostMAC:   c.ROMHostMAC,
			Malformed: malformed,
		}), mac(c.ROMMAC)
	}
	// A U-Boot with RNDIS alone still describes its CDC configuration, without an interface in it.
	// Linux therefore takes the first, of value 2.
	configs := []usbdev.Config{usbdev.RNDISConfig(2, epNotify, epIn, epSPLOut, bulkMax), {Value: 1, Attributes: 0x40, MaxPower: 1}}
	if c.ECM {
		configs = []usbdev.Config{usbdev.ECMConfig(1, epNotify, epIn, epSPLOut, bulkMax)}
	}
	return usbdev.NewEthernet(usbdev.EthernetConfig{
		Descriptors: usbdev.Descriptors{
			Speed: usbdev.HighSpeed, Class: 2, ID: c.SPL, Release: 0x2301,
			Manufacturer: "U-Boot", Product: "RNDIS/Ethernet Gadget", Configs: configs,
		},
		HostMAC:          c.SPLHostMAC,
		NeedNotification: true,
		Malformed:        malformed,
	}), mac(c.SPLMAC)
}

func gadgetDescriptors(id usb.ID) *usbdev.Descriptors {
	return &usbdev.Descriptors{
		Speed: usbdev.HighSpeed, ID: id, Manufacturer: "Texas Instruments", Product: "USB download gadget",
		Configs: []usbdev.Config{{Value: 1, Attributes: 0x40, MaxPower: 1, Interfaces: []usbdev.Interface{{
			Class: 0xff, SubClass: 0x42, Protocol: 0x03,
			Endpoints: []usbdev.Endpoint{{Address: 0x81, Type: usbdev.Bulk, MaxPacket: bulkMax}, {Address: 0x01, Type: usbdev.Bulk, MaxPacket: bulkMax}},
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

// violation records something that the host did wrong.
func (b *Board) violation(stage, text string) {
	text = stage + ": " + text
	b.edit(func(r *Report) {
		for i := range r.Violations {
			if r.Violations[i].Text == text {
				r.Violations[i].N++
				return
			}
		}
		if len(r.Violations) < 100 {
			r.Violations = append(r.Violations, Count{text, 1})
		}
	})
}

// fault tells whether a fault is due at a stage that has received n bytes, and uses it up.
func (b *Board) fault(stage string, n int) (FaultKind, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, f := range b.faults {
		if f.Stage == stage && n >= f.At {
			b.faults = slices.Delete(b.faults, i, i+1)
			return f.Kind, true
		}
	}
	return "", false
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

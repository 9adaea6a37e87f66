package am335x

import (
	"context"
	"errors"
	"fmt"

	"snag/sim/usbdev"
	"snag/sim/virtual"
)

// Board is a virtual board. It lives from [New] to the end of one [Board.Run].
type Board struct {
	cfg    Config
	board  *virtual.Board[*Stage]
	stages uint64 // so far
	frames Frames // by board.Edit
}

// New makes a board that is not plugged in yet.
func New(cfg Config) (*Board, error) {
	c, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("virtual AM335x board: %w", err)
	}
	b := &Board{cfg: c, board: virtual.New[*Stage]("", c.Faults)}
	b.board.Watchdog = c.Watchdog
	return b, nil
}

// Report returns what the board has seen so far.
func (b *Board) Report() Report {
	r := Report{Report: b.board.Report()}
	b.count(func(f *Frames) { r.Frames = *f })
	return r
}

// Settled is closed when nothing more happens by itself: U-Boot was received (and its gadget is on
// the bus, if there is one), the board is stuck for good, or it was unplugged.
func (b *Board) Settled() <-chan struct{} { return b.board.Settled() }

// Run plugs the board into the port and powers it until the context ends, which unplugs it. The error
// is the carrier's; what became of the board is in [Board.Report]. A board that settled stays as it
// is: its gadget on the bus, or nothing.
func (b *Board) Run(ctx context.Context, port usbdev.Port) error {
	return b.board.Run(ctx, port, func(ctx context.Context) error { return b.boot(ctx, port) })
}

// Boot is Run up to when nothing more happens by itself: the port is free then for what U-Boot shows, of another model
// (fastboot.Config.Before).
func (b *Board) Boot(ctx context.Context, port usbdev.Port) error {
	on, off := context.WithCancel(ctx)
	defer off()
	go func() {
		select {
		case <-b.Settled():
			off()
		case <-on.Done():
		}
	}()
	if err := b.Run(on, port); err != nil || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	if r := b.board.Report(); r.Outcome != virtual.Booted {
		return fmt.Errorf("U-Boot was not started: the board %s: %s", r.Outcome, r.Error)
	}
	return virtual.Sleep(ctx, b.cfg.GadgetDelay)
}

func (b *Board) count(f func(*Frames)) { b.board.Edit(func(*virtual.Report[*Stage]) { f(&b.frames) }) }

// boot takes the board from its ROM to U-Boot.
func (b *Board) boot(ctx context.Context, port usbdev.Port) error {
	if err := b.stage(ctx, port, StageROM, (*client).rom); err != nil {
		return err
	}
	if b.cfg.SPLNever {
		return errors.New("spl: it never shows on the bus")
	}
	if err := virtual.Sleep(ctx, b.cfg.SPLDelay); err != nil {
		return err
	}
	if err := b.stage(ctx, port, StageSPL, (*client).spl); err != nil {
		return err
	}
	return b.board.Gadget(ctx, port, b.cfg.Gadget, "Texas Instruments", b.cfg.GadgetDelay, &Stage{})
}

// stage runs ROM or SPL from plug to unplug.
func (b *Board) stage(ctx context.Context, port usbdev.Port, name string, run func(*client, context.Context) error) error {
	dev, own := b.device(name)
	s := &Stage{MAC: own.String()}
	return b.board.Stage(ctx, port, name, dev, s, func(ctx context.Context) error {
		c := newClient(b, dev.Link, own, s, b.stages)
		b.stages++
		c.start(ctx)
		defer c.close()
		err := run(c, ctx)
		c.edit(func(s *Stage) {
			if err != nil && ctx.Err() == nil {
				s.Error = err.Error() // whatever it began again for before
			}
			s.Complete = err == nil
		})
		if err != nil {
			return err
		}
		if name == StageSPL {
			b.board.Booted() // whatever happens to the cable from here on
		}
		return virtual.Sleep(ctx, b.cfg.JumpDelay)
	})
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
	malformed := func(err error) { b.board.Violation("%v", err) }
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

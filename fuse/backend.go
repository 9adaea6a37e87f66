package fuse

import (
	"context"
	"fmt"
	"strings"
	"time"

	"snag/event"
	"snag/socs"
	"snag/usb"
	"snag/usb/fastboot"
)

// Backend carries out a plan on a board whose U-Boot runs fastboot, and that package recovery finds and follows.
type Backend struct {
	Plan *Plan
	// Confirm is asked before the first word is burnt; an error of it keeps all from being burnt, and is what Recover
	// returns. Nil: the fuses are only looked at.
	Confirm func(ctx context.Context, port usb.Port) error
}

var _ socs.Backend = Backend{}

// Family describes the devices that may be U-Boot's fastboot.
func (b Backend) Family() socs.Family {
	f := socs.Family{
		Name: "fuse", Title: "fuses by U-Boot's fastboot", Carriers: []socs.Carrier{socs.USB}, Reenumerate: time.Minute,
		BootMode: "start its U-Boot, by `snag recover` for instance, and in it `fastboot usb 0`",
	}
	for _, g := range socs.Gadgets {
		if strings.Contains(g.Does, "fastboot") && !strings.Contains(g.Does, "Linux") || g.Does == "composite gadget" {
			f.Later = append(f.Later, socs.Identity{ID: g.ID})
		}
	}
	return f
}

// Check has nothing to check: there is no firmware.
func (b Backend) Check(socs.Model, socs.Firmware) (socs.Firmware, []socs.Finding, error) {
	return nil, nil, nil
}

// Recover carries out the plan.
func (b Backend) Recover(ctx context.Context, job socs.Job) error {
	s, err := job.Board.Next(ctx)
	if err != nil {
		return err
	}
	wire, err := fastboot.OpenUSB(ctx, s.USB, false)
	if err != nil {
		return boardError(err, "the board must be in U-Boot's fastboot (`fastboot usb 0`)")
	}
	emit := func(body event.Body) { job.Board.Emit(stage, body) }
	var confirm func(context.Context) error
	if b.Confirm != nil {
		confirm = func(ctx context.Context) error { return b.Confirm(ctx, s.Port) }
	}
	err = b.Plan.carryOut(ctx, fastboot.New(wire), emit, confirm)
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return fmt.Errorf("fuses: %w", err)
}

package sim

import (
	"context"
	"errors"
	"fmt"
	"io"

	"snag/sim/am335x"
	"snag/sim/sandbox"
	"snag/sim/vhci"
	"snag/sim/virtual"
	"snag/usb"
)

// Carrier is what carries a virtual board to the host.
type Carrier string

const (
	Auto Carrier = ""     // VHCI where this process may use it, else Veth
	VHCI Carrier = "vhci" // the kernel's virtual USB host controller
	Veth Carrier = "veth" // a sandbox, for a command
)

// AM335x is one run of "snag sim am335x". With Veth the command runs in the sandbox.
type AM335x struct {
	Board am335x.Config // of every board; the seed counts up
	Options

	ExpectSPL, ExpectUBoot string // files that every board must have received
	Save                   string // directory for what was received, as PORT-spl.bin and PORT-u-boot.img
}

// errDiffers is what all expectations that were not met come to.
var errDiffers = errors.New("not every board received what was expected")

// Run powers the boards, runs the command, and reports what the boards received. The command's standard
// input is this process's. The error is a *CommandError if all else went well.
func (o AM335x) Run(ctx context.Context, stdout, stderr io.Writer) error {
	want, err := o.expected()
	if err != nil {
		return err
	}
	carrier := o.Carrier
	if carrier == Auto {
		carrier = Veth
		if vhci.Available() == nil {
			carrier = VHCI
		}
	}
	if carrier != VHCI && carrier != Veth {
		return fmt.Errorf("carrier %q: expected vhci or veth", carrier)
	}
	if carrier == Veth && len(o.Command) == 0 {
		return fmt.Errorf("without a virtual USB host controller a board exists for a command only: add -- COMMAND (%w)", vhci.Available())
	}
	boards, box, err := o.plan(ctx, carrier)
	if err != nil {
		return err
	}
	if box != nil {
		defer box.Close()
	}
	return o.power(ctx, box, boards, func() error {
		var list []boardJSON
		for _, b := range boards {
			list = append(list, boardJSON{Port: b.name, Report: b.board.(*am335x.Board).Report()})
		}
		return errors.Join(o.save(list), o.print(stdout, carrier, list, want))
	}, stdout, stderr)
}

// plan makes the boards and the ports for them. The sandbox, if there is one, is to be closed.
func (o AM335x) plan(ctx context.Context, carrier Carrier) ([]*powered, *sandbox.Sandbox, error) {
	var boards []*powered
	for i := range o.names() {
		cfg := o.Board
		cfg.Seed += uint64(i)
		b, err := am335x.New(cfg)
		if err != nil {
			return nil, nil, err
		}
		boards = append(boards, &powered{board: b, outcome: func() virtual.Outcome { return b.Report().Outcome }})
	}
	var all []slot
	var box *sandbox.Sandbox
	var err error
	if carrier == VHCI {
		all, err = slots(ctx, carrier, "", o.names(), nil)
	} else if box, err = sandbox.Start(ctx); err == nil {
		for i, name := range o.names() {
			if name == "" {
				name = usb.Port(fmt.Sprintf("1-%d", i+1))
			}
			all = append(all, slot{Port: box.Port(name), name: name})
		}
	}
	if err != nil {
		return nil, nil, err
	}
	for i, b := range boards {
		b.slot = all[i]
		b.where = fmt.Sprintf(" (%s)", carrier)
	}
	return boards, box, nil
}

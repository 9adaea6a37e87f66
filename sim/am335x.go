package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"snag/sim/am335x"
	"snag/sim/sandbox"
	"snag/sim/usbdev"
	"snag/sim/vhci"
	"snag/usb"
)

// Carrier is what carries a virtual board to the host.
type Carrier string

const (
	Auto Carrier = ""     // VHCI where this process may use it, else Veth
	VHCI Carrier = "vhci" // the kernel's virtual USB host controller
	Veth Carrier = "veth" // a sandbox, for a command
)

// AM335x is one run of "snag sim am335x".
type AM335x struct {
	Board   am335x.Config // of every board; the seed counts up
	Carrier Carrier
	Ports   []usb.Port // one board each; none: one board, at any free port

	// Command is run while the boards are powered, in the sandbox with Veth. Without a command the
	// boards stay until the context ends, or with Once until each has settled.
	Command []string
	Once    bool

	JSON                   bool   // the report as one JSON object on one line
	ExpectSPL, ExpectUBoot string // files that every board must have received
	Save                   string // directory for what was received, as PORT-spl.bin and PORT-u-boot.img
}

// errDiffers is what all expectations that were not met come to.
var errDiffers = errors.New("not every board received what was expected")

// powered is a board and its port.
type powered struct {
	port  usb.Port
	slot  usbdev.Port
	board *am335x.Board
	err   error // of Run
}

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
	boardCtx, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var running sync.WaitGroup
	for _, b := range boards {
		if !o.JSON {
			fmt.Fprintf(stdout, "board on port %s (%s)\n", b.port, carrier)
		}
		running.Go(func() { b.err = b.board.Run(boardCtx, b.slot) })
	}
	status, runErr := o.meanwhile(ctx, box, boards, stdout, stderr)
	cut()
	running.Wait()
	errs := []error{runErr}
	for _, b := range boards {
		errs = append(errs, b.err)
	}
	errs = append(errs, o.save(boards), o.print(stdout, carrier, boards, want))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if status != 0 {
		return &CommandError{o.Command[0], status}
	}
	return nil
}

// plan makes the boards and the ports for them. The sandbox, if there is one, is to be closed.
func (o AM335x) plan(ctx context.Context, carrier Carrier) ([]*powered, *sandbox.Sandbox, error) {
	ports := o.Ports
	if len(ports) == 0 {
		ports = []usb.Port{""}
	}
	var boards []*powered
	for i, p := range ports {
		cfg := o.Board
		cfg.Seed += uint64(i)
		b, err := am335x.New(cfg)
		if err != nil {
			return nil, nil, err
		}
		boards = append(boards, &powered{port: p, board: b})
	}
	if carrier == VHCI {
		var taken []*vhci.Port
		for _, b := range boards {
			p, err := vhci.Open(b.port, taken...)
			if err != nil {
				return nil, nil, err
			}
			taken = append(taken, p)
			b.port, b.slot = p.Name(), p
		}
		return boards, nil, nil
	}
	box, err := sandbox.Start(ctx)
	if err != nil {
		return nil, nil, err
	}
	for i, b := range boards {
		if b.port == "" {
			b.port = usb.Port(fmt.Sprintf("1-%d", i+1))
		}
		b.slot = box.Port(b.port)
	}
	return boards, box, nil
}

// meanwhile waits for what ends the run and returns the command's status.
func (o AM335x) meanwhile(ctx context.Context, box *sandbox.Sandbox, boards []*powered, stdout, stderr io.Writer) (int, error) {
	if len(o.Command) == 0 {
		for _, b := range boards {
			if o.Once {
				select {
				case <-b.board.Settled():
				case <-ctx.Done():
				}
			}
		}
		if !o.Once {
			<-ctx.Done()
		}
		return 0, nil
	}
	return run(ctx, o.Command, box, stdout, stderr)
}

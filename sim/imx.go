package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"snag/sim/imx"
	"snag/sim/virtual"
	"snag/usb"
)

// IMX is one run of "snag sim imx6q" and its siblings.
type IMX struct {
	Board   imx.Config // of every board
	QEMU    bool       // let the boards execute what they receive; the model must be an imx6q
	Carrier Carrier    // VHCI or USBIP; Auto: VHCI
	Listen  string     // USBIP's address, with its port
	Ports   []usb.Port // one board each; none: one board, at any free port

	// Command is run while the boards are powered. Without a command they stay until the context ends, or with
	// Once until each has settled.
	Command []string
	Once    bool

	JSON bool // the report as one JSON object on one line
}

// Generate writes test images for the board into a directory: first.bin, and second.bin where SPL takes a file of
// its own.
func (o IMX) Generate(dir string) error {
	images, err := imx.Generate(o.Board, 600_000, 1)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	err = os.WriteFile(filepath.Join(dir, "first.bin"), images.First, 0o644)
	if images.Second != nil {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, "second.bin"), images.Second, 0o644))
	}
	return err
}

// imxBoard is a board and its port.
type imxBoard struct {
	slot
	board *imx.Board
	qemu  *executing // nil for a board that executes nothing
	err   error      // of Run
}

// Run powers the boards, runs the command, and reports what the boards saw. The command's standard input is this
// process's. The error is a *CommandError if all else went well.
func (o IMX) Run(ctx context.Context, stdout, stderr io.Writer) error {
	boardCtx, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var running sync.WaitGroup
	defer running.Wait()
	defer cut()
	boards, err := o.plan(boardCtx, &running)
	if err != nil {
		return err
	}
	for _, b := range boards {
		o.say(stdout, b, b.where)
		if b.qemu != nil {
			o.say(stdout, b, ": "+b.qemu.String())
		}
		running.Go(func() { b.err = b.board.Run(boardCtx, b.Port) })
	}
	status, runErr := o.meanwhile(ctx, boards, stdout, stderr)
	cut()
	running.Wait()
	errs := []error{runErr}
	for _, b := range boards {
		errs = append(errs, b.err)
	}
	errs = append(errs, o.print(stdout, boards))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if status != 0 {
		return &CommandError{o.Command[0], status}
	}
	return nil
}

// say tells something of a board while it runs.
func (o IMX) say(w io.Writer, b *imxBoard, what string) {
	if !o.JSON {
		fmt.Fprintf(w, "board on port %s%s\n", b.name, what)
	}
}

// plan makes the boards and the ports for them. What it starts is in running.
func (o IMX) plan(ctx context.Context, running *sync.WaitGroup) ([]*imxBoard, error) {
	if o.QEMU && o.Board.Model.Name != qemuModel {
		return nil, fmt.Errorf("QEMU has a machine for %s, none for %s", qemuModel, o.Board.Model.Name)
	}
	ports := o.Ports
	if len(ports) == 0 {
		ports = []usb.Port{""}
	}
	var boards []*imxBoard
	for range ports {
		b, cfg := &imxBoard{}, o.Board
		var err error
		if o.QEMU {
			if b.qemu, err = execute(ctx, running); err != nil {
				return nil, err
			}
			cfg.Machine = b.qemu
		}
		if b.board, err = imx.New(cfg); err != nil {
			return nil, err
		}
		boards = append(boards, b)
	}
	all, err := slots(ctx, o.Carrier, o.Listen, ports, running)
	if err != nil {
		return nil, err
	}
	for i, b := range boards {
		b.slot = all[i]
	}
	return boards, nil
}

// meanwhile waits for what ends the run and returns the command's status.
func (o IMX) meanwhile(ctx context.Context, boards []*imxBoard, stdout, stderr io.Writer) (int, error) {
	var settled []<-chan struct{}
	for _, b := range boards {
		settled = append(settled, b.board.Settled())
	}
	return meanwhile(ctx, o.Command, o.Once, settled, func(i int) {
		o.say(stdout, boards[i], ": "+string(boards[i].board.Report().Outcome))
	}, stdout, stderr)
}

// imxJSON is a board in the JSON report.
type imxJSON struct {
	Port usb.Port `json:"port"`
	imx.Report
}

func (o IMX) print(w io.Writer, boards []*imxBoard) error {
	var list []imxJSON
	for _, b := range boards {
		list = append(list, imxJSON{b.name, b.board.Report()})
	}
	if o.JSON {
		return json.NewEncoder(w).Encode(struct {
			Event  string    `json:"event"`
			SoC    string    `json:"soc"`
			Boards []imxJSON `json:"boards"`
		}{"sim", o.Board.Model.Name, list})
	}
	for _, b := range list {
		fmt.Fprintf(w, "board on port %s: %s\n", b.Port, map[virtual.Outcome]string{
			virtual.Running:   "still on its way",
			virtual.Booted:    "its last image was started",
			virtual.Stuck:     "stuck, " + b.Error,
			virtual.Unplugged: "unplugged before its last image was started",
		}[b.Outcome])
		if b.Resets > 0 {
			fmt.Fprintf(w, "  %d power cycles before what follows\n", b.Resets)
		}
		fmt.Fprint(w, b.Effects())
		for _, v := range b.Violations {
			fmt.Fprintf(w, "  host mistake, %d times: %s\n", v.N, v.Text)
		}
	}
	return nil
}

package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"snag/sim/dfu"
	"snag/sim/virtual"
	"snag/usb"
)

// DFU is one run of "snag sim stm32mp15" and its siblings.
type DFU struct {
	Board   dfu.Config // of every board
	Carrier Carrier    // VHCI or USBIP; Auto: VHCI
	Listen  string     // USBIP's address, with its port
	Ports   []usb.Port // one board each; none: one board, at any free port

	// Command is run while the boards are powered. Without a command they stay until the context ends, or with
	// Once until each has settled.
	Command []string
	Once    bool

	JSON bool // the report as one JSON object on one line
}

// Generate writes test images for the board into a directory, each under its firmware name with .bin.
func (o DFU) Generate(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	images := dfu.Generate(o.Board.Model, 100_000, 1)
	for _, name := range slices.Sorted(maps.Keys(images)) {
		if err := os.WriteFile(filepath.Join(dir, name+".bin"), images[name], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// dfuBoard is a board and its port.
type dfuBoard struct {
	slot
	board *dfu.Board
	err   error // of Run
}

// Run powers the boards, runs the command, and reports what the boards saw. The command's standard input is this
// process's. The error is a *CommandError if all else went well.
func (o DFU) Run(ctx context.Context, stdout, stderr io.Writer) error {
	boardCtx, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var running sync.WaitGroup
	defer running.Wait()
	defer cut()
	ports := o.Ports
	if len(ports) == 0 {
		ports = []usb.Port{""}
	}
	var boards []*dfuBoard
	var settled []<-chan struct{}
	for range ports {
		board, err := dfu.New(o.Board)
		if err != nil {
			return err
		}
		boards, settled = append(boards, &dfuBoard{board: board}), append(settled, board.Settled())
	}
	all, err := slots(boardCtx, o.Carrier, o.Listen, ports, &running)
	if err != nil {
		return err
	}
	say := func(b *dfuBoard, what string) {
		if !o.JSON {
			fmt.Fprintf(stdout, "board on port %s%s\n", b.name, what)
		}
	}
	for i, b := range boards {
		b.slot = all[i]
		say(b, b.where)
		running.Go(func() { b.err = b.board.Run(boardCtx, b.Port) })
	}
	status, runErr := meanwhile(ctx, o.Command, o.Once, settled, func(i int) {
		say(boards[i], ": "+string(boards[i].board.Report().Outcome))
	}, stdout, stderr)
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

// dfuJSON is a board in the JSON report.
type dfuJSON struct {
	Port usb.Port `json:"port"`
	dfu.Report
}

func (o DFU) print(w io.Writer, boards []*dfuBoard) error {
	var list []dfuJSON
	for _, b := range boards {
		list = append(list, dfuJSON{b.name, b.board.Report()})
	}
	if o.JSON {
		return json.NewEncoder(w).Encode(struct {
			Event  string    `json:"event"`
			SoC    string    `json:"soc"`
			Boards []dfuJSON `json:"boards"`
		}{"sim", o.Board.Model.Name, list})
	}
	for _, b := range list {
		fmt.Fprintf(w, "board on port %s: %s\n", b.Port, map[virtual.Outcome]string{
			virtual.Running:   "still on its way",
			virtual.Booted:    "U-Boot was started",
			virtual.Stuck:     "stuck, " + b.Error,
			virtual.Unplugged: "unplugged before U-Boot was started",
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

package sim

import (
	"context"
	"io"
	"sync"

	"snag/sim/dfu"
)

// DFU is one run of "snag sim stm32mp15" and its siblings. Auto is VHCI here.
type DFU struct {
	Board dfu.Config // of every board
	Options
}

// Generate writes test images for the board into a directory, each under its firmware name with .bin.
func (o DFU) Generate(dir string) error {
	return writeImages(dir, withSuffix(dfu.Generate(o.Board.Model, 100_000, 1)))
}

// Run powers the boards, runs the command, and reports what the boards saw. The command's standard input is this
// process's. The error is a *CommandError if all else went well.
func (o DFU) Run(ctx context.Context, stdout, stderr io.Writer) error {
	goal := "U-Boot"
	if o.Board.Model.Family == dfu.Gadget {
		goal = "what comes after DFU mode"
	}
	return powerUSB(ctx, &o.Options, o.Board.Model.Name, goal, stdout, stderr,
		func(context.Context, *sync.WaitGroup) (usbBoard[*dfu.Stage], string, error) {
			b, err := dfu.New(o.Board)
			return b, "", err
		})
}

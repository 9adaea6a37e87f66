package sim

import (
	"context"
	"io"
	"sync"

	"snag/sim/sama5"
)

// SAMA5 is one run of "snag sim sama5d2" and its siblings. Auto is VHCI here.
type SAMA5 struct {
	Board sama5.Config // of every board
	Options
}

// Generate writes test images for the board into a directory, each under its firmware name with .bin.
func (o SAMA5) Generate(dir string) error {
	return writeImages(dir, withSuffix(sama5.Generate(o.Board.Model, 600_000, 1)))
}

// Run powers the boards, runs the command, and reports what the boards saw. The command's standard input is this
// process's. The error is a *CommandError if all else went well.
func (o SAMA5) Run(ctx context.Context, stdout, stderr io.Writer) error {
	return powerUSB(ctx, &o.Options, o.Board.Model.Name, "U-Boot", stdout, stderr,
		func(context.Context, *sync.WaitGroup) (usbBoard[*sama5.Stage], string, error) {
			b, err := sama5.New(o.Board)
			return b, "", err
		})
}

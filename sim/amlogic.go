package sim

import (
	"context"
	"io"
	"sync"

	"snag/sim/amlogic"
)

// Amlogic is one run of "snag sim s905x" and its siblings. Auto is VHCI here.
type Amlogic struct {
	Board amlogic.Config // of every board
	Options
}

// Generate writes test images for the board into a directory, each under its firmware name with .bin.
func (o Amlogic) Generate(dir string) error {
	return writeImages(dir, withSuffix(amlogic.Generate(o.Board.Model.Family, 600_000, 1)))
}

// Run powers the boards, runs the command, and reports what the boards saw. The command's standard input is this
// process's. The error is a *CommandError if all else went well.
func (o Amlogic) Run(ctx context.Context, stdout, stderr io.Writer) error {
	return powerUSB(ctx, &o.Options, o.Board.Model.Name, "U-Boot", stdout, stderr,
		func(context.Context, *sync.WaitGroup) (usbBoard[*amlogic.Stage], string, error) {
			b, err := amlogic.New(o.Board)
			return b, "", err
		})
}

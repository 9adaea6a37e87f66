package sim

import (
	"context"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
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
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	images := sama5.Generate(o.Board.Model, 600_000, 1)
	for _, name := range slices.Sorted(maps.Keys(images)) {
		if err := os.WriteFile(filepath.Join(dir, name+".bin"), images[name], 0o644); err != nil {
			return err
		}
	}
	return nil
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

package sim

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"

	"snag/sim/sunxi"
)

// Sunxi is one run of "snag sim h3" and its siblings. Auto is VHCI here.
type Sunxi struct {
	Board sunxi.Config // of every board
	Options
}

// Generate writes test images for the board into a directory: SPL, U-Boot, and both in one.
func (o Sunxi) Generate(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	images := sunxi.Generate(o.Board.Model, 400_000, 1)
	var errs []error
	for name, data := range map[string][]byte{"spl": images.SPL, "u-boot": images.UBoot, "u-boot-with-spl": images.Combined} {
		errs = append(errs, os.WriteFile(filepath.Join(dir, name+".bin"), data, 0o644))
	}
	return errors.Join(errs...)
}

// Run powers the boards, runs the command, and reports what the boards saw. The command's standard input is this
// process's. The error is a *CommandError if all else went well.
func (o Sunxi) Run(ctx context.Context, stdout, stderr io.Writer) error {
	return powerUSB(ctx, &o.Options, o.Board.Model.Name, "U-Boot", stdout, stderr,
		func(context.Context, *sync.WaitGroup) (usbBoard[*sunxi.Stage], string, error) {
			b, err := sunxi.New(o.Board)
			return b, "", err
		})
}

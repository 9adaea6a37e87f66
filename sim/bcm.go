package sim

import (
	"context"
	"io"
	"sync"

	"snag/sim/bcm"
)

// BCM is one run of "snag sim bcm2711" and its siblings. Auto is VHCI here.
type BCM struct {
	Board bcm.Config // of every board
	Options
}

// bcmFiles are what test images are called, as Raspberry Pi's own are.
var bcmFiles = map[string]string{"bootfiles": "bootfiles.bin", "boot": "boot.img", "config": "config.txt", "u-boot": "u-boot.bin"}

// Generate writes test images for the board into a directory.
func (o BCM) Generate(dir string) error {
	files := map[string][]byte{}
	for name, data := range bcm.Generate(o.Board.Model, 4_000_000, 1) {
		files[bcmFiles[name]] = data
	}
	return writeImages(dir, files)
}

// Run powers the boards, runs the command, and reports what the boards saw. The command's standard input is this
// process's. The error is a *CommandError if all else went well.
func (o BCM) Run(ctx context.Context, stdout, stderr io.Writer) error {
	return powerUSB(ctx, &o.Options, o.Board.Model.Name, "its kernel, or U-Boot,", stdout, stderr,
		func(context.Context, *sync.WaitGroup) (usbBoard[*bcm.Stage], string, error) {
			b, err := bcm.New(o.Board)
			return b, "", err
		})
}

package sim

import (
	"context"
	"io"
	"sync"

	"snag/sim/rockchip"
)

// Rockchip is one run of "snag sim rk3399" and its siblings. Auto is VHCI here.
type Rockchip struct {
	Board rockchip.Config // of every board
	Options
}

// Generate writes test images for the board into a directory: a loader container, the two files in its place, and an ID
// block.
func (o Rockchip) Generate(dir string) error {
	images := rockchip.Generate(o.Board.Model, 20_000, 200_000, 1)
	return writeImages(dir, map[string][]byte{
		"loader.bin": images.Loader, "usb471.bin": images.Code471, "usb472.bin": images.Code472, "usbplug.bin": images.Plug, "idbloader.img": images.IDBlock,
	})
}

// Run powers the boards, runs the command, and reports what the boards saw. The command's standard input is this
// process's. The error is a *CommandError if all else went well.
func (o Rockchip) Run(ctx context.Context, stdout, stderr io.Writer) error {
	return powerUSB(ctx, &o.Options, o.Board.Model.Name, "what it was sent", stdout, stderr,
		func(context.Context, *sync.WaitGroup) (usbBoard[*rockchip.Stage], string, error) {
			b, err := rockchip.New(o.Board)
			return b, "", err
		})
}

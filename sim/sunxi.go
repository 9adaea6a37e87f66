package sim

import (
	"context"
	"errors"
	"io"
	"sync"

	"snag/sim/qemu"
	"snag/sim/sunxi"
	"snag/usb"
)

// Sunxi is one run of "snag sim h3" and its siblings. Auto is VHCI here.
type Sunxi struct {
	Board sunxi.Config // of every board
	QEMU  bool         // let the boards execute what they receive; the model must be an h3, a10 or r40
	Options
}

// Generate writes test images for the board into a directory: SPL, U-Boot, and both in one.
func (o Sunxi) Generate(dir string) error {
	images := sunxi.Generate(o.Board.Model, 400_000, 1)
	return writeImages(dir, withSuffix(map[string][]byte{"spl": images.SPL, "u-boot": images.UBoot, "u-boot-with-spl": images.Combined}))
}

// Run powers the boards, runs the command, and reports what the boards saw. The command's standard input is this
// process's. The error is a *CommandError if all else went well.
func (o Sunxi) Run(ctx context.Context, stdout, stderr io.Writer) error {
	if o.QEMU && o.Board.Gadget != (usb.ID{}) {
		return errors.New("QEMU runs a real U-Boot, which has no USB device there: either QEMU or a gadget")
	}
	return powerUSB(ctx, &o.Options, o.Board.Model.Name, "U-Boot", stdout, stderr,
		func(ctx context.Context, running *sync.WaitGroup) (usbBoard[*sunxi.Stage], string, error) {
			cfg, about := o.Board, ""
			if o.QEMU {
				m, where, err := execute(ctx, running, func(ctx context.Context, q qemu.Config) (*qemu.Allwinner, [2]*qemu.Console, error) {
					m, err := qemu.StartAllwinner(ctx, cfg.Model.Name, q)
					if err != nil {
						return nil, [2]*qemu.Console{}, err
					}
					return m, m.UART, nil
				}, "UART0")
				if err != nil {
					return nil, "", err
				}
				cfg.Machine, about = m, where
			}
			b, err := sunxi.New(cfg)
			return b, about, err
		})
}

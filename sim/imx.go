package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"snag/sim/evk"
	"snag/sim/imx"
	"snag/sim/qemu"
)

// qemuModel is the i.MX that QEMU has a machine for.
const qemuModel = "imx6q"

// IMX is one run of "snag sim imx6q" and its siblings. Auto is VHCI here.
type IMX struct {
	Board    imx.Config // of every board
	QEMU     bool       // let the boards execute what they receive; the model must be an imx6q
	Fastboot bool       // the boards' U-Boot has a fastboot, with storage and fuses
	Options
}

// whole is a board whose report is that of its ROM and SPL.
type whole struct{ *evk.Board }

func (b whole) Report() imx.Report { return b.ROM.Report() }

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

// Run powers the boards, runs the command, and reports what the boards saw. The command's standard input is this
// process's. The error is a *CommandError if all else went well.
func (o IMX) Run(ctx context.Context, stdout, stderr io.Writer) error {
	if o.QEMU && o.Fastboot {
		return errors.New("QEMU runs a real U-Boot, which has no fastboot there: either, not both")
	}
	if o.QEMU && o.Board.Model.Name != qemuModel {
		return fmt.Errorf("QEMU has a machine for %s, none for %s", qemuModel, o.Board.Model.Name)
	}
	return powerUSB(ctx, &o.Options, o.Board.Model.Name, "its last image", stdout, stderr,
		func(ctx context.Context, running *sync.WaitGroup) (usbBoard[*imx.Stage], string, error) {
			cfg, about := o.Board, ""
			if o.Fastboot {
				b, err := evk.New(evk.Config{Model: cfg.Model.Name, ROM: cfg})
				if err != nil {
					return nil, "", err
				}
				return whole{b}, b.String(), nil
			}
			if o.QEMU {
				m, where, err := execute(ctx, running, func(ctx context.Context, cfg qemu.Config) (*qemu.Machine, [2]*qemu.Console, error) {
					m, err := qemu.Start(ctx, cfg)
					if err != nil {
						return nil, [2]*qemu.Console{}, err
					}
					return m, m.UART, nil
				}, "UART1", "UART2")
				if err != nil {
					return nil, "", err
				}
				cfg.Machine, about = m, where
			}
			b, err := imx.New(cfg)
			return b, about, err
		})
}

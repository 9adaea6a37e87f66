package sim

import (
	"context"
	"io"
	"sync"

	"snag/sim/qcom"
)

// Qualcomm is one run of "snag sim iq9075". Auto is VHCI here.
type Qualcomm struct {
	Board qcom.Config // of every board
	Options
}

// Generate writes test images for the board into a directory: xbl.elf, u-boot.elf and u-boot.mbn.
func (o Qualcomm) Generate(dir string) error {
	images := qcom.Generate(600_000, 1)
	return writeImages(dir, map[string][]byte{"xbl.elf": images.XBL, "u-boot.elf": images.UBoot, "u-boot.mbn": images.MBN})
}

// Run powers the boards, runs the command, and reports what the boards saw. The command's standard input is this
// process's. The error is a *CommandError if all else went well.
func (o Qualcomm) Run(ctx context.Context, stdout, stderr io.Writer) error {
	goal := "U-Boot"
	if o.Board.Single {
		goal = "the programmer"
	}
	return powerUSB(ctx, &o.Options, "iq9075", goal, stdout, stderr,
		func(context.Context, *sync.WaitGroup) (usbBoard[*qcom.Stage], string, error) {
			b, err := qcom.New(o.Board)
			return b, "", err
		})
}

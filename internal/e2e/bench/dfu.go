//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"snag/sim/dfu"
	"snag/sim/virtual"
	"snag/usb"
)

// dfuContest is a board of STM32MP15 in its second stage, which takes a file.
type dfuContest struct {
	name  string
	spl   bool   // that stage is U-Boot's SPL, not TF-A
	stage string // its name
	alt   string // the setting's number
	slot  string // snag's name of the file
	file  []byte
}

// measureDFU runs in the VM. TF-A's file has size bytes.
func measureDFU(ctx context.Context, w io.Writer, runs, size int) error {
	dir, err := os.MkdirTemp("", "dfu")
	if err != nil {
		return err
	}
	stm32, err := dfu.FindModel("stm32mp15")
	if err != nil {
		return err
	}
	k3, err := dfu.FindModel("am62x")
	if err != nil {
		return err
	}
	first := filepath.Join(dir, "tf-a")
	if err := os.WriteFile(first, dfu.Generate(stm32, 20_000, 1)["tf-a"], 0o644); err != nil {
		return err
	}
	// What is made has some headers.
	fip := dfu.Generate(stm32, size-1000, 1)["fip"]
	fit := dfu.Generate(k3, 8<<20-2000, 1)["u-boot"]
	var contests []*contest
	for _, c := range []*dfuContest{
		{name: fmt.Sprintf("TF-A, FIP of %d MiB", size>>20), stage: dfu.StageTFA, alt: "3", slot: "fip", file: fip},
		{name: "U-Boot's SPL, FIT of 8 MiB", spl: true, stage: dfu.StageSPL, alt: "0", slot: "u-boot", file: fit},
	} {
		file := filepath.Join(dir, c.slot)
		if err := os.WriteFile(file, c.file, 0o644); err != nil {
			return err
		}
		contests = append(contests, &contest{
			name: c.name,
			cold: true,
			power: func() (board, error) {
				return c.power(stm32, first)
			},
			rivals: []*rival{
				{name: "snag", args: []string{"snag", "recover", "-s", "stm32mp15", "-F", "tf-a=" + first, "-F", c.slot + "=" + file}},
				{name: "dfu-util", args: []string{"dfu-util", "-p", "PORT", "-a", c.alt, "-D", file}},
			},
		})
	}
	compete(ctx, w, "Seconds of the whole process that sends one file over DFU", contests, runs)
	return nil
}

// power makes the board, which dfu-util brings to its second stage.
func (c *dfuContest) power(model dfu.Model, first string) (board, error) {
	b, err := dfu.New(dfu.Config{Model: model, STM32SPL: c.spl})
	if err != nil {
		return board{}, err
	}
	const ready = "bInterfaceNumber" // there is no driver
	return board{
		run:   b.Run,
		ready: ready,
		prepare: func(ctx context.Context, port usb.Port) error {
			if out, err := exec.CommandContext(ctx, "dfu-util", "-p", string(port), "-a", "1", "-D", first).CombinedOutput(); err != nil {
				return fmt.Errorf("dfu-util: %w\n%s", err, tail(bytes.NewBuffer(out)))
			}
			for r := b.Report(); r.Last(c.stage) == nil; r = b.Report() {
				if err := pause(ctx); err != nil {
					return err
				}
			}
			// SPL enumerates anew.
			return settle(ctx, port, ready)
		},
		verdict: func() error {
			r := b.Report()
			st := r.Last(c.stage)
			switch {
			case len(r.Violations) > 0 || r.Outcome == virtual.Stuck:
				return fmt.Errorf("%s %s %v", r.Outcome, r.Error, r.Violations)
			case len(st.Files) != 1 || st.Files[0].Bytes != len(c.file):
				return fmt.Errorf("it has %+v", st.Files)
			}
			return nil
		},
	}, nil
}

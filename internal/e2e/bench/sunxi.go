//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"snag/sim/sunxi"
)

// measureSunxi runs in the VM: SPL and U-Boot go to H3 and A64, the first with a U-Boot of 1 MiB.
func measureSunxi(ctx context.Context, w io.Writer, runs int) error {
	dir, err := os.MkdirTemp("", "sunxi")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var contests []*contest
	for _, c := range []struct {
		model string
		size  int
	}{{"h3", 1 << 20}, {"h3", 480_000}, {"a64", 650_000}} {
		m, err := sunxi.FindModel(c.model)
		if err != nil {
			return err
		}
		file := filepath.Join(dir, fmt.Sprintf("%s-%d.bin", c.model, c.size))
		if err := os.WriteFile(file, sunxi.Generate(m, c.size, 1).Combined, 0o644); err != nil {
			return err
		}
		contests = append(contests, &contest{
			name: fmt.Sprintf("%s, U-Boot of %d KB", c.model, c.size/1000),
			power: func() (board, error) {
				b, err := sunxi.New(sunxi.Config{Model: m})
				if err != nil {
					return board{}, err
				}
				return board{
					run:   b.Run,
					ready: "bInterfaceNumber", // there is no driver
					verdict: func() error {
						select {
						case <-b.Settled():
						case <-time.After(patience):
						}
						return b.Report().Err()
					},
				}, nil
			},
			rivals: []*rival{
				{name: "snag", args: []string{"snag", "recover", "-s", c.model, "--usb-path", "PORT", "-F", "u-boot-with-spl=" + file}},
				{name: "sunxi-fel", args: []string{"sunxi-fel", "uboot", file}},
			},
		})
	}
	compete(ctx, w, "Seconds of the whole process that recovers over FEL", contests, runs)
	return nil
}

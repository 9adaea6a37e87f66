//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"snag/sim/rockchip"
	"snag/sim/virtual"
)

// measureRockchip runs in the VM: a loader container of Rockchip's usual sizes, and one with a U-Boot in it.
func measureRockchip(ctx context.Context, w io.Writer, runs int) error {
	dir, err := os.MkdirTemp("", "rockchip")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	model, err := rockchip.FindModel("rk3399")
	if err != nil {
		return err
	}
	var contests []*contest
	for _, c := range []struct {
		name  string
		sizes [2]int // for 471, for 472
	}{
		{"RK3399, loader with a USB plug", [2]int{145_852, 71_700}},
		{"the same with 2 MiB", [2]int{145_852, 2 << 20}},
	} {
		images := rockchip.Generate(model, c.sizes[0], c.sizes[1], 1)
		loader := rockchip.Loader{Chip: model.Chip, Code471: []rockchip.Entry{{Name: "rk3399_ddr", Data: images.Code471, Delay: 1}}, Code472: []rockchip.Entry{{Name: "rk3399_usbplug", Data: images.Plug}}}
		file := filepath.Join(dir, fmt.Sprintf("%d.bin", c.sizes[1]))
		if err := os.WriteFile(file, loader.Bytes(), 0o644); err != nil {
			return err
		}
		contests = append(contests, &contest{
			name: c.name,
			power: func() (board, error) {
				b, err := rockchip.New(rockchip.Config{Model: model})
				if err != nil {
					return board{}, err
				}
				return board{run: b.Run, ready: "bInterfaceNumber", verdict: func() error { // there is no driver
					select {
					case <-b.Settled():
					case <-time.After(5 * time.Second):
					}
					if r := b.Report(); r.Outcome != virtual.Booted || len(r.Violations) > 0 {
						return fmt.Errorf("%s %s %v", r.Outcome, r.Error, r.Violations)
					}
					return nil
				}}, nil
			},
			rivals: []*rival{
				{name: "snag", args: []string{"snag", "recover", "-s", "rk3399", "-F", "loader=" + file}},
				{name: "rkdeveloptool", args: []string{"rkdeveloptool", "db", file}},
			},
		})
	}
	compete(ctx, w, "Seconds of the whole process that downloads a Rockchip loader", contests, runs)
	return nil
}

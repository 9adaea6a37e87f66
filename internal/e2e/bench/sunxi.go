//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"snag/sim/sunxi"
	"snag/usb"
	"snag/usb/fel"
	"snag/usb/usbfs"
)

// dram is where nothing but what is written is, once SPL has set the DRAM up.
const dram = "0x4a000000"

// measureSunxi runs in the VM: SPL and U-Boot go to H3 and A64, the first with a U-Boot of 1 MiB; and 1 MiB is written
// to an H3 that SPL has come back from.
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
	written := *contests[0]
	written.name = "h3, write of 1 MiB alone"
	power := written.power
	spl, file := filepath.Join(dir, "spl.bin"), filepath.Join(dir, "data.bin")
	if h3, err := sunxi.FindModel("h3"); err != nil {
		return err
	} else if err := os.WriteFile(spl, sunxi.Generate(h3, 1<<20, 1).SPL, 0o644); err != nil {
		return err
	}
	data := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(data)
	if err := os.WriteFile(file, data, 0o644); err != nil {
		return err
	}
	written.power = func() (board, error) {
		b, err := power()
		b.prepare = func(ctx context.Context, _ usb.Port) error {
			return exec.CommandContext(ctx, "sunxi-fel", "spl", spl).Run()
		}
		b.verdict = nil // it settles when it is unplugged
		return b, err
	}
	written.rivals = []*rival{
		{name: "snag", args: []string{"bench", "-fel", dram, file, "PORT"}},
		{name: "sunxi-fel", args: []string{"sunxi-fel", "write", dram, file}},
	}
	compete(ctx, w, "Seconds of the whole process that recovers over FEL", append(contests, &written), runs)
	return nil
}

// felWrite writes a file to memory with package fel alone, which no command of snag does: ADDRESS FILE PORT.
func felWrite(ctx context.Context, args []string) error {
	addr, err := strconv.ParseUint(args[0], 0, 32)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	host := usbfs.Host{Quick: true}
	device, err := host.Device(usb.Port(args[2]))
	if err != nil {
		return err
	}
	h, err := host.Open(ctx, device)
	if err != nil {
		return err
	}
	defer h.Close()
	d, err := fel.Open(ctx, h)
	if err != nil {
		return err
	}
	return d.Write(ctx, uint32(addr), data, nil)
}

//go:build linux

// Labtool fetches what tests and the demo need, by name from the distribution's own archive (see package
// lab). It needs no root and installs nothing; what is at hand already it leaves alone.
//
//	go run ./internal/lab/labtool vm [PACKAGE...]   what the VM tests need, and further packages
//	go run ./internal/lab/labtool firmware DIR      an AM335x's firmware, real if it can be had
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"snag/firmware"
	"snag/internal/lab"
	"snag/sim/am335x"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		log("%v", err)
		os.Exit(1)
	}
}

func log(format string, args ...any) { fmt.Fprintf(os.Stderr, "lab: "+format+"\n", args...) }

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) >= 1 && args[0] == "vm":
		return lab.Prepare(ctx, log, args[1:]...)
	case len(args) == 2 && args[0] == "firmware":
		return boneBlack(ctx, args[1])
	}
	return errors.New("usage: labtool vm [PACKAGE...] | labtool firmware DIR")
}

// fetchTimeout bounds the fetching of real firmware, for which there is a substitute.
const fetchTimeout = 60 * time.Second

// boneBlack writes MLO, u-boot-spl.bin (the same without its header), u-boot.img and board.yaml for a
// BeagleBone Black into a directory.
func boneBlack(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	files := map[string][]byte{}
	mlo, uboot, err := debian(ctx)
	if err == nil {
		fmt.Println("real: Debian's u-boot-omap for am335x_boneblack")
		raw, err := firmware.ParseMLO(mlo)
		if err != nil {
			return err
		}
		files["MLO"], files["u-boot-spl.bin"], files["u-boot.img"] = mlo, raw.Data, uboot
		files["board.yaml"] = config("MLO")
	} else {
		fmt.Printf("generated, because real firmware cannot be had (%v)\n", err)
		files["u-boot-spl.bin"], files["u-boot.img"] = am335x.GenerateSPL(109_728, 1), am335x.GenerateUBoot(755_512, 1)
		files["board.yaml"] = config("u-boot-spl.bin")
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func debian(ctx context.Context) (mlo, uboot []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	dirs, err := lab.Fetch(ctx, "u-boot-omap:armhf")
	if err != nil {
		return nil, nil, err
	}
	board := filepath.Join(dirs[0], "usr/lib/u-boot/am335x_boneblack")
	if mlo, err = os.ReadFile(filepath.Join(board, "MLO")); err != nil {
		return nil, nil, err
	}
	uboot, err = os.ReadFile(filepath.Join(board, "u-boot.img"))
	return mlo, uboot, err
}

func config(spl string) []byte {
	return []byte("paths-relative-to: THIS_FILE\nspl:\n  path: " + spl + "\nu-boot:\n  path: u-boot.img\n")
}

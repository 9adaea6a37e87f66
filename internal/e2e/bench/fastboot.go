//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"snag/sim/fastboot"
	"snag/sim/uboot"
)

// measureFastboot runs in the VM: an image of so many bytes goes to an eMMC, through a buffer of 32 MiB.
func measureFastboot(ctx context.Context, w io.Writer, runs, size int) error {
	dir, err := os.MkdirTemp("", "fastboot")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file, script := filepath.Join(dir, "image"), filepath.Join(dir, "flash.uuu")
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	for n := range size >> 20 {
		if _, err := f.Write(megabyte(n)); err != nil {
			return err
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.WriteFile(script, []byte("uuu_version 1.2.39\nFB: flash -raw2sparse mmc0 image\nFB: done\n"), 0o644); err != nil {
		return err
	}
	card := uboot.NewMMC(4<<30, 0)
	c := &contest{
		cold:  true,
		name:  fmt.Sprintf("raw image of %d MiB", size>>20),
		power: func() (board, error) { return fastbootBoard(card, size>>20) },
		rivals: []*rival{
			{name: "snag", args: []string{"snag", "run", script}},
			{name: "uuu", args: []string{"uuu", script}},
			{name: "fastboot", args: []string{"fastboot", "flash", "mmc0", file}},
		},
	}
	compete(ctx, w, "Seconds of the whole process that flashes over fastboot", []*contest{c}, runs)
	return nil
}

// base is what every MiB of the image has.
var base = func() []byte {
	b := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}()

// megabyte is one of the image: random, with its number in every block.
func megabyte(n int) []byte {
	b := bytes.Clone(base)
	for at := 0; at < len(b); at += 4096 {
		binary.LittleEndian.PutUint64(b[at:], uint64(n)<<20+uint64(at))
	}
	return b
}

// fastbootBoard is a U-Boot with this card, of which as much is cleared first as the image has.
func fastbootBoard(card *uboot.MMC, megabytes int) (board, error) {
	for n := range megabytes {
		if _, err := card.Areas[0].WriteAt(make([]byte, 1<<20), int64(n)<<20); err != nil {
			return board{}, err
		}
	}
	m := &uboot.Machine{RAM: 0x40000000, RAMSize: 64 << 20, MMC: []*uboot.MMC{card}}
	b, err := fastboot.New(fastboot.Config{UBoot: m, Buffer: 32 << 20, Unhashed: true})
	if err != nil {
		return board{}, err
	}
	return board{
		run:   b.Run,
		ready: "bInterfaceNumber", // there is no driver
		verdict: func() error {
			if r := b.Report(); len(r.Violations) > 0 {
				return errors.New(r.Violations[0].Text)
			}
			got := make([]byte, 1<<20)
			for n := range megabytes {
				if _, err := card.Areas[0].ReadAt(got, int64(n)<<20); err != nil {
					return err
				}
				if !bytes.Equal(got, megabyte(n)) {
					return fmt.Errorf("MiB %d is another", n)
				}
			}
			return nil
		},
	}, nil
}

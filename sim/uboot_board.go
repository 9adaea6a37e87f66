package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"snag/sim/fastboot"
	"snag/sim/uboot"
	"snag/sim/usbdev"
	"snag/sim/virtual"
	"snag/usb"
)

// UDP is U-Boot's fastboot on a network, without USB.
const UDP Carrier = "udp"

// UBoot is one run of "snag sim uboot": boards on which U-Boot's fastboot runs, with storage behind it. Auto is VHCI
// here.
type UBoot struct {
	Board fastboot.Config // of every board, but for its UBoot

	// The sizes of its storage, in bytes; 0: none.
	MMC, Boot, NAND, NOR int64
	Save                 string // a directory: what is on it at the end goes there, as mmc0.img, mmc0boot0.img, spi-nand0.img, nor0.img

	Options
}

// The geometry of the flash chips.
const (
	nandBlock = 128 << 10
	nandPage  = 2048
	norBlock  = 64 << 10
)

func (o *UBoot) machine() (*uboot.Machine, error) {
	for _, s := range []struct{ size, unit int64 }{{o.MMC, uboot.BlockSize}, {o.Boot, uboot.BlockSize}, {o.NAND, nandBlock}, {o.NOR, norBlock}} {
		if s.size < 0 || s.size%s.unit != 0 {
			return nil, fmt.Errorf("storage of %d bytes: expected a multiple of %d", s.size, s.unit)
		}
	}
	m := &uboot.Machine{}
	if o.MMC > 0 {
		m.MMC = append(m.MMC, uboot.NewMMC(o.MMC, o.Boot))
	}
	if o.NAND > 0 {
		m.MTD = append(m.MTD, uboot.NewMTD("spi-nand0", true, o.NAND, nandBlock, nandPage))
	}
	if o.NOR > 0 {
		m.MTD = append(m.MTD, uboot.NewMTD("nor0", false, o.NOR, norBlock, 1))
	}
	return m, nil
}

// save writes what is on a machine's storage into a directory. What nobody wrote becomes holes.
func save(m *uboot.Machine, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	write := func(name string, from io.ReaderAt, size int64) error {
		f, err := os.Create(filepath.Join(dir, name+".img"))
		if err != nil {
			return err
		}
		defer f.Close()
		const step = 1 << 20
		b, zeros := make([]byte, step), make([]byte, step)
		for off := int64(0); off < size; off += step {
			n := min(step, size-off)
			if _, err := from.ReadAt(b[:n], off); err != nil && err != io.EOF {
				return err
			}
			if string(b[:n]) == string(zeros[:n]) {
				continue
			}
			if _, err := f.WriteAt(b[:n], off); err != nil {
				return err
			}
		}
		return errors.Join(f.Truncate(size), f.Close())
	}
	for i, d := range m.MMC {
		for area, suffix := range map[int]string{0: "", 1: "boot0", 2: "boot1"} {
			if s := d.Areas[area]; s != nil {
				if err := write(fmt.Sprintf("mmc%d%s", i, suffix), s, s.Size()); err != nil {
					return err
				}
			}
		}
	}
	for _, d := range m.MTD {
		if err := write(d.Name, d, d.Size()); err != nil {
			return err
		}
	}
	return nil
}

// ubootBoard is a board of which the report is as others'.
type ubootBoard struct {
	*fastboot.Board
	machine *uboot.Machine
	conn    net.PacketConn // UDP
}

func (b *ubootBoard) Report() virtual.Report[*fastboot.Stage] { return b.Board.Report().Report }

// resetTime is how long a board on a network takes from a reset to its U-Boot.
const resetTime = time.Second

// Run powers the board: on a port, or on the network. There, it comes back after every reset.
func (b *ubootBoard) Run(ctx context.Context, port usbdev.Port) error {
	for conn := b.conn; conn != nil; {
		b.machine.Power()
		address := conn.LocalAddr().String()
		if err := b.ServeUDP(ctx, conn); err != nil || ctx.Err() != nil {
			return err
		}
		if err := virtual.Sleep(ctx, resetTime); err != nil {
			return nil
		}
		var err error
		if conn, err = net.ListenPacket("udp", address); err != nil {
			return err
		}
	}
	return b.Board.Run(ctx, port)
}

// Run powers the boards, runs the command, and reports what the boards saw. The command's standard input is this
// process's. The error is a *CommandError if all else went well.
func (o UBoot) Run(ctx context.Context, stdout, stderr io.Writer) error {
	var all []*ubootBoard
	add := func(context.Context, *sync.WaitGroup) (usbBoard[*fastboot.Stage], string, error) {
		cfg := o.Board
		var err error
		if cfg.UBoot, err = o.machine(); err != nil {
			return nil, "", err
		}
		b, err := fastboot.New(cfg)
		if err != nil {
			return nil, "", err
		}
		all = append(all, &ubootBoard{Board: b, machine: cfg.UBoot})
		return all[len(all)-1], fmt.Sprintf("U-Boot's fastboot buffer is at %#x", cfg.UBoot.Base()), nil
	}
	var err error
	if o.Carrier == UDP {
		err = o.onNetwork(ctx, add, stdout, stderr)
	} else {
		err = powerUSB(ctx, &o.Options, "uboot", "something", stdout, stderr, add)
	}
	for i, b := range all {
		if o.Save == "" {
			break
		}
		dir := o.Save
		if len(all) > 1 {
			dir = filepath.Join(dir, fmt.Sprint(i))
		}
		err = errors.Join(err, save(b.machine, dir))
	}
	return err
}

// onNetwork powers one board that is on the network.
func (o *UBoot) onNetwork(ctx context.Context, add func(context.Context, *sync.WaitGroup) (usbBoard[*fastboot.Stage], string, error), stdout, stderr io.Writer) error {
	if len(o.Ports) > 0 {
		return errors.New("a board on a network has no USB port")
	}
	one, about, err := add(ctx, nil)
	if err != nil {
		return err
	}
	b := one.(*ubootBoard)
	if b.conn, err = net.ListenPacket("udp", o.Listen); err != nil {
		return err
	}
	name := usb.Port("udp:" + b.conn.LocalAddr().String())
	p := &powered{slot: slot{name: name}, board: b, outcome: func() virtual.Outcome { return b.Report().Outcome }, about: about}
	return o.power(ctx, nil, []*powered{p}, func() error {
		return printUSB(stdout, o.JSON, "uboot", "something", []reported[*fastboot.Stage]{{name, b.Report()}})
	}, stdout, stderr)
}

package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"snag/flash"
	target "snag/flash/fastboot"
	"snag/flash/image"
	"snag/flash/sparse"
	"snag/internal/lab"
	"snag/sim/fastboot"
	"snag/sim/uboot"
	"snag/usb"
	client "snag/usb/fastboot"
	"snag/usb/usbfs"
)

// uBoot is a U-Boot with an eMMC of 8 GiB and flash memory, and NXP's variable.
func uBoot(t testing.TB) *uboot.Machine {
	t.Helper()
	m := &uboot.Machine{
		Env: map[string]string{"fastboot_buffer": "0x42000000", "emmc_dev": "0"},
		MMC: []*uboot.MMC{uboot.NewMMC(8<<30, 4<<20)},
		MTD: []*uboot.MTD{uboot.NewMTD("spi-nand0", true, 64<<17, 1<<17, 2048, uboot.MTDPart{Name: "ubi", Off: 0, Size: 64 << 17})},
	}
	m.MTD[0].Bad[1] = true
	table, err := uboot.LayGPT("name=boot,size=8MiB;name=rootfs,size=6GiB", 8<<30)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.WriteTo(m.MMC[0]); err != nil {
		t.Fatal(err)
	}
	return m
}

// rootfsAt is where uBoot's rootfs begins.
const rootfsAt = (34 << 9) + 8<<20

// openFastboot opens the board on a port, as snag does.
func openFastboot(t *testing.T, port usb.Port) *client.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var h usb.Handle
	soon(t, 30*time.Second, func() error {
		devices, err := usbfs.Host{}.Devices()
		if err != nil {
			return err
		}
		for _, d := range devices {
			if d.Port == port && d.ID == fastboot.ID && d.Config == 1 {
				h, err = usbfs.Host{}.Open(ctx, d)
				return err
			}
		}
		return fmt.Errorf("no %s on %s", fastboot.ID, port)
	})
	if h == nil {
		t.FailNow()
	}
	t.Cleanup(func() { h.Close() })
	tr, err := client.OpenUSB(ctx, h, false)
	if err != nil {
		t.Fatal(err)
	}
	return client.New(tr)
}

// TestWithFastbootFlash has Debian's fastboot and uuu, and snag, write the same image to the same board's eMMC, through
// a buffer that is smaller: what is there afterwards is the same, byte by byte.
func TestWithFastbootFlash(t *testing.T) {
	lab.Inside(t)
	// Debian's fastboot makes broken images of what is no multiple of 4096.
	const size, buffer = 6 << 20, 1 << 20
	data := make([]byte, size)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		switch {
		case i>>18%3 == 1: // zeros
		case i>>18%3 == 2:
			data[i] = "snag"[i%4]
		default:
			data[i] = byte(r.Uint32())
		}
	}
	dir := t.TempDir()
	name := func(s string) string { return filepath.Join(dir, s) }
	write := func(file string, b []byte) {
		t.Helper()
		if err := os.WriteFile(name(file), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("image", data)
	im, err := image.Open(t.Context(), name("image"), image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(name("sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := image.WriteSparse(t.Context(), im, image.SparseOptions{Config: sparse.Config{Open: func(int) (io.WriterAt, error) { return f, nil }}}); err != nil {
		t.Fatal(err)
	}
	write("boot", data[:300_032])
	script := func(lines ...string) string {
		file := fmt.Sprintf("%d.uuu", time.Now().UnixNano())
		write(file, []byte("uuu_version 1.2.39\n"+strings.Join(append(lines, "FB: done"), "\n")+"\n"))
		return name(file)
	}
	run := func(t *testing.T, args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	snag := func(to func(c *client.Client) flash.Target, file string, o flash.Options) func(*testing.T, usb.Port) {
		return func(t *testing.T, port usb.Port) {
			im, err := image.Open(t.Context(), name(file), image.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := to(openFastboot(t, port)).Write(t.Context(), im, o); err != nil {
				t.Fatal(err)
			}
		}
	}
	program := func(args ...string) func(*testing.T, usb.Port) {
		return func(t *testing.T, port usb.Port) { run(t, args...) }
	}
	rootfs := func(c *client.Client) flash.Target { return target.Partition{Client: c, Name: "rootfs"} }
	want := data
	for _, tc := range []struct {
		name string
		do   func(*testing.T, usb.Port)
	}{
		{"fastboot raw", program("fastboot", "flash", "rootfs", name("image"))},
		{"fastboot sparse", program("fastboot", "flash", "rootfs", name("sparse"))},
		{"uuu raw2sparse", program("uuu", script("FB: flash -raw2sparse rootfs image"))},
		{"uuu sparse", program("uuu", script("FB: flash rootfs sparse"))},
		{"snag raw", snag(rootfs, "image", flash.Options{})},
		{"snag sparse", snag(rootfs, "sparse", flash.Options{})},
		{"snag mmc", snag(func(c *client.Client) flash.Target { return target.MMC{Client: c, Partition: "rootfs"} }, "image", flash.Options{Verify: true})},
		{"snag run raw2sparse", program("snag", "run", script("FB: flash -raw2sparse rootfs image"))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := uBoot(t)
			board, port, unplug := plugFastboot(t, fastboot.Config{UBoot: m, Buffer: buffer, Address: 0x42000000})
			tc.do(t, port)
			unplug()
			clean(t, board)
			same(t, m.MMC[0].Areas[0], rootfsAt, want)
			// Nothing else is: the tables, and what was written.
			if used := m.MMC[0].Areas[0].Used(); used > size+1<<20 {
				t.Errorf("%d bytes were written", used)
			}
		})
	}
	// U-Boot's commands: the first two must leave the same.
	lines := []string{
		"FB: download -f boot", "FB: ucmd setenv blocks 0x24a", "FB: ucmd mmc dev ${emmc_dev} 1",
		"FB: ucmd if itest ${filesize} == 0x49400; then mmc write ${fastboot_buffer} 0x10 ${blocks}; else false; fi",
		"FB: ucmd mmc partconf ${emmc_dev} 0 1 0", "FB: acmd mmc dev 0",
	}
	for _, tc := range []struct {
		name string
		do   func(*testing.T, usb.Port)
	}{
		{"uuu ucmd", program("uuu", script(lines...))},
		{"snag run ucmd", program("snag", "run", script(lines...))},
		{"snag boot partition", snag(func(c *client.Client) flash.Target { return target.MMC{Client: c, HWPart: 1, Offset: 0x2000} }, "boot", flash.Options{Verify: true})},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := uBoot(t)
			board, port, unplug := plugFastboot(t, fastboot.Config{UBoot: m, Buffer: buffer, Address: 0x42000000})
			tc.do(t, port)
			unplug()
			clean(t, board)
			same(t, m.MMC[0].Areas[1], 0x2000, data[:0x24a*512])
			if strings.Contains(tc.name, "ucmd") && m.MMC[0].PartConf != [3]int{0, 1, 0} {
				t.Error(m.MMC[0].PartConf)
			}
		})
	}
	t.Run("snag NAND", func(t *testing.T) {
		m := uBoot(t)
		board, port, unplug := plugFastboot(t, fastboot.Config{UBoot: m, Buffer: buffer, Address: 0x42000000, HasConsole: true})
		snag(func(c *client.Client) flash.Target { return target.MTD{Client: c, Name: "ubi"} }, "image", flash.Options{Verify: true})(t, port)
		unplug()
		clean(t, board)
		got, err := m.MTD[0].ReadGood(0, size)
		if err != nil || !bytes.Equal(got, data) {
			t.Error("the NAND has something else", err)
		}
	})
}

// same fails the test unless a medium has some bytes at an offset.
func same(t *testing.T, r io.ReaderAt, off int64, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := r.ReadAt(got, off); err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(got) != sha256.Sum256(want) {
		at := 0
		for got[at] == want[at] {
			at++
		}
		t.Errorf("byte %#x is %#x, expected %#x", at, got[at], want[at])
	}
}

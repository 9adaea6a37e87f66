package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"snag/flash"
	flashdfu "snag/flash/dfu"
	"snag/flash/image"
	"snag/internal/lab"
	"snag/sim/dfu"
	"snag/usb"
	"snag/usb/usbfs"
)

// gadgetCase is a DFU gadget, and what is written to it.
type gadgetCase struct {
	name   string
	config dfu.Config // without the model
	alt    string
	size   int
	args   string // dfu-util's other arguments for the download
	upload string // the same for an upload; empty: none is made
	suffix bool   // the file has a DFU suffix
	want   string // of snag's error, with a fault
}

var gadgetCases = []gadgetCase{
	{name: "raw", alt: "boot", size: 512<<10 + 777, upload: "-a boot", config: dfu.Config{Drain: 50 * time.Millisecond}},
	{name: "file", alt: "uImage", size: 100_001, upload: "-a uImage"},
	{name: "suffix", alt: "boot", size: 100_000, suffix: true},
	{name: "run-time mode", alt: "boot", size: 50_000, config: dfu.Config{RunTime: dfu.Detaches}},
	{name: "run-time mode until a reset", alt: "boot", size: 50_000, config: dfu.Config{RunTime: dfu.WantsBus}},
	{name: "DfuSe", alt: "@Internal Flash  /0x08000000/64*002Kg", size: 60_001, args: "-s 0x08000000", upload: "-s 0x08000000:131072", config: dfu.Config{
		DfuSe: true, Alts: []dfu.Alt{{Name: "@Internal Flash  /0x08000000/64*002Kg", Size: 128 << 10, Address: 0x08000000, Page: 2048}},
	}},
	{name: "wrong bit", alt: "boot", size: 50_000, want: "bytes 0-49999: the device gives back something else",
		config: dfu.Config{Faults: []dfu.Fault{{Kind: dfu.Flip, Stage: dfu.StageGadget, At: 20_000}}}},
	{name: "unplug", alt: "boot", size: 50_000, want: "gone",
		config: dfu.Config{Faults: []dfu.Fault{{Kind: dfu.Unplug, Stage: dfu.StageGadget, At: 20_000}}}},
	{name: "last part", alt: "boot", size: 50_000, want: "writing the last part has failed",
		config: dfu.Config{Faults: []dfu.Fault{{Kind: dfu.Fail, Stage: dfu.StageGadget, Command: dfu.Manifest}}}},
}

// TestWithDFUGadget has dfu-util and snag write the same file to the same gadget: what is stored must be the same, and
// what dfu-util reads back must be it.
func TestWithDFUGadget(t *testing.T) {
	lab.Inside(t)
	model, err := dfu.FindModel("dfu")
	if err != nil {
		t.Fatal(err)
	}
	if model.ProvenBy != "dfu-util" {
		t.Errorf("%s is said to be proven by %q", model.Name, model.ProvenBy)
	}
	for _, c := range gadgetCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.config.Model = model
			if c.config.Alts == nil {
				c.config.Alts = []dfu.Alt{{Name: "other", Size: 4096}, {Name: "boot", Size: 768 << 10}, {Name: "uImage", Size: 256 << 10, File: true}}
				c.config.Buffer = 256 << 10
			}
			data := make([]byte, c.size)
			rand.NewChaCha8([32]byte{}).Read(data)
			by := func(who string, write func(*testing.T, *dfuBoard, string) []byte) (stored []byte) {
				t.Run(who, func(t *testing.T) { // each has a board only as long as it needs it
					b := powerDFU(t, c.config, map[string][]byte{"image": data})
					file := filepath.Join(b.dir, "image")
					if c.suffix {
						must(t, "dfu-suffix", "-v", fmt.Sprintf("%04x", model.ID.Vendor), "-p", fmt.Sprintf("%04x", model.ID.Product), "-a", file)
					}
					first := dfu.StageGadget
					if c.config.RunTime != "" {
						first = dfu.StageApp
					}
					b.stage(t, first)
					stored = write(t, b, file)
				})
				return stored
			}
			ours := by("snag", c.snag)
			if c.want != "" || t.Failed() {
				return
			}
			if theirs := by("dfu-util", c.dfuUtil); t.Failed() || !bytes.Equal(ours, theirs) {
				t.Fatalf("snag has stored something else than dfu-util: %d and %d bytes", len(ours), len(theirs))
			}
			if !bytes.Equal(ours[:c.size], data) {
				t.Error("what is stored is not the image")
			}
		})
	}
}

// snag writes with snag's target, and reads back with dfu-util.
func (c *gadgetCase) snag(t *testing.T, b *dfuBoard, file string) []byte {
	im, err := image.Open(t.Context(), file, image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	target := &flashdfu.Target{Host: usbfs.Host{}, Port: usb.Port(b.port), Alt: c.alt}
	begun := time.Now()
	err = target.Write(t.Context(), im, flash.Options{Verify: c.upload == ""}) // U-Boot gives no upload behind one that was aborted
	t.Logf("snag: %s", time.Since(begun).Round(10*time.Millisecond))
	if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
		t.Fatalf("%v, expected %q\n%+v", err, c.want, b.Report())
	}
	stored := b.Medium(c.alt)
	if c.upload != "" {
		back := filepath.Join(b.dir, "back")
		if out, err := b.dfuUtil(t, append(strings.Fields(c.upload), "-U", back)...); err != nil {
			t.Fatal(err, out)
		}
		if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, stored) {
			t.Errorf("dfu-util reads %d bytes back, something else than the %d that are stored: %v", len(got), len(stored), err)
		}
	}
	b.lawful(t)
	return stored
}

// dfuUtil writes with dfu-util.
func (c *gadgetCase) dfuUtil(t *testing.T, b *dfuBoard, file string) []byte {
	args := strings.Fields(c.args)
	if len(args) == 0 {
		args = []string{"-a", c.alt}
	}
	if out, err := b.dfuUtil(t, append(args, "-D", file)...); err != nil {
		t.Fatalf("%v\n%s\n%+v", err, out, b.Report())
	}
	b.lawful(t)
	return b.Medium(c.alt)
}

// lawful checks that the host did nothing wrong.
func (b *dfuBoard) lawful(t *testing.T) {
	t.Helper()
	for _, v := range b.Report().Violations {
		t.Errorf("the board saw %d times: %s", v.N, v.Text)
	}
}

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/dfu"
	"snag/usb"
	client "snag/usb/dfu"
	"snag/usb/usbfs"
)

// open opens the stage's device with snag's client, and selects the setting.
func (b *dfuBoard) open(t *testing.T, s dfuStep) (h usb.Handle, d *client.Device) {
	t.Helper()
	soon(t, 30*time.Second, func() (err error) {
		r := b.Report()
		if n := len(r.Stages); n == 0 || r.Stages[n-1].Name != s.stage {
			return fmt.Errorf("no stage %s: %+v", s.stage, r)
		}
		devices, err := usbfs.Host{}.Devices()
		if err != nil {
			return err
		}
		i := slices.IndexFunc(devices, func(d usb.Device) bool { return string(d.Port) == b.port && d.ID == b.id })
		if i < 0 {
			return fmt.Errorf("nothing on %s", b.port)
		}
		if h, err = (usbfs.Host{}).Open(t.Context(), devices[i]); err != nil {
			return err
		}
		var alt client.Alt
		if d, err = client.Open(t.Context(), h); err == nil {
			if n, wrong := strconv.Atoi(s.alt); wrong == nil {
				alt, err = d.Number(uint8(n))
			} else {
				alt, err = d.Find(s.alt)
			}
		}
		if err == nil {
			err = d.Select(t.Context(), alt)
		}
		if err != nil {
			h.Close()
		}
		return err
	})
	if t.Failed() {
		t.FailNow()
	}
	return h, d
}

// client does to a stage what dfu-util does.
func (b *dfuBoard) client(t *testing.T, s dfuStep) error {
	t.Helper()
	h, d := b.open(t, s)
	defer h.Close()
	d.NoRecovery = s.stage == dfu.StageFSBL
	if err := d.Download(t.Context(), b.images[s.file], nil); err != nil && !errors.Is(err, client.ErrLeft) {
		return err
	}
	if s.args+s.then == "" {
		return nil
	}
	if err := d.Detach(t.Context()); err != nil {
		return err
	}
	if s.args == "-R" {
		if err := d.Reset(t.Context()); err != nil && !errors.Is(err, usb.ErrGone) {
			return err
		}
	}
	return nil
}

// TestWithDFUClient recovers boards with snag's client by dfu-util's steps, with the resets that snag recover does
// without.
func TestWithDFUClient(t *testing.T) {
	lab.Inside(t)
	for _, c := range dfuCases {
		if c.model != "stm32mp13" && c.model != "am65x" && c.model != "am62lx" {
			continue
		}
		t.Run(c.model, func(t *testing.T) {
			t.Parallel()
			b := c.power(t, c.model)
			for i, s := range c.steps {
				before := len(b.files())
				if err := b.client(t, s); err != nil {
					t.Fatalf("step %d: %v\n%+v", i, err, b.Report())
				}
				if n := len(b.files()); n != before+1 {
					t.Fatalf("step %d: the board has %d files", i, n)
				}
			}
			b.booted(t)
		})
	}
}

// TestWithDFUSpeed sends a file to the same stage with snag's client and with dfu-util, by turns.
func TestWithDFUSpeed(t *testing.T) {
	lab.Inside(t)
	c := dfuCase{model: "am62x", config: dfu.Config{SPL: dfu.SPLNext}}
	b := c.power(t, c.model)
	big := append(slices.Clone(b.images["u-boot"]), bytes.Repeat([]byte("speed"), 1<<20/5)...)
	b.images["big"] = big
	path := filepath.Join(b.dir, "big")
	if err := os.WriteFile(path, big, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, s := range []dfuStep{k3ROM, k3R5} {
		if err := b.client(t, s); err != nil {
			t.Fatal(err)
		}
	}
	step := dfuStep{stage: dfu.StageSPLA53, alt: "u-boot.img", file: "big"}
	b.list(t, step)
	var ours, theirs []time.Duration
	for range 3 {
		begun := time.Now()
		if err := b.client(t, step); err != nil {
			t.Fatal(err)
		}
		ours = append(ours, time.Since(begun))
		begun = time.Now()
		if out, err := b.dfuUtil(t, "-a", step.alt, "-D", path); err != nil {
			t.Fatal(err, out)
		}
		theirs = append(theirs, time.Since(begun))
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	t.Logf("%d bytes: snag %v, dfu-util %v", len(big), ours, theirs)
	if ours[1] > theirs[1] {
		t.Errorf("snag's median is %v, dfu-util's %v", ours[1], theirs[1])
	}
	if f := b.files(); len(f) != 8 || f[7].Bytes != len(big) {
		t.Errorf("%+v", f)
	}
	if _, err := b.dfuUtil(t, strings.Fields("-a 0 -e")...); err != nil {
		t.Error(err)
	}
	b.booted(t)
}

// TestWithDFUFault has errors that a real kernel passes on.
func TestWithDFUFault(t *testing.T) {
	lab.Inside(t)
	for _, tc := range []struct{ fault, want string }{
		{"error:rom:10000:6", "errPROG"}, {"stall:rom:10000", "refused with a stall"}, {"unplug:rom:10000", "gone"}, {"lie:rom:manifest", "left alone for"},
		{"hang:rom:10000", "deadline"},
	} {
		t.Run(tc.fault, func(t *testing.T) {
			t.Parallel()
			f, err := dfu.ParseFault(tc.fault)
			if err != nil {
				t.Fatal(err)
			}
			c := dfuCase{model: "stm32mp13", config: dfu.Config{Faults: []dfu.Fault{f}}}
			b := c.power(t, c.model)
			h, d := b.open(t, dfuStep{stage: dfu.StageROM, alt: "0"})
			defer h.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := d.Download(ctx, b.images["tf-a"], nil); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, expected %q", err, tc.want)
			}
		})
	}
}

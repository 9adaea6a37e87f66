package dfu_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"snag/sim/dfu"
	"snag/sim/virtual"
	"snag/usb"
	client "snag/usb/dfu"
)

// TestFSBL has hosts that do what upsets the FSBL.
func TestFSBL(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(t *testing.T, h usb.Handle, d *client.Device, boot []byte) error
		want virtual.Outcome
		says string // the violation, or why the board is stuck
	}{
		{"right", func(t *testing.T, _ usb.Handle, d *client.Device, boot []byte) error {
			return d.Download(t.Context(), boot, nil)
		}, virtual.Booted, ""},
		{"selected twice", func(t *testing.T, _ usb.Handle, d *client.Device, boot []byte) error {
			return d.Select(t.Context(), d.Alts[0])
		}, virtual.Stuck, "setting 1 was selected 2 times"},
		{"released early", func(*testing.T, usb.Handle, *client.Device, []byte) error { return nil }, virtual.Stuck, "left without its file"},
		{"cleared", func(t *testing.T, h usb.Handle, d *client.Device, boot []byte) error {
			h.Control(t.Context(), usb.Setup{Type: 0x21, Request: 4}, nil)
			if a, err := d.Status(t.Context()); err != nil || a.State != client.Error {
				return fmt.Errorf("%+v, %v", a, err)
			}
			return d.Download(t.Context(), boot, nil)
		}, virtual.Booted, "CLRSTATUS, which it does not know"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := dfu.Config{Model: model(t, "zynqmp")}
				s := power(t, c)
				files := dfu.Generate(c.Model, 5000, 1)
				if err := s.recover(t.Context(), way(c)[:1], files); err != nil {
					t.Fatal(err)
				}
				h, d, err := s.open(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				d.NoRecovery = true
				if err := d.Select(t.Context(), d.Alts[0]); err != nil {
					t.Fatal(err)
				}
				if err := tc.do(t, h, d, files["boot"]); err != nil {
					t.Error(err)
				}
				h.Close()
				r := s.settle()
				said := r.Error
				for _, v := range r.Violations {
					said += v.Text
				}
				if r.Outcome != tc.want || !strings.Contains(said, tc.says) || tc.says == "" && said != "" {
					t.Errorf("%s, %q", r.Outcome, said)
				}
			})
		})
	}
}

// TestStatuses plays each status to the client, at a block and at the end.
func TestStatuses(t *testing.T) {
	for status := 1; status <= 15; status++ {
		for _, when := range []string{"3000", "manifest"} {
			synctest.Test(t, func(t *testing.T) {
				f, err := dfu.ParseFault(fmt.Sprintf("error:rom:%s:%d", when, status))
				if err != nil {
					t.Fatal(err)
				}
				c := dfu.Config{Model: model(t, "am62x"), Faults: []dfu.Fault{f}}
				s := power(t, c)
				err = s.recover(t.Context(), way(c), dfu.Generate(c.Model, 5000, 1))
				if err == nil || !strings.Contains(err.Error(), client.Status(status).String()) || !strings.Contains(err.Error(), "state dfuERROR") {
					t.Errorf("status %d at %s: %v", status, when, err)
				}
				// The same again, without the fault: the error is cleared.
				s.last = 0
				if err := s.recover(t.Context(), way(c), dfu.Generate(c.Model, 5000, 1)); err != nil {
					t.Errorf("after status %d at %s: %v", status, when, err)
				}
			})
		}
	}
}

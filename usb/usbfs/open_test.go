//go:build linux

package usbfs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"snag/usb"
)

// TestSettled finds a device in a sysfs that is files, as it was listed or later.
func TestSettled(t *testing.T) {
	const port = usb.Port("1-2")
	later := errors.New("later")
	for _, tc := range []struct {
		name   string
		listed int               // its configuration
		first  map[string]string // what has changed at first,
		then   map[string]string // and when the device is awaited
		end    error             // of the context, then
		config int
		gone   bool
	}{
		{name: "as listed", listed: 1, config: 1},
		{name: "configured meanwhile", listed: 0, config: 1},
		{name: "another configuration", listed: 2, config: 1},
		{name: "configured later", first: map[string]string{"bConfigurationValue": ""}, then: map[string]string{"bConfigurationValue": "1"}, config: 1},
		{name: "reset later", first: map[string]string{"bConfigurationValue": ""}, then: map[string]string{"devnum": "0"}, gone: true},
		{name: "never configured", first: map[string]string{"bConfigurationValue": ""}, config: 0},
		{name: "never, and the time is over", first: map[string]string{"bConfigurationValue": ""}, end: later},
		{name: "another device", listed: 1, first: map[string]string{"devnum": "10"}, gone: true},
		{name: "another device, of the same address", listed: 2, first: map[string]string{"serial": "8"}, gone: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			h := Host{Sysfs: usb.Sysfs{Sys: t.TempDir(), Dev: "/dev"}}
			dir := filepath.Join(h.Sysfs.Sys, "bus/usb/devices", string(port))
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			write := func(attributes map[string]string) {
				for name, text := range attributes {
					file := filepath.Join(dir, name)
					if err := os.WriteFile(file+"~", []byte(text+"\n"), 0o644); err != nil {
						t.Error(err)
					}
					if err := os.Rename(file+"~", file); err != nil { // at once
						t.Error(err)
					}
				}
			}
			write(map[string]string{
				"idVendor": "0451", "idProduct": "6141", "bcdDevice": "0100", "busnum": "1", "devnum": "9", "serial": "7", "bConfigurationValue": "1",
			})
			listed, err := h.Device(port)
			if err != nil {
				t.Fatal(err)
			}
			listed.Config = tc.listed
			write(tc.first)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			begin := time.Now()
			if tc.then != nil || tc.end != nil {
				timer := time.AfterFunc(100*time.Millisecond, func() {
					write(tc.then)
					if tc.end != nil {
						cancel(tc.end)
					}
				})
				defer timer.Stop()
			}
			d, err := h.settled(ctx, listed)
			took := time.Since(begin)
			switch {
			case tc.gone:
				if !errors.Is(err, usb.ErrGone) {
					t.Errorf("%v, expected that it is gone", err)
				}
			case tc.end != nil:
				if !errors.Is(err, tc.end) || !errors.Is(err, context.Canceled) {
					t.Errorf("%v, expected the context's end", err)
				}
			case err != nil:
				t.Error(err)
			case d.Config != tc.config || d.Address != 9 || d.ID != listed.ID || d.Serial != "7":
				t.Errorf("%+v, expected configuration %d", d, tc.config)
			}
			if took > kernelTakes+5*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

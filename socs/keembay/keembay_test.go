package keembay_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"snag/event"
	"snag/recovery"
	"snag/sim/fastboot"
	"snag/sim/inproc"
	"snag/sim/usbdev"
	"snag/sim/virtual"
	"snag/socs"
	"snag/socs/keembay"
	"snag/socs/socstest"
	"snag/usb"
)

// outcome is what came of a recovery.
type outcome struct {
	*socstest.Outcome[fastboot.Report]
}

// attempt plugs a board in and recovers it, in a bubble of its own time. change may be nil.
func attempt(t *testing.T, host *inproc.Host, port usb.Port, cfg fastboot.Config, fip []byte, change func(*recovery.Options)) outcome {
	t.Helper()
	cfg.KeemBay = true
	board, err := fastboot.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	opt := recovery.Options{
		Backend: keembay.Backend{}, Model: socstest.Model(t, "keembay"), Port: port,
		Firmware: socs.Firmware{"fip": {Path: "fip-evm.bin", Data: fip}},
	}
	if change != nil {
		change(&opt)
	}
	return outcome{socstest.Run(t, host, board, opt)}
}

// good fails the test unless the board was recovered, and its ROM was sent the FIP and nothing else.
func (o outcome) good(t *testing.T, fip []byte) {
	t.Helper()
	o.Good(t)
	rom := o.Report.Last(fastboot.StageROM)
	if got := fmt.Sprint(rom.Commands); got != fmt.Sprintf("[download:%08x]", len(fip)) {
		t.Errorf("the ROM was sent %s", got)
	}
	if d := rom.Downloads; len(d) != 1 || d[0].Bytes != len(fip) || d[0].Size != len(fip) {
		t.Errorf("downloads %+v", d)
	}
}

// A board comes up, whatever its ROM looks like and the size of the FIP is.
func TestRecover(t *testing.T) {
	const table = 96 // GenerateFIP's
	for _, size := range []int{1, 512*100 - table, 512*100 - table + 1, 256<<10 - table, 3_000_000} {
		for _, cfg := range []fastboot.Config{{}, {Speed: usbdev.FullSpeed}, {Speed: usbdev.SuperSpeed}, {OtherClass: true}} {
			t.Run(fmt.Sprintf("%d %s %t", size, cfg.Speed.Mbps(), cfg.OtherClass), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					fip := fastboot.GenerateFIP(size, 1)
					o := attempt(t, inproc.New(), "207-1", cfg, fip, func(opt *recovery.Options) { opt.Expect = fastboot.KeemBayUBoot })
					o.good(t, fip)
					if s := o.Texts(); s != "" {
						t.Error(s)
					}
					if rom := o.Report.Last(fastboot.StageROM); rom.FirstByte.Sub(rom.Plugged) > 5*time.Millisecond {
						t.Errorf("the first byte came after %s", rom.FirstByte.Sub(rom.Plugged))
					}
				})
			})
		}
	}
}

// A board that is wrong ends the recovery in time, and the error says what was expected, what came, and what to do; or
// the recovery gets over it.
func TestFaults(t *testing.T) {
	socstest.Play(t, fastboot.ParseFault, []socstest.Case[fastboot.Config]{
		{Faults: "fail:rom:download", Code: 6, Says: "download:00049440: the device answers FAIL: made up", Most: time.Second},
		{Faults: "empty:rom:download", Code: 6, Says: "the device answers FAIL, without a reason", Most: time.Second},
		{Faults: "cut:rom:download", Code: 6, Says: "expected INFO, TEXT, OKAY, FAIL or DATA, got 44 41", Most: time.Second},
		{Faults: "wrong:rom:download", Code: 6, Says: `got 57 48 41 54 44 41 54 41 30 30 30 34 39 34 34 30 ("WHATDATA00049440")`, Most: time.Second},
		{Faults: "size:rom:download", Code: 6, Says: "expected DATA00049440, got 44 41 54 41 30 30 30 30 30 30 30 37", Most: time.Second},
		{Faults: "long:rom:download", Code: 6, Says: "expected a message of 4096 bytes at most, got 44 41", Most: time.Second},
		{Faults: "infos:rom:download", Code: 6, Says: "more than 10000 texts", Most: time.Second},
		{Faults: "mute:rom:download", Code: 6, Says: "no answer", Most: 5 * time.Second},
		{Faults: "nak:rom:download", Says: "", Most: 4 * time.Second},
		{Faults: "hang:rom:download", Code: 6, Says: "download:00049440: no answer: USB in", Most: 5 * time.Second},
		{Faults: "stall:rom:download", Code: 6, Says: "endpoint stalled", Most: time.Second},
		{Faults: "unplug:rom:download", Code: 6, Says: "did not come back within 15s", Most: 16 * time.Second},
		{Faults: "reset:rom:download", Says: "starting over", Most: time.Second},

		{Faults: "fail:rom:100000", Code: 6, Says: "FAIL: made up (download:00049440: after ", Most: 7 * time.Second},
		{Faults: "nak:rom:100000", Says: "", Most: 4 * time.Second},
		{Faults: "hang:rom:100000", Code: 6, Says: "download:00049440: after 100000 bytes of data", Most: 7 * time.Second},
		{Faults: "hang:rom:300000", Code: 6, Says: "after 300000 bytes of data", Most: 7 * time.Second},
		{Faults: "stall:rom:100000", Code: 6, Says: "after 100000 bytes of data: USB stream on endpoint 0x01 of 8087:0b39 on port 207-1: endpoint stalled", Most: 7 * time.Second},
		{Faults: "unplug:rom:100000", Code: 6, Says: "did not come back within 15s", Most: 16 * time.Second},
		{Faults: "reset:rom:100000", Says: "starting over", Most: time.Second},
		{Faults: "reset:rom:1000 reset:rom:2000 reset:rom:3000", Code: 6, Says: "the boot ROM is back after it was sent the FIP 3 times", Most: 2 * time.Second},

		{Faults: "fail:rom:data", Code: 6, Says: "the device answers FAIL: made up", Most: time.Second},
		{Faults: "empty:rom:data", Code: 6, Says: "without a reason", Most: time.Second},
		{Faults: "cut:rom:data", Code: 6, Says: "got 4f 4b", Most: time.Second},
		{Faults: "wrong:rom:data", Code: 6, Says: "WHATOKAY", Most: time.Second},
		{Faults: "size:rom:data", Code: 6, Says: "expected OKAY or FAIL, got 44 41 54 41", Most: time.Second},
		{Faults: "long:rom:data", Code: 6, Says: "expected a message of 4096 bytes at most", Most: time.Second},
		{Faults: "infos:rom:data", Code: 6, Says: "more than 10000 texts", Most: time.Second},
		{Faults: "mute:rom:data", Code: 6, Says: "no answer", Most: 11 * time.Second},
		{Faults: "nak:rom:data", Says: "", Most: 4 * time.Second},
		{Faults: "hang:rom:data", Code: 6, Says: "no answer", Most: 11 * time.Second},
		{Faults: "stall:rom:data", Code: 6, Says: "endpoint stalled", Most: time.Second},
		{Faults: "unplug:rom:data", Code: 6, Says: "did not come back within 15s", Most: 16 * time.Second},
		{Faults: "reset:rom:data", Says: "starting over", Most: time.Second},
	}, func(t *testing.T, c socstest.Case[fastboot.Config], faults []virtual.Fault) *socstest.Outcome[fastboot.Report] {
		fip := fastboot.GenerateFIP(300_000-96+32, 1)
		fip = append(fip, make([]byte, 0x49440-len(fip))...)
		o := attempt(t, inproc.New(), "207-1", fastboot.Config{Faults: faults}, fip, nil)
		if c.Code == 0 {
			o.good(t, fip)
		}
		return o.Outcome
	})
}

// A FIP that does not start is found out if the user asks for U-Boot's gadget.
func TestNeverStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := attempt(t, inproc.New(), "207-1", fastboot.Config{UBootNever: true}, fastboot.GenerateFIP(1000, 1),
			func(opt *recovery.Options) { opt.Expect = fastboot.KeemBayUBoot })
		if recovery.ExitCode(o.Err) != 6 || !strings.Contains(o.Err.Error(), "8087:da00 did not appear on port 207-1") {
			t.Error(o.Err)
		}
	})
}

// A ROM that leaves before its OKAY was read, with all data, has started the FIP if something else comes then.
func TestLeavesEarly(t *testing.T) {
	for _, tc := range []struct {
		at   int // bytes after which it is gone; 0: when it has all
		code int
		says string
	}{
		{says: "warning: the ROM left before it had accepted the FIP, and 8087:da00 came: taking that for success"},
		{at: 500_000, code: 6},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			host := inproc.New()
			fip := fastboot.GenerateFIP(600_000, 1)
			fault := fastboot.Fault{Kind: fastboot.Unplug, Stage: fastboot.StageROM, At: tc.at}
			if tc.at == 0 {
				fault = fastboot.Fault{Kind: fastboot.Unplug, Stage: fastboot.StageROM, Command: fastboot.AfterData}
			}
			rom, err := fastboot.New(fastboot.Config{KeemBay: true, Faults: []fastboot.Fault{fault}})
			if err != nil {
				t.Fatal(err)
			}
			later, err := fastboot.New(fastboot.Config{ID: fastboot.KeemBayUBoot})
			if err != nil {
				t.Fatal(err)
			}
			first, unplug := context.WithCancel(ctx)
			defer unplug()
			var wg sync.WaitGroup
			wg.Go(func() { rom.Run(first, host.Port("207-1")) })
			wg.Go(func() {
				select {
				case <-rom.Settled():
				case <-ctx.Done():
				}
				unplug()
				select {
				case <-time.After(time.Second):
					later.Run(ctx, host.Port("207-1"))
				case <-ctx.Done():
				}
			})
			a := socstest.Try(ctx, host, recovery.Options{
				Backend: keembay.Backend{}, Model: socstest.Model(t, "keembay"), Port: "207-1",
				Firmware: socs.Firmware{"fip": {Path: "fip.bin", Data: fip}},
			})
			cancel()
			wg.Wait()
			if got := recovery.ExitCode(a.Err); got != tc.code || !strings.Contains(a.Texts(), tc.says) {
				t.Errorf("%d bytes: exit code %d: %v, want %d\n%s", tc.at, got, a.Err, tc.code, a.Texts())
			}
			if tc.code != 0 && !strings.Contains(a.Err.Error(), "expected the boot ROM (8087:0b39) on port 207-1, got 8087:da00") {
				t.Error(a.Err)
			}
		})
	}
}

// Two boards on one host do not disturb each other.
func TestTwoBoards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, fip := inproc.New(), fastboot.GenerateFIP(1_000_000, 1)
		results := make(chan outcome)
		for i := range 2 {
			go func() {
				results <- attempt(t, host, usb.Port(fmt.Sprintf("208-%d", i+1)), fastboot.Config{}, fip, nil)
			}()
		}
		for range 2 {
			(<-results).good(t, fip)
		}
	})
}

// Progress never goes back, and ends with the whole file.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fip := fastboot.GenerateFIP(2_000_000, 1)
		o := attempt(t, inproc.New(), "207-1", fastboot.Config{}, fip, nil)
		o.good(t, fip)
		var last event.Progress
		stages := 0
		for _, e := range o.Events {
			switch b := e.Body.(type) {
			case event.Progress:
				if b.Bytes < last.Bytes || b.Total != int64(len(fip)) {
					t.Errorf("%+v after %+v", b, last)
				}
				last = b
			case event.StageDone:
				stages++
				if last.Bytes != int64(len(fip)) || b.Summary.Bytes != last.Bytes || b.Summary.File != "fip-evm.bin" {
					t.Errorf("%+v at the end of %+v", last, b.Summary)
				}
			}
		}
		if stages != 1 {
			t.Errorf("%d stages", stages)
		}
	})
}

func TestCheck(t *testing.T) {
	fip := fastboot.GenerateFIP(1000, 1)
	edit := func(off int, b ...byte) []byte {
		f := bytes.Clone(fip)
		copy(f[off:], b)
		return f
	}
	for _, tc := range []struct {
		name  string
		files map[string][]byte
		says  string
	}{
		{"as it should be", map[string][]byte{"fip": fip}, ""},
		{"padded", map[string][]byte{"fip": append(bytes.Clone(fip), make([]byte, 100)...)}, ""},
		{"no file", nil, `firmware "fip": missing`},
		{"empty", map[string][]byte{"fip": {}}, "the file is empty"},
		{"another slot", map[string][]byte{"fip": fip, "spl": fip}, `firmware "spl" (spl.bin): Keem Bay takes no such file`},
		{"text", map[string][]byte{"fip": []byte("#!/bin/sh\necho hello world\n")}, "no FIP: the file begins with 23 21 2f 62 instead of 01 00 64 aa; it is "},
		{"STM32", map[string][]byte{"fip": append([]byte("STM2"), make([]byte, 600)...)}, "it is an STM32MP"},
		{"no serial number", map[string][]byte{"fip": edit(4, 0, 0, 0, 0)}, "its serial number is 0"},
		{"header alone", map[string][]byte{"fip": fip[:16]}, "the file ends inside the table of contents, after 0 entries"},
		{"cut in the table", map[string][]byte{"fip": fip[:50]}, "the file ends inside the table of contents"},
		{"cut in the image", map[string][]byte{"fip": fip[:1000]}, "has 1000 bytes at 0x60, the file ends at 0x3e8"},
		{"offset that overflows", map[string][]byte{"fip": edit(16+16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)}, "the file ends at"},
		{"no images", map[string][]byte{"fip": edit(16, make([]byte, 16)...)}, "the FIP has no images"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fw := make(socs.Firmware)
			for slot, data := range tc.files {
				fw[slot] = socs.Image{Path: slot + ".bin", Data: data}
			}
			sent, _, err := keembay.Backend{}.Check(socs.Model{Name: "keembay"}, fw)
			if tc.says == "" {
				if err != nil || !bytes.Equal(sent["fip"].Data, tc.files["fip"]) {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("%v, want %q", err, tc.says)
			}
			if e, ok := errors.AsType[*socs.FirmwareError](err); !ok || e.Hint == "" {
				t.Errorf("%v: no hint", err)
			}
		})
	}
}

func FuzzCheck(f *testing.F) {
	fip := fastboot.GenerateFIP(100, 1)
	f.Add(fip)
	f.Add(fip[:50])
	f.Fuzz(func(t *testing.T, b []byte) {
		sent, _, err := keembay.Backend{}.Check(socs.Model{Name: "keembay"}, socs.Firmware{"fip": {Data: b}})
		if (err == nil) != (sent != nil) {
			t.Error(sent, err)
		}
	})
}

package rzn1_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"snag/event"
	"snag/firmware/firmwaretest"
	"snag/recovery"
	"snag/sim/dfu"
	"snag/sim/inproc"
	"snag/sim/virtual"
	"snag/socs"
	"snag/socs/rzn1"
	class "snag/usb/dfu"
)

const size = 20_000

func file(data []byte) socs.Firmware {
	return socs.Firmware{"u-boot": {Path: "u-boot.bin.spkg", Data: data}}
}

func spkg(t testing.TB) []byte {
	t.Helper()
	m, err := dfu.FindModel("rzn1")
	if err != nil {
		t.Fatal(err)
	}
	return dfu.Generate(m, size, 1)["u-boot"]
}

// recoverBoard plugs in a board, which is to be done in a bubble of its own time, and recovers it.
func recoverBoard(t *testing.T, name string, cfg dfu.Config) (report dfu.Report, warnings string, took time.Duration, err error) {
	t.Helper()
	if cfg.Model, err = dfu.FindModel("rzn1"); err != nil {
		t.Fatal(err)
	}
	board, err := dfu.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	model, err := socs.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	host := inproc.New()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := board.Run(ctx, host.Port("221-1")); err != nil {
			t.Error(err)
		}
	})
	var mu sync.Mutex
	begun := time.Now()
	err = recovery.Run(ctx, recovery.Options{Backend: rzn1.Backend{}, USB: host, Model: model, Firmware: file(spkg(t)), Emit: func(e event.Event) {
		mu.Lock()
		defer mu.Unlock()
		if w, ok := e.Body.(event.Warning); ok {
			warnings += w.Text + "\n"
		}
	}})
	took = time.Since(begun)
	if err == nil {
		<-board.Settled()
	}
	report = board.Report()
	cancel()
	wg.Wait()
	return report, warnings, took, err
}

func good(t *testing.T, report dfu.Report, err error) {
	t.Helper()
	if err != nil || report.Outcome != virtual.Booted {
		t.Errorf("%v; the board is %s: %s", err, report.Outcome, report.Error)
	}
	for _, v := range report.Violations {
		t.Errorf("the host did wrong: %s (%d times)", v.Text, v.N)
	}
}

// Every model comes up.
func TestModels(t *testing.T) {
	for _, m := range socs.Models() {
		if m.Family != "rzn1" {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			report, warnings, took, err := recoverBoard(t, m.Name, dfu.Config{})
			good(t, report, err)
			if warnings != "" || took > 3*time.Second {
				t.Errorf("it took %s, and said %q", took, warnings)
			}
		})
	}
}

// A board that is wrong ends the recovery in time, and the error says what came; or the recovery gets over it.
func TestFaults(t *testing.T) {
	for _, tc := range []struct {
		fault string // several, by space
		code  int
		says  string // the error, or else the warnings
		most  time.Duration
	}{
		{fault: "error:rom:5000:3", code: 6, says: `stage rom: u-boot.bin.spkg: DFU device 045b:0239 on port 221-1, alternate setting 0: block 4, at byte 4096 of `, most: 5 * time.Second},
		{fault: "error:rom:manifest:10", code: 6, says: "errFIRMWARE", most: 5 * time.Second},
		{fault: "stall:rom:0", code: 6, says: "refused with a stall, status OK, state dfuIDLE", most: 5 * time.Second},
		{fault: "stall:rom:manifest", code: 6, says: "stall", most: 5 * time.Second},
		{fault: "busy:rom:5000", most: 8 * time.Second},
		{fault: "busy:rom:manifest", most: 8 * time.Second},
		{fault: "lie:rom:5000", code: 6, says: "alternate setting 0", most: 15 * time.Second},
		{fault: "nak:rom:5000", most: 8 * time.Second},
		{fault: "hang:rom:0", code: 6, says: "block 0, at byte 0 of ", most: 15 * time.Second},
		{fault: "hang:rom:manifest", code: 6, says: "it has the whole file, and neither answers nor leaves", most: 40 * time.Second},
		{fault: "unplug:rom:5000", code: 6, says: "did not come back within 15s", most: 20 * time.Second},
		{fault: "reset:rom:5000", says: "starting over", most: 5 * time.Second},
		{fault: "reset:rom:5000 reset:rom:6000 reset:rom:7000", code: 6, says: "the boot ROM is back after the first stage was sent 3 times", most: 5 * time.Second},
	} {
		t.Run(tc.fault, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var cfg dfu.Config
				for f := range strings.FieldsSeq(tc.fault) {
					fault, err := dfu.ParseFault(f)
					if err != nil {
						t.Fatal(err)
					}
					cfg.Faults = append(cfg.Faults, fault)
				}
				report, warnings, took, err := recoverBoard(t, "rzn1d", cfg)
				if tc.code == 0 {
					good(t, report, err)
					if !strings.Contains(warnings, tc.says) {
						t.Errorf("it said %q, want %q", warnings, tc.says)
					}
				} else if recovery.ExitCode(err) != tc.code || !strings.Contains(fmt.Sprint(err), tc.says) || recovery.Hint(err) == "" {
					t.Errorf("exit code %d, hint %q: %v, want %d and %q", recovery.ExitCode(err), recovery.Hint(err), err, tc.code, tc.says)
				}
				if took > tc.most {
					t.Errorf("it took %s, want %s at most", took, tc.most)
				}
			})
		})
	}
}

// What the board says of a failure is told in words.
func TestStatuses(t *testing.T) {
	for status := uint8(1); status <= 15; status++ {
		for _, at := range []string{"", dfu.Manifest} {
			synctest.Test(t, func(t *testing.T) {
				_, _, _, err := recoverBoard(t, "rzn1d", dfu.Config{Faults: []dfu.Fault{{Kind: dfu.Fail, Stage: "rom", Status: status, Command: at}}})
				if want := fmt.Sprintf("status %s, state dfuERROR", class.Status(status)); !strings.Contains(fmt.Sprint(err), want) {
					t.Errorf("%v, want %q", err, want)
				}
			})
		}
	}
}

func TestCheck(t *testing.T) {
	image := spkg(t)
	for _, tc := range []struct {
		name string
		fw   socs.Firmware
		bad  bool
		says string
	}{
		{name: "as it should be", fw: file(image)},
		{name: "padded", fw: file(append(image[:len(image):len(image)], make([]byte, 4096)...))},
		{name: "none", fw: socs.Firmware{}, bad: true, says: "missing"},
		{name: "empty", fw: file([]byte{}), bad: true, says: "the file is empty"},
		{name: "U-Boot without headers", fw: file(firmwaretest.Pattern(3000)), bad: true, says: "expected an SPKG, it is "},
		{name: "text", fw: file([]byte("not found\n")), bad: true, says: "expected an SPKG, it is a text file"},
		{name: "damaged", fw: file(firmwaretest.Damage(image, 3000)), bad: true, says: "the payload's CRC is"},
		{name: "damaged header", fw: file(firmwaretest.Damage(image, 30)), bad: true, says: "headers"},
		{name: "cut", fw: file(image[:9000]), bad: true, says: "truncated"},
		{name: "for the DRAM", fw: file(firmwaretest.SPKG{Load: 0x80000000, Program: firmwaretest.Pattern(900)}.Bytes()), says: "loads to 0x80000000"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sent, findings, err := rzn1.Backend{}.Check(socs.Model{Name: "rzn1d"}, tc.fw)
			said := fmt.Sprint(err)
			if !tc.bad {
				said = fmt.Sprint(findings)
			}
			if (err != nil) != tc.bad || !strings.Contains(said, tc.says) || !tc.bad && (len(sent) != 1 || tc.says == "" && len(findings) > 0) {
				t.Errorf("%v, %v, want %q", err, findings, tc.says)
			}
			if tc.bad && (recovery.ExitCode(err) != 5 || recovery.Hint(err) == "") {
				t.Errorf("exit code %d, hint %q", recovery.ExitCode(err), recovery.Hint(err))
			}
		})
	}
}

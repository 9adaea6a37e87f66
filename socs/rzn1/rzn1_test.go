package rzn1_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/firmware/firmwaretest"
	"snag/recovery"
	"snag/sim/dfu"
	"snag/sim/inproc"
	"snag/sim/virtual"
	"snag/socs"
	"snag/socs/rzn1"
	"snag/socs/socstest"
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
func recoverBoard(t *testing.T, name string, cfg dfu.Config) *socstest.Outcome[dfu.Report] {
	t.Helper()
	var err error
	if cfg.Model, err = dfu.FindModel("rzn1"); err != nil {
		t.Fatal(err)
	}
	board, err := dfu.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return socstest.Run(t, inproc.New(), board, recovery.Options{Backend: rzn1.Backend{}, Model: socstest.Model(t, name), Firmware: file(spkg(t)), Port: "221-1"})
}

// Every model comes up.
func TestModels(t *testing.T) {
	for _, m := range socs.Models() {
		if m.Family != "rzn1" {
			continue
		}
		synctest.Test(t, func(t *testing.T) {
			o := recoverBoard(t, m.Name, dfu.Config{})
			o.Good(t)
			if strings.Contains(o.Texts(), "warning") || o.Took > 3*time.Second {
				t.Errorf("it took %s, and said %q", o.Took, o.Texts())
			}
		})
	}
}

// A board that is wrong ends the recovery in time, and the error says what came; or the recovery gets over it.
func TestFaults(t *testing.T) {
	socstest.Play(t, dfu.ParseFault, []socstest.Case[dfu.Config]{
		{Faults: "error:rom:5000:3", Code: 6, Says: `stage rom: u-boot.bin.spkg: DFU device 045b:0239 on port 221-1, alternate setting 0: block 4, at byte 4096 of `, Most: 5 * time.Second},
		{Faults: "error:rom:manifest:10", Code: 6, Says: "errFIRMWARE", Most: 5 * time.Second},
		{Faults: "stall:rom:0", Code: 6, Says: "refused with a stall, status OK, state dfuIDLE", Most: 5 * time.Second},
		{Faults: "stall:rom:manifest", Code: 6, Says: "stall", Most: 5 * time.Second},
		{Faults: "busy:rom:5000", Most: 8 * time.Second},
		{Faults: "busy:rom:manifest", Most: 8 * time.Second},
		{Faults: "lie:rom:5000", Code: 6, Says: "alternate setting 0", Most: 15 * time.Second},
		{Faults: "nak:rom:5000", Most: 8 * time.Second},
		{Faults: "hang:rom:0", Code: 6, Says: "block 0, at byte 0 of ", Most: 15 * time.Second},
		{Faults: "hang:rom:manifest", Code: 6, Says: "it has the whole file, and neither answers nor leaves", Most: 40 * time.Second},
		{Faults: "unplug:rom:5000", Code: 6, Says: "did not come back within 15s", Most: 20 * time.Second},
		{Faults: "reset:rom:5000", Says: "starting over", Most: 5 * time.Second},
		{Faults: "reset:rom:5000 reset:rom:6000 reset:rom:7000", Code: 6, Says: "the boot ROM is back after the first stage was sent 3 times", Most: 5 * time.Second},
	}, func(t *testing.T, _ socstest.Case[dfu.Config], faults []virtual.Fault) *socstest.Outcome[dfu.Report] {
		return recoverBoard(t, "rzn1d", dfu.Config{Faults: faults})
	})
}

// What the board says of a failure is told in words.
func TestStatuses(t *testing.T) {
	for status := uint8(1); status <= 15; status++ {
		for _, at := range []string{"", dfu.Manifest} {
			synctest.Test(t, func(t *testing.T) {
				o := recoverBoard(t, "rzn1d", dfu.Config{Faults: []dfu.Fault{{Kind: dfu.Fail, Stage: "rom", Status: status, Command: at}}})
				o.Bad(t, 6, fmt.Sprintf("status %s, state dfuERROR", class.Status(status)))
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

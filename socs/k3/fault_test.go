package k3_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"snag/recovery"
	"snag/sim/dfu"
	"snag/sim/inproc"
	"snag/sim/virtual"
	"snag/socs"
	"snag/socs/socstest"
	"snag/usb"
	class "snag/usb/dfu"
)

// A board that is wrong ends the recovery in time, and the error says where it stood, what was expected and what came;
// or the recovery gets over it.
func TestFaults(t *testing.T) {
	const old, split, l = "am625", "j721e", "am62l3"
	socstest.Play(t, dfu.ParseFault, []socstest.Case[dfu.Config]{
		{Model: old, Faults: "stall:rom:1024", Code: 6, Says: `stage rom: tiboot3.bin: DFU device 0451:6165 on port 211-1, alternate setting 0 "bootloader": block 1, at byte 512 of `, Most: 5 * time.Second},
		{Model: old, Faults: "stall:rom:manifest", Code: 6, Says: `alternate setting 0 "bootloader": `, Most: 20 * time.Second},
		{Model: old, Faults: "nak:rom:1024:5s", Says: "", Most: 12 * time.Second},
		{Model: old, Faults: "busy:rom:1024:5s", Says: "", Most: 12 * time.Second},
		{Model: old, Faults: "busy:rom:manifest:8s", Says: "", Most: 20 * time.Second},
		{Model: old, Faults: "lie:rom:1024", Code: 6, Says: `alternate setting 0 "bootloader"`, Most: 15 * time.Second},
		{Model: old, Faults: "hang:rom:1024", Code: 6, Says: `alternate setting 0 "bootloader"`, Most: 15 * time.Second},
		{Model: old, Faults: "hang:rom:manifest", Code: 6, Says: "the next stage did not appear on port 211-1 within 30s", Most: 70 * time.Second},
		{Model: old, Faults: "unplug:rom:1024", Code: 6, Says: "did not come back within 15s", Most: 20 * time.Second},
		{Model: old, Faults: "unplug:rom:manifest", Code: 6, Says: "did not appear", Most: 35 * time.Second},
		{Model: old, Faults: "reset:rom:1024", Says: "starting over", Most: 10 * time.Second},
		{Model: old, Faults: "reset:rom:manifest", Says: "sending it again", Most: 10 * time.Second},
		{Model: old, Faults: "reset:rom:512 reset:rom:1024 reset:rom:1536", Code: 6, Says: "the boot ROM is back after tiboot3 was sent 3 times", Most: 20 * time.Second},
		{Model: split, Faults: "error:sysfw:0", Code: 6, Says: `stage sysfw: sysfw.itb: DFU device 0451:6163 on port 211-1, alternate setting 0 "sysfw.itb": block 0, at byte 0 of `, Most: 5 * time.Second},
		{Model: split, Faults: "reset:sysfw:4096", Says: "starting over", Most: 10 * time.Second},
		{Model: split, Faults: "hang:sysfw:manifest", Code: 6, Says: `alternate setting "sysfw.itb": it has the whole file and does not answer`, Most: 40 * time.Second},
		{Model: old, Faults: "stall:spl-r5:4096", Code: 6, Says: `stage spl-r5: tispl.bin: DFU device 0451:6165 on port 211-1, alternate setting 0 "tispl.bin": `, Most: 10 * time.Second},
		{Model: old, Faults: "hang:spl-r5:0", Code: 6, Says: `stage spl-r5: tispl.bin: DFU device 0451:6165 on port 211-1, alternate setting 0 "tispl.bin": block 0`, Most: 15 * time.Second},
		{Model: old, Faults: "lie:spl-r5:0", Code: 6, Says: `stage spl-r5`, Most: 15 * time.Second},
		{Model: old, Faults: "nak:spl-r5:manifest:5s", Says: "", Most: 15 * time.Second},
		{Model: old, Faults: "reset:spl-r5:4096", Says: "starting over", Most: 15 * time.Second},
		{Model: old, Faults: "reset:spl-r5:manifest", Says: "starting over", Most: 15 * time.Second},
		{Model: old, Faults: "unplug:spl-r5:4096", Code: 6, Says: "did not come back within 15s", Most: 20 * time.Second},
		{Model: old, Faults: "hang:spl-a53:0", Code: 6, Says: `stage spl-a53`, Most: 20 * time.Second},
		{Model: old, Faults: "error:spl-a53:5000:8", Code: 6, Says: `alternate setting 1 "u-boot.img": block 1, at byte 4096 of 5356: status errADDRESS (an address out of range), state dfuERROR`, Most: 10 * time.Second},
		{Model: old, Faults: "reset:spl-a53:4096", Says: "starting over", Most: 20 * time.Second},
		{Model: old, Faults: "reset:spl-a53:manifest", Says: "starting over", Most: 20 * time.Second},
		{Model: old, Faults: "unplug:spl-a53:manifest", Code: 6, Says: "did not ", Most: 40 * time.Second},
		{Model: l, Faults: "stall:rom2:1024", Code: 6, Says: `stage bl1: tispl.bin: DFU device 0451:6165 on port 211-1, alternate setting 0 "bootloader": `, Most: 10 * time.Second},
		{Model: l, Faults: "reset:rom2:1024", Says: "starting over", Most: 10 * time.Second},
		{Model: l, Faults: "hang:spl-a53:manifest", Code: 6, Says: `stage spl-a53: DFU device 0451:6165 on port 211-1, alternate setting "u-boot.img": it has the whole file and does not answer`, Most: 40 * time.Second},

		{Model: old, Config: dfu.Config{Never: "spl-r5"}, Code: 6, Says: "stage rom: the next stage did not appear on port 211-1 within 30s", Most: 35 * time.Second},
		{Model: old, Config: dfu.Config{Never: "spl-a53", SPL: dfu.SPLNext}, Code: 6, Says: "stage spl-r5: the next stage did not appear", Most: 35 * time.Second},
		{Model: l, Config: dfu.Config{Never: "rom2"}, Code: 6, Says: "stage rom: the next stage did not appear", Most: 35 * time.Second},
		{Model: l, Config: dfu.Config{Never: "spl-a53"}, Code: 6, Says: "stage bl1: the next stage did not appear", Most: 35 * time.Second},
		{Model: split, Config: dfu.Config{Never: "spl-r5"}, Code: 6, Says: "stage sysfw: the next stage did not appear", Most: 35 * time.Second},
		{Model: old, Config: dfu.Config{Missing: []string{"bootloader"}}, Code: 6, Says: `stage rom: expected an alternate setting "bootloader" from 0451:6165 on port 211-1, found the alternate settings 0 "SocId"`, Most: 5 * time.Second},
		{Model: old, Config: dfu.Config{Missing: []string{"tispl.bin"}}, Code: 6, Says: `expected an alternate setting "tispl.bin" from 0451:6165 on port 211-1, found the alternate settings 0 "u-boot.img"`, Most: 5 * time.Second},
		{Model: old, Config: dfu.Config{Missing: []string{"u-boot.img"}}, Code: 6, Says: `stage spl-a53: expected an alternate setting "u-boot.img" from 0451:6165 on port 211-1, found the alternate settings 0 "tispl.bin"`, Most: 5 * time.Second},
	}, func(t *testing.T, c socstest.Case[dfu.Config], faults []virtual.Fault) *socstest.Outcome[dfu.Report] {
		c.Config.Faults = faults
		return trial{model: c.Model, cfg: c.Config}.run(t)
	})
}

// What a board says of a failure is told in words.
func TestStatuses(t *testing.T) {
	for status := uint8(1); status <= 15; status++ {
		for _, stage := range [][3]string{{"rom", "tiboot3.bin", "bootloader"}, {"spl-r5", "tispl.bin", "tispl.bin"}} {
			for _, at := range []string{"", dfu.Manifest} {
				synctest.Test(t, func(t *testing.T) {
					o := trial{model: "am625", cfg: dfu.Config{Faults: []dfu.Fault{{Kind: dfu.Fail, Stage: stage[0], Status: status, Command: at}}}}.run(t)
					o.Bad(t, 6, fmt.Sprintf("status %s, state dfuERROR", class.Status(status)))
					o.Bad(t, 6, fmt.Sprintf("stage %s: %s: DFU device 0451:6165 on port 211-1, alternate setting 0 %q: ", stage[0], stage[1], stage[2]))
				})
			}
		}
	}
}

// A board that asks for system firmware which there is none of is told of.
func TestNoSysfw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// A build of AM62x with system firmware of its own: the board of AM65x does for it.
		fw := of("am625")
		o := trial{model: "am625", cfg: dfu.Config{}, firmware: fw, chip: "am65x", opt: recovery.Options{ROM: usb.ID{Vendor: 0x0451, Product: 0x6162}}}.run(t)
		o.Bad(t, 6, "asks for sysfw.itb")
		fw["sysfw"] = socs.Image{Path: "sysfw.itb", Data: fit(nil, "sysfw.bin")}
		trial{model: "am625", firmware: fw, chip: "am65x", opt: recovery.Options{ROM: usb.ID{Vendor: 0x0451, Product: 0x6162}}}.run(t).Good(t)
	})
}

// Two boards on one host do not disturb each other.
func TestTwoBoards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := inproc.New()
		results := make(chan *outcome)
		for i, model := range []string{"am625", "j721e"} {
			go func() { results <- trial{model: model, host: host, port: usb.Port(fmt.Sprintf("212-%d", i+1))}.run(t) }()
		}
		for range 2 {
			(<-results).Good(t)
		}
	})
}

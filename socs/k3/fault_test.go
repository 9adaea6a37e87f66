package k3_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/recovery"
	"snag/sim/dfu"
	"snag/sim/inproc"
	"snag/socs"
	"snag/socs/socstest"
	"snag/usb"
	class "snag/usb/dfu"
)

// A board that is wrong ends the recovery in time, and the error says where it stood, what was expected and what came; or
// the recovery gets over it.
func TestFaults(t *testing.T) {
	const old, split, l = "am625", "j721e", "am62l3"
	for _, tc := range []struct {
		model string
		fault string // several, by space
		cfg   dfu.Config
		code  int
		says  string        // the error, or else the events
		most  time.Duration // of the whole recovery
	}{
		{model: old, fault: "stall:rom:1024", code: 6, says: `stage rom: tiboot3.bin: DFU device 0451:6165 on port 211-1, alternate setting 0 "bootloader": block 1, at byte 512 of `, most: 5 * time.Second},
		{model: old, fault: "stall:rom:manifest", code: 6, says: `alternate setting 0 "bootloader": `, most: 20 * time.Second},
		{model: old, fault: "nak:rom:1024:5s", says: "", most: 12 * time.Second},
		{model: old, fault: "busy:rom:1024:5s", says: "", most: 12 * time.Second},
		{model: old, fault: "busy:rom:manifest:8s", says: "", most: 20 * time.Second},
		{model: old, fault: "lie:rom:1024", code: 6, says: `alternate setting 0 "bootloader"`, most: 15 * time.Second},
		{model: old, fault: "hang:rom:1024", code: 6, says: `alternate setting 0 "bootloader"`, most: 15 * time.Second},
		{model: old, fault: "hang:rom:manifest", code: 6, says: "the next stage did not appear on port 211-1 within 20s", most: 60 * time.Second},
		{model: old, fault: "unplug:rom:1024", code: 6, says: "did not come back within 15s", most: 20 * time.Second},
		{model: old, fault: "unplug:rom:manifest", code: 6, says: "did not appear", most: 25 * time.Second},
		{model: old, fault: "reset:rom:1024", says: "starting over", most: 10 * time.Second},
		{model: old, fault: "reset:rom:manifest", says: "sending it again", most: 10 * time.Second},
		{model: old, fault: "reset:rom:512 reset:rom:1024 reset:rom:1536", code: 6, says: "the boot ROM is back after tiboot3 was sent 3 times", most: 20 * time.Second},
		{model: split, fault: "error:sysfw:0", code: 6, says: `stage sysfw: sysfw.itb: DFU device 0451:6163 on port 211-1, alternate setting 0 "sysfw.itb": block 0, at byte 0 of `, most: 5 * time.Second},
		{model: split, fault: "reset:sysfw:4096", says: "starting over", most: 10 * time.Second},
		{model: split, fault: "hang:sysfw:manifest", code: 6, says: `alternate setting "sysfw.itb": it has the whole file and does not answer`, most: 40 * time.Second},
		{model: old, fault: "stall:spl-r5:4096", code: 6, says: `stage spl-r5: tispl.bin: DFU device 0451:6165 on port 211-1, alternate setting 0 "tispl.bin": `, most: 10 * time.Second},
		{model: old, fault: "hang:spl-r5:0", code: 6, says: `stage spl-r5: tispl.bin: DFU device 0451:6165 on port 211-1, alternate setting 0 "tispl.bin": block 0`, most: 15 * time.Second},
		{model: old, fault: "lie:spl-r5:0", code: 6, says: `stage spl-r5`, most: 15 * time.Second},
		{model: old, fault: "nak:spl-r5:manifest:5s", says: "", most: 15 * time.Second},
		{model: old, fault: "reset:spl-r5:4096", says: "starting over", most: 15 * time.Second},
		{model: old, fault: "reset:spl-r5:manifest", says: "starting over", most: 15 * time.Second},
		{model: old, fault: "unplug:spl-r5:4096", code: 6, says: "did not come back within 15s", most: 20 * time.Second},
		{model: old, fault: "hang:spl-a53:0", code: 6, says: `stage spl-a53`, most: 20 * time.Second},
		{model: old, fault: "error:spl-a53:5000:8", code: 6, says: `alternate setting 1 "u-boot.img": block 1, at byte 4096 of 5356: status errADDRESS (an address out of range), state dfuERROR`, most: 10 * time.Second},
		{model: old, fault: "reset:spl-a53:4096", says: "starting over", most: 20 * time.Second},
		{model: old, fault: "reset:spl-a53:manifest", says: "starting over", most: 20 * time.Second},
		{model: old, fault: "unplug:spl-a53:manifest", code: 6, says: "did not ", most: 40 * time.Second},
		{model: l, fault: "stall:rom2:1024", code: 6, says: `stage bl1: tispl.bin: DFU device 0451:6165 on port 211-1, alternate setting 0 "bootloader": `, most: 10 * time.Second},
		{model: l, fault: "reset:rom2:1024", says: "starting over", most: 10 * time.Second},
		{model: l, fault: "hang:spl-a53:manifest", code: 6, says: `stage spl-a53: DFU device 0451:6165 on port 211-1, alternate setting "u-boot.img": it has the whole file and does not answer`, most: 40 * time.Second},

		{model: old, cfg: dfu.Config{Never: "spl-r5"}, code: 6, says: "stage rom: the next stage did not appear on port 211-1 within 20s", most: 25 * time.Second},
		{model: old, cfg: dfu.Config{Never: "spl-a53", SPL: dfu.SPLNext}, code: 6, says: "stage spl-r5: the next stage did not appear", most: 25 * time.Second},
		{model: l, cfg: dfu.Config{Never: "rom2"}, code: 6, says: "stage rom: the next stage did not appear", most: 25 * time.Second},
		{model: l, cfg: dfu.Config{Never: "spl-a53"}, code: 6, says: "stage bl1: the next stage did not appear", most: 25 * time.Second},
		{model: split, cfg: dfu.Config{Never: "spl-r5"}, code: 6, says: "stage sysfw: the next stage did not appear", most: 25 * time.Second},
		{model: old, cfg: dfu.Config{Missing: []string{"bootloader"}}, code: 6, says: `stage rom: expected an alternate setting "bootloader" from 0451:6165 on port 211-1, found the alternate settings 0 "SocId"`, most: 5 * time.Second},
		{model: old, cfg: dfu.Config{Missing: []string{"tispl.bin"}}, code: 6, says: `expected an alternate setting "tispl.bin" from 0451:6165 on port 211-1, found the alternate settings 0 "u-boot.img"`, most: 5 * time.Second},
		{model: old, cfg: dfu.Config{Missing: []string{"u-boot.img"}}, code: 6, says: `stage spl-a53: expected an alternate setting "u-boot.img" from 0451:6165 on port 211-1, found the alternate settings 0 "tispl.bin"`, most: 5 * time.Second},
	} {
		name := strings.TrimSpace(fmt.Sprintf("%s %s %s %v", tc.model, tc.fault, tc.cfg.Never, strings.Join(tc.cfg.Missing, " ")))
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc.cfg.Faults = socstest.Faults(t, dfu.ParseFault, tc.fault)
				trial{model: tc.model, cfg: tc.cfg}.run(t).Ends(t, tc.code, tc.says, tc.most)
			})
		})
	}
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

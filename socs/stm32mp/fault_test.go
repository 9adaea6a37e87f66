package stm32mp_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/sim/dfu"
	"snag/sim/virtual"
	"snag/socs/socstest"
)

// A board that is wrong ends the recovery in time, and the error says what was expected, what came, and what to do; or
// the recovery gets over it.
func TestFaults(t *testing.T) {
	const mp13, mp15, mp25 = "stm32mp13", "stm32mp15", "stm32mp25"
	for _, tc := range []struct {
		model string
		fault string // several, by space
		cfg   dfu.Config
		code  int
		says  string        // the error, or else the events
		most  time.Duration // of the whole recovery
	}{
		{model: mp15, fault: "stall:rom:0", code: 6, says: `alternate setting 1 "@FSBL /0x01/1*1Me": block 0, at byte 0 of 100256: refused with a stall, status OK, state dfuIDLE`, most: 5 * time.Second},
		{model: mp15, fault: "stall:rom:50000", code: 6, says: "refused with a stall", most: 5 * time.Second},
		{model: mp15, fault: "hang:rom:50000", code: 6, says: "deadline exceeded", most: 30 * time.Second},
		{model: mp15, fault: "nak:rom:50000:5s", most: 10 * time.Second},
		{model: mp15, fault: "busy:rom:50000:5s", most: 10 * time.Second},
		{model: mp15, fault: "lie:rom:50000", code: 6, says: "bwPollTimeout", most: 15 * time.Second},
		{model: mp15, fault: "unplug:rom:50000", code: 6, says: "did not come back within 15s", most: 20 * time.Second},
		{model: mp15, fault: "reset:rom:50000", says: "starting over", most: 10 * time.Second},
		{model: mp15, fault: "reset:rom:1000 reset:rom:2000 reset:rom:3000", code: 6, says: "the boot ROM is back after the first stage was sent 3 times", most: 20 * time.Second},
		{model: mp15, fault: "stall:rom:manifest", code: 6, says: "the end of the file: refused with a stall", most: 10 * time.Second},
		{model: mp15, fault: "hang:rom:manifest", code: 6, says: "does not go on from phase 0x01", most: 60 * time.Second},
		{model: mp15, fault: "busy:rom:manifest:5s", most: 10 * time.Second},
		{model: mp15, fault: "lie:rom:manifest", code: 6, says: "(bwPollTimeout)", most: 40 * time.Second},
		{model: mp15, fault: "reset:rom:manifest", says: "starting over", most: 10 * time.Second},
		{model: mp15, fault: "stall:tfa:0", code: 6, says: `alternate setting 3 "@Partition3 /0x03/1*16Me": block 0`, most: 10 * time.Second},
		{model: mp15, fault: "hang:tfa:200000", code: 6, says: "deadline exceeded", most: 40 * time.Second},
		{model: mp15, fault: "reset:tfa:200000", says: "starting over", most: 10 * time.Second},
		{model: mp15, fault: "stall:tfa:manifest", code: 6, says: "the end of the file: refused with a stall", most: 10 * time.Second},
		{model: mp15, fault: "unplug:tfa:200000", code: 6, says: "did not come back within 15s", most: 30 * time.Second},
		{model: mp15, cfg: dfu.Config{Missing: []string{"@Partition3 /0x03/1*16Me"}}, code: 6, says: "phase 0x03, for which it has no alternate setting; it has 0", most: 10 * time.Second},
		{model: mp15, cfg: dfu.Config{Missing: []string{"@virtual /0xF1/1*512Ba"}}, code: 6, says: "is no STM32MP in serial boot", most: 10 * time.Second},
		{model: mp15, fault: "refuse:tfa:200000", code: 6, says: `refused with a stall, status OK, state dfuDNLOAD-IDLE; the board says "refused by request"`, most: 10 * time.Second},
		{model: mp15, fault: "refuse:tfa:manifest", code: 6, says: `the board says "refused by request"`, most: 10 * time.Second},
		{model: mp15, cfg: dfu.Config{Never: dfu.StageTFA}, code: 6, says: "does not go on from phase 0x01 within 15s: expected the next one, it is still in phase 0x00", most: 20 * time.Second},
		{model: mp25, cfg: dfu.Config{Never: dfu.StageTFA}, code: 6, says: "shows the same after DETACH and a reset of the port: 0 ", most: 20 * time.Second},
		{model: mp13, cfg: dfu.Config{Never: dfu.StageTFA}, code: 6, says: "did not appear on port 203-1 within 20s", most: 40 * time.Second},
		{model: mp13, cfg: dfu.Config{Missing: []string{"@SSBL /0x03/1*16Me"}}, code: 6, says: "phase 0x03, for which it has no alternate setting", most: 10 * time.Second},
		{model: mp13, fault: "stall:tfa:0", code: 6, says: `"@SSBL /0x03/1*16Me": block 0`, most: 10 * time.Second},
		{model: mp13, fault: "reset:rom:manifest", says: "starting over", most: 10 * time.Second},
		{model: mp13, fault: "unplug:tfa:manifest", most: 40 * time.Second}, // it has everything
		{model: mp25, fault: "stall:tfa:0", code: 6, says: `alternate setting 0 "@DDR FIP /0x02/1*32Ke": block 0`, most: 10 * time.Second},
		{model: mp25, fault: "error:tfa:20000:8", code: 6, says: "errADDRESS", most: 10 * time.Second},
		{model: mp25, fault: "reset:tfa:20000", says: "starting over", most: 10 * time.Second},
		{model: mp25, fault: "reset:tfa:200000", says: "starting over", most: 10 * time.Second},
		{model: mp25, fault: "hang:rom:manifest", code: 6, says: "does not answer within 15s", most: 90 * time.Second},
		{model: mp25, cfg: dfu.Config{Missing: []string{"@FIP /0x03/1*16Me"}}, code: 6, says: "phase 0x03, for which it has no alternate setting", most: 10 * time.Second},
	} {
		t.Run(strings.Join(strings.Fields(fmt.Sprint(tc.model, " ", tc.fault, " ", tc.cfg.Never, " ", strings.Join(tc.cfg.Missing, " "))), " "), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc.cfg.Faults = socstest.Faults(t, dfu.ParseFault, tc.fault)
				o := trial{model: tc.model, cfg: tc.cfg}.run(t)
				if tc.fault == "unplug:tfa:manifest" { // it has everything
					o.Report.Outcome = virtual.Booted
				}
				o.Ends(t, tc.code, tc.says, tc.most)
			})
		})
	}
}

// Every status that a device can complain with is in the error, with stage, setting and state, from every stage.
func TestStatuses(t *testing.T) {
	names := []string{"errTARGET", "errFILE", "errWRITE", "errERASE", "errCHECK_ERASED", "errPROG", "errVERIFY", "errADDRESS", "errNOTDONE",
		"errFIRMWARE", "errVENDOR", "errUSBR", "errPOR", "errUNKNOWN", "errSTALLEDPKT"}
	for _, model := range models {
		for i, name := range names {
			for stage, ours := range map[string]string{dfu.StageROM: "rom", dfu.StageTFA: "tf-a"} {
				for _, at := range []string{"", dfu.Manifest} {
					t.Run(fmt.Sprint(model, " ", stage, " ", name, " ", at), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							f := dfu.Fault{Kind: dfu.Fail, Stage: stage, At: 10_000, Command: at, Status: uint8(i + 1)}
							fw := socstest.Firmware(map[string][]byte{"tf-a": stm32(model, 20_000).Bytes(), "fip": fip(20_000), "fip-ddr": ddrFIP(20_000)})
							if !strings.HasPrefix(model, "stm32mp2") {
								delete(fw, "fip-ddr")
							}
							o := trial{model: model, firmware: fw, cfg: dfu.Config{Faults: []dfu.Fault{f}}}.run(t)
							o.Bad(t, 6, "status "+name)
							o.Bad(t, 6, "stage "+ours)
							o.Bad(t, 6, "state dfuERROR")
							o.Bad(t, 6, "alternate setting")
						})
					})
				}
			}
		}
	}
}

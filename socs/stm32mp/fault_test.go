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
	socstest.Play(t, dfu.ParseFault, []socstest.Case[dfu.Config]{
		{Model: mp15, Faults: "stall:rom:0", Code: 6, Says: `alternate setting 1 "@FSBL /0x01/1*1Me": block 0, at byte 0 of 100256: refused with a stall, status OK, state dfuIDLE`, Most: 5 * time.Second},
		{Model: mp15, Faults: "stall:rom:50000", Code: 6, Says: "refused with a stall", Most: 5 * time.Second},
		{Model: mp15, Faults: "hang:rom:50000", Code: 6, Says: "deadline exceeded", Most: 30 * time.Second},
		{Model: mp15, Faults: "nak:rom:50000:5s", Most: 10 * time.Second},
		{Model: mp15, Faults: "busy:rom:50000:5s", Most: 10 * time.Second},
		{Model: mp15, Faults: "lie:rom:50000", Code: 6, Says: "bwPollTimeout", Most: 15 * time.Second},
		{Model: mp15, Faults: "unplug:rom:50000", Code: 6, Says: "did not come back within 15s", Most: 20 * time.Second},
		{Model: mp15, Faults: "reset:rom:50000", Says: "starting over", Most: 10 * time.Second},
		{Model: mp15, Faults: "reset:rom:1000 reset:rom:2000 reset:rom:3000", Code: 6, Says: "the boot ROM is back after the first stage was sent 3 times", Most: 20 * time.Second},
		{Model: mp15, Faults: "stall:rom:manifest", Code: 6, Says: "the end of the file: refused with a stall", Most: 10 * time.Second},
		{Model: mp15, Faults: "hang:rom:manifest", Code: 6, Says: "does not go on from phase 0x01", Most: 60 * time.Second},
		{Model: mp15, Faults: "busy:rom:manifest:5s", Most: 10 * time.Second},
		{Model: mp15, Faults: "lie:rom:manifest", Code: 6, Says: "(bwPollTimeout)", Most: 40 * time.Second},
		{Model: mp15, Faults: "reset:rom:manifest", Says: "starting over", Most: 10 * time.Second},
		{Model: mp15, Faults: "stall:tfa:0", Code: 6, Says: `alternate setting 3 "@Partition3 /0x03/1*16Me": block 0`, Most: 10 * time.Second},
		{Model: mp15, Faults: "hang:tfa:200000", Code: 6, Says: "deadline exceeded", Most: 40 * time.Second},
		{Model: mp15, Faults: "reset:tfa:200000", Says: "starting over", Most: 10 * time.Second},
		{Model: mp15, Faults: "stall:tfa:manifest", Code: 6, Says: "the end of the file: refused with a stall", Most: 10 * time.Second},
		{Model: mp15, Faults: "unplug:tfa:200000", Code: 6, Says: "did not come back within 15s", Most: 30 * time.Second},
		{Model: mp15, Config: dfu.Config{Missing: []string{"@Partition3 /0x03/1*16Me"}}, Code: 6, Says: "phase 0x03, for which it has no alternate setting; it has 0", Most: 10 * time.Second},
		{Model: mp15, Config: dfu.Config{Missing: []string{"@virtual /0xF1/1*512Ba"}}, Code: 6, Says: "is no STM32MP in serial boot", Most: 10 * time.Second},
		{Model: mp15, Faults: "refuse:tfa:200000", Code: 6, Says: `refused with a stall, status OK, state dfuDNLOAD-IDLE; the board says "refused by request"`, Most: 10 * time.Second},
		{Model: mp15, Faults: "refuse:tfa:manifest", Code: 6, Says: `the board says "refused by request"`, Most: 10 * time.Second},
		{Model: mp15, Config: dfu.Config{Never: dfu.StageTFA}, Code: 6, Says: "does not go on from phase 0x01 within 15s: expected the next one, it is still in phase 0x00", Most: 20 * time.Second},
		{Model: mp25, Config: dfu.Config{Never: dfu.StageTFA}, Code: 6, Says: "shows the same after DETACH and a reset of the port: 0 ", Most: 20 * time.Second},
		{Model: mp13, Config: dfu.Config{Never: dfu.StageTFA}, Code: 6, Says: "did not appear on port 203-1 within 30s", Most: 50 * time.Second},
		{Model: mp13, Config: dfu.Config{Missing: []string{"@SSBL /0x03/1*16Me"}}, Code: 6, Says: "phase 0x03, for which it has no alternate setting", Most: 10 * time.Second},
		{Model: mp13, Faults: "stall:tfa:0", Code: 6, Says: `"@SSBL /0x03/1*16Me": block 0`, Most: 10 * time.Second},
		{Model: mp13, Faults: "reset:rom:manifest", Says: "starting over", Most: 10 * time.Second},
		{Model: mp13, Faults: "unplug:tfa:manifest", Most: 40 * time.Second, Unseen: true},
		{Model: mp25, Faults: "stall:tfa:0", Code: 6, Says: `alternate setting 0 "@DDR FIP /0x02/1*32Ke": block 0`, Most: 10 * time.Second},
		{Model: mp25, Faults: "error:tfa:20000:8", Code: 6, Says: "errADDRESS", Most: 10 * time.Second},
		{Model: mp25, Faults: "reset:tfa:20000", Says: "starting over", Most: 10 * time.Second},
		{Model: mp25, Faults: "reset:tfa:200000", Says: "starting over", Most: 10 * time.Second},
		{Model: mp25, Faults: "hang:rom:manifest", Code: 6, Says: "does not answer within 15s", Most: 90 * time.Second},
		{Model: mp25, Config: dfu.Config{Missing: []string{"@FIP /0x03/1*16Me"}}, Code: 6, Says: "phase 0x03, for which it has no alternate setting", Most: 10 * time.Second},
	}, func(t *testing.T, c socstest.Case[dfu.Config], faults []virtual.Fault) *socstest.Outcome[dfu.Report] {
		c.Config.Faults = faults
		return trial{model: c.Model, cfg: c.Config}.run(t).Outcome
	})
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

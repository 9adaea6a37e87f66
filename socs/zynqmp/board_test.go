package zynqmp_test

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"snag/firmware/firmwaretest"
	"snag/recovery"
	"snag/sim/dfu"
	"snag/sim/inproc"
	"snag/sim/virtual"
	"snag/socs"
	"snag/socs/socstest"
	"snag/socs/zynqmp"
)

// trial is one recovery of one virtual board.
type trial struct {
	cfg      dfu.Config // Model apart
	firmware socs.Firmware
}

// run plugs in a board, which is to be done in a bubble of its own time, and recovers it.
func (tr trial) run(t *testing.T) *socstest.Outcome[dfu.Report] {
	t.Helper()
	m, err := dfu.FindModel("zynqmp")
	if err != nil {
		t.Fatal(err)
	}
	tr.cfg.Model = m
	if tr.firmware == nil {
		tr.firmware = socstest.Firmware(map[string][]byte{"boot": boot(300_000)})
	}
	board, err := dfu.New(tr.cfg)
	if err != nil {
		t.Fatal(err)
	}
	return socstest.Run(t, inproc.New(), board, recovery.Options{
		Backend: zynqmp.Backend{}, Model: socstest.Model(t, "zynqmp"), Firmware: tr.firmware, Port: "205-1",
	})
}

// boot is a whole boot image, with the PMU's firmware in an image of its own.
func boot(size int) []byte {
	return firmwaretest.ZynqMP{Images: []firmwaretest.ZynqMPImage{
		{Name: "fsbl.elf", Partitions: []firmwaretest.ZynqMPPartition{{Data: firmwaretest.Pattern(100_000), Load: 0xfffc0000, Attributes: 0x116}}},
		{Name: "pmufw.elf", Partitions: []firmwaretest.ZynqMPPartition{{Data: firmwaretest.Pattern(70_000), Load: 0xffdc0000, Attributes: 0x830}}},
		{Name: "bl31.elf", Partitions: []firmwaretest.ZynqMPPartition{{Data: firmwaretest.Pattern(2000), Load: 0xfffea000, Attributes: 0x117}}},
		{Name: "u-boot.elf", Partitions: []firmwaretest.ZynqMPPartition{{Data: firmwaretest.Pattern(size), Load: 0x8000000, Attributes: 0x114}}},
	}}.Bytes()
}

// The board comes up with a whole image, with PMU firmware wherever it is, with one partition more than FSBL, with a
// first stage of its own, and with an FSBL of 2017.
func TestBoards(t *testing.T) {
	merged := firmwaretest.SomeBootMerged()
	whole := boot(50_000)
	own := zynqmpFirst(t, boot(10))
	for _, tc := range []struct {
		name  string
		files map[string][]byte
		cfg   dfu.Config
		boot  int
	}{
		{name: "whole", files: map[string][]byte{"boot": whole}, boot: len(whole)},
		{name: "merged", files: map[string][]byte{"boot": merged}, boot: len(merged)},
		{name: "own first stage", files: map[string][]byte{"boot": whole, "fsbl": own}, boot: len(whole)},
		{name: "whole image as first stage", files: map[string][]byte{"boot": whole, "fsbl": whole}, boot: len(whole)},
		{name: "FSBL of 2017", files: map[string][]byte{"boot": whole}, cfg: dfu.Config{OldFSBL: true}, boot: len(whole)},
		{name: "ROM that leaves early", files: map[string][]byte{"boot": whole}, cfg: dfu.Config{EarlyLeave: true}, boot: len(whole)},
		{name: "slow", files: map[string][]byte{"boot": whole}, cfg: dfu.Config{Block: time.Millisecond, StageDelay: 29 * time.Second}, boot: len(whole)},
		{name: "same address", files: map[string][]byte{"boot": whole}, cfg: dfu.Config{SameAddress: true}, boot: len(whole)},
		{name: "at once", files: map[string][]byte{"boot": whole}, cfg: dfu.Config{LeaveDelay: -1, StageDelay: -1}, boot: len(whole)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := trial{cfg: tc.cfg, firmware: socstest.Firmware(tc.files)}.run(t)
				o.Good(t)
				rom, fsbl := o.Report.Last(dfu.StageROM), o.Report.Last(dfu.StageFSBL)
				if rom == nil || fsbl == nil || len(rom.Files) != 1 || len(fsbl.Files) != 1 {
					t.Fatalf("stages: %+v", o.Report.Stages)
				}
				if n := fsbl.Files[0].Bytes; n != tc.boot || fsbl.Files[0].Alt != 1 {
					t.Errorf("FSBL got %d bytes in setting %d, want %d in 1", n, fsbl.Files[0].Alt, tc.boot)
				}
				if tc.files["fsbl"] != nil && rom.Files[0].Bytes != len(own) {
					t.Errorf("the ROM got %d bytes, want %d", rom.Files[0].Bytes, len(own))
				}
				// Once to begin, once to end; how often the latter does not count.
				if s := fsbl.Selects; !bytes.HasPrefix(s, []byte{1, 0}) && !tc.cfg.OldFSBL || bytes.Count(s, []byte{1}) != 1 {
					t.Errorf("settings were selected in the order %v", s)
				}
			})
		})
	}
}

// zynqmpFirst is the first stage of an image, as Check makes it.
func zynqmpFirst(t *testing.T, whole []byte) []byte {
	t.Helper()
	sent, _, err := zynqmp.Backend{}.Check(socs.Model{Name: "zynqmp"}, socstest.Firmware(map[string][]byte{"boot": whole}))
	if err != nil {
		t.Fatal(err)
	}
	return sent["fsbl"].Data
}

// A board that is wrong ends the recovery in time, and the error says what was expected, what came, and what to do; or
// the recovery gets over it.
func TestFaults(t *testing.T) {
	socstest.Play(t, dfu.ParseFault, []socstest.Case[dfu.Config]{
		{Faults: "stall:rom:0", Code: 6, Says: "stage rom: boot.bin: DFU device 03fd:0050 on port 205-1, alternate setting 0: block 0", Most: 5 * time.Second},
		{Faults: "hang:rom:50000", Code: 6, Says: "deadline exceeded", Most: 30 * time.Second},
		{Faults: "nak:rom:50000:5s", Most: 10 * time.Second},
		{Faults: "busy:rom:50000:5s", Most: 10 * time.Second},
		{Faults: "lie:rom:50000", Code: 6, Says: "bwPollTimeout", Most: 15 * time.Second},
		{Faults: "unplug:rom:50000", Code: 6, Says: "did not come back within 15s", Most: 20 * time.Second},
		{Faults: "reset:rom:50000", Says: "starting over", Most: 10 * time.Second},
		{Faults: "reset:rom:1000 reset:rom:2000 reset:rom:3000", Code: 6, Says: "the boot ROM is back after the first stage was sent 3 times", Most: 20 * time.Second},
		{Faults: "hang:rom:manifest", Code: 6, Says: "did not appear on port 205-1 within 30s", Most: 60 * time.Second},
		{Faults: "reset:rom:manifest", Says: "starting over", Most: 10 * time.Second},
		{Faults: "unplug:rom:manifest", Code: 6, Says: "did not appear", Most: 40 * time.Second},
		{Faults: "stall:fsbl:200000", Code: 6, Says: "stage fsbl: boot.bin: DFU device 03fd:0050 on port 205-1, alternate setting 1", Most: 10 * time.Second},
		{Faults: "hang:fsbl:200000", Code: 6, Says: "deadline exceeded", Most: 30 * time.Second},
		{Faults: "reset:fsbl:200000", Says: "starting over", Most: 10 * time.Second},
		{Faults: "unplug:fsbl:200000", Code: 6, Says: "did not come back", Most: 30 * time.Second},
		{Faults: "stall:fsbl:manifest", Code: 6, Says: "refused with a stall", Most: 10 * time.Second},
		{Config: dfu.Config{Never: dfu.StageFSBL}, Code: 6, Says: "the next stage did not appear", Most: 40 * time.Second},
	}, func(t *testing.T, c socstest.Case[dfu.Config], faults []virtual.Fault) *socstest.Outcome[dfu.Report] {
		c.Config.Faults = faults
		return trial{cfg: c.Config}.run(t)
	})
}

// Every status that a device can complain with is in the error, with stage, setting and state.
func TestStatuses(t *testing.T) {
	for status := uint8(1); status <= 15; status++ {
		for _, stage := range []string{dfu.StageROM, dfu.StageFSBL} {
			for _, at := range []string{"", dfu.Manifest} {
				t.Run(fmt.Sprint(stage, " ", status, " ", at), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						f := dfu.Fault{Kind: dfu.Fail, Stage: stage, At: 10_000, Command: at, Status: status}
						o := trial{cfg: dfu.Config{Faults: []dfu.Fault{f}}}.run(t)
						o.Bad(t, 6, "status err")
						o.Bad(t, 6, "stage "+stage)
						o.Bad(t, 6, "state dfuERROR")
						o.Bad(t, 6, "alternate setting")
						if r := o.Report.Last(dfu.StageFSBL); r != nil && (r.Requests["CLRSTATUS"] != 0 || r.Requests["ABORT"] != 0) {
							t.Errorf("FSBL was asked for what it does not know: %v", r.Requests)
						}
					})
				})
			}
		}
	}
}

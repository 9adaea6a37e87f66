package am335x_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/recovery"
	board "snag/sim/am335x"
	"snag/sim/inproc"
	"snag/sim/virtual"
	"snag/socs"
	"snag/socs/am335x"
	"snag/socs/socstest"
	"snag/usb"
)

// The sizes of Debian's firmware, as sent.
const splSize, ubootSize = 109_728, 755_576

// trial is one recovery of one virtual board without any kernel: snag drives the board's network adapter.
type trial struct {
	cfg      board.Config
	opt      recovery.Options
	host     *inproc.Host
	port     usb.Port  // of the board
	anywhere bool      // the port is not named
	seed     uint64    // of the firmware
	small    bool      // the subject is not the transfer
	paths    [2]string // of the two files; empty: as a build of U-Boot has them
}

// outcome is what came of it.
type outcome struct {
	*socstest.Outcome[board.Report]
	spl, uboot []byte
}

func (tr trial) run(t *testing.T) *outcome {
	t.Helper()
	sizes := [2]int{splSize, ubootSize}
	if tr.small {
		sizes = [2]int{8 << 10, 24 << 10}
	}
	o := &outcome{spl: board.GenerateSPL(sizes[0], tr.seed), uboot: board.GenerateUBoot(sizes[1]-64, tr.seed)}
	paths := tr.paths
	if paths[0] == "" {
		paths = [2]string{"u-boot-spl.bin", "u-boot.img"}
	}
	if tr.port == "" {
		tr.port = "219-1"
	}
	if tr.host == nil {
		tr.host = inproc.New()
	}
	if tr.cfg.ROMRetries == nil {
		tr.cfg.ROMRetries = []time.Duration{time.Second}
	}
	b, err := board.New(tr.cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, unplug := socstest.Plug(t, tr.host.Port(tr.port), b)
	defer unplug()
	opt := tr.opt
	opt.Backend, opt.Net = am335x.Backend{}, recovery.NetUser
	opt.Firmware = socs.Firmware{
		"spl":    {Path: paths[0], Data: o.spl},
		"u-boot": {Path: paths[1], Data: o.uboot},
	}
	if opt.Model.Name == "" {
		opt.Model = socstest.Model(t, "am335x")
	}
	if !tr.anywhere {
		opt.Port = tr.port
	}
	o.Outcome = socstest.Recover(t, ctx, tr.host, b, opt)
	return o
}

// booted fails the test unless the board received exactly the images, and saw nothing wrong.
func (o *outcome) booted(t *testing.T) {
	t.Helper()
	o.Good(t)
	for stage, want := range map[string][]byte{board.StageROM: o.spl, board.StageSPL: o.uboot} {
		if s := o.Report.Last(stage); s == nil || !bytes.Equal(s.Data, want) {
			t.Errorf("stage %s did not receive its image", stage)
		}
	}
	if o.Report.Outcome != virtual.Booted {
		t.Errorf("the board %s: %s", o.Report.Outcome, o.Report.Error)
	}
}

// A board is recovered by its own time in less than two seconds of ours.
func TestUserRecovers(t *testing.T) {
	begun := time.Now()
	o := trial{}.run(t)
	o.booted(t)
	t.Logf("%s, of which the board's own pauses are %s", o.Took, 1050*time.Millisecond)
	if took := time.Since(begun); took > 2*time.Second && testing.Short() {
		t.Errorf("it took %s", took)
	}
}

func TestUserVariants(t *testing.T) {
	const rom, spl = board.StageROM, board.StageSPL
	gadget := usb.ID{Vendor: 0x0525, Product: 0xa4a2}
	at := func(kind board.FaultKind, stage string, bytes int) board.Fault {
		return board.Fault{Kind: kind, Stage: stage, At: bytes}
	}
	for _, tc := range []struct {
		name  string
		trial trial
		warns string
	}{
		{name: "as mainline has it"},
		{name: "any port", trial: trial{anywhere: true}},
		{name: "0525:a4a2 by following the port", trial: trial{anywhere: true, cfg: board.Config{SPL: gadget}}},
		{name: "0525:a4a2 on a named port", trial: trial{cfg: board.Config{SPL: gadget}}},
		{name: "unknown ID", trial: trial{cfg: board.Config{SPL: usb.ID{Vendor: 0x1234, Product: 0x5678}}}},
		{name: "other ROM ID", trial: trial{anywhere: true, cfg: board.Config{ROM: gadget}, opt: recovery.Options{ROM: gadget}}},
		{name: "other ROM ID on a named port", trial: trial{cfg: board.Config{ROM: gadget}}},
		{name: "board named by ID", trial: trial{anywhere: true, opt: recovery.Options{ID: board.ROMID}}},
		{name: "on a port named by its other bus", trial: trial{host: inproc.New(inproc.Pair{High: 1, Super: 2}), port: "2-1"}},
		{name: "ECM", trial: trial{cfg: board.Config{ECM: true}}},
		{name: "BOOTP", trial: trial{cfg: board.Config{BOOTP: true}}},
		{name: "no vendor class", trial: trial{cfg: board.Config{SPLVendorClass: "-"}}},
		{name: "other vendor class", trial: trial{cfg: board.Config{SPLVendorClass: "U-Boot.armv7"}}},
		{name: "no options", trial: trial{cfg: board.Config{NoOptions: true}}},
		{name: "BOOTP without options over ECM", trial: trial{cfg: board.Config{NoOptions: true, BOOTP: true, ECM: true}}},
		{name: "windowsize", trial: trial{cfg: board.Config{Window: 8}}},
		{name: "windowsize over ECM", trial: trial{cfg: board.Config{Window: 64, ECM: true}}},
		{name: "windowsize with loss", trial: trial{cfg: board.Config{Window: 8, LossIn: 0.02, LossOut: 0.02, Seed: 5}}},
		{name: "DM814x ROM", trial: trial{cfg: board.Config{ROMVendorClass: "DM814x ROM"}}},
		{name: "SPL after 10 s", trial: trial{cfg: board.Config{SPLDelay: 10 * time.Second}}},
		{name: "SPL at once", trial: trial{cfg: board.Config{SPLDelay: -1}}},
		{name: "reset in both stages", trial: trial{cfg: board.Config{Faults: []board.Fault{at(board.Reset, rom, 50_000), at(board.Reset, spl, 300_000)}}},
			warns: "waiting for it to come back"},
		{name: "reset at once in both stages", trial: trial{cfg: board.Config{Faults: []board.Fault{at(board.Reset, rom, 0), at(board.Reset, spl, 0)}}}},
		{name: "reset of an SPL that has not asked, twice", trial: trial{cfg: board.Config{Faults: []board.Fault{at(board.Reset, spl, 0), at(board.Reset, spl, 0)}}}},
		{name: "TFTP error in both stages", trial: trial{cfg: board.Config{Faults: []board.Fault{at(board.TFTPError, rom, 50_000), at(board.TFTPError, spl, 300_000)}}},
			warns: "the board ended the transfer"},
		{name: "duplicates", trial: trial{cfg: board.Config{DuplicateIn: 0.3}}},
		{name: "delay", trial: trial{cfg: board.Config{DelayIn: time.Millisecond, DelayOut: time.Millisecond}}},
		{name: "last ACK lost in both stages", trial: trial{cfg: board.Config{Faults: []board.Fault{at(board.LoseACK, rom, splSize), at(board.LoseACK, spl, ubootSize)}}}},
		{name: "board gone at the very last byte", trial: trial{cfg: board.Config{SPLDelay: -1, GadgetDelay: -1}}},
		{name: "the ROM's real times", trial: trial{cfg: board.Config{ROMRetries: []time.Duration{4 * time.Second, 8 * time.Second}}}},
		{name: "U-Boot's gadget is awaited", trial: trial{cfg: board.Config{Gadget: gadget}, opt: recovery.Options{Expect: gadget}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := tc.trial.run(t)
				o.booted(t)
				if !strings.Contains(o.Texts(), tc.warns) {
					t.Errorf("it said %q, want %q", o.Texts(), tc.warns)
				}
				for _, s := range o.Report.Stages {
					if wait := s.LinkUp.Sub(s.Plugged); s.Name == spl && !s.LinkUp.IsZero() && wait > time.Second {
						t.Errorf("SPL waited for its link for %s", wait)
					}
				}
			})
		})
	}
}

// Boards that leave for good, never come, or stand still.
func TestUserUnplugged(t *testing.T) {
	const rom, spl = board.StageROM, board.StageSPL
	for _, tc := range []struct {
		name   string
		kind   board.FaultKind
		stage  string
		at     int
		cfg    board.Config
		opt    recovery.Options
		within time.Duration
		code   int
		stands string
		says   string
	}{
		{name: "ROM, begin", kind: board.Unplug, stage: rom, at: 512, within: 20 * time.Second, code: 6, stands: rom, says: "did not come back within 15s"},
		{name: "ROM, middle", kind: board.Unplug, stage: rom, at: splSize / 2, within: 20 * time.Second, code: 6, stands: rom, says: "left port 219-1"},
		{name: "ROM, before its last block", kind: board.Unplug, stage: rom, at: splSize - 512, within: 20 * time.Second, code: 6, stands: rom, says: "left port 219-1"},
		{name: "ROM, after its last byte", kind: board.Unplug, stage: rom, at: splSize, within: 35 * time.Second, code: 6, stands: rom, says: "did not appear on port 219-1 within 30s"},
		{name: "SPL, begin", kind: board.Unplug, stage: spl, at: 1468, within: 20 * time.Second, code: 6, stands: spl, says: "left port 219-1"},
		{name: "SPL, middle", kind: board.Unplug, stage: spl, at: ubootSize / 2, within: 20 * time.Second, code: 6, stands: spl, says: "left port 219-1"},
		{name: "SPL, after its last byte", kind: board.Unplug, stage: spl, at: ubootSize, within: 10 * time.Second, code: 0},
		{name: "SPL never appears", cfg: board.Config{SPLNever: true}, within: 35 * time.Second, code: 6, stands: rom, says: "did not appear"},
		{name: "ROM hangs", kind: board.Hang, stage: rom, at: 51_200, within: 75 * time.Second, code: 6, stands: rom, says: "stopped asking"},
		{name: "SPL hangs", kind: board.Hang, stage: spl, at: 146_800, within: 75 * time.Second, code: 6, stands: spl, says: "stopped asking"},
		{name: "ROM says nothing", cfg: board.Config{LossOut: 1}, opt: recovery.Options{Timeout: 6 * time.Second}, within: 10 * time.Second, code: 6, says: "overall timeout of 6s"},
		{name: "SPL that the ROM does not start", cfg: board.Config{Faults: []board.Fault{{Kind: board.Reset, Stage: rom, At: splSize},
			{Kind: board.Reset, Stage: rom, At: splSize}, {Kind: board.Reset, Stage: rom, At: splSize}}},
			within: 20 * time.Second, code: 6, stands: rom, says: "3 times"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if tc.kind != "" {
					tc.cfg.Faults = []board.Fault{{Kind: tc.kind, Stage: tc.stage, At: tc.at}}
				}
				o := trial{cfg: tc.cfg, opt: tc.opt}.run(t)
				if o.Took > tc.within {
					t.Errorf("it took %s, want %s at most", o.Took, tc.within)
				}
				if tc.code == 0 {
					if o.Err != nil {
						t.Error(o.Err)
					}
					return
				}
				o.Bad(t, tc.code, tc.says)
				if tc.stands != "" && !strings.Contains(fmt.Sprint(o.Err), "stage "+tc.stands) {
					t.Errorf("it ended with %v, want stage %s", o.Err, tc.stands)
				}
			})
		})
	}
}

// 5 % loss each way.
func TestUserLoss(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := trial{seed: seed, cfg: board.Config{Seed: seed, LossIn: 0.05, LossOut: 0.05}}.run(t)
				o.booted(t)
				s := o.Report.Last(board.StageROM)
				if took := s.LastByte.Sub(s.Answered); took > 30*time.Second { // half of what the ROM grants
					t.Errorf("the ROM's transfer took %s", took)
				}
			})
		})
	}
}

package e2e

import (
	"cmp"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"snag/sim/am335x"
	"snag/usb"
)

var gadgetID = usb.ID{Vendor: 0x0525, Product: 0xa4a2} // what any SPL or gadget may call itself

// TestSandboxVariants recovers boards and SPLs of all kinds, each in its own sandbox.
func TestSandboxVariants(t *testing.T) {
	t.Parallel()
	const rom, spl = am335x.StageROM, am335x.StageSPL
	at := func(kind am335x.FaultKind, stage string, bytes int) am335x.Fault {
		return am335x.Fault{Kind: kind, Stage: stage, At: bytes}
	}
	for _, tc := range []struct {
		name  string
		board am335x.Config
		args  []string
		warns string
	}{
		{name: "as mainline has it"},
		{name: "0525:a4a2 by following the port", board: am335x.Config{SPL: gadgetID}},
		{name: "0525:a4a2 on a named port", board: am335x.Config{SPL: gadgetID}, args: []string{"--usb-path", "1-1"}},
		{name: "unknown ID", board: am335x.Config{SPL: usb.ID{Vendor: 0x1234, Product: 0x5678}}},
		{name: "other ROM ID", board: am335x.Config{ROM: usb.ID{Vendor: 0x1111, Product: 1}}, args: []string{"--rom-usb", "1111:0001"}},
		{name: "other ROM ID on a named port", board: am335x.Config{ROM: usb.ID{Vendor: 0x1111, Product: 1}}, args: []string{"--usb-path", "1-1"}},
		{name: "board named by ID", args: []string{"--usb-path", "0451:6141"}},
		{name: "ECM", board: am335x.Config{ECM: true}},
		{name: "BOOTP", board: am335x.Config{BOOTP: true}},
		{name: "no vendor class", board: am335x.Config{SPLVendorClass: "-"}},
		{name: "other vendor class", board: am335x.Config{SPLVendorClass: "U-Boot.armv7"}},
		{name: "no options", board: am335x.Config{NoOptions: true}},
		{name: "BOOTP without options over ECM", board: am335x.Config{NoOptions: true, BOOTP: true, ECM: true}},
		{name: "windowsize", board: am335x.Config{Window: 8}},
		{name: "windowsize with loss", board: am335x.Config{Window: 8, LossIn: 0.02, LossOut: 0.02, Seed: 5}},
		{name: "DM814x ROM", board: am335x.Config{ROMVendorClass: "DM814x ROM"}},
		{name: "SPL after 10 s", board: am335x.Config{SPLDelay: 10 * time.Second}},
		{name: "SPL at once", board: am335x.Config{SPLDelay: -1}},
		{name: "reset in both stages", board: am335x.Config{Faults: []am335x.Fault{at(am335x.Reset, rom, 50_000), at(am335x.Reset, spl, 300_000)}},
			warns: "waiting for it to come back"},
		{name: "reset at once in both stages", board: am335x.Config{Faults: []am335x.Fault{at(am335x.Reset, rom, 0), at(am335x.Reset, spl, 0)}}},
		{name: "TFTP error in both stages", board: am335x.Config{Faults: []am335x.Fault{at(am335x.TFTPError, rom, 50_000), at(am335x.TFTPError, spl, 300_000)}},
			warns: "the board ended the transfer"},
		{name: "duplicates", board: am335x.Config{DuplicateIn: 0.3}},
		{name: "delay", board: am335x.Config{DelayIn: time.Millisecond, DelayOut: time.Millisecond}},
		{name: "last ACK lost in both stages", board: am335x.Config{Faults: []am335x.Fault{at(am335x.LoseACK, rom, splSize), at(am335x.LoseACK, spl, ubootSize)}}},
		{name: "board gone at the very last byte", board: am335x.Config{SPLDelay: -1, GadgetDelay: -1}},
		{name: "DHCP and TFTP by the ROM's real times", board: am335x.Config{ROMRetries: []time.Duration{4 * time.Second, 8 * time.Second}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t)
			fw := generate(t, 1)
			r := b.recover(fw, tc.args...)
			r.await("waiting", "")
			board := b.plug(tc.board, "1-1")
			r.exit(0, time.Minute)
			fw.booted(t, board)
			if tc.warns != "" {
				r.warned(tc.warns)
			}
		})
	}
}

// TestSandboxBoardBeforeSnag recovers a board that was plugged in first.
func TestSandboxBoardBeforeSnag(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	fw := generate(t, 1)
	board := b.plug(am335x.Config{}, "1-1")
	b.awaitDevice("1-1", am335x.ROMID)
	b.recover(fw).exit(0, time.Minute)
	fw.booted(t, board)
}

// TestSandboxStandsAtSPL takes boards up at their SPL stage, which another snag brought them to.
func TestSandboxStandsAtSPL(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		spl  usb.ID
		args []string
	}{
		{"known ID", usb.ID{}, nil},
		{"named port", gadgetID, []string{"--usb-path", "1-1"}},
		{"named ID", gadgetID, []string{"--spl-usb", gadgetID.String()}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t)
			fw := generate(t, 1)
			// SPL comes when the first snag has ended, and waits for the second one.
			board := b.plug(am335x.Config{SPL: tc.spl, SPLDelay: 5 * time.Second, SPLWindow: time.Minute}, "1-1")
			first := b.recover(fw)
			first.await("stage_done", "rom")
			first.signal(syscall.SIGKILL)
			first.wait()
			b.awaitDevice("1-1", cmp.Or(tc.spl, am335x.SPLID))
			r := b.recover(fw, tc.args...)
			last := r.exit(0, time.Minute)
			if stages := fmt.Sprint(last["stages"]); len(last["stages"].([]any)) != 1 {
				t.Errorf("stages %s, want SPL alone", stages)
			}
			fw.booted(t, board)
		})
	}
}

// TestSandboxAM43xx has an AM43xx: a board of another kind for am335x, the right one for am4378.
func TestSandboxAM43xx(t *testing.T) {
	t.Parallel()
	cfg := am335x.Config{ROMVendorClass: "AM43xx ROM", SPLVendorClass: "AM43xx U-Boot SPL"}
	t.Run("am335x", func(t *testing.T) {
		t.Parallel()
		b := newBox(t)
		fw := generate(t, 1)
		b.plug(cfg, "1-1")
		r := b.recover(fw)
		r.says(r.exit(6, 20*time.Second), `"AM43xx ROM"`, "am335x", "-s")
	})
	t.Run("am4378", func(t *testing.T) {
		t.Parallel()
		b := newBox(t)
		fw := generateAM43xx(t)
		board := b.plug(cfg, "1-1")
		r := b.snag("recover", "--json", "-s", "AM4378", "-f", fw.config)
		r.exit(0, time.Minute)
		fw.booted(t, board)
	})
}

// TestSandboxLoss has 5 % loss each way.
func TestSandboxLoss(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			b := newBox(t)
			fw := generate(t, seed)
			board := b.plug(am335x.Config{Seed: seed, LossIn: 0.05, LossOut: 0.05}, "1-1")
			r := b.recover(fw)
			r.exit(0, 2*time.Minute)
			fw.booted(t, board)
			for _, s := range board.Report().Stages {
				took := s.LastByte.Sub(s.Answered)
				if s.Name == am335x.StageROM && took > 30*time.Second { // half of what the ROM grants
					t.Errorf("the ROM's transfer took %s", took)
				}
				t.Logf("%s: %.1f s, of which %.1f s from the answer to the last byte", s.Name, s.LastByte.Sub(s.Plugged).Seconds(), took.Seconds())
			}
		})
	}
}

// TestSandboxEightAtOnce recovers 8 boards at once, each by a snag of its own and with its own firmware. That they take
// no longer than three times as long as one is judged by the best of three, since others are on the machine.
func TestSandboxEightAtOnce(t *testing.T) {
	recoverAll := func(n int) (longest time.Duration, late []string) {
		b := newBox(t)
		var fws []images
		var boards []*am335x.Board
		var runs []*run
		for i := range n {
			port := usb.Port(fmt.Sprintf("1-%d", i+1))
			fws = append(fws, generate(t, uint64(100+i)))
			boards = append(boards, b.plug(am335x.Config{Seed: uint64(i)}, port))
		}
		for i, fw := range fws {
			runs = append(runs, b.recover(fw, "--usb-path", fmt.Sprintf("1-%d", i+1)))
		}
		for i, r := range runs {
			r.exit(0, time.Minute)
			fws[i].booted(t, boards[i])
			longest = max(longest, r.took)
			report := boards[i].Report()
			for _, s := range report.Stages {
				if wait := s.LinkUp.Sub(s.Plugged); s.Name == am335x.StageSPL && wait > 2*time.Second {
					late = append(late, fmt.Sprintf("board %d: SPL waited for its link for %s", i+1, wait))
				}
			}
			if len(report.Stages) != 2 {
				t.Errorf("board %d: %d stages, want 2", i+1, len(report.Stages))
			}
		}
		return longest, late
	}
	for try := 1; ; try++ {
		one, late := recoverAll(1)
		eight, more := recoverAll(8)
		t.Logf("one board %.2f s, eight %.2f s", one.Seconds(), eight.Seconds())
		if late = append(late, more...); eight > 3*one {
			late = append(late, fmt.Sprintf("eight boards took %s, one %s: more than three times as long", eight, one))
		}
		if len(late) == 0 {
			return
		}
		if try == 3 {
			t.Fatal(strings.Join(late, "\n"))
		}
		t.Log(strings.Join(late, "\n"))
	}
}

// awaitDevice waits until the sandbox shows a device on a port, with all that belongs to it.
func (b *box) awaitDevice(port usb.Port, id usb.ID) {
	b.t.Helper()
	script := fmt.Sprintf("cd /sys/bus/usb/devices/%s && cat idVendor idProduct; true", port)
	want := fmt.Sprintf("%04x\n%04x\n", id.Vendor, id.Product)
	for deadline := time.Now().Add(patience); b.output("sh", "-c", script) != want; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("no %s came to port %s", id, port)
		}
	}
}

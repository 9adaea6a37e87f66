package imx_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/sim/imx"
	"snag/sim/inproc"
	"snag/sim/usbdev"
	"snag/sim/virtual"
	"snag/socs/socstest"
	"snag/usb"
)

// cat joins files, each padded to a place.
func cat(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = append(b, make([]byte, p-len(b))...)
		case []byte:
			b = append(b, p...)
		}
	}
	return b
}

// Boards and files that differ from what is usual.
func TestVariants(t *testing.T) {
	spl := imx.IVTImage{Self: 0x00907400, Before: 0x400, Size: 40_000, Seed: 1}.Generate()
	legacy := imx.GenerateLegacy(0x17800000, 200_000, 2)
	fit := imx.GenerateFIT(3, 150_000, 0, 20_000)
	direct := imx.IVTImage{Self: 0x177ff400, Before: 0x400, DCD: imx.GenerateDCD(5, false), Size: 200_000, Seed: 4}
	plugin := imx.IVTImage{Self: 0x00907000, Size: 3000, Seed: 5, Flags: 1}.Generate()
	noDCD := direct
	noDCD.DCD = nil
	signed, signedDCD := noDCD, direct
	signed.Signed, signedDCD.Signed = true, true
	spent := imx.IVTImage{Self: 0x177ff400, Before: 0x400, DCD: imx.GenerateDCD(5, false), Size: 5 << 20, Seed: 4} // more than one WRITE_FILE
	for _, tc := range []struct {
		name  string
		model string
		cfg   imx.Config
		files map[string][]byte // generated if nil
		code  int
		says  string // the error, or else the events
		jump  uint32 // of the last stage, if not 0
	}{
		{name: "interrupt OUT", model: "imx6q", cfg: imx.Config{OutEP: true}},
		{name: "control only", model: "imx8qxp", cfg: imx.Config{NoOutEP: true}},
		{name: "control only where the endpoint is usual", model: "imx8mp", cfg: imx.Config{NoOutEP: true}},
		{name: "three pieces", model: "imx6q", files: map[string][]byte{"u-boot-with-dcd": spent.Generate()}, jump: 0x177ff400},
		{name: "of a card", model: "imx6q", files: map[string][]byte{"u-boot-with-dcd": cat(0x400, direct.Generate())}, says: "the image begins at 0x400", jump: 0x177ff400},
		{name: "legacy", model: "imx6q", cfg: imx.Config{SPL: imx.SDPU, SPLFinds: imx.FindNothing}, files: map[string][]byte{"SPL": spl, "u-boot": legacy}, jump: 0x17800000 - 64},
		{name: "legacy, newer SPL", model: "imx6q", cfg: imx.Config{SPL: imx.SDPV, SPLFinds: imx.FindNothing}, files: map[string][]byte{"SPL": spl, "u-boot": legacy}, jump: 0x17800000 - 64},
		{name: "IVT for SPL", model: "imx6q", cfg: imx.Config{SPL: imx.SDPV}, files: map[string][]byte{"SPL": spl, "u-boot": noDCD.Generate()}, jump: 0x177ff400},
		{name: "IVT of a card for SPL", model: "imx6q", cfg: imx.Config{SPL: imx.SDPU}, files: map[string][]byte{"SPL": spl, "u-boot": cat(0x400, noDCD.Generate())}, jump: 0x177ff400},
		{name: "all in one, legacy", model: "imx6q", cfg: imx.Config{SPL: imx.SDPU, SPLFinds: imx.FindNothing}, files: map[string][]byte{"flash-bin": cat(spl, 0x11000, legacy)}, says: "second stage stands at 0x11000", jump: 0x17800000 - 64},
		{name: "all in one, FIT, of a card", model: "imx6ull", cfg: imx.Config{SPL: imx.SDPU}, files: map[string][]byte{"flash-bin": cat(0x400, spl, 0x11400, fit)}, says: "second stage stands at 0x11400"},
		{name: "plugin", model: "imx6q", files: map[string][]byte{"u-boot-with-dcd": cat(plugin, 0x2000, noDCD.Generate())}, says: "is a plugin", jump: 0x177ff400},
		{name: "plugin, bulk", model: "imx53", files: map[string][]byte{"u-boot-with-dcd": cat(
			imx.IVTImage{Self: 0xf8007000, Size: 3000, Seed: 5, Flags: 1}.Generate(), 0x2000,
			imx.IVTImage{Self: 0x777ff400, Before: 0x400, Size: 50_000, Seed: 4}.Generate())}, says: "is a plugin"},
		{name: "closed, signed", model: "imx6q", cfg: imx.Config{Closed: true}, says: "the part is closed"},
		{name: "closed, signed, DCD skipped", model: "imx6ull", cfg: imx.Config{Closed: true}, says: "the part is closed"},
		{name: "closed, not signed", model: "imx6q", cfg: imx.Config{Closed: true}, files: map[string][]byte{"u-boot-with-dcd": direct.Generate()}, code: 6, says: "was refused: expected no status, got 33"},
		{name: "closed, not signed, skip", model: "imx8mm", cfg: imx.Config{Closed: true}, code: 6, says: "was refused: expected no status, got 33"},
		{name: "SPL with an ID of its own", model: "imx8mm", cfg: imx.Config{SPLID: usb.ID{Vendor: 0x1234, Product: 0x5678}}},
		{name: "old SPL of 8MQ EVK", model: "imx8mq", cfg: imx.Config{SPL: imx.SDPU, SPLRelease: 0x9999}},
		{name: "slow SPL", model: "imx8mp", cfg: imx.Config{StreamPause: 20 * time.Second}},
		{name: "slow ROM", model: "imx6q", cfg: imx.Config{Command: 3 * time.Second, Report: time.Millisecond}},
		{name: "more behind U-Boot, FIT", model: "imx8mp", cfg: imx.Config{NoMore: true}, files: map[string][]byte{"flash-bin": cat(generated(t, "imx8mp"), 2<<20)}, says: "and with these all of U-Boot"},
		{name: "more behind U-Boot, container", model: "imx93", cfg: imx.Config{NoMore: true}, files: map[string][]byte{"flash-bin": cat(generated(t, "imx93"), 2<<20)}, says: "and with these all of U-Boot"},
		{name: "SPL that never comes", model: "imx8mm", cfg: imx.Config{SPLNever: true}, code: 6, says: "the next stage did not appear on port 201-1 within 30s"},
		{name: "first silicon", model: "imx8qxp", cfg: imx.Config{Release: 1}, code: 6, says: "release 0001, expected 0002 or later: first silicon (A0)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := trial{model: tc.model, cfg: tc.cfg}
				if tc.files != nil {
					tr.firmware = socstest.Firmware(tc.files)
				}
				o := tr.run(t)
				if tc.code != 0 {
					o.Bad(t, tc.code, tc.says)
					return
				}
				o.Good(t)
				if !strings.Contains(o.Texts(), tc.says) {
					t.Errorf("it said %q, want %q", o.Texts(), tc.says)
				}
				jumps := o.Report.Stages[len(o.Report.Stages)-1].Jumps
				if tc.jump != 0 && (len(jumps) == 0 || jumps[len(jumps)-1].Addr != tc.jump) {
					t.Errorf("jumps %+v, want the last to %#x", jumps, tc.jump)
				}
			})
		})
	}
}

// A signed image goes to a closed part unchanged, whatever that does to the DRAM: with the DCD's address cleared, as an
// open part gets it, it would be refused for certain.
func TestClosedUnchanged(t *testing.T) {
	img := imx.IVTImage{Self: 0x177ff400, Before: 0x400, DCD: imx.GenerateDCD(5, false), Size: 20_000, Signed: true}
	synctest.Test(t, func(t *testing.T) {
		o := trial{model: "imx6q", cfg: imx.Config{Closed: true}, firmware: socstest.Firmware(map[string][]byte{"u-boot-with-dcd": img.Generate()})}.run(t)
		if o.Err != nil || o.Report.Outcome != virtual.Booted {
			t.Errorf("%v; the board is %s: %s", o.Err, o.Report.Outcome, o.Report.Error)
		}
		if len(o.Report.Violations) != 1 || !strings.Contains(o.Report.Violations[0].Text, "runs again at the jump") {
			t.Errorf("%v; want the second run of the DCD and nothing else", o.Report.Violations)
		}
	})
}

// Devices that are no boot ROM, or no SPL, are told from them.
func TestStrangers(t *testing.T) {
	rom, spl := usb.ID{Vendor: 0x15a2, Product: 0x0054}, usb.ID{Vendor: 0x0525, Product: 0xb4a4}
	vendor := usbdev.Interface{Class: 255}
	for _, tc := range []struct {
		name  string
		id    usb.ID
		iface usbdev.Interface
		says  string
	}{
		{"ROM without HID", rom, vendor, "expected the boot ROM of i.MX6Q: USB device 15a2:0054 on port 206-1: no HID interface"},
		{"SPL without HID", spl, vendor, "expected the SDP gadget of U-Boot's SPL: USB device 0525:b4a4 on port 206-1: no HID interface"},
		{"ROM without endpoints", rom, usbdev.Interface{Class: 3}, "no interrupt IN endpoint"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				host := inproc.New()
				d := usbdev.NewGadget(&usbdev.Descriptors{ID: tc.id, Speed: usbdev.HighSpeed, Configs: []usbdev.Config{{Value: 1, Interfaces: []usbdev.Interface{tc.iface}}}}, usbdev.Inert{})
				if err := host.Port("206-1").Attach(t.Context(), d); err != nil {
					t.Fatal(err)
				}
				defer host.Port("206-1").Detach()
				tr := trial{model: "imx6q", port: "206-1", cfg: imx.Config{SPL: imx.SDPU}}
				a := socstest.Try(t.Context(), host, tr.complete(t))
				a.Bad(t, 6, tc.says)
			})
		})
	}
}

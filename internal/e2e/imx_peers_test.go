package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"snag/internal/lab"
	"snag/sim/imx"
	"snag/socs"
	"snag/usb"
)

// The scripts of uuu, as its built-in spl_boot.lst has them.
var (
	uuuSDP  = []string{"SDP: boot -f FIRST"}
	uuuSDPS = []string{"SDPS: boot -f FIRST"}
	uuuSDPU = []string{"SDPU: delay 1000", "SDPU: write -f FIRST -offset 0x57c00", "SDPU: jump"}
	uuuSDPV = []string{"SDPV: delay 1000", "SDPV: write -f FIRST -skipspl", "SDPV: jump"}
)

// done ends a script after the last stage's commands.
func done(parts ...[]string) []string {
	all := slices.Concat(parts...)
	protocol, _, _ := strings.Cut(all[len(all)-1], ":")
	return append(all, protocol+": done")
}

// imxCase is a board and how the peers recover it.
type imxCase struct {
	name    string // what is particular; empty: nothing
	model   string
	config  imx.Config // without the model
	files   [2]string  // of Debian's u-boot-imx; empty: generated
	size    int        // of generated files; zero: 50 KB
	uuu     []string   // its script; nil: uuu cannot
	imxUSB  [][]string // its runs' arguments, by stage; nil: imx_usb cannot
	partial bool       // imx_usb does the ROM's stage only
	newer   bool       // it takes a newer uuu than Debian's
	differ  string     // why the peers' effects differ
}

// firstFile and secondFile are imx_usb's arguments for the ROM's stage, and for SPL's.
var (
	firstFile  = [][]string{{"first.bin"}}
	secondFile = [][]string{{"first.bin"}, {"second.bin"}}
)

// skipped is the difference that shows in memory.
const skipped = "uuu has the ROM skip the DCD and leaves IVT.dcd as it is, imx_usb clears it"

var imxCases = []imxCase{
	{model: "imx50", imxUSB: firstFile},
	{model: "imx51", imxUSB: firstFile},
	{name: "verify", model: "imx51", imxUSB: [][]string{{"-v", "first.bin"}}, size: 5_000},
	{model: "imx53", files: [2]string{"mx53loco/u-boot-dtb.imx"}, imxUSB: firstFile},
	{name: "verify", model: "imx53", imxUSB: [][]string{{"-v", "first.bin"}}, size: 5_000},
	{model: "vf610", imxUSB: firstFile},

	{model: "imx6q", files: [2]string{"mx6qsabrelite/u-boot-dtb.imx"}, uuu: done(uuuSDP), imxUSB: firstFile},
	{name: "interrupt OUT", model: "imx6q", config: imx.Config{OutEP: true}, uuu: done(uuuSDP), imxUSB: firstFile},
	{name: "verify", model: "imx6q", imxUSB: [][]string{{"-v", "first.bin"}}, size: 5_000},
	{name: "closed", model: "imx6q", config: imx.Config{Closed: true}, uuu: done(uuuSDP), imxUSB: firstFile},
	{name: "pieces", model: "imx6q", size: 2_200_000, uuu: done(uuuSDP)},
	{model: "imx6d", uuu: done(uuuSDP), imxUSB: firstFile},
	{model: "imx6sl", uuu: done(uuuSDP), imxUSB: firstFile},
	{model: "imx6sx", uuu: done(uuuSDP), imxUSB: firstFile},
	{model: "imx6ul", uuu: done(uuuSDP), imxUSB: firstFile, differ: skipped},
	{model: "imx6ull", uuu: done(uuuSDP), imxUSB: firstFile, differ: skipped},
	{model: "imx6sll", uuu: done(uuuSDP), imxUSB: firstFile, differ: skipped},
	{model: "imx7s"},
	{model: "imx7d", uuu: done(uuuSDP), imxUSB: firstFile, differ: skipped},
	{model: "imx7ulp", uuu: done(uuuSDP), imxUSB: firstFile, differ: skipped},
	{model: "imxrt106x", uuu: done(uuuSDP)},

	// SPL with a file of its own: what SPL finds depends on its build.
	{name: "SPL, legacy image", model: "imx6q", config: imx.Config{SPL: imx.SDPU, SPLFinds: imx.FindNothing}, uuu: done(uuuSDP,
		[]string{"SDPU: delay 1000", "SDPU: write -f SECOND -addr 0x177fffc0", "SDPU: jump -addr 0x177fffc0"}), imxUSB: secondFile},
	{name: "SPL, FIT", model: "imx6q", config: imx.Config{SPL: imx.SDPV}, uuu: done(uuuSDP,
		[]string{"SDPV: delay 1000", "SDPV: write -f SECOND", "SDPV: jump"})},
	{name: "mx6cuboxi", model: "imx6q", config: imx.Config{SPL: imx.SDPV, SPLFinds: imx.FindNothing},
		files: [2]string{"mx6cuboxi/SPL", "mx6cuboxi/u-boot.img"}, uuu: done(uuuSDP,
			[]string{"SDPV: delay 1000", "SDPV: write -f SECOND -addr 0x177fffc0", "SDPV: jump -addr 0x177fffc0"}), imxUSB: secondFile},

	{model: "imx8mq", uuu: done(uuuSDP, uuuSDPV), imxUSB: firstFile, partial: true},
	{name: "old SPL", model: "imx8mq", config: imx.Config{SPL: imx.SDPU, SPLRelease: 0x9999}, uuu: done(uuuSDP, uuuSDPU)},
	{model: "imx8mm", uuu: done(uuuSDP, uuuSDPV), imxUSB: firstFile, partial: true},
	{name: "SDPU", model: "imx8mm", config: imx.Config{SPL: imx.SDPU}, uuu: done(uuuSDP, uuuSDPU)},

	{model: "imx23"}, // no peer knows it
	{model: "imx28", uuu: done(uuuSDPS)},
	{model: "imx8qm", uuu: done(uuuSDPS, uuuSDPV)},
	{model: "imx8qxp", uuu: done(uuuSDPS, uuuSDPV)},
	{model: "imx8dxl", uuu: done(uuuSDPS, uuuSDPV)},
	{model: "imx8mn", uuu: done(uuuSDPS), imxUSB: firstFile, partial: true},
	{model: "imx8mp", uuu: done(uuuSDPS)},
	{model: "imx8ulp", uuu: done(uuuSDPS)},
	{model: "imx91", uuu: done(cfg815("MX91", "0x0159"), uuuSDPS)},
	{model: "imx93", uuu: done(cfg815("MX93", "0x014e"), uuuSDPS)},
	{model: "imx95", uuu: done(uuuSDPS, uuuSDPV), newer: true},
	{model: "imx943", uuu: done(uuuSDPS, uuuSDPV), newer: true},
	{model: "imx952", uuu: done(uuuSDPS, uuuSDPV), newer: true},
}

// cfg815 tells uuu 1.4.193 of a chip that is younger than it.
func cfg815(chip, pid string) []string {
	return []string{"CFG: SDPS: -chip " + chip + " -compatible MX815 -vid 0x1fc9 -pid " + pid}
}

// imagesOf reads or makes the case's files.
func (c *imxCase) imagesOf(t *testing.T, cfg imx.Config) imx.Images {
	t.Helper()
	size := c.size
	if size == 0 {
		size = 50_000
	}
	if c.files[0] == "" {
		images, err := imx.Generate(cfg, size, 1)
		if err != nil {
			t.Fatal(err)
		}
		return images
	}
	var data [2][]byte
	for i, name := range c.files {
		if name == "" {
			continue
		}
		var err error
		if data[i], err = os.ReadFile(filepath.Join(firmwareDir, name)); err != nil {
			t.Skipf("Debian's u-boot-imx could not be had: %v", err)
		}
	}
	return imx.Images{First: data[0], Second: data[1]}
}

// TestWithIMXPeers recovers every board with the peers that can, and with snag, and compares what they did to the same
// one.
func TestWithIMXPeers(t *testing.T) {
	lab.Inside(t)
	proven := struct {
		sync.Mutex
		by map[string][]string
	}{by: map[string][]string{}}
	recoveredBySnag := map[string]bool{} // by its name of the model
	t.Run("all", func(t *testing.T) {
		for i, c := range imxCases {
			if !part(i, 3) {
				continue
			}
			t.Run(strings.TrimSuffix(c.model+", "+c.name, ", "), func(t *testing.T) {
				t.Parallel()
				effects := map[string]string{}
				cfg := c.config
				var err error
				if cfg.Model, err = imx.FindModel(c.model); err != nil {
					t.Fatal(err)
				}
				images := c.imagesOf(t, cfg)
				for _, peer := range []struct {
					name string
					can  bool
					run  func(*testing.T, *peerBoard) error
				}{
					{"uuu", c.uuu != nil && (!c.newer || haveNewerUUU()), func(t *testing.T, b *peerBoard) error {
						if c.newer {
							return b.uuu(t, newerUUU, c.uuu...)
						}
						return b.uuu(t, "uuu", c.uuu...)
					}},
					{"imx_usb", c.imxUSB != nil, func(t *testing.T, b *peerBoard) error {
						ids := []usb.ID{cfg.Model.ID, imx.SPLID}
						for i, args := range c.imxUSB {
							if err := b.imxUSB(t, ids[i], args...); err != nil {
								return err
							}
						}
						return nil
					}},
					{"snag", true, func(t *testing.T, b *peerBoard) error { return b.snag(t, nil, c.model) }},
				} {
					if !peer.can {
						continue
					}
					t.Run(peer.name, func(t *testing.T) {
						var b *peerBoard
						for attempt := 1; ; attempt++ {
							b = powerIMX(t, cfg, images)
							err := peer.run(t, b)
							if err == nil {
								break
							}
							// Both give up after 1 s for a transfer, which a machine with other work may take.
							if !errors.Is(err, errPeerTimeout) || attempt == 3 {
								t.Fatal(err)
							}
							t.Logf("tried again: %v", err)
							b.unplug()
						}
						partial := c.partial && peer.name == "imx_usb"
						r := b.recovered(t, partial)
						if t.Failed() {
							return
						}
						proven.Lock()
						defer proven.Unlock()
						name := peer.name
						if partial {
							name += " (ROM)"
						} else if c.newer {
							name += " 1.5 (by hand)"
						} else {
							effects[name] = r.Effects()
						}
						if peer.name == "snag" {
							recoveredBySnag[c.model] = true
						} else if !slices.Contains(proven.by[c.model], name) {
							proven.by[c.model] = append(proven.by[c.model], name)
						}
					})
				}
				c.sameEffects(t, effects)
			})
		}
	})
	if !every() {
		return
	}
	for _, m := range socs.Models() {
		if m.Family == "imx" && !recoveredBySnag[m.Name] && !slices.ContainsFunc(m.Aliases, func(a string) bool { return recoveredBySnag[a] }) {
			t.Errorf("snag has recovered no %s", m.Name)
		}
	}
	for _, m := range imx.Models() {
		by := proven.by[m.Name]
		if strings.Contains(m.ProvenBy, "(by hand)") && !haveNewerUUU() {
			continue
		}
		slices.Sort(by)
		if got := strings.Join(by, ", "); got != m.ProvenBy {
			t.Errorf("%s is said to be proven by %q; here it was by %q", m.Name, m.ProvenBy, got)
		}
	}
}

// TestWithIMXSim powers a board with the program, not the package, and lets uuu recover it.
func TestWithIMXSim(t *testing.T) {
	lab.Inside(t)
	dir := t.TempDir()
	must(t, "snag", "sim", "imx8qxp", "--generate", dir)
	script := strings.ReplaceAll("uuu_version 1.2.39\n"+strings.Join(done(uuuSDPS, uuuSDPV), "\n")+"\n", "FIRST", "first.bin")
	if err := os.WriteFile(dir+"/script.lst", []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}
	out := must(t, "snag", "sim", "imx8qxp", "--gadget", imx.Gadget.String(), "--", "uuu", dir+"/script.lst")
	if !strings.Contains(out, "its last image was started") || strings.Contains(out, "host mistake") {
		t.Error(out)
	}
}

// TestWithIMXNoDriver does without the kernel's driver for HID, which the peers detach anyway. It alone reads the
// report descriptor, though, and without that SPL serves nobody: so uuu cannot go on to a second stage there.
func TestWithIMXNoDriver(t *testing.T) {
	lab.Inside(t)
	found, err := filepath.Glob("/lib/modules/*/kernel/drivers/hid/usbhid/usbhid.ko*")
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	must(t, "modprobe", "-r", "usbhid")
	must(t, "mv", found[0], "/run/usbhid") // udevd would load it again
	defer must(t, "modprobe", "usbhid")
	defer must(t, "mv", "/run/usbhid", found[0])
	c := imxCase{}
	m, err := imx.FindModel("imx6q")
	if err != nil {
		t.Fatal(err)
	}
	cfg := imx.Config{Model: m}
	for _, peer := range []func(b *peerBoard) error{
		func(b *peerBoard) error { return b.uuu(t, "uuu", done(uuuSDP)...) },
		func(b *peerBoard) error { return b.imxUSB(t, m.ID, "first.bin") },
	} {
		b := powerIMX(t, cfg, c.imagesOf(t, cfg))
		if err := peer(b); err != nil {
			t.Fatal(err)
		}
		b.recovered(t, false)
		b.unplug()
	}
	cfg.SPL = imx.SDPV
	b := powerIMX(t, cfg, c.imagesOf(t, cfg))
	err = b.uuu(t, "uuu", done(uuuSDP, []string{"SDPV: write -f SECOND", "SDPV: jump"})...)
	r := b.Report()
	if _, err := os.Stat("/sys/module/usbhid"); err == nil {
		t.Fatal("something loaded usbhid again")
	}
	if err == nil || len(r.Violations) != 1 || !strings.Contains(r.Violations[0].Text, "report descriptor") {
		t.Errorf("uuu: %v; the board saw %v", err, r.Violations)
	}
}

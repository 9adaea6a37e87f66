package sunxi_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"snag/internal/lab"
	sim "snag/sim/sunxi"
	"snag/socs"
	"snag/socs/socstest"
	"snag/socs/sunxi"
)

// image is what one of Debian's packages has for a board.
type image struct {
	board, model string
	firmware     map[string][]byte
}

// debian returns Debian's images, each for its board.
func debian(t *testing.T) (images []image) {
	t.Helper()
	for i, dir := range lab.Packages(t, "u-boot-sunxi:armhf", "u-boot-sunxi:arm64") {
		boards, err := filepath.Glob(filepath.Join(dir, "usr/lib/u-boot/*"))
		if err != nil || len(boards) < 10 {
			t.Fatalf("%d boards in %s: %v", len(boards), dir, err)
		}
		for _, board := range boards {
			files := map[string]string{"u-boot-with-spl": "u-boot-sunxi-with-spl.bin"}
			if i == 1 {
				files = map[string]string{"spl": "sunxi-spl.bin", "u-boot": "u-boot-sunxi-with-spl.fit.itb"}
			}
			img := image{board: filepath.Base(board), firmware: map[string][]byte{}}
			for slot, name := range files {
				if img.firmware[slot], err = os.ReadFile(filepath.Join(board, name)); err != nil {
					t.Fatal(err)
				}
				for begin, model := range debianModels {
					if slot != "u-boot" && bytes.Contains(img.firmware[slot][:96], []byte(begin)) {
						img.model = model
					}
				}
			}
			if img.model == "" {
				t.Errorf("%s is for no model that the test knows", board)
				continue
			}
			images = append(images, img)
		}
	}
	return images
}

// debianModels are the models by the beginnings of their boards' device trees.
var debianModels = map[string]string{
	"sun4i-a10-": "a10", "sun5i-a10s-": "a10s", "sun5i-r8-": "r8", "sun7i-a20-": "a20", "sun8i-r40-": "r40", "sun8i-v40-": "r40", "sun8i-a83t-": "a83t",
	"sun9i-a80-": "a80", "sun8i-h3-": "h3", "sun8i-h2-plus-": "h2+", "sun50i-a64-": "a64", "sun50i-h5-": "h5", "sun50i-h6-": "h6",
}

// Every image of Debian's brings the virtual board of its SoC up, and is refused for all other SoCs.
func TestDebian(t *testing.T) {
	images := debian(t)
	for _, img := range images {
		t.Run(img.board, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := trial{model: img.model, firmware: img.firmware}.run(t)
				o.Good(t)
				if o.Err != nil {
					return
				}
				m := simModel(t, img.model)
				if rom := o.rom(); rom.SPL == nil || !rom.Kept || rom.Start == nil || rom.Start.AArch64 != m.AArch64() {
					t.Errorf("SPL %+v, kept %t, start %+v", rom.SPL, rom.Kept, rom.Start)
				}
				if strings.Contains(o.Texts(), "warning") {
					t.Error(o.Texts())
				}
			})
			for _, other := range models() {
				if simModel(t, other).SoC == simModel(t, img.model).SoC {
					continue
				}
				_, _, err := sunxi.Backend{}.Check(socstest.Model(t, other), socstest.Firmware(img.firmware))
				if e, ok := errors.AsType[*socs.FirmwareError](err); !ok || e.Hint == "" {
					t.Errorf("for %s: %v", other, err)
				}
			}
		})
	}
	if len(images) < 40 {
		t.Errorf("%d images", len(images))
	}
}

// SPL of one SoC with U-Boot of another is found out by the device tree in that.
func TestDebianMixed(t *testing.T) {
	by := map[string]image{}
	for _, img := range debian(t) {
		by[img.board] = img
	}
	neo, cubie, pine, neo2 := by["nanopi_neo"], by["Cubietruck"], by["pine64_plus"], by["nanopi_neo2"]
	if neo.model == "" || cubie.model == "" || pine.model == "" || neo2.model == "" {
		t.Skip("the package has other boards now")
	}
	const uboot = 0x8000
	for _, tc := range []struct {
		model      string
		spl, uboot []byte
		says       string
	}{
		{"h3", neo.firmware["u-boot-with-spl"], cubie.firmware["u-boot-with-spl"][uboot:], "(A20), not for H3"},
		{"a20", cubie.firmware["u-boot-with-spl"], neo.firmware["u-boot-with-spl"][uboot:], "(H3 or H2+), not for A20"},
		{"h5", neo2.firmware["spl"], pine.firmware["u-boot"], "(A64), not for H5"},
		{"a64", pine.firmware["spl"], neo.firmware["u-boot-with-spl"][uboot:], "(H3 or H2+), not for A64"},
	} {
		_, _, err := sunxi.Backend{}.Check(socstest.Model(t, tc.model), socstest.Firmware(map[string][]byte{"spl": tc.spl, "u-boot": tc.uboot}))
		if e, ok := errors.AsType[*socs.FirmwareError](err); !ok || e.Slot != "u-boot" || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%v, want %q", err, tc.says)
		}
	}
}

// The device tree that a user chooses is the one behind U-Boot.
func TestDebianTree(t *testing.T) {
	for _, img := range debian(t) {
		if img.board != "pinephone" {
			continue
		}
		sizes := map[string]uint32{}
		for _, tree := range []string{"", "sun50i-a64-pinephone-1.1", "sun50i-a64-pinephone-1.2"} {
			synctest.Test(t, func(t *testing.T) {
				tr := trial{model: "a64", firmware: img.firmware, keys: map[string]any{"dt": tree}, cfg: sim.Config{}}
				o := tr.run(t)
				o.Good(t)
				for _, c := range o.rom().Commands {
					if c.Addr > 0x4a000000 {
						sizes[tree] = c.Bytes
					}
				}
			})
		}
		// 1.2 is SPL's, and the default.
		if sizes[""] != sizes["sun50i-a64-pinephone-1.2"] || sizes[""] == sizes["sun50i-a64-pinephone-1.1"] || sizes[""] == 0 {
			t.Errorf("the device trees have %v bytes", sizes)
		}
		return
	}
	t.Skip("the package has no pinephone any more")
}

package rockchip_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"snag/firmware"
	"snag/firmware/firmwaretest"
	"snag/internal/lab"
	simimx "snag/sim/imx"
	board "snag/sim/rockchip"
	"snag/socs"
	"snag/socs/rockchip"
	"snag/socs/socstest"
)

// generate makes files for a model.
func generate(t testing.TB, model string) board.Images {
	t.Helper()
	m, err := board.FindModel(model)
	if err != nil {
		t.Fatal(err)
	}
	return board.Generate(m, 20_000, 60_000, 1)
}

// What is not for the board is refused, with what it is and what to give.
func TestCheck(t *testing.T) {
	a, b, c := generate(t, "rk3399"), generate(t, "rk3588"), generate(t, "rk3288")
	damaged := append([]byte(nil), a.Loader...)
	damaged[5000] ^= 1
	flash := board.Loader{Chip: "RK330C", Flash: []board.Entry{{Name: "FlashData", Data: a.Code471}}}.Bytes()
	large := append(append([]byte(nil), c.Code471...), make([]byte, 0x8000)...)
	itself := append([]byte{0x0a, 0, 0, 0x14}, "\x1f\x20\x03\xd5\x00\x00\x20\x00\x00\x00\x00\x00U-Boot 2026.07 (made up)\x00\x00\x00\x00\x00\x00\x00\x00"...)
	for _, tc := range []struct {
		model      string
		files      map[string][]byte
		params     map[string]any
		says, hint string // empty: taken
		finding    string
	}{
		{model: "rk3399", files: map[string][]byte{"loader": a.Loader}},
		{model: "rk3399", files: map[string][]byte{"loader": a.IDBlock}, finding: "no U-Boot over USB"},
		{model: "rk3399", files: map[string][]byte{"code471": a.Code471, "code472": a.Code472}},
		{model: "rk3399", files: map[string][]byte{"code471": a.Code471, "code472": a.Code472[:2000]}, finding: "no U-Boot behind SPL"},
		{model: "rk3399", files: map[string][]byte{"code471": a.Code471}, finding: "there is no code472"},
		{model: "rk3399", files: map[string][]byte{"loader": board.IDBlock(board.Models()[0], a.Code471, nil)}, finding: "one image only"},
		{model: "rk3399", files: nil, says: "missing: the ROM needs it, or code471 and code472", hint: "u-boot-rockchip-usb471.bin"},
		{model: "rk3399", files: map[string][]byte{"code472": a.Code472}, says: "missing: the ROM needs it before code472", hint: "DDR blob"},
		{model: "rk3399", files: map[string][]byte{"loader": a.Loader, "code471": a.Code471}, says: "there is no use for code471", hint: "leave out"},
		{model: "rk3399", files: map[string][]byte{"loader": a.Loader, "spl": a.Code471}, says: "takes such a file", hint: "code471 and code472"},
		{model: "rk3399", files: map[string][]byte{"loader": {}}, says: "the file is empty", hint: "again"},
		{model: "rk3399", files: map[string][]byte{"loader": b.Loader}, says: "the loader is for RK3588, rk3399 takes RK330C", hint: "--soc"},
		{model: "rk3588", files: map[string][]byte{"loader": a.IDBlock}, says: "an ID block of version 1, tagged RK33, which is for another SoC", hint: "--soc"},
		{model: "rk3399", files: map[string][]byte{"loader": c.IDBlock}, says: "tagged RK32, which is for another SoC than rk3399", hint: "--soc"},
		{model: "rk3399", files: map[string][]byte{"loader": b.IDBlock}, says: "an ID block of version 2", hint: "--soc"},
		{model: "rk3399", files: map[string][]byte{"loader": damaged}, says: "CRC32 is", hint: "again"},
		{model: "rk3399", files: map[string][]byte{"loader": a.Loader[:3000]}, says: "truncated", hint: "again"},
		{model: "rk3399", files: map[string][]byte{"loader": a.IDBlock[:3000]}, says: "truncated", hint: "again"},
		{model: "rk3399", files: map[string][]byte{"loader": flash}, says: "nothing for 471", hint: "downloaded"},
		{model: "rk3399", files: map[string][]byte{"loader": append([]byte("RKFW"), make([]byte, 500)...)}, says: "a firmware package for Rockchip (update.img): unpack it first", hint: "MiniLoaderAll"},
		{model: "rk3399", files: map[string][]byte{"loader": a.Code472}, says: "expected a loader container or an ID block", hint: "code471 or code472"},
		{model: "rk3399", files: map[string][]byte{"loader": []byte("no loader\n")}, says: "it is a text file", hint: "idbloader.img"},
		{model: "rk3399", files: map[string][]byte{"code471": a.Loader}, says: "it is a Rockchip loader container for RK330C", hint: "as loader"},
		{model: "rk3399", files: map[string][]byte{"code471": a.Code471, "code472": a.Code472[30_016:]}, says: "the ROM does not start that", hint: "SPL in front"},
		{model: "rk3399", files: map[string][]byte{"code471": c.Code471}, says: `its tag is RK32, that of rk3399 is "RK33"`, hint: "--soc"},
		{model: "rk3588", files: map[string][]byte{"code471": a.Code471}, says: `its tag is RK33, that of rk3588 is ""`, hint: "--soc"},
		{model: "rk3588", files: map[string][]byte{"code471": firmware.RockchipRC4(b.Code471)}, says: "which rk3588 does not undo", hint: "before it was encrypted"},
		{model: "rk3399", files: map[string][]byte{"code471": firmware.RockchipRC4(c.Code471)}, says: "its tag is RK32", hint: "--soc"},
		{model: "rk3036", files: map[string][]byte{"code471": generate(t, "rk3036").Code471, "code472": b.Code472}, says: "a program for 64-bit ARM, which rk3036 is not", hint: "--soc"},
		{model: "rk3399", files: map[string][]byte{"code471": a.Code471, "code472": itself}, says: "U-Boot itself, which SPL starts", hint: "u-boot-rockchip-usb472.bin"},
		{model: "rk3399", files: map[string][]byte{"code471": a.Code471, "code472": append(itself, simimx.GenerateLegacy(0x200000, 20_000, 2)...)}},
		{model: "rk3036", files: map[string][]byte{"code471": firmwaretest.EGON{Program: []byte("another ROM's")}.Bytes()}, says: "it is an Allwinner eGON", hint: "u-boot-tpl.bin"},
		{model: "rk3288", files: map[string][]byte{"code471": large}, says: "more than the 32768 that rk3288 has", hint: "small"},
		{model: "rk3399", files: map[string][]byte{"code471": a.Code471}, params: map[string]any{"rc4": "maybe"}, says: "rc4 is maybe, expected on or off", hint: "rc4: on"},
		{model: "rk3399", files: map[string][]byte{"loader": a.Loader}, params: map[string]any{"rc4": "off"}, says: "rc4 is for other files", hint: "leave rc4 out"},
	} {
		fw := socstest.Firmware(tc.files)
		for slot, f := range fw {
			f.Params = tc.params
			fw[slot] = f
		}
		_, findings, err := rockchip.Backend{}.Check(socstest.Model(t, tc.model), fw)
		fe, _ := errors.AsType[*socs.FirmwareError](err)
		switch {
		case tc.says == "" && err != nil:
			t.Errorf("%s, %q: %v", tc.model, tc.finding, err)
		case tc.says != "" && (fe == nil || !strings.Contains(err.Error(), tc.says) || !strings.Contains(fe.Hint, tc.hint)):
			t.Errorf("%s: %v, want %q and a hint with %q", tc.model, err, tc.says, tc.hint)
		}
		var texts []string
		for _, f := range findings {
			texts = append(texts, f.Text)
		}
		if all := strings.Join(texts, "\n"); tc.finding == "" && all != "" || !strings.Contains(all, tc.finding) {
			t.Errorf("%s: findings %q, want %q", tc.model, all, tc.finding)
		}
	}
}

// An SPL for the RK3576 that is linked to U-Boot's address is warned of.
func TestWrongBase(t *testing.T) {
	i := generate(t, "rk3576")
	for base, want := range map[byte]bool{0: false, 0x80: true} {
		i.Code472[8], i.Code472[10], i.Code472[11] = 0, base, 0x40
		_, findings, err := rockchip.Backend{}.Check(socstest.Model(t, "rk3576"), socstest.Firmware(map[string][]byte{"code471": i.Code471, "code472": i.Code472}))
		if err != nil || (len(findings) == 1) != want {
			t.Errorf("%#x: %+v, %v", base, findings, err)
		}
	}
}

// Every board that Debian has a U-Boot for is brought to its SPL with that, by the ID block and by TPL and SPL where these are files: the FIT is
// for media, since the SPL of this version takes nothing from memory.
func TestDebian(t *testing.T) {
	for _, arch := range []string{"arm64", "armhf"} {
		root := filepath.Join(lab.Packages(t, "u-boot-rockchip:"+arch)[0], "usr/lib/u-boot")
		dirs, err := fs.Glob(os.DirFS(root), "*")
		if err != nil || len(dirs) == 0 {
			t.Fatal(dirs, err)
		}
		for _, dir := range dirs {
			model := dir[strings.LastIndex(dir, "-")+1:]
			read := func(name string) []byte {
				b, err := os.ReadFile(filepath.Join(root, dir, name))
				if err != nil {
					return nil
				}
				return b
			}
			if _, err := board.FindModel(model); err != nil {
				t.Logf("%s: %v", dir, err)
				continue
			}
			sets := map[string]socs.Firmware{"idbloader.img": socstest.Firmware(map[string][]byte{"loader": read("idbloader.img")})}
			if tpl := read("u-boot-tpl.bin"); tpl != nil {
				sets["TPL and SPL"] = socstest.Firmware(map[string][]byte{"code471": tpl, "code472": read("u-boot-spl.bin")})
			}
			for name, fw := range sets {
				t.Run(dir+" "+name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						o := trial{model: model, firmware: fw}.run(t)
						o.Good(t)
						if !strings.Contains(o.Texts(), "from the board's storage") {
							t.Errorf("it does not say what SPL does: %s", o.Texts())
						}
						if s := o.Report.Last(board.StageROM).Sections; len(s) != 2 {
							t.Errorf("%+v", s)
						}
					})
				})
			}
			if model == "rk3399" { // an ARM of 64 bits
				for soc, fw := range map[string]socs.Firmware{"rk3168": sets["idbloader.img"], "rk3308": sets["idbloader.img"], "rk3588": sets["TPL and SPL"]} {
					if _, _, err := (rockchip.Backend{}).Check(socstest.Model(t, soc), fw); err == nil && fw != nil {
						t.Errorf("%s is taken for %s", dir, soc)
					}
				}
			}
			for _, name := range []string{"u-boot.itb", "u-boot.img", "u-boot.bin"} {
				data := read(name)
				if data == nil {
					continue
				}
				for _, slot := range []string{"code471", "code472"} {
					fw := socstest.Firmware(map[string][]byte{"code471": generate(t, model).Code471, slot: data})
					if _, _, err := (rockchip.Backend{}).Check(socstest.Model(t, model), fw); err == nil {
						t.Errorf("%s/%s is taken as %s", dir, name, slot)
					}
				}
			}
		}
	}
}

// FuzzCheck gives any files to any model: what is taken is sent, to a board that starts anything or nothing.
func FuzzCheck(f *testing.F) {
	for _, name := range []string{"rk3399", "rk3588"} {
		m, err := board.FindModel(name)
		if err != nil {
			f.Fatal(err)
		}
		i := board.Generate(m, 100, 2000, 1)
		f.Add(uint8(0), i.Loader, []byte(nil))
		f.Add(uint8(1), i.Code471, i.Code472)
		f.Add(uint8(0), i.IDBlock, []byte(nil))
	}
	var models []socs.Model
	for _, m := range socs.Models() {
		if m.Family == "rockchip" {
			models = append(models, m)
		}
	}
	f.Fuzz(func(t *testing.T, n uint8, a, b []byte) {
		fw := socs.Firmware{"loader": {Path: "a", Data: a}}
		if n&1 != 0 {
			fw = socs.Firmware{"code471": {Path: "a", Data: a}, "code472": {Path: "b", Data: b}}
		}
		sent, findings, err := rockchip.Backend{}.Check(models[int(n>>1)%len(models)], fw)
		if (err == nil) != (sent != nil) {
			t.Errorf("%v, %v", sent, err)
		}
		for _, f := range findings {
			if f.Text == "" {
				t.Error("a finding without a text")
			}
		}
	})
}

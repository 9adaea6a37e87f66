package imx_test

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"snag/internal/lab"
	"snag/sim/imx"
	"snag/socs"
	soc "snag/socs/imx"
)

// dhIMX6 is the name that Debian 12 has for a board of which newer ones have several.
const dhIMX6 = "dh_imx6"

// debian returns what Debian's u-boot-imx has for the boards, by path.
func debian(t *testing.T) map[string][]byte {
	dir := filepath.Join(lab.Packages(t, "u-boot-imx:armhf")[0], "usr/lib/u-boot")
	files := make(map[string][]byte)
	err := filepath.WalkDir(dir, func(file string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Ext(file) == ".elf" {
			return err
		}
		name, err := filepath.Rel(dir, file)
		if err == nil {
			files[name], err = os.ReadFile(file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		if board, file := path.Split(name); strings.HasPrefix(board, "dh-imx6-dhcom-") {
			delete(files, name)
			files[dhIMX6+"/"+file] = data
		}
	}
	return files
}

// debianBoards are the boards, their models and which files they are given.
var debianBoards = []struct {
	dir, model string
	slots      map[string]string
	spl        imx.SPLKind
}{
	{"mx53loco", "imx53", map[string]string{"u-boot-with-dcd": "u-boot-dtb.imx"}, imx.SPLNone},
	{"usbarmory", "imx53", map[string]string{"u-boot-with-dcd": "u-boot-dtb.imx"}, imx.SPLNone},
	{"mx6qsabrelite", "imx6q", map[string]string{"u-boot-with-dcd": "u-boot-dtb.imx"}, imx.SPLNone},
	{"nitrogen6q", "imx6q", map[string]string{"u-boot-with-dcd": "u-boot-dtb.imx"}, imx.SPLNone},
	{dhIMX6, "imx6q", map[string]string{"flash-bin": "u-boot-with-spl.imx"}, imx.SDPU},
	{"colibri_imx6", "imx6d", map[string]string{"SPL": "SPL", "u-boot": "u-boot.img"}, imx.SDPU},
	{"mx6cuboxi", "imx6q", map[string]string{"SPL": "SPL", "u-boot": "u-boot.img"}, imx.SDPU},
	{"novena", "imx6q", map[string]string{"SPL": "SPL", "u-boot": "u-boot.img"}, imx.SDPU},
	{"udoo", "imx6q", map[string]string{"SPL": "SPL", "u-boot": "u-boot.img"}, imx.SDPU},
	{"wandboard", "imx6q", map[string]string{"SPL": "SPL", "u-boot": "u-boot.img"}, imx.SDPU},
}

// Every board that Debian has a U-Boot for is recovered with it.
func TestDebian(t *testing.T) {
	files := debian(t)
	// The same as novena, with its environment in another place.
	used := map[string]bool{"novena-rawsd/SPL": true, "novena-rawsd/u-boot.img": true}
	for _, b := range debianBoards {
		fw := socs.Firmware{}
		for slot, name := range b.slots {
			path := b.dir + "/" + name
			if files[path] == nil {
				t.Errorf("Debian has no %s", path)
			}
			fw[slot] = socs.Image{Path: path, Data: files[path]}
			used[path] = true
		}
		t.Run(b.dir, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := imx.Config{SPL: b.spl}
				if second := fw["u-boot"].Data; bytes.HasPrefix(second, []byte("\x27\x05\x19\x56")) || fw["flash-bin"].Data != nil {
					cfg.SPLFinds = imx.FindNothing // an SPL that takes legacy images
				}
				if b.model == "imx53" {
					cfg.Machine = &imx.Memory{Reads: allOnes}
				}
				tr := trial{model: b.model, firmware: fw, cfg: cfg}
				tr.run(t).Good(t)
			})
		})
	}
	for name := range files {
		if !used[name] {
			t.Errorf("%s is not used", name)
		}
	}
}

// allOnes is hardware all of whose status bits are set.
func allOnes(uint32, []byte) {}

// What Debian's files are not for is refused.
func TestDebianRefused(t *testing.T) {
	files := debian(t)
	for _, tc := range []struct{ model, slot, file, says, hint string }{
		{"imx6q", "u-boot-with-dcd", "mx6cuboxi/SPL", "U-Boot's SPL, which needs U-Boot", "give it as SPL"},
		{"imx6q", "u-boot-with-dcd", dhIMX6 + "/u-boot-with-spl.imx", "U-Boot's SPL, which needs U-Boot", "as flash-bin"},
		{"imx6q", "u-boot-with-dcd", "mx6cuboxi/u-boot.img", "a legacy uImage", "may belong under u-boot"},
		{"imx6q", "u-boot-with-dcd", "mx53loco/u-boot-dtb.imx", "its DCD writes 0x63fd9", "--soc"},
		{"imx6q", "SPL", "mx6qsabrelite/u-boot-dtb.imx", "which is DRAM: not an SPL", "u-boot-with-dcd"},
		{"imx6q", "u-boot", "mx6cuboxi/SPL", "has no DRAM", "belongs under SPL"},
		{"imx6q", "flash-bin", "mx6cuboxi/SPL", "there is no U-Boot in it", "an SPL alone goes under SPL"},
		{"imx6ull", "u-boot-with-dcd", "mx6qsabrelite/u-boot-dtb.imx", "0x177ff400, where i.MX6ULL/ULZ has no memory", "--soc"},
		{"imx53", "u-boot-with-dcd", "mx6qsabrelite/u-boot-dtb.imx", "0x177ff400, where i.MX53 has no memory", "--soc"},
		{"imx51", "u-boot-with-dcd", "mx53loco/u-boot-dtb.imx", "expected the flash header of i.MX51", "--soc"},
		{"imx7d", "u-boot-with-dcd", "mx53loco/u-boot-dtb.imx", "where i.MX7D/S has no memory", "--soc"},
		{"imx8mm", "flash-bin", dhIMX6 + "/u-boot-with-spl.imx", "a program for 32-bit ARM", "--soc"},
		{"imx8mp", "flash-bin", "mx6qsabrelite/u-boot-dtb.imx", "where i.MX8MP has no memory", "--soc"},
		{"imx93", "flash-bin", "mx6qsabrelite/u-boot-dtb.imx", "no container", "images with an IVT"},
		{"imx6ull", "SPL", "udoo/SPL", "variables from 0x18200000 on, where i.MX6ULL/ULZ has no DRAM", "--soc"},
		{"imx7d", "u-boot", "wandboard/u-boot.img", "load to 0x17800000, where i.MX7D/S has no memory", "--soc"},
		{"imx7ulp", "u-boot", "mx53loco/u-boot-dtb.imx", "its DCD writes 0x63fd9", "--soc"},
		{"imx28", "flash-bin", "mx6cuboxi/SPL", "an NXP i.MX image", "images with an IVT"},
		{"imx28", "SPL", "mx6cuboxi/SPL", "i.MX28 takes no such file", "give flash-bin"},
	} {
		model, err := socs.Lookup(tc.model)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = soc.Backend{}.Check(model, socs.Firmware{tc.slot: {Path: tc.file, Data: files[tc.file]}})
		if e := about(err, tc.slot); e == nil || !strings.Contains(e.Error(), tc.says) || !strings.Contains(e.Hint, tc.hint) {
			t.Errorf("%s as %s of %s: %v; want %q, hint %q", tc.file, tc.slot, tc.model, err, tc.says, tc.hint)
			if e != nil {
				t.Logf("hint: %s", e.Hint)
			}
		}
	}
}

// about finds the error about a slot.
func about(err error, slot string) *socs.FirmwareError {
	var fe *socs.FirmwareError
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			if fe := about(e, slot); fe != nil {
				return fe
			}
		}
	} else if errors.As(err, &fe) && fe.Slot == slot {
		return fe
	}
	return nil
}

// Cut and damaged files are refused, or leave nothing worse than a board that does not start.
func TestDebianDamaged(t *testing.T) {
	files := debian(t)
	random := rand.New(rand.NewPCG(1, 2))
	flips := 1000
	if testing.Short() {
		flips = 50
	}
	for _, b := range debianBoards {
		model, err := socs.Lookup(b.model)
		if err != nil {
			t.Fatal(err)
		}
		refused, n := 0, 0
		for slot, name := range b.slots {
			whole := files[b.dir+"/"+name]
			look := func(data []byte) error {
				n++
				_, _, err := soc.Backend{}.Check(model, socs.Firmware{slot: {Path: name, Data: data}})
				e := about(err, slot)
				if e == nil {
					return nil
				}
				refused++
				if e.Hint == "" {
					t.Errorf("%s/%s: no hint for %v", b.dir, name, e)
				}
				return e
			}
			for range 20 {
				if at := random.IntN(len(whole)); look(whole[:at]) == nil && len(whole)-at > 0x1000 {
					t.Errorf("%s/%s cut at %d of %d is taken", b.dir, name, at, len(whole))
				}
			}
			for range flips {
				// Most of a file is code: every second one hits what has a meaning to snag.
				at := random.IntN(len(whole))
				if random.IntN(2) == 0 {
					at = random.IntN(min(0x1000, len(whole)))
				}
				data := slices.Clone(whole)
				data[at] ^= 1 << random.IntN(8)
				look(data)
			}
		}
		t.Logf("%s: %d of %d refused", b.dir, refused, n)
	}
}

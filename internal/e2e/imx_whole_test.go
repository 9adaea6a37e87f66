package e2e

import (
	"errors"
	"maps"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"snag/flash/image"
	"snag/internal/lab"
	"snag/sim/evk"
	"snag/sim/imx"
)

// wholeScripts are scripts as NXP's users have them, for a whole board. The second is the first one for Debian's uuu,
// which knows no block maps, and writes holes as zeros.
var wholeScripts = []struct {
	name  string
	lines []string
	newer bool // it takes a newer uuu than Debian's
}{
	{name: "eMMC by a block map", newer: true, lines: []string{
		"uuu_version 1.5.182",
		"SDPS: boot -f flash.bin",
		"FB: ucmd setenv fastboot_dev mmc",
		"FB: ucmd setenv mmcdev ${emmc_dev}",
		"FB: ucmd mmc dev ${emmc_dev}",
		"FB: flash -raw2sparse -bmap image.wic.bmap all image.wic",
		"FB: flash bootloader flash.bin",
		"FB: ucmd if env exists emmc_ack; then ; else setenv emmc_ack 0; fi;",
		"FB: ucmd mmc partconf ${emmc_dev} ${emmc_ack} 1 0",
		"FB: done",
	}},
	{name: "eMMC", lines: []string{
		"uuu_version 1.2.39",
		"SDPS: boot -f flash.bin",
		"FB: ucmd setenv fastboot_dev mmc",
		"FB: ucmd setenv mmcdev ${emmc_dev}",
		"FB: ucmd mmc dev ${emmc_dev}",
		"FB: flash -raw2sparse all image.wic",
		"FB: flash bootloader flash.bin",
		"FB: ucmd if env exists emmc_ack; then ; else setenv emmc_ack 0; fi;",
		"FB: ucmd mmc partconf ${emmc_dev} ${emmc_ack} 1 0",
		"FB: done",
	}},
	{name: "fuses", lines: []string{
		"uuu_version 1.2.39",
		"SDPS: boot -f flash.bin",
		"FB: ucmd fuse prog -y 9 0 0xccddeeff",
		"FB: ucmd fuse prog -y 9 1 0x556600bb",
		"FB: ucmd fuse prog -y 9 2 0x00223344",
		"FB: done",
	}},
}

// TestWithIMXWhole has uuu and snag take one board each from its ROM to "FB: done", by the same scripts: storage and
// fuses are the same then.
func TestWithIMXWhole(t *testing.T) {
	lab.Inside(t)
	model, err := imx.FindModel("imx8mp")
	if err != nil {
		t.Fatal(err)
	}
	images, err := imx.Generate(imx.Config{Model: model}, 300_000, 1)
	if err != nil {
		t.Fatal(err)
	}
	var emmc map[string]string // what the first eMMC had then: all are to have that
	for _, s := range wholeScripts {
		t.Run(s.name, func(t *testing.T) {
			dir := t.TempDir()
			write := func(name string, b []byte) {
				if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			write("flash.bin", images.First)
			write("script.uuu", []byte(strings.Join(s.lines, "\n")+"\n"))
			write("image.wic", wholeDisk())
			im, err := image.Open(t.Context(), filepath.Join(dir, "image.wic"), image.Options{NoBmap: true})
			if err != nil {
				t.Fatal(err)
			}
			m, err := image.CreateMap(t.Context(), im, image.MapOptions{Zeros: true})
			if err != nil {
				t.Fatal(err)
			}
			b, err := m.Encode()
			if err != nil {
				t.Fatal(err)
			}
			write("image.wic.bmap", b)

			contents := map[string]map[string]string{}
			for _, tool := range []string{"uuu", newerUUU, "snag"} {
				if tool == "uuu" && s.newer || tool == newerUUU && !haveNewerUUU() {
					continue
				}
				t.Run(filepath.Base(tool), func(t *testing.T) {
					for attempt := 1; ; attempt++ {
						board, p := powerWhole(t, dir)
						var err error
						if tool == "snag" {
							err = p.peer(t, "snag", "run", "--usb-path", string(p.port), "--timeout", "2m", "script.uuu")
						} else {
							err = p.peer(t, tool, "-v", "-m", strings.ReplaceAll(string(p.port), "-", ":"), "script.uuu")
						}
						p.unplug()
						if errors.Is(err, errPeerTimeout) && attempt < 3 { // it gives up after 1 s, which a machine with other work may take
							continue
						}
						if err != nil {
							t.Fatalf("%v\nU-Boot saw %+v", err, board.Fastboot.Report())
						}
						for _, v := range append(board.ROM.Report().Violations, board.Fastboot.Report().Violations...) {
							t.Errorf("the board saw %d times: %s", v.N, v.Text)
						}
						contents[tool] = board.Contents()
						return
					}
				})
			}
			for tool, got := range contents {
				if !maps.Equal(got, contents["snag"]) {
					t.Errorf("after %s: %v\nafter snag: %v", tool, got, contents["snag"])
				}
			}
			switch got := contents["snag"]; {
			case s.name == "fuses" && got["fuse 9 1"] != "0x556600bb":
				t.Errorf("%v", got)
			case s.name != "fuses" && emmc == nil:
				emmc = got
			case s.name != "fuses" && !maps.Equal(emmc, got):
				t.Errorf("with a block map: %v\nwithout: %v", emmc, got)
			}
		})
	}
}

// TestWithIMXFuses burns by the program: what is there is looked at, burnt, and left alone then.
func TestWithIMXFuses(t *testing.T) {
	lab.Inside(t)
	model, err := imx.FindModel("imx8mp")
	if err != nil {
		t.Fatal(err)
	}
	images, err := imx.Generate(imx.Config{Model: model}, 50_000, 1)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "flash.bin"), images.First, 0o644); err != nil {
		t.Fatal(err)
	}
	board, p := powerWhole(t, dir)
	if err := p.peer(t, "snag", "run", "--usb-path", string(p.port), "spl", "flash.bin"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args, typed, says string
		code              int
	}{
		{"--mac0 00:bb:cc:dd:ee:ff --mac1 00:22:33:44:55:66", "", "would run: fuse prog -y 0x9 0x1 0x556600bb", 0},
		{"--mac0 00:bb:cc:dd:ee:ff --mac1 00:22:33:44:55:66 --burn", "no\n", "not confirmed", 2},
		{"--mac0 00:bb:cc:dd:ee:ff --mac1 00:22:33:44:55:66 --burn", "00:bb:cc:dd:ee:ff\n", "MAC_ADDR2 bank 9 word 2: 0x00223344; 0x00223344 of 0xffffffff: burnt", 0},
		{"--mac0 00:bb:cc:dd:ee:ff --mac1 00:22:33:44:55:66 --burn --yes --json", "", `"found":1432748219,"state":"there"`, 0},
		{"--mac0 00:bb:cc:dd:ee:fe --mac1 00:22:33:44:55:66 --burn --yes", "", "MAC_ADDR0 (bank 9 word 0) is burnt otherwise", 6},
	} {
		cmd := exec.CommandContext(t.Context(), "snag", append([]string{"fuse", "mac", "--soc", "imx8mp", "--usb-path", string(p.port)}, strings.Fields(c.args)...)...)
		cmd.Stdin = strings.NewReader(c.typed)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(string(out), c.says) {
			t.Errorf("%s: exit code %d, want %d and %q\n%s", c.args, code, c.code, c.says, out)
		}
	}
	p.unplug()
	if got := board.Fuses.Burnt(); len(got) != 3 {
		t.Errorf("burnt %#x", got)
	}
}

// wholeDisk is one of 8 MiB with holes, whose size is a multiple of no block map's blocks.
func wholeDisk() []byte {
	b := make([]byte, 8<<20+3*512)
	r := rand.New(rand.NewSource(1))
	for _, at := range []int{0, 1 << 20, 3<<20 + 4096, 8 << 20} {
		r.Read(b[at:min(at+300_000, len(b))])
	}
	return b
}

// powerWhole plugs a whole board in.
func powerWhole(t *testing.T, dir string) (*evk.Board, *peerBoard) {
	t.Helper()
	board, err := evk.New(evk.Config{})
	if err != nil {
		t.Fatal(err)
	}
	p := &peerBoard{Board: board.ROM, dir: dir}
	p.port, p.unplug = plugIn(t, board.Run)
	return board, p
}

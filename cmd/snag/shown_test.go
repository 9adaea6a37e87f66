package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	"snag/internal/ui"
	"snag/recovery"
	"snag/sim/am335x"
	"snag/sim/amlogic"
	"snag/sim/bcm"
	"snag/sim/dfu"
	"snag/sim/imx"
	"snag/sim/inproc"
	"snag/sim/qcom"
	"snag/socs"
	"snag/socs/socstest"
)

// TestWhatOneSees recovers boards on a terminal: what stays there is what the families' pages show, numbers apart. A
// line "..." on a page stands for any that follow.
func TestWhatOneSees(t *testing.T) {
	for _, tt := range []struct {
		page, model string
		files       map[string]string // by slot
		generated   func(t *testing.T) map[string][]byte
		run         func(t *testing.T, opt recovery.Options)
	}{
		{"am335x", "am335x", map[string]string{"spl": "u-boot-spl.bin", "u-boot": "u-boot.img"},
			func(*testing.T) map[string][]byte {
				return map[string][]byte{"spl": am335x.GenerateSPL(100_000, 1), "u-boot": am335x.GenerateUBoot(700_000, 1)}
			},
			func(t *testing.T, opt recovery.Options) {
				opt.Net = recovery.NetUser
				board, err := am335x.New(am335x.Config{})
				plugged(t, board, err, opt)
			}},
		{"amlogic", "s905x", map[string]string{"bl2": "u-boot.bin.usb.bl2", "u-boot": "u-boot.bin.usb.tpl"},
			func(*testing.T) map[string][]byte { return amlogic.Generate(amlogic.GX, 900_000, 1) },
			func(t *testing.T, opt recovery.Options) {
				board, err := amlogic.New(amlogic.Config{Model: found(t, amlogic.FindModel, "s905x")})
				plugged(t, board, err, opt)
			}},
		{"bcm", "bcm2711", map[string]string{"bootfiles": "bootfiles.bin", "boot": "boot.img", "config": "config.txt", "u-boot": "u-boot.bin"},
			func(t *testing.T) map[string][]byte {
				return bcm.Generate(found(t, bcm.FindModel, "bcm2711"), 100_000, 1)
			},
			func(t *testing.T, opt recovery.Options) {
				board, err := bcm.New(bcm.Config{Model: found(t, bcm.FindModel, "bcm2711")})
				plugged(t, board, err, opt)
			}},
		{"imx", "imx6q", map[string]string{"u-boot-with-dcd": "u-boot-dtb.imx"},
			func(*testing.T) map[string][]byte {
				return map[string][]byte{"u-boot-with-dcd": imx.IVTImage{Self: 0x177ff400, Before: 0x400, DCD: imx.GenerateDCD(20, false), Size: 500_000, Seed: 1}.Generate()}
			},
			func(t *testing.T, opt recovery.Options) {
				board, err := imx.New(imx.Config{Model: found(t, imx.FindModel, "imx6q")})
				plugged(t, board, err, opt)
			}},
		{"k3", "am625", map[string]string{"tiboot3": "tiboot3.bin", "tispl": "tispl.bin", "u-boot": "u-boot.img"},
			func(t *testing.T) map[string][]byte {
				return dfu.Generate(found(t, dfu.FindModel, "am62x"), 300_000, 1)
			},
			func(t *testing.T, opt recovery.Options) {
				board, err := dfu.New(dfu.Config{Model: found(t, dfu.FindModel, "am62x")})
				plugged(t, board, err, opt)
			}},
		{"qcom", "iq9075", map[string]string{"xbl": "prog_snagboot_ddr.elf", "u-boot": "u-boot.mbn"},
			func(*testing.T) map[string][]byte {
				i := qcom.Generate(1_000_000, 1)
				return map[string][]byte{"xbl": i.XBL, "u-boot": i.UBoot}
			},
			func(t *testing.T, opt recovery.Options) {
				board, err := qcom.New(qcom.Config{})
				plugged(t, board, err, opt)
			}},
		{"rzn1", "rzn1d", map[string]string{"u-boot": "u-boot.bin.spkg"},
			func(t *testing.T) map[string][]byte { return dfu.Generate(found(t, dfu.FindModel, "rzn1"), 400_000, 1) },
			func(t *testing.T, opt recovery.Options) {
				board, err := dfu.New(dfu.Config{Model: found(t, dfu.FindModel, "rzn1")})
				plugged(t, board, err, opt)
			}},
	} {
		t.Run(tt.page, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				model, backend, err := recovery.Lookup(tt.model)
				if err != nil {
					t.Fatal(err)
				}
				fw := socs.Firmware{}
				data := tt.generated(t)
				for slot, path := range tt.files {
					if data[slot] == nil {
						t.Fatalf("no %s", slot)
					}
					fw[slot] = socs.Image{Path: path, Data: data[slot]}
				}
				var shown bytes.Buffer
				terminal := ui.NewTerminal(&shown, func() int { return 110 }, false)
				tt.run(t, recovery.Options{Backend: backend, Model: model, Firmware: fw, Port: "1-2", Emit: terminal.Sink})
				terminal.Close()
				got := kept(shown.String())
				if want := example(t, tt.page); !alike(got, want) {
					t.Errorf("docs/%s.md has\n%s\nwhat a terminal shows is\n%s", tt.page, want, got)
				}
			})
		})
	}
}

func found[M any](t *testing.T, find func(string) (M, error), name string) M {
	t.Helper()
	m, err := find(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func plugged[R socstest.Report](t *testing.T, board socstest.Board[R], err error, opt recovery.Options) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if o := socstest.Run(t, inproc.New(), board, opt); o.Err != nil {
		t.Error(o.Err)
	}
}

// kept is what stays on a terminal.
func kept(drawn string) string {
	var lines []string
	for line := range strings.SplitSeq(regexp.MustCompile(`\x1b\[\??[0-9;]*[A-Zhl]`).ReplaceAllString(drawn, ""), "\n") {
		lines = append(lines, "    "+line[strings.LastIndexByte(line, '\r')+1:])
	}
	return strings.Join(lines[:len(lines)-1], "\n")
}

// example is the block on a page behind "What one sees", as in-process hosts have it: without network interfaces.
func example(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/" + page + ".md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile(`What one sees:?\n\n((?:    .*\n)+)`).FindSubmatch(text)
	if block == nil {
		t.Fatalf("docs/%s.md does not say what one sees", page)
	}
	return regexp.MustCompile(` \((eth|usb)[0-9]\)`).ReplaceAllString(strings.TrimSuffix(string(block[1]), "\n"), "")
}

// alike reports whether lines differ in numbers only.
func alike(got, want string) bool {
	pattern := regexp.QuoteMeta(regexp.MustCompile(`[0-9.]+ (B|KiB|MiB|ms|s)\b`).ReplaceAllString(want, "NUMBER"))
	pattern = strings.ReplaceAll(strings.ReplaceAll(pattern, "NUMBER", `[0-9.]+ (B|KiB|MiB|ms|s)`), `    \.\.\.`, `(?s:.*)`)
	return regexp.MustCompile("^" + pattern + "$").MatchString(got)
}

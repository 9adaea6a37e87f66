package sama5_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"snag/recovery"
	"snag/sim/sama5"
	"snag/socs"
	backend "snag/socs/sama5"
)

// with is a board's firmware with something changed.
func with(t testing.TB, name string, change func(fw socs.Firmware)) socs.Firmware {
	t.Helper()
	fw := firmware(t, name)
	change(fw)
	return fw
}

func data(slot string, b []byte) func(socs.Firmware) {
	return func(fw socs.Firmware) {
		img := fw[slot]
		img.Data = b
		fw[slot] = img
	}
}

// key sets a key; nil removes it.
func key(slot, key string, v any) func(socs.Firmware) {
	return func(fw socs.Firmware) {
		if delete(fw[slot].Params, key); v != nil {
			fw[slot].Params[key] = v
		}
	}
}

func TestCheck(t *testing.T) {
	d2, d4 := sama5.Generate(model(t, "sama5d2"), size, 1), sama5.Generate(model(t, "sama5d4"), size, 1)
	const name = "sama5d2"
	none := int64(0xffffffff) // more than an int has on machines of 32 bits
	for _, tc := range []struct {
		name   string
		change func(socs.Firmware)
		bad    bool
		says   string
	}{
		{name: "as it should be", change: func(socs.Firmware) {}},
		{name: "no lowlevel", change: func(fw socs.Firmware) { delete(fw, "lowlevel") }, bad: true, says: `firmware "lowlevel": missing`},
		{name: "no extram", change: func(fw socs.Firmware) { delete(fw, "extram") }, bad: true, says: `firmware "extram": missing`},
		{name: "no u-boot", change: func(fw socs.Firmware) { delete(fw, "u-boot") }, bad: true, says: `firmware "u-boot": missing`},
		{name: "empty applet", change: data("lowlevel", []byte{}), bad: true, says: "the file is empty"},
		{name: "another chip's applet", change: data("lowlevel", d4["lowlevel"]), bad: true, says: "the applet is linked for 0x200000, as for sama5d4: expected 0x220000"},
		{name: "the other applet", change: data("lowlevel", d2["extram"]), bad: true, says: `it is the applet "External RAM", expected the one that sets the clocks`},
		{name: "the other applet", change: data("extram", d2["lowlevel"]), bad: true, says: `it is the applet "Low-Level", expected the one that sets up the DRAM`},
		{name: "U-Boot as applet", change: data("extram", d2["u-boot"]), bad: true, says: "it is a bare ARM program (U-Boot 2026.10)"},
		{name: "applet of 129 KiB", change: data("extram", append(bytes.Clone(d2["extram"]), make([]byte, 120<<10)...)), bad: true, says: "the memory for it 131072"},
		{name: "applet for DRAM", change: data("extram", append(append(bytes.Clone(d2["extram"][:0x84]), 0x8c, 0, 0, 0x20), d2["extram"][0x88:]...)), bad: true, says: "the applet runs in DRAM"},
		{name: "applet named for another", change: func(fw socs.Firmware) {
			img := fw["lowlevel"]
			img.Path = "x/applet-lowlevel_sam9x25-generic_sram.bin"
			fw["lowlevel"] = img
		}, says: "by its name the applet is for sam9x25"},

		{name: "console's I/O set", change: key("extram", "console_ioset", 3), bad: true, says: "console_instance 1 with console_ioset 3 is no console of sama5d2"},
		{name: "console", change: key("lowlevel", "console_instance", 10), bad: true, says: "console_instance 10 with console_ioset 1 is no console"},
		{name: "console as text", change: key("lowlevel", "console_instance", "one"), bad: true, says: `console_instance is "one", expected a number`},
		{name: "console -1", change: key("lowlevel", "console_instance", -1), bad: true, says: "console_instance is -1"},
		{name: "no console instance", change: key("lowlevel", "console_instance", nil), bad: true, says: "is no console"},
		{name: "no I/O set", change: key("lowlevel", "console_ioset", nil)},
		{name: "no console by number", change: key("lowlevel", "console_instance", int64(none))},

		{name: "preset's number", change: key("extram", "preset", 4)},
		{name: "preset's number as text", change: key("extram", "preset", "4")},
		{name: "preset's memory", change: key("extram", "preset", "2 x MT41K128M16")},
		{name: "preset's chip", change: key("extram", "preset", "EDF8164A3MA")},
		{name: "chip in two presets", change: key("extram", "preset", "MT41K128M16"), bad: true, says: `preset "MT41K128M16" is 2 presets`},
		{name: "chip in two presets, one of which the applet has", change: key("extram", "preset", "MT47H64M16")},
		{name: "preset that the applet lacks", change: key("extram", "preset", "DDR2_MT47H64M16:Preset 17 (2 x MT47H64M16)"), bad: true, says: "is none that this applet has"},
		{name: "no such preset", change: key("extram", "preset", "DDR5"), bad: true, says: `there is no preset "DDR5"`},
		{name: "no such number", change: key("extram", "preset", 19), bad: true, says: `there is no preset "19"`},
		{name: "no preset", change: key("extram", "preset", nil), bad: true, says: "preset is missing"},
		{name: "an applet that says nothing", change: func(fw socs.Firmware) {
			data("extram", bytes.ReplaceAll(bytes.ReplaceAll(d2["extram"], []byte("Preset"), []byte("preset")), []byte("Applet"), []byte("applet")))(fw)
			key("extram", "preset", 18)(fw)
		}},

		{name: "address", change: key("u-boot", "address", 0x26f00004), says: "is linked for 0x26f00000 and goes to 0x26f00004"},
		{name: "no address", change: key("u-boot", "address", nil), says: "u-boot.bin goes to 0x26f00000, which it is linked for"},
		{name: "odd address", change: key("u-boot", "address", 0x26f00002), bad: true, says: "no multiple of 4"},
		{name: "address in SRAM", change: key("u-boot", "address", 0x220000), bad: true, says: "outside the DRAM"},
		{name: "address at the end", change: key("u-boot", "address", 0x3ffffff0), bad: true, says: "outside the DRAM"},
		{name: "negative address", change: key("u-boot", "address", -4), bad: true, says: "expected a number of 32 bits"},
		{name: "uImage", change: data("u-boot", append([]byte("\x27\x05\x19\x56"), make([]byte, 100)...)), bad: true, says: "it is a legacy uImage"},
		{name: "text", change: data("u-boot", []byte("not found\n")), bad: true, says: "it is a text file"},
		{name: "blank", change: data("u-boot", make([]byte, 100)), bad: true, says: "100 bytes of 0x00"},
		{name: "unknown", change: data("u-boot", []byte("\x01\x02\x03\x04\x05\x06\x07\x08")), says: "does not look like a program for ARM"},
		{name: "unknown without an address", change: func(fw socs.Firmware) {
			data("u-boot", []byte("\x01\x02\x03\x04\x05\x06\x07\x08"))(fw)
			key("u-boot", "address", nil)(fw)
		}, bad: true, says: "address is missing"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sent, findings, err := backend.Backend{}.Check(socs.Model{Name: name}, with(t, name, tc.change))
			said := fmt.Sprint(err)
			if !tc.bad {
				said = fmt.Sprint(findings)
			}
			if (err != nil) != tc.bad || !strings.Contains(said, tc.says) || !tc.bad && (len(sent) != 3 || tc.says == "" && len(findings) > 0) {
				t.Errorf("%v, %v, want %q", err, findings, tc.says)
			}
			if tc.bad && (recovery.ExitCode(err) != 5 || recovery.Hint(err) == "") {
				t.Errorf("exit code %d, hint %q", recovery.ExitCode(err), recovery.Hint(err))
			}
		})
	}
}

// snagbootPresets are the names of Snagboot 3.0's files (firmware/samba_applet.py), by number.
var snagbootPresets = []string{
	"DDR2_MT47H128M8:Preset 0 (4 x MT47H128M8)", "DDR2_MT47H64M16:Preset 1 (1 x MT47H64M16)", "DDR2_MT47H128M16:Preset 2 (2 x MT47H128M16)",
	"LPDDR2_MT42L128M16:Preset 3 (2 x MT42L128M16)", "DDR3_MT41K128M16:Preset 4 (2 x MT41K128M16)", "LPDDR3_EDF8164A3MA:Preset 5 (EDF8164A3MA)",
	"SDRAM_IS42S16100E:Preset 6 (IS42S16100E)", "SDRAM_W981216BH:Preset 7 (W981216BH)", "DDR2_W971GG6SB:Preset 8 (W971GG6SB)",
	"DDR2_W972GG6KB:Preset 9 (W972GG6KB)", "SDRAM_AS4C16M16SA:Preset 10 (AS4C16M16SA)", "DDR3_MT41K128M16:Preset 11 (1 x MT41K128M16)",
	"DDR2_W972GG6KB:Preset 12 (W972GG6KB_16)", "LPDDR2_AD220032D:Preset 13 (AD220032D)", "LPDDR2_AD210032D:Preset 14 (AD210032D)",
	"DDR2_W9712G6KB:Preset 15 (W9712G6KB)", "DDR2_W9751G6KB:Preset 16 (W9751G6KB)", "DDR2_MT47H64M16:Preset 17 (2 x MT47H64M16)",
	"DDR2_MT47H128M16:Preset 18 (1 x MT47H128M16)",
}

func TestPresets(t *testing.T) {
	for n, name := range snagbootPresets {
		if got := backend.FindPreset(name); len(got) != 1 || got[0] != n {
			t.Errorf("%s is %v, want %d", name, got, n)
		}
	}
	if backend.Presets != len(snagbootPresets) {
		t.Errorf("%d presets, Snagboot has %d", backend.Presets, len(snagbootPresets))
	}
}

func FuzzCheck(f *testing.F) {
	fw := firmware(f, "sama5d2")
	f.Add(fw["lowlevel"].Data[:0x200], fw["extram"].Data, fw["u-boot"].Data[:200], "DDR3_MT41K128M16:Preset 4 (2 x MT41K128M16)", 1, 0x26f00000)
	f.Add([]byte{}, fw["extram"].Data[:0x8c], []byte("x"), "MT47H64M16", -1, 1)
	f.Fuzz(func(t *testing.T, lowlevel, extram, uboot []byte, preset string, console, address int) {
		sent, _, err := backend.Backend{}.Check(socs.Model{Name: "sama5d2"}, socs.Firmware{
			"lowlevel": {Data: lowlevel, Params: map[string]any{"console_instance": console}},
			"extram":   {Data: extram, Params: map[string]any{"preset": preset, "console_instance": console, "console_ioset": console}},
			"u-boot":   {Data: uboot, Params: map[string]any{"address": address}},
		})
		if (err == nil) != (len(sent) == 3) {
			t.Error(sent, err)
		}
	})
}

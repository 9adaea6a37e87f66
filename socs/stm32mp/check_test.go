package stm32mp_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"snag/firmware/firmwaretest"
	"snag/sim/dfu"
	"snag/sim/imx"
	"snag/socs"
	"snag/socs/socstest"
	"snag/socs/stm32mp"
)

func TestCheck(t *testing.T) {
	first := func(model string, change func(*firmwaretest.STM32)) []byte {
		s := stm32(model, 5000)
		if change != nil {
			change(&s)
		}
		return s.Bytes()
	}
	cat := func(parts ...[]byte) (b []byte) {
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	const mp13, mp15, mp25 = "stm32mp13", "stm32mp15", "stm32mp25"
	mp := func(model string, files ...any) map[string][]byte { // all in order but what is given
		f := map[string][]byte{"tf-a": first(model, nil), "fip": fip(5000)}
		if model == mp25 {
			f["fip-ddr"] = ddrFIP(5000)
		}
		for i := 0; i < len(files); i += 2 {
			f[files[i].(string)] = files[i+1].([]byte)
			if files[i+1].([]byte) == nil {
				delete(f, files[i].(string))
			}
		}
		return f
	}
	var none []byte
	spl := first(mp15, func(s *firmwaretest.STM32) {
		s.Payload = []byte("\x00\x00U-Boot SPL 2025.01\x00dfu_alt_info_ram=u-boot.itb ram\x00")
	})
	broken := first(mp15, nil)
	broken[len(broken)-1]++
	ssbl := first(mp15, func(s *firmwaretest.STM32) { s.Entry, s.Type = 0xc0100000, 0 })
	noHW := firmwaretest.FIP(firmwaretest.FIPImage{UUID: firmwaretest.UUIDBL33, Data: firmwaretest.Pattern(100)})
	for _, tc := range []struct {
		name  string
		model string
		files map[string][]byte
		slot  string // with the error; none expected if empty
		says  string // the error with its hint, or else a finding
		sent  int    // bytes of that slot or, if there is none, of the first stage
	}{
		{name: "as it should be", model: mp15, files: mp(mp15), sent: 5256},
		{name: "as it should be", model: mp13, files: mp(mp13), sent: 5512},
		{name: "as it should be", model: mp25, files: mp(mp25), sent: 5512},
		{name: "another minor version", model: mp13, files: mp(mp13, "tf-a", first(mp13, func(s *firmwaretest.STM32) { s.Version[1] = 1 })), sent: 5512},
		{name: "nothing", model: mp15, files: nil, slot: "tf-a", says: "missing: stm32mp15 needs it; give tf-a and fip"},
		{name: "no FIP", model: mp15, files: mp(mp15, "fip", none), slot: "fip", says: "missing"},
		{name: "no DDR firmware", model: mp25, files: mp(mp25, "fip-ddr", none), slot: "fip-ddr", says: "missing: stm32mp25 needs it; give tf-a, fip-ddr and fip"},
		{name: "empty", model: mp15, files: mp(mp15, "tf-a", []byte{}), slot: "tf-a", says: "empty"},
		{name: "DDR firmware for MP1", model: mp15, files: mp(mp15, "fip-ddr", ddrFIP(100)), slot: "fip-ddr", says: "stm32mp15 takes no such file"},
		{name: "u-boot for MP2", model: mp25, files: mp(mp25, "u-boot", fip(1)), slot: "u-boot", says: "takes no such file"},
		{name: "u-boot beside a FIP", model: mp15, files: mp(mp15, "u-boot", fip(1)), slot: "u-boot", says: "does not go together with tf-a and fip"},
		{name: "swapped", model: mp15, files: mp(mp15, "tf-a", fip(9), "fip", first(mp15, nil)), slot: "tf-a", says: "a firmware image package (FIP) with fw-config, soc-fw, nt-fw; give a file with an STM32 header: tf-a-*-usb.stm32, or u-boot-spl.stm32; this file may belong under fip"},
		{name: "first stage as FIP", model: mp15, files: mp(mp15, "fip", first(mp15, nil)), slot: "fip", says: "it is a first stage: it starts at 0x2ffc2500; give fip-*.bin with U-Boot; this file belongs under tf-a"},
		{name: "first stage as FIP", model: mp25, files: mp(mp25, "fip", first(mp25, nil)), slot: "fip", says: "it has an STM32 header, version 2.2"},
		{name: "FIPs swapped", model: mp25, files: mp(mp25, "fip", ddrFIP(9), "fip-ddr", none), slot: "fip", says: "it has no U-Boot (nt-fw), but ddr-fw; give fip-*.bin with U-Boot; this one belongs under fip-ddr"},
		{name: "FIPs swapped", model: mp25, files: mp(mp25, "fip-ddr", fip(9)), slot: "fip-ddr", says: "it has no DDR_FW, but fw-config, soc-fw, nt-fw"},
		{name: "for MP13", model: mp15, files: mp(mp15, "tf-a", first(mp13, nil)), slot: "tf-a", says: "version 2.0, expected 1.0; give tf-a-*.stm32 of a build for stm32mp15; this one is for stm32mp13"},
		{name: "for MP2", model: mp13, files: mp(mp13, "tf-a", first(mp25, nil)), slot: "tf-a", says: "version 2.2, expected 2.0 or 2.1; give tf-a-*.stm32 of a build for stm32mp13; this one is for stm32mp21 or stm32mp23 or stm32mp25"},
		{name: "for MP15", model: mp25, files: mp(mp25, "tf-a", first(mp15, nil)), slot: "tf-a", says: "version 1.0, expected 2.2 or 2.3"},
		{name: "U-Boot as first stage", model: mp15, files: mp(mp15, "tf-a", ssbl), slot: "tf-a", says: "it starts at 0xc0100000, which is DRAM"},
		{name: "U-Boot with a header", model: mp15, files: mp(mp15, "fip", ssbl), says: "before FIPs"},
		{name: "broken", model: mp15, files: mp(mp15, "tf-a", broken), slot: "tf-a", says: "checksum"},
		{name: "cut", model: mp15, files: mp(mp15, "tf-a", first(mp15, nil)[:3000]), slot: "tf-a", says: "truncated"},
		{name: "more behind it", model: mp15, files: mp(mp15, "tf-a", cat(first(mp15, nil), make([]byte, 700))), says: "700 bytes behind the image are not sent", sent: 5256},
		{name: "too large", model: mp15, files: mp(mp15, "tf-a", first(mp15, func(s *firmwaretest.STM32) { s.Payload = make([]byte, 2<<20) })), slot: "tf-a", says: "the ROM takes 1048576 at most"},
		{name: "FIP, cut", model: mp15, files: mp(mp15, "fip", fip(5000)[:6000]), slot: "fip", says: "truncated"},
		{name: "FIP without device trees", model: mp15, files: mp(mp15, "fip", noHW), says: "no fw-config"},
		{name: "DDR FIP too large", model: mp25, files: mp(mp25, "fip-ddr", ddrFIP(50_000)), slot: "fip-ddr", says: "TF-A takes 40960 at most"},
		{name: "text", model: mp15, files: mp(mp15, "fip", []byte("<!doctype html> not found")), slot: "fip", says: "a web page"},
		{name: "SPL with a FIP", model: mp15, files: mp(mp15, "tf-a", spl), slot: "fip", says: "the first stage is U-Boot's SPL, which starts no FIP; give u-boot.itb"},
		{name: "SPL with a FIT of another SoC", model: mp15, files: mp(mp15, "tf-a", spl, "fip", none, "u-boot", imx.GenerateFIT(1, 5000)), slot: "u-boot", says: "a FIT that loads to 0x80200000, where stm32mp15 has no DRAM"},
		{name: "SPL with what is no U-Boot", model: mp15, files: mp(mp15, "tf-a", spl, "fip", none, "u-boot", fip(9)), slot: "u-boot", says: "may belong under fip"},
	} {
		t.Run(tc.name+" "+tc.model, func(t *testing.T) {
			sent, findings, err := stm32mp.Backend{}.Check(socs.Model{Name: tc.model}, socstest.Firmware(tc.files))
			if tc.slot == "" {
				if err != nil {
					t.Fatal(err)
				}
				var texts []string
				for _, f := range findings {
					texts = append(texts, f.Text)
				}
				if all := strings.Join(texts, "\n"); tc.says == "" && all != "" || !strings.Contains(all, tc.says) {
					t.Errorf("findings %q, want %q", all, tc.says)
				}
				if n := len(sent["tf-a"].Data); tc.sent != 0 && n != tc.sent {
					t.Errorf("%d bytes are to be sent, want %d", n, tc.sent)
				}
				again, findings, err := stm32mp.Backend{}.Check(socs.Model{Name: tc.model}, sent)
				if err != nil || len(again) != len(sent) {
					t.Errorf("what it returned is refused: %v, %v", findings, err)
				}
				return
			}
			for _, e := range all(err) {
				if f, ok := errors.AsType[*socs.FirmwareError](e); ok && f.Slot == tc.slot {
					if f.Hint == "" || !strings.Contains(f.Err.Error()+"; "+f.Hint, tc.says) {
						t.Errorf("%v; %s, want %q", f, f.Hint, tc.says)
					}
					if sent[tc.slot].Data != nil && !strings.Contains(tc.says, "together") && !strings.Contains(tc.says, "starts no FIP") {
						t.Error("it is to be sent nevertheless")
					}
					return
				}
			}
			t.Errorf("%v, want an error with %s", err, tc.slot)
		})
	}
}

// all are the errors that one joins.
func all(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		return j.Unwrap()
	}
	return []error{err}
}

func FuzzCheck(f *testing.F) {
	for _, model := range models {
		for _, data := range files(model) {
			f.Add(data[:min(len(data), 2000)], data[:min(len(data), 2000)], data[:min(len(data), 2000)])
		}
	}
	f.Add(stm32("stm32mp15", 50).Bytes(), fip(50), ddrFIP(50))
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		for _, model := range models {
			fw := socstest.Firmware(map[string][]byte{"tf-a": a, "fip": b, "fip-ddr": c})
			sent, _, err := stm32mp.Backend{}.Check(socs.Model{Name: model}, fw)
			if err == nil {
				if _, _, err := (stm32mp.Backend{}).Check(socs.Model{Name: model}, sent); err != nil {
					t.Errorf("what it returned is refused: %v", err)
				}
			}
		}
	})
}

// What virtual boards are given passes, and they come up with it.
func TestGenerated(t *testing.T) {
	for _, model := range models {
		m, err := dfu.FindModel(model)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Test(t, func(t *testing.T) {
			trial{model: model, firmware: socstest.Firmware(dfu.Generate(m, 50_000, 1))}.run(t).Good(t)
		})
	}
}

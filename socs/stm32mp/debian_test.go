package stm32mp_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"snag/internal/lab"
	"snag/sim/dfu"
	"snag/socs"
	"snag/socs/socstest"
	"snag/socs/stm32mp"
)

// debian returns Debian's images for the STM32MP157C-DK2.
func debian(t *testing.T) (spl, uboot []byte) {
	dir := filepath.Join(lab.Packages(t, "u-boot-stm32:armhf")[0], "usr/lib/u-boot/stm32mp157c-dk2")
	for name, data := range map[string]*[]byte{"u-boot-spl.stm32": &spl, "u-boot.img": &uboot} {
		var err error
		if *data, err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return spl, uboot
}

// What Debian has is recovered as it is. Its SPL has no DFU, which the user is told before; the virtual one has.
func TestDebian(t *testing.T) {
	spl, uboot := debian(t)
	fw := socstest.Firmware(map[string][]byte{"tf-a": spl, "u-boot": uboot})
	model := socs.Model{Name: "stm32mp15"}
	sent, findings, err := stm32mp.Backend{}.Check(model, fw)
	if err != nil || !bytes.Equal(sent["tf-a"].Data, spl) || !bytes.Equal(sent["u-boot"].Data, uboot) {
		t.Errorf("check: %v", err)
	}
	if !slices.ContainsFunc(findings, func(f socs.Finding) bool { return f.Warning && strings.Contains(f.Text, "CONFIG_SPL_DFU") }) {
		t.Errorf("no warning of an SPL without DFU: %v", findings)
	}
	synctest.Test(t, func(t *testing.T) {
		o := trial{model: "stm32mp15", firmware: fw, cfg: dfu.Config{STM32SPL: true, AnyFile: true}}.run(t)
		o.Good(t)
		if want := []string{fmt.Sprint("rom @FSBL ", len(spl)), fmt.Sprint("spl u-boot.itb ", len(uboot))}; !slices.Equal(o.sent(), want) {
			t.Errorf("sent %q, want %q", o.sent(), want)
		}
	})
	synctest.Test(t, func(t *testing.T) { // the silicon's way with this SPL
		o := trial{model: "stm32mp15", firmware: fw, cfg: dfu.Config{STM32SPL: true, AnyFile: true, Never: dfu.StageSPL}}.run(t)
		o.Bad(t, 6, "the next stage did not appear")
	})
	for _, tc := range []struct {
		model, says string
		files       map[string][]byte
	}{
		{"stm32mp15", "which starts no FIP", map[string][]byte{"tf-a": spl, "fip": fip(1000)}},
		{"stm32mp13", "version 1.0, expected 2.0 or 2.1", map[string][]byte{"tf-a": spl, "u-boot": uboot}},
		{"stm32mp25", "version 1.0, expected 2.2 or 2.3", map[string][]byte{"tf-a": spl, "fip": fip(1000), "fip-ddr": ddrFIP(1000)}},
		{"stm32mp15", "checksum", map[string][]byte{"tf-a": append(bytes.Clone(spl[:len(spl)-1]), spl[len(spl)-1]+1), "u-boot": uboot}},
		{"stm32mp15", "truncated", map[string][]byte{"tf-a": spl[:100_000], "u-boot": uboot}},
		{"stm32mp15", "a legacy uImage", map[string][]byte{"tf-a": uboot, "u-boot": spl}},
	} {
		_, _, err := stm32mp.Backend{}.Check(socs.Model{Name: tc.model}, socstest.Firmware(tc.files))
		if err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want %q", tc.model, err, tc.says)
		}
	}
}

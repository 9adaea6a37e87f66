package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/amlogic"
	"snag/socs"
	"snag/usb"
)

// amlogicConfig writes firmware for a family into files, with the YAML that names them.
func amlogicConfig(t *testing.T, f amlogic.Family, size int) string {
	t.Helper()
	dir := t.TempDir()
	var yaml strings.Builder
	for slot, data := range amlogic.Generate(f, size, 1) {
		name := filepath.Join(dir, slot+".bin")
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&yaml, "%s:\n  path: %s\n", slot, name)
	}
	config := filepath.Join(dir, "board.yaml")
	if err := os.WriteFile(config, []byte(yaml.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return config
}

// snag recovers a board of every Amlogic model, several at once: the BL2s take their time by themselves. The firmware is small, since
// BL2 goes to most of them by 64 bytes.
func TestWithROMAmlogic(t *testing.T) {
	lab.Inside(t)
	configs := map[amlogic.Family]string{}
	for _, f := range []amlogic.Family{amlogic.GX, amlogic.AXG, amlogic.G12} {
		configs[f] = amlogicConfig(t, f, 6000)
	}
	gadget := usb.ID{Vendor: 0x1b8e, Product: 0xfada} // what mainline U-Boot's fastboot shows on these SoCs
	var names []string
	for _, m := range socs.Models() {
		if m.Family == "amlogic" {
			names = append(names, m.Name)
		}
	}
	for some := range slices.Chunk(names, 4) { // more would keep one processor from answering in time
		t.Run(strings.Join(some, " "), func(t *testing.T) {
			for _, name := range some {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					model, err := amlogic.FindModel(name)
					if err != nil {
						t.Fatal(err)
					}
					board, err := amlogic.New(amlogic.Config{Model: model, Gadget: gadget})
					if err != nil {
						t.Fatal(err)
					}
					port, _ := plugAlone(t, board.Run)
					p := start(t, nil, "recover", "-s", name, "-f", configs[model.Family], "--usb-path", string(port), "--expect", gadget.String(), "--json")
					if code := p.exit(t, 2*time.Minute); code != 0 {
						t.Errorf("exit code %d\n%s", code, p)
					}
					if err := board.Report().Err(); err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
}

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
	"snag/recovery"
	"snag/sim/amlogic"
	"snag/socs"
	soc "snag/socs/amlogic"
	"snag/socs/socstest"
	"snag/usb"
	"snag/usb/usbfs"
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

// snag recovers a board of every Amlogic model, several at once: the BL2s take their time by themselves. The firmware
// is small, since BL2 goes to most of them by 64 bytes. The program does one of each kind; the others, which it would
// spend most of the time on being started for, the engine does in this process, over the same USB.
func TestWithROMAmlogic(t *testing.T) {
	lab.Inside(t)
	configs := map[amlogic.Family]string{}
	for _, f := range []amlogic.Family{amlogic.GX, amlogic.AXG, amlogic.G12} {
		configs[f] = amlogicConfig(t, f, 6000)
	}
	gadget := usb.ID{Vendor: 0x1b8e, Product: 0xfada} // what mainline U-Boot's fastboot shows on these SoCs
	program := []string{"s905", "s905x", "a113d", "a311d"}
	var models []socs.Model
	for _, m := range socs.Models() {
		if m.Family == "amlogic" && (every() || slices.Contains(program, m.Name)) {
			models = append(models, m)
		}
	}
	for n, some := range slices.Collect(slices.Chunk(models, 7)) { // a virtual host controller has eight ports
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			for _, m := range some {
				t.Run(m.Name, func(t *testing.T) {
					t.Parallel()
					model, err := amlogic.FindModel(m.Name)
					if err != nil {
						t.Fatal(err)
					}
					board, err := amlogic.New(amlogic.Config{Model: model, Gadget: gadget})
					if err != nil {
						t.Fatal(err)
					}
					port, _ := plugAlone(t, board.Run)
					if slices.Contains(program, m.Name) {
						p := start(t, nil, "recover", "-s", m.Name, "-f", configs[model.Family], "--usb-path", string(port), "--expect", gadget.String(), "--json")
						if code := p.exit(t, 2*time.Minute); code != 0 {
							t.Errorf("exit code %d\n%s", code, p)
						}
					} else if err := recovery.Run(t.Context(), recovery.Options{Backend: soc.Backend{}, USB: usbfs.Host{}, Model: m, Port: port, Expect: gadget,
						Firmware: socstest.Firmware(amlogic.Generate(model.Family, 6000, 1))}); err != nil {
						t.Error(err)
					}
					if err := board.Report().Err(); err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
}

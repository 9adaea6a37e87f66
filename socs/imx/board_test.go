package imx_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"snag/recovery"
	"snag/sim/imx"
	"snag/sim/inproc"
	"snag/socs"
	soc "snag/socs/imx"
	"snag/socs/socstest"
	"snag/usb"
)

// sized is about how much firmware the boards are given.
const sized = 300_000

// trial is one recovery of one virtual board.
type trial struct {
	model    string
	cfg      imx.Config // Model apart
	firmware socs.Firmware
	port     usb.Port
	host     *inproc.Host
}

type outcome = socstest.Outcome[imx.Report]

// files generates the firmware of a board in the slots that its model takes.
func files(t testing.TB, cfg imx.Config, slots ...string) socs.Firmware {
	t.Helper()
	images, err := imx.Generate(cfg, sized, 1)
	if err != nil {
		t.Fatal(err)
	}
	fw := socs.Firmware{slots[0]: {Path: slots[0] + ".bin", Data: images.First}}
	if images.Second != nil {
		fw[slots[1]] = socs.Image{Path: slots[1] + ".bin", Data: images.Second}
	}
	return fw
}

// slotsOf are the slots for what imx.Generate makes for a model.
func slotsOf(m imx.Model, spl imx.SPLKind) []string {
	switch {
	case m.Protocol == imx.SDPS:
		return []string{"flash-bin"}
	case strings.HasPrefix(m.Name, "imx8"):
		return []string{"flash-bin"}
	case spl != imx.SPLNone:
		return []string{"SPL", "u-boot"}
	}
	return []string{"u-boot-with-dcd"}
}

// complete fills in what the trial leaves out, and returns the recovery's options.
func (tr *trial) complete(t *testing.T) recovery.Options {
	t.Helper()
	var err error
	if tr.cfg.Model, err = imx.FindModel(tr.model); err != nil {
		t.Fatal(err)
	}
	m := tr.cfg.Model
	if tr.cfg.Machine == nil && m.Protocol == imx.Bulk {
		tr.cfg.Machine = &imx.Memory{Reads: ready()}
	}
	if tr.firmware == nil && tr.model == "imx53" { // with all that a DCD can have
		tr.firmware = socstest.Firmware(map[string][]byte{"u-boot-with-dcd": imx.IVTImage{Self: 0x777ff400, Before: 0x400, DCD: imx.GenerateDCD(20, false), Size: sized, Seed: 1}.Generate()})
	}
	if tr.firmware == nil {
		kind := tr.cfg.SPL
		if kind == "" {
			kind = m.SPL
		}
		tr.firmware = files(t, tr.cfg, slotsOf(m, kind)...)
	}
	if tr.port == "" {
		tr.port = "201-1"
	}
	if tr.host == nil {
		tr.host = inproc.New()
	}
	return recovery.Options{Backend: soc.Backend{}, Model: socstest.Model(t, tr.model), Firmware: tr.firmware, Port: tr.port}
}

// run plugs in a board, which is to be done in a bubble of its own time, and recovers it.
func (tr trial) run(t *testing.T) *outcome {
	t.Helper()
	opt := tr.complete(t)
	board, err := imx.New(tr.cfg)
	if err != nil {
		t.Fatal(err)
	}
	return socstest.Run(t, tr.host, board, opt)
}

// ready is hardware that sets the bit which the generated DCDs wait for, each fifth time it is read.
func ready() func(uint32, []byte) {
	reads := 0
	return func(addr uint32, b []byte) {
		if addr != 0x020c8000 {
			return
		}
		if reads++; reads%5 == 0 {
			b[0] |= 2
		}
	}
}

// Every model comes up.
func TestModels(t *testing.T) {
	for _, m := range imx.Models() {
		kinds := []imx.SPLKind{m.SPL}
		if m.Protocol == imx.SDP && m.SPL == imx.SPLNone {
			if soc.HasSPL(m.Name) {
				kinds = append(kinds, imx.SDPU, imx.SDPV)
			}
		} else if m.SPL == imx.SDPV {
			kinds = append(kinds, imx.SDPU)
		}
		for _, spl := range kinds {
			t.Run(fmt.Sprintf("%s %s", m.Name, spl), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := trial{model: m.Name, cfg: imx.Config{SPL: spl}}.run(t)
					o.Good(t)
					if strings.Contains(o.Texts(), "warning") {
						t.Error(o.Texts())
					}
					rom := o.Report.Last(imx.StageROM)
					if m.Protocol == imx.SDPS && o.Report.Last(imx.StageSPL) != nil && rom.Bytes > sized*2/3 {
						t.Errorf("the ROM was sent %d bytes: more than its part", rom.Bytes)
					}
				})
			})
		}
	}
}

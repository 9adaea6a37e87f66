package qcom_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/recovery"
	"snag/sim/inproc"
	"snag/sim/qcom"
	"snag/sim/usbdev"
	"snag/socs"
	backend "snag/socs/qcom"
	"snag/socs/socstest"
	"snag/usb"
)

const port = "213-1"

// files are the firmware for a board.
func files(cfg qcom.Config, images qcom.Images) socs.Firmware {
	fw := socstest.Firmware(map[string][]byte{"xbl": images.XBL, "u-boot": images.UBoot})
	if cfg.Single {
		delete(fw, "u-boot")
	}
	return fw
}

// attempt plugs a board in and recovers it, in a bubble of its own time. change may be nil.
func attempt(t *testing.T, host *inproc.Host, port usb.Port, cfg qcom.Config, fw socs.Firmware, change func(*recovery.Options)) *socstest.Outcome[qcom.Report] {
	t.Helper()
	board, err := qcom.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	opt := recovery.Options{Backend: backend.Backend{}, Model: socstest.Model(t, "iq9075"), Port: port, Firmware: fw}
	if change != nil {
		change(&opt)
	}
	return socstest.Run(t, host, board, opt)
}

// A board comes up, whatever it looks like and the size of its images is.
func TestRecover(t *testing.T) {
	for name, cfg := range map[string]qcom.Config{
		"usual":          {},
		"full speed":     {Speed: usbdev.FullSpeed},
		"super speed":    {Speed: usbdev.SuperSpeed},
		"64 bits":        {Wide: true, Version: 3},
		"small pieces":   {Piece: 512},
		"odd pieces":     {Piece: 1000},
		"signed":         {Signed: true},
		"old protocol":   {Protocol: 0xff, Version: 1},
		"re-enumerates":  {Reenumerate: true},
		"command mode":   {Mode: qcom.Command},
		"HELLO is eaten": {Eaten: true},
		"programmer":     {Single: true},
		"pending":        {Single: true, Pending: true},
		"future":         {Version: 9},
	} {
		for _, size := range []int{1, 512, 300_000, 2 << 20} {
			if name != "usual" && size > 300_000 { // it adds nothing but time
				continue
			}
			t.Run(fmt.Sprintf("%s, %d", name, size), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := attempt(t, inproc.New(), port, cfg, files(cfg, qcom.Generate(size, 1)), nil)
					o.Good(t)
					for _, s := range o.Report.Stages {
						if s.Name == qcom.StageProgrammer {
							continue
						}
						if i := s.Images; len(i) != 1 || !i[0].Complete || i[0].Status != 0 || i[0].Bytes < size {
							t.Errorf("%s: %+v", s.Name, i)
						}
					}
					if want := cfg.Eaten; strings.Contains(o.Texts(), "warning") != want {
						t.Errorf("it said %q", o.Texts())
					}
					if o.Took > 4*time.Second {
						t.Errorf("it took %s", o.Took)
					}
				})
			})
		}
	}
}

package bcm_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/recovery"
	"snag/sim/bcm"
	"snag/sim/inproc"
	"snag/sim/virtual"
	backend "snag/socs/bcm"
	"snag/socs/socstest"
	"snag/usb"
)

const onPort usb.Port = "241-1"

type outcome = *socstest.Outcome[*report]

// report is a board's, with what a test asks of it.
type report struct{ bcm.Report }

// board is a virtual board.
type board struct{ *bcm.Board }

func (b board) Report() *report { return &report{b.Board.Report()} }

// model finds a virtual SoC.
func model(t testing.TB, name string) bcm.Model {
	t.Helper()
	m, err := bcm.FindModel(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// attempt plugs a board in and recovers it.
func attempt(t *testing.T, cfg bcm.Config, files map[string][]byte, edit func(*recovery.Options)) outcome {
	t.Helper()
	return on(t, inproc.New(), onPort, cfg, files, edit)
}

func on(t *testing.T, host *inproc.Host, port usb.Port, cfg bcm.Config, files map[string][]byte, edit func(*recovery.Options)) outcome {
	t.Helper()
	b, err := bcm.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	opt := recovery.Options{Backend: backend.Backend{}, Model: socstest.Model(t, cfg.Model.Name), Firmware: socstest.Firmware(files), Port: port}
	if edit != nil {
		edit(&opt)
	}
	return socstest.Run(t, host, board{b}, opt)
}

// started is the kernel that was started, and how often each file was taken.
func started(r *report) (kernel string, taken []string) {
	s := r.Last(bcm.StageBootcode)
	if s == nil {
		return "", nil
	}
	for _, f := range s.Files {
		if !f.Missing {
			taken = append(taken, f.Name)
		}
	}
	if s.Kernel != nil {
		kernel = fmt.Sprintf("%s %d", s.Kernel.Name, s.Kernel.Bytes)
	}
	return kernel, taken
}

// Every model comes up, with U-Boot and without.
func TestRecover(t *testing.T) {
	for _, m := range bcm.Models() {
		for _, uboot := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s u-boot %t", m.Name, uboot), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					files := bcm.Generate(m, 100_000, 1)
					if !uboot {
						delete(files, "u-boot")
					}
					o := attempt(t, bcm.Config{Model: m, Metadata: true}, files, nil)
					o.Good(t)
					kernel, taken := started(o.Report)
					if want := map[bool]string{true: "u-boot", false: "kernel"}[uboot]; !strings.HasPrefix(kernel, want) {
						t.Errorf("%s was started", kernel)
					}
					if slices.Contains(taken, "boot.img") != (files["boot"] != nil) || len(taken) < 4 {
						t.Errorf("it took %q", taken)
					}
					if o.Took > 3*time.Second {
						t.Errorf("it took %s", o.Took)
					}
					if o.Report.Outcome != virtual.Booted {
						t.Error(o.Report.Outcome)
					}
					t.Log(o.Took, "\n", o.Texts())
				})
			})
		}
	}
}

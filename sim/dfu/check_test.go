package dfu

import (
	"bytes"
	"testing"
)

var checks = map[string]func([]byte) error{
	"STM32": checkSTM32, "FIP": checkFIP, "X.509": checkX509, "FIT": checkFIT, "SPKG": checkSPKG, "ZynqMP": checkZynqMP, "ZynqMP, full": checkZynqMPFull,
}

// TestChecks has what is generated pass, and what is cut fail.
func TestChecks(t *testing.T) {
	noise := bytes.Repeat([]byte("noise"), 1000)
	for name, b := range map[string][]byte{
		"STM32": stm32(noise, false), "FIP": fip(noise), "X.509": x509(0x43c00000, noise), "FIT": fit(nil, noise, "spl"), "SPKG": spkg(noise),
		"ZynqMP": zynqmp(noise, nil), "ZynqMP, full": zynqmp(noise, noise),
	} {
		if err := checks[name](b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for other, check := range checks {
			if other != name && name != "ZynqMP, full" && check(b) == nil {
				t.Errorf("%s passes for %s", name, other)
			}
		}
		if checks[name](b[:12]) == nil {
			t.Errorf("%s passes with 12 bytes", name)
		}
	}
	if err := checkSTM32(stm32(noise, true)); err != nil {
		t.Error(err)
	}
}

func FuzzChecks(f *testing.F) {
	noise := []byte("noise")
	for _, b := range [][]byte{stm32(noise, false), stm32(noise, true), fip(noise), x509(0x43c00000, noise), fit(nil, noise, "spl"), spkg(noise), zynqmp(noise, noise)[:0x1100]} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, check := range checks {
			check(b)
		}
	})
}

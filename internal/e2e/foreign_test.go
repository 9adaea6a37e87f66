package e2e

import (
	"testing"
	"time"

	"snag/internal/lab"
)

// TestForeignServer is the proof that does not rest on snag: the virtual board as a device of a real
// kernel boots both stages from dnsmasq. There is no udevd that could rename an interface between two commands
// of the test.
func TestForeignServer(t *testing.T) {
	t.Parallel()
	lab.GoTest(t, "snag/sim/vhci", "^TestBoot$", lab.Job{
		Script:   "modprobe -a vhci-hcd rndis_host cdc_ether",
		Packages: []string{"dnsmasq-base", "iproute2"},
		Timeout:  4 * time.Minute,
	})
}

package e2e

import (
	"os"
	"testing"
	"time"

	"snag/internal/lab"
)

// TestROMs is the proof that the virtual boards of the ROMs with protocols of their own are right which does not rest
// on snag: the vendors' and the communities' programs, as Debian builds them, recover them as devices of a real kernel.
// snag recovers the same ones. One VM for all: a file for each family has the TestWithROM tests.
func TestROMs(t *testing.T) {
	t.Parallel()
	files := programs(t)
	if newer := os.Getenv("SNAG_SUNXI_FEL"); newer != "" {
		files[newerFEL] = newer
	}
	inVM(t, "^TestWithROM"+os.Getenv("SNAG_ROM"), lab.Job{
		Script:   "modprobe -a vhci-hcd cdc-acm",
		Packages: []string{"sunxi-tools", "rkdeveloptool", "qdl", "iproute2", "nftables"}, // the latter two for snag setup
		Files:    files,
		Udev:     true, // libusb lists no device that udevd has not seen
		Timeout:  8 * time.Minute,
	})
}

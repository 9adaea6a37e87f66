package sunxi_test

import (
	"testing"
	"time"

	sim "snag/sim/sunxi"
	"snag/sim/virtual"
	"snag/socs/socstest"
)

// A board that is wrong ends the recovery in time, and the error says what was expected, what came, and what to do; or
// the recovery gets over it.
func TestFaults(t *testing.T) {
	socstest.Play(t, sim.ParseFault, []socstest.Case[sim.Config]{
		{Faults: "mute:rom:version", Says: "out of step", Most: 3 * time.Second},
		{Faults: "magic:rom:version", Says: `expected "AWUS" and 9 bytes, got 13 bytes: 41 57 55 58`, Most: time.Second},
		{Faults: "cut:rom:version", Says: `expected "AWUS" and 9 bytes, got 7 bytes`, Most: time.Second},
		{Faults: "awus:rom:version", Says: "refuses it with status 0x01", Most: time.Second},
		{Faults: "state:rom:version:9", Says: "refuses it with status 0x09", Most: time.Second},
		{Faults: "stall:rom:version", Says: "endpoint stalled", Most: time.Second},
		{Faults: "nak:rom:version", Says: "", Most: 4 * time.Second},
		{Faults: "unplug:rom:version", Code: 6, Says: "did not come back within 15s", Most: 16 * time.Second},
		{Faults: "reset:rom:version", Says: "starting over", Most: time.Second},

		{Faults: "hang:rom:write", Code: 6, Says: "write of 44 bytes to 0x00001000: after 0 bytes", Most: 6 * time.Second},
		{Faults: "mute:rom:write", Code: 6, Says: "write of 44 bytes to 0x00001000: no answer", Most: 6 * time.Second},
		{Faults: "magic:rom:write", Code: 6, Says: `expected "AWUS" and 9 bytes, got 13 bytes: 41 57 55 58`, Most: time.Second},
		{Faults: "state:rom:write:7", Code: 6, Says: "write of 44 bytes to 0x00001000: the boot ROM refuses it with status 0x07", Most: time.Second},
		{Faults: "awus:rom:read", Code: 6, Says: "read of 4 bytes from 0x00040004: the boot ROM refuses it with status 0x01", Most: time.Second},
		{Faults: "cut:rom:read", Code: 6, Says: "read of 4 bytes from 0x00040004: expected", Most: time.Second},
		{Faults: "stall:rom:read", Code: 6, Says: "read of 4 bytes from 0x00040004: no answer: USB out on endpoint 0x01 of 1f3a:efe8 on port 216-1: endpoint stalled", Most: time.Second},
		{Faults: "hang:rom:execute", Code: 6, Says: "call of 0x00001000: no answer", Most: 6 * time.Second},
		{Faults: "mute:rom:execute", Code: 6, Says: "call of 0x00001000: no answer", Most: 6 * time.Second},
		{Faults: "state:rom:execute", Code: 6, Says: "call of 0x00001000: the boot ROM refuses it", Most: time.Second},
		{Faults: "stall:rom:execute", Code: 6, Says: "endpoint stalled", Most: time.Second},
		{Faults: "unplug:rom:execute", Code: 6, Says: "did not come back within 15s", Most: 16 * time.Second},
		{Faults: "reset:rom:execute", Says: "starting over", Most: time.Second},
		{Faults: "nak:rom:execute:2s", Says: "", Most: 4 * time.Second},

		{Faults: "flip:rom:4096", Code: 6, Says: "SPL's checksum is wrong on the board", Most: time.Second},
		{Faults: "hang:rom:10000", Code: 6, Says: "write of 15360 bytes to 0x00002000: after 1764 bytes", Most: 6 * time.Second},
		{Faults: "mute:rom:300000", Code: 6, Says: "U-Boot: write of 600000 bytes to 0x4a000000: no answer", Most: 6 * time.Second},
		{Faults: "hang:rom:300000", Code: 6, Says: "U-Boot: write of 600000 bytes to 0x4a000000: after 2", Most: 6 * time.Second},
		{Faults: "stall:rom:300000", Code: 6, Says: "endpoint stalled", Most: time.Second},
		{Faults: "nak:rom:300000", Says: "", Most: 4 * time.Second},
		{Faults: "unplug:rom:300000", Code: 6, Says: "did not come back within 15s", Most: 17 * time.Second},
		{Faults: "reset:rom:300000", Says: "starting over", Most: 2 * time.Second},
		{Faults: "reset:rom:1000 reset:rom:2000 reset:rom:3000", Code: 6, Says: "the boot ROM is back after the first stage was sent 3 times", Most: 2 * time.Second},
	}, func(t *testing.T, _ socstest.Case[sim.Config], faults []virtual.Fault) *socstest.Outcome[sim.Report] {
		return trial{model: "h3", cfg: sim.Config{Faults: faults}}.run(t).Outcome
	})
}

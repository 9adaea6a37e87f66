package sunxi_test

import (
	"testing"
	"testing/synctest"
	"time"

	sim "snag/sim/sunxi"
	"snag/socs/socstest"
)

// A board that is wrong ends the recovery in time, and the error says what was expected, what came, and what to do; or the recovery
// gets over it.
func TestFaults(t *testing.T) {
	for _, tc := range []struct {
		fault string // several, by space
		code  int
		says  string        // the error, or else the events
		most  time.Duration // of the whole recovery
	}{
		{fault: "mute:rom:version", says: "out of step", most: 3 * time.Second},
		{fault: "magic:rom:version", says: `expected "AWUS" and 9 bytes, got 13 bytes: 41 57 55 58`, most: time.Second},
		{fault: "cut:rom:version", says: `expected "AWUS" and 9 bytes, got 7 bytes`, most: time.Second},
		{fault: "awus:rom:version", says: "refuses it with status 0x01", most: time.Second},
		{fault: "state:rom:version:9", says: "refuses it with status 0x09", most: time.Second},
		{fault: "stall:rom:version", says: "endpoint stalled", most: time.Second},
		{fault: "nak:rom:version", says: "", most: 4 * time.Second},
		{fault: "unplug:rom:version", code: 6, says: "did not come back within 15s", most: 16 * time.Second},
		{fault: "reset:rom:version", says: "starting over", most: time.Second},

		{fault: "hang:rom:write", code: 6, says: "write of 44 bytes to 0x00001000: after 0 bytes", most: 6 * time.Second},
		{fault: "mute:rom:write", code: 6, says: "write of 44 bytes to 0x00001000: no answer", most: 6 * time.Second},
		{fault: "magic:rom:write", code: 6, says: `expected "AWUS" and 9 bytes, got 13 bytes: 41 57 55 58`, most: time.Second},
		{fault: "state:rom:write:7", code: 6, says: "write of 44 bytes to 0x00001000: the boot ROM refuses it with status 0x07", most: time.Second},
		{fault: "awus:rom:read", code: 6, says: "read of 4 bytes from 0x00040004: the boot ROM refuses it with status 0x01", most: time.Second},
		{fault: "cut:rom:read", code: 6, says: "read of 4 bytes from 0x00040004: expected", most: time.Second},
		{fault: "stall:rom:read", code: 6, says: "read of 4 bytes from 0x00040004: no answer: USB out on endpoint 0x01 of 1f3a:efe8 on port 216-1: endpoint stalled", most: time.Second},
		{fault: "hang:rom:execute", code: 6, says: "call of 0x00001000: no answer", most: 6 * time.Second},
		{fault: "mute:rom:execute", code: 6, says: "call of 0x00001000: no answer", most: 6 * time.Second},
		{fault: "state:rom:execute", code: 6, says: "call of 0x00001000: the boot ROM refuses it", most: time.Second},
		{fault: "stall:rom:execute", code: 6, says: "endpoint stalled", most: time.Second},
		{fault: "unplug:rom:execute", code: 6, says: "did not come back within 15s", most: 16 * time.Second},
		{fault: "reset:rom:execute", says: "starting over", most: time.Second},
		{fault: "nak:rom:execute:2s", says: "", most: 4 * time.Second},

		{fault: "flip:rom:4096", code: 6, says: "SPL's checksum is wrong on the board", most: time.Second},
		{fault: "hang:rom:10000", code: 6, says: "write of 15360 bytes to 0x00002000: after 1764 bytes", most: 6 * time.Second},
		{fault: "mute:rom:300000", code: 6, says: "U-Boot: write of 600000 bytes to 0x4a000000: no answer", most: 6 * time.Second},
		{fault: "hang:rom:300000", code: 6, says: "U-Boot: write of 600000 bytes to 0x4a000000: after 2", most: 6 * time.Second},
		{fault: "stall:rom:300000", code: 6, says: "endpoint stalled", most: time.Second},
		{fault: "nak:rom:300000", says: "", most: 4 * time.Second},
		{fault: "unplug:rom:300000", code: 6, says: "did not come back within 15s", most: 17 * time.Second},
		{fault: "reset:rom:300000", says: "starting over", most: 2 * time.Second},
		{fault: "reset:rom:1000 reset:rom:2000 reset:rom:3000", code: 6, says: "the boot ROM is back after the first stage was sent 3 times", most: 2 * time.Second},
	} {
		t.Run(tc.fault, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := trial{model: "h3", cfg: sim.Config{Faults: socstest.Faults(t, sim.ParseFault, tc.fault)}}.run(t)
				o.Ends(t, tc.code, tc.says, tc.most)
			})
		})
	}
}

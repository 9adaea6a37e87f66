package fastboot

import (
	"strings"
	"testing"
)

func FuzzEraseBlock(f *testing.F) {
	f.Add("* nand0\n  - block size: 0x20000 bytes\n  - 0x000000000000-0x000000800000 : \"nand0\"\n\t  - 0x000000000000-0x000000080000 : \"boot\"", "boot")
	f.Fuzz(func(t *testing.T, text, name string) {
		n, err := eraseBlock(strings.Split(text, "\n"), name)
		if err == nil && n <= 0 {
			t.Error(n)
		}
	})
}

func TestEraseBlock(t *testing.T) {
	text := strings.Split(`List of MTD devices:
* nor0
  - device: flash@0
  - type: NOR flash
  - block size: 0x1000 bytes
  - min I/O: 0x1 bytes
  - 0x000000000000-0x000002000000 : "nor0"
* spi-nand0
  - type: NAND flash
  - block size: 0x20000 bytes
  - min I/O: 0x800 bytes
  - OOB size: 64 bytes
  - 0x000000000000-0x000008000000 : "spi-nand0"
	  - 0x000000000000-0x000000080000 : "boot"
	  - 0x000000080000-0x000008000000 : "ubi"`, "\n")
	for name, want := range map[string]int64{"nor0": 0x1000, "spi-nand0": 0x20000, "boot": 0x20000, "ubi": 0x20000, "none": 0} {
		if n, err := eraseBlock(text, name); n != want || (err == nil) != (want > 0) {
			t.Error(name, n, err)
		}
	}
}

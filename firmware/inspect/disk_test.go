package inspect

import (
	"bytes"
	"fmt"
	"testing"

	"snag/firmware/firmwaretest"
	sim "snag/sim/bcm"
)

// diskImages are those of the families that boot from disks and archives.
func diskImages() []file {
	ft := firmwaretest.Pattern
	disk := sim.Disk(100_000, map[string][]byte{"config.txt": []byte("arm_64bit=1\n"), "kernel_2712.img": ft(40_000), "start4.elf": ft(700), "empty": nil})
	archive := sim.Archive("2711", map[string][]byte{"bootcode4.bin": ft(3000), "mcb.bin": ft(500)})
	return []file{
		{"bcm/boot.img", disk},
		{"bcm/boot-bare.img", disk[64*512:]},
		{"bcm/boot-cut.img", disk[:100*512]},
		{"bcm/boot-damaged.img", firmwaretest.Damage(disk, 65*512+3)}, // the chain of the first file
		{"bcm/bootfiles.bin", archive},
		{"bcm/bootfiles-again.bin", append(archive[:len(archive)-1024:len(archive)-1024], sim.Archive("2711", map[string][]byte{"mcb.bin": ft(9)})...)},
		{"bcm/bootfiles-cut.bin", archive[:len(archive)-2000]},
		{"bcm/others.tar", sim.Archive("etc", map[string][]byte{"passwd": ft(30)})},
	}
}

// TestDisks holds them against testdata/disks.txt.
func TestDisks(t *testing.T) {
	var got bytes.Buffer
	for _, g := range diskImages() {
		r := Data(g.name, g.data)
		if err := r.Write(&got, true); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&got)
		inside(t, g.name, len(g.data), r.Parts)
	}
	compare(t, "disks.txt", got.Bytes())
}

package fastboot_test

import (
	"io"
	"net"
	"os"
	"testing"

	"snag/flash"
	"snag/flash/fastboot"
	client "snag/usb/fastboot"
)

// A real U-Boot, whose "fastboot udp" listens at SNAG_FASTBOOT_UDP (HOST:PORT) with its buffer at 0x42000000, and whose
// device mmc 0 is the file SNAG_FASTBOOT_CARD. All on it behind the first MiB is lost. docs/flash.md says how to get
// one in QEMU.
func TestRealUBoot(t *testing.T) {
	address, name := os.Getenv("SNAG_FASTBOOT_UDP"), os.Getenv("SNAG_FASTBOOT_CARD")
	if address == "" || name == "" {
		t.Skip("SNAG_FASTBOOT_UDP and SNAG_FASTBOOT_CARD do not name a U-Boot that listens for fastboot, and its SD card")
	}
	card, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer card.Close()
	info, err := card.Stat()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := t.Context()
	tr, err := client.NewUDP(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	c := client.New(tr)
	c.Info = func(s string) { t.Log("INFO", s) }
	for _, v := range []string{"version-bootloader", "max-download-size"} {
		s, err := c.GetVar(ctx, v)
		t.Log(v, s, err)
	}
	const buffer = 0x42000000
	if err := (fastboot.MMC{Client: c, Device: 0, Buffer: buffer + 4096}).Write(ctx, file(t, []byte("x")), flash.Options{}); err == nil {
		t.Error("another address is taken")
	} else {
		t.Log(err)
	}
	if err := (fastboot.MMC{Client: c, Device: 0, Buffer: buffer, Offset: info.Size()}).Write(ctx, file(t, []byte("x")), flash.Options{}); err == nil {
		t.Error("what is behind the end is written")
	} else {
		t.Log(err)
	}
	// UDP's commands have 64 bytes.
	if err := c.WriteGPT(ctx, 0, "name=a,start=1MiB,size=8MiB;name=b,size=64MiB"); err != nil {
		t.Log("gpt write:", err)
		for _, line := range []string{"setenv p 'name=a,start=1MiB,size=8MiB'", "setenv p \"$p;name=b,size=64MiB\"", "gpt write mmc 0 $p"} {
			if err := c.Run(ctx, line, 0); err != nil {
				t.Fatal(line, err)
			}
		}
	}
	at := func(off int64) io.ReaderAt { return io.NewSectionReader(card, off, info.Size()-off) }
	b := content(40<<20+1234, 5)
	for _, verify := range []bool{false, true} {
		for _, tc := range []struct {
			what   string
			target flash.Target
			off    int64
		}{
			{"partition", fastboot.Partition{Client: c, Name: "b"}, 9 << 20},
			{"partition, one download", fastboot.Partition{Client: c, Name: "a"}, 1 << 20},
			{"user area", fastboot.Partition{Client: c, Name: "mmc0"}, 0},
			{"mmc", fastboot.MMC{Client: c, Device: 0, Offset: 100 << 20, Buffer: buffer}, 100 << 20},
			{"mmc partition", fastboot.MMC{Client: c, Device: 0, Partition: "b", Buffer: buffer}, 9 << 20},
		} {
			if _, plain := tc.target.(fastboot.Partition); plain && verify {
				continue
			}
			t.Run(tc.what, func(t *testing.T) {
				data := b
				switch tc.what {
				case "partition, one download":
					data = b[:8<<20]
				case "user area": // what is there, and a change far behind
					data = make([]byte, 40<<20)
					if _, err := card.ReadAt(data, 0); err != nil {
						t.Fatal(err)
					}
					copy(data[39<<20:], b)
				case "mmc partition":
					data = content(50<<20, 6)
				}
				s := steps{}
				im := file(t, data)
				if err := tc.target.Write(ctx, im, flash.Options{Verify: verify, Progress: s.add}); err != nil {
					t.Fatal(err)
				}
				begins(t, tc.what, at(tc.off), data)
				t.Log(s.n)
			})
		}
	}
	if err := (fastboot.MMC{Client: c, Device: 0, Partition: "a", Buffer: buffer}).Write(ctx, file(t, b), flash.Options{}); err == nil {
		t.Error("an image larger than its partition is written")
	} else {
		t.Log(err)
	}
}

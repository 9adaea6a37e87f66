package plan

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"snag/flash/image"
	"snag/recovery"
	"snag/sim/fastboot"
	"snag/sim/uboot"
)

// machine has an eMMC and two flash chips.
func machine() *uboot.Machine {
	return &uboot.Machine{
		MMC: []*uboot.MMC{uboot.NewMMC(64<<20, 1<<20)},
		MTD: []*uboot.MTD{
			uboot.NewMTD("spi-nand0", true, 4<<20, 64<<10, 2048, uboot.MTDPart{Name: "rootfs", Off: 1 << 20, Size: 3 << 20}),
			uboot.NewMTD("nor0", false, 1<<20, 4096, 1),
		},
	}
}

// noise is n bytes that are not twice alike.
func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{seed})
	r.Read(b)
	return b
}

// at is what storage holds.
func at(t *testing.T, s interface {
	ReadAt([]byte, int64) (int, error)
}, off int64, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := s.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	return b
}

const storagePlan = `
steps:
  - gpt: {mmc: 0, partitions: [{name: boot, start: 1M, size: 4M, uuid: 12345678-9abc-def0-1234-56789abcdef0}, {name: root, size: -, uuid: 12345678-9abc-def0-1234-56789abcdef1}]}
  - flash: {image: disk.img, mmc: "0:root", buffer: 0x40000000, buffer-size: 128k, verify: true}
  - flash: {image: small.img, mmc: 0.boot0, buffer: 0x40000000}
  - flash: {image: small.img, mmc: 0, offset: 1M, buffer: 0x40000000}
  - flash: {image: small.img, mtd: rootfs, erase-block: 64k, buffer: 0x40000000, verify: true}
  - flash: {image: small.img, mtd: nor0, erase-block: 4k, nor: true, offset: 64k, buffer: 0x40000000}
  - flash: {image: mapped.img.zst, fastboot: root}
`

func TestStorage(t *testing.T) {
	dir := t.TempDir()
	disk, small := noise(1<<20+512, 1), noise(100_000, 2)
	put(t, filepath.Join(dir, "disk.img"), disk)
	put(t, filepath.Join(dir, "small.img"), small)
	// Of the last one only the second quarter is written, over what the first flash left.
	mapped := noise(1<<20, 3)
	put(t, filepath.Join(dir, "mapped.img"), mapped)
	put(t, filepath.Join(dir, "mapped.img.zst"), mapped) // told by its bytes, not by its name, so it is refused
	synctest.Test(t, func(t *testing.T) {
		m := machine()
		_, power := plugUBoot(t, fastboot.Config{UBoot: m})
		o := run(t, dir, storagePlan, Options{}, power)
		if recovery.ExitCode(o.err) != recovery.ExitFirmware || !strings.Contains(o.err.Error(), "step 7, flash") {
			t.Fatalf("a file that is not what its name says: %v", o.err)
		}
	})
	bm, err := image.New(t.Context(), "x", bytes.NewReader(append(append(make([]byte, 256<<10), mapped[256<<10:512<<10]...), make([]byte, 512<<10)...)), image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	table, err := image.CreateMap(t.Context(), bm, image.MapOptions{Zeros: true})
	if err != nil {
		t.Fatal(err)
	}
	text, err := table.Encode()
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "mapped.bmap"), text)
	synctest.Test(t, func(t *testing.T) {
		m := machine()
		b, power := plugUBoot(t, fastboot.Config{UBoot: m})
		o := run(t, dir, strings.ReplaceAll(storagePlan, ".img.zst", ".img"), Options{}, power)
		if o.err != nil {
			t.Fatalf("%v\n%s", o.err, o.texts())
		}
		for _, v := range b.Report().Violations {
			t.Errorf("the host did wrong: %s (%d times)", v.Text, v.N)
		}
		gpt, err := uboot.ReadGPT(m.MMC[0].Areas[0])
		if err != nil {
			t.Fatal(err)
		}
		root, _, ok := gpt.Find("root")
		if !ok {
			t.Fatal("no partition root")
		}
		want := bytes.Clone(disk)
		copy(want[256<<10:512<<10], mapped[256<<10:512<<10])
		if got := at(t, m.MMC[0].Areas[0], root.First*512, len(want)); !bytes.Equal(got, want) {
			t.Error("partition root holds something else")
		}
		if got := at(t, m.MMC[0].Areas[1], 0, len(small)); !bytes.Equal(got, small) {
			t.Error("boot0 holds something else")
		}
		if got := at(t, m.MMC[0].Areas[0], 1<<20, len(small)); !bytes.Equal(got, small) {
			t.Error("the user area at 1 MiB holds something else")
		}
		if got := at(t, m.MTD[0], 1<<20, len(small)); !bytes.Equal(got, small) {
			t.Error("the NAND partition holds something else")
		}
		if got := at(t, m.MTD[1], 64<<10, len(small)); !bytes.Equal(got, small) {
			t.Error("the NOR flash holds something else")
		}
		// The first flash may use an eighth of a megabyte of the buffer at a time.
		first := sent(b)[:slices.IndexFunc(sent(b), func(s string) bool { return s == "UCmd:mmc dev 0 1" })]
		if i := slices.IndexFunc(first, func(s string) bool { return strings.HasPrefix(s, "download:") && s > "download:00020000" }); i >= 0 {
			t.Errorf("%s: more than the plan allows of the buffer", first[i])
		}
	})
}

// TestVerifySteps compares what is there by U-Boot's own commands, in steps of their own.
func TestVerifySteps(t *testing.T) {
	dir := t.TempDir()
	disk := noise(700_000, 1)
	put(t, filepath.Join(dir, "disk.img"), disk)
	put(t, filepath.Join(dir, "other.img"), append(bytes.Clone(disk[:len(disk)-1]), disk[len(disk)-1]^1))
	for _, tc := range []struct {
		target string
		where  string // of what differs
	}{
		{"mmc: 0, offset: 1M", "bytes 0-699999"},
		{"mmc: 0.boot1", "bytes 0-699999"},
		{"mtd: rootfs, erase-block: 64k", "bytes 0-699999"},
		{"mtd: nor0, erase-block: 4k, nor: true", "bytes 0-699999"},
		{"sf: 0", "bytes 0-699999"},
	} {
		t.Run(tc.target, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, power := plugUBoot(t, fastboot.Config{UBoot: machine()})
				o := run(t, dir, strings.ReplaceAll(`
steps:
  - flash: {image: disk.img, TARGET, buffer: 0x40000000}
  - verify: {image: disk.img, TARGET, buffer: 0x40000000}
  - verify: {image: other.img, TARGET, buffer: 0x40000000}
`, "TARGET", tc.target), Options{}, power)
				if recovery.ExitCode(o.err) != recovery.ExitBoard || !strings.Contains(fmt.Sprint(o.err), "plan.yaml:5: step 3, verify") ||
					!strings.Contains(fmt.Sprint(o.err), tc.where) || !strings.Contains(fmt.Sprint(o.err), "the medium holds something else than the image") {
					t.Errorf("exit code %d, %v", recovery.ExitCode(o.err), o.err)
				}
				if s := o.texts(); !strings.Contains(s, "done fastboot disk.img") || strings.Count(s, "done verify") != 1 {
					t.Errorf("events:\n%s", s)
				}
				for _, v := range b.Report().Violations {
					t.Errorf("the host did wrong: %s (%d times)", v.Text, v.N)
				}
			})
		})
	}
}

// TestNetwork flashes over UDP, without any USB, and tells that boot ROMs are not there.
func TestNetwork(t *testing.T) {
	dir := t.TempDir()
	img := noise(200_000, 4)
	put(t, filepath.Join(dir, "disk.img"), img)
	m := machine()
	b, err := fastboot.New(fastboot.Config{UBoot: m})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	m.Power()
	go func() { done <- b.ServeUDP(ctx, conn) }()
	o := run(t, dir, "steps: [{wait: fastboot}, {flash: {image: disk.img, mmc: 0, buffer: 0x40000000, verify: true}}, {reset: continue}]",
		Options{Net: "udp:" + conn.LocalAddr().String()})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if o.err != nil {
		t.Fatalf("%v\n%s", o.err, o.texts())
	}
	if got := at(t, m.MMC[0].Areas[0], 0, len(img)); !bytes.Equal(got, img) {
		t.Error("something else was written")
	}
	put(t, filepath.Join(dir, "fip.bin"), fastboot.GenerateFIP(300_000, 1))
	put(t, filepath.Join(dir, "board.yaml"), []byte("paths-relative-to: THIS_FILE\nfip: {path: fip.bin}\n"))
	o = run(t, dir, "steps: [{recover: {soc: keembay, firmware: board.yaml}}]", Options{Net: "udp:127.0.0.1:9"})
	if recovery.ExitCode(o.err) != recovery.ExitUsage {
		t.Errorf("%v", o.err)
	}
}

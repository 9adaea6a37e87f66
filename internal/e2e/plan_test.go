package e2e

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/am335x"
	"snag/sim/fastboot"
	"snag/sim/uboot"
	"snag/sim/ums"
	"snag/sim/usbdev"
	"snag/sim/vhci"
)

// A plan of the program itself, on the kernel's own drivers: from U-Boot's fastboot to its mass storage on one port.
func TestWithUMSPlan(t *testing.T) {
	lab.Inside(t)
	slot, err := vhci.Open("")
	if err != nil {
		t.Fatal(err)
	}
	m, left := uBoot(t), make(chan struct{})
	m.Commands = map[string]uboot.Command{"ums": func(context.Context, *uboot.Machine, []string) error {
		close(left)
		return uboot.ErrLeave
	}}
	first, err := fastboot.New(fastboot.Config{UBoot: m, Buffer: 1 << 20, Address: 0x42000000})
	if err != nil {
		t.Fatal(err)
	}
	storage := &ums.Memory{}
	second, err := ums.New(ums.Config{Units: []ums.Unit{{Storage: storage}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		on, off := context.WithCancel(ctx)
		go func() {
			select {
			case <-left:
				time.Sleep(200 * time.Millisecond) // it leaves the bus
			case <-ctx.Done():
			}
			off()
		}()
		if err := first.Run(on, slot); err != nil {
			t.Error(err)
		}
		if err := second.Run(ctx, slot); err != nil {
			t.Error(err)
		}
	}()
	defer func() { cancel(); <-ended }()

	dir := t.TempDir()
	data := make([]byte, 256<<10+512)
	r := rand.New(rand.NewPCG(3, 4))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	plan := filepath.Join(dir, "plan.yaml")
	for name, b := range map[string][]byte{filepath.Join(dir, "disk.img"): data, plan: []byte(`
steps:
  - flash: {image: disk.img, mmc: "0:rootfs", verify: true}
  - uboot: {run: ums 0 mmc 0, leave: true}
  - gpt: {disk: 0, partitions: [{name: boot, size: 2M}, {name: root, size: -}]}
  - flash: {image: disk.img, disk: "0:2", verify: true}
  - verify: {image: disk.img, disk: "0:2"}
  - reset: detach
`)} {
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	p := start(t, nil, "flash", "--usb-path", string(slot.Name()), "-f", plan, "--json")
	if code := p.exit(t, 60*time.Second); code != 0 {
		t.Fatalf("exit code %d\n%s", code, p)
	}
	t.Logf("%.1f s", time.Since(begun).Seconds())
	var stages []string
	for _, e := range p.events(t) {
		t.Log(e["time"], e["event"], e["text"], e["for"], e["stage"])
		if e["event"] == "stage_done" {
			stages = append(stages, e["stage"].(string))
		}
	}
	if got := strings.Join(stages, " "); got != "fastboot verify disk verify verify" {
		t.Errorf("stages %s", got)
	}
	same(t, m.MMC[0].Areas[0], rootfsAt, data)
	same(t, storage, 3<<20, data) // behind the table and 2 MiB at 1 MiB
	if !bytes.Contains(readAt(t, storage, 0, 17<<10), []byte("EFI PART")) {
		t.Error("no partition table")
	}
	for _, v := range append(first.Report().Violations, second.Report().Violations...) {
		t.Errorf("the host did wrong: %s (%d times)", v.Text, v.N)
	}
	if u := second.Report().Last(ums.StageGadget).Units[0]; !u.Ejected {
		t.Error("the disk was not ejected")
	}
}

// TestWithUdevPlan takes a board from its boot ROM to its eMMC in one go, as an ordinary user: ROM and SPL are the
// kernel's network interfaces, in a namespace of the board's own, and what they start is a USB device.
func TestWithUdevPlan(t *testing.T) {
	lab.Inside(t)
	setUp(t)
	must(t, "snag", "setup", "--usb", fastboot.ID.String()) // gadgets bear any ID: root says which
	before := leftovers(t)
	fw := generateSized(t, 50, 8<<10, 24<<10)
	m, port := uBoot(t), hostPort(t, 1)
	slot, err := vhci.Open(port)
	if err != nil {
		t.Fatal(err)
	}
	var roms []*am335x.Board
	board, err := fastboot.New(fastboot.Config{UBoot: m, Address: 0x42000000, Before: func(ctx context.Context, p usbdev.Port) error {
		rom, err := am335x.New(am335x.Config{ROMRetries: []time.Duration{time.Second}, SPLWindow: 30 * time.Second})
		if err != nil {
			return err
		}
		roms = append(roms, rom)
		return rom.Boot(ctx, p)
	}})
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 256<<10)
	rand.NewChaCha8([32]byte{5}).Read(data)
	for name, b := range map[string][]byte{"disk.img": data, "plan.yaml": []byte(`
steps:
  - recover: {soc: am335x, firmware: board.yaml}
  - flash: {image: disk.img, mmc: "0:rootfs", verify: true}
  - reset
`)} {
		if err := os.WriteFile(filepath.Join(fw.dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- board.Run(ctx, slot) }()
	begun := time.Now()
	p := start(t, user, "flash", "--usb-path", string(port), "-f", filepath.Join(fw.dir, "plan.yaml"), "--json", "-v")
	code := p.exit(t, 2*time.Minute)
	t.Logf("%.1f s", time.Since(begun).Seconds())
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, p)
	}
	var stages []string
	for _, e := range p.events(t) {
		if e["event"] == "stage_done" {
			stages = append(stages, e["stage"].(string))
		}
	}
	if got := strings.Join(stages, " "); got != "rom spl fastboot verify" {
		t.Errorf("stages %s\n%s", got, p)
	}
	same(t, m.MMC[0].Areas[0], rootfsAt, data)
	fw.booted(t, roms[0])
	for _, v := range board.Report().Violations {
		t.Errorf("the host did wrong: %s (%d times)", v.Text, v.N)
	}
	before.compare(t)
}

func readAt(t *testing.T, r *ums.Memory, off int64, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := r.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	return b
}

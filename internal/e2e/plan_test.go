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
	"snag/sim/fastboot"
	"snag/sim/uboot"
	"snag/sim/ums"
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

func readAt(t *testing.T, r *ums.Memory, off int64, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := r.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	return b
}

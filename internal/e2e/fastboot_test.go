package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/fastboot"
	"snag/sim/usbdev"
	"snag/sim/virtual"
	"snag/usb"
	client "snag/usb/fastboot"
)

// TestFastboot is the proof that the virtual fastboot boards are right which does not rest on snag: Debian's fastboot
// drives them, over USB, TCP and UDP, and its uuu. snag's own client then does the same over the kernel's USB. One VM
// for all.
func TestFastboot(t *testing.T) {
	t.Parallel()
	lab.GoTest(t, ".", "^TestWithFastboot", lab.Job{
		Script: "modprobe -a vhci-hcd\nip link set lo up", Packages: []string{"fastboot", "uuu", "iproute2"}, Files: programs(t), Udev: true, Timeout: 3 * time.Minute,
	})
}

// plugFastboot plugs a board in.
func plugFastboot(t *testing.T, cfg fastboot.Config) (board *fastboot.Board, port usb.Port, unplug func()) {
	t.Helper()
	board, err := fastboot.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	port, unplug = plugAlone(t, board.Run)
	return board, port, unplug
}

// foreign runs Debian's fastboot, and returns what it says.
func foreign(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "fastboot", args...).CombinedOutput()
	t.Logf("fastboot %s: %v\n%s", strings.Join(args, " "), err, out)
	return string(out), err
}

// clean fails the test if a host did wrong.
func clean(t *testing.T, b *fastboot.Board) fastboot.Report {
	t.Helper()
	r := b.Report()
	for _, v := range r.Violations {
		t.Errorf("the host did wrong: %s (%d times)", v.Text, v.N)
	}
	return r
}

// imageFile makes a file whose size is a multiple of no packet's.
func imageFile(t *testing.T, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image.bin")
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestWithFastbootGadget(t *testing.T) {
	lab.Inside(t)
	image := imageFile(t, fastboot.GenerateFIP(1_000_001, 1))
	for _, over := range []string{"full speed", "high speed", "tcp", "udp"} {
		t.Run(over, func(t *testing.T) {
			// Debian's fastboot waits for ever for the end of an answer that fills its packet, as one of 64 bytes does
			// at full speed.
			line := strings.Repeat("c", 59)
			cfg := fastboot.Config{OEMRun: true, Console: []string{line}}
			var board *fastboot.Board
			var target []string
			switch over {
			case "full speed", "high speed":
				if over == "full speed" {
					cfg.Speed = usbdev.FullSpeed
				}
				board, _, _ = plugFastboot(t, cfg)
			default:
				var err error
				if board, err = fastboot.New(cfg); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if over == "tcp" {
					l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", client.Port))
					if err != nil {
						t.Fatal(err)
					}
					go board.ServeTCP(ctx, l)
				} else {
					l, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", client.Port))
					if err != nil {
						t.Fatal(err)
					}
					go board.ServeUDP(ctx, l)
				}
				target = []string{"-s", over + ":127.0.0.1"}
			}
			for _, c := range []struct {
				args, says string
				refused    bool
			}{
				{"getvar all", "version: 0.4", false},
				{"getvar product", "Board not set", true},
				{"flash boot " + image, "Writing 'boot'", false},
				{"flash nowhere " + image, "invalid partition or device", true},
				{"erase rootfs", "OKAY", false},
				{"oem run:version", "OKAY", false},
				{"oem console", line, false},
				{"oem nonsense", "unrecognized command", true},
				{"continue", "OKAY", false},
			} {
				out, err := foreign(t, slices.Concat(target, strings.Fields(c.args))...)
				if err != nil && !c.refused || !strings.Contains(out, c.says) {
					t.Errorf("fastboot %s: %v, want %q\n%s", c.args, err, c.says, out)
				}
			}
			soon(t, 30*time.Second, func() error {
				if r := board.Report(); r.Outcome != virtual.Booted {
					return fmt.Errorf("the board is %s: %s", r.Outcome, r.Error)
				}
				return nil
			})
			r := clean(t, board)
			if p, erased := r.Partitions["boot"], r.Partitions["rootfs"]; p.Bytes < 1_000_000 || erased.SHA256 != "" {
				t.Errorf("partitions %+v", r.Partitions)
			}
		})
	}
}

// snag's client over the kernel's USB.
func TestWithFastbootClient(t *testing.T) {
	lab.Inside(t)
	for _, speed := range []usbdev.Speed{usbdev.FullSpeed, usbdev.HighSpeed} {
		for _, size := range []int{512, 4096, 1_000_001} {
			t.Run(fmt.Sprintf("%s %d", speed.Mbps(), size), func(t *testing.T) {
				long := strings.Repeat("c", 60)
				board, port, _ := plugFastboot(t, fastboot.Config{Speed: speed, Console: []string{long, long, "end"}, Variables: map[string]string{"long": long}})
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				c := openFastboot(t, port)
				if v, err := c.GetVar(ctx, "long"); err != nil || v != long {
					t.Error(v, err)
				}
				if shown, err := c.Console(ctx, ""); err != nil || fmt.Sprint(shown) != fmt.Sprint([]string{long, long, "end"}) {
					t.Error(shown, err)
				}
				if err := c.Run(ctx, strings.Repeat("x", 512-len("UCmd:")), 0); err != nil { // fills its packet
					t.Error(err)
				}
				if err := c.Download(ctx, bytes.NewReader(make([]byte, size)), int64(size), nil); err != nil {
					t.Fatal(err)
				}
				if err := c.Flash(ctx, "boot", 0); err != nil {
					t.Error(err)
				}
				if err := c.Continue(ctx); err != nil {
					t.Error(err)
				}
				if r := clean(t, board); r.Partitions["boot"].Bytes != size {
					t.Errorf("%+v", r)
				}
			})
		}
	}
}

func TestWithFastbootKeemBay(t *testing.T) {
	lab.Inside(t)
	fip := fastboot.GenerateFIP(3_000_000, 1)
	image := imageFile(t, fip)
	started := func(t *testing.T, board *fastboot.Board) {
		t.Helper()
		soon(t, 30*time.Second, func() error {
			if r := board.Report(); r.Outcome != virtual.Booted || r.Last(fastboot.StageGadget) == nil {
				return fmt.Errorf("the board is %s: %s", r.Outcome, r.Error)
			}
			return nil
		})
		rom := clean(t, board)
		if d := rom.Last(fastboot.StageROM).Downloads; len(d) != 1 || !d[0].Complete || d[0].Bytes != len(fip) {
			t.Errorf("downloads %+v", d)
		}
	}
	t.Run("fastboot", func(t *testing.T) {
		board, _, _ := plugFastboot(t, fastboot.Config{KeemBay: true})
		if out, err := foreign(t, "stage", image); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		started(t, board)
		if out, err := foreign(t, "getvar", "version"); err != nil || !strings.Contains(out, "0.4") { // U-Boot's
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("snag", func(t *testing.T) {
		config := filepath.Join(t.TempDir(), "board.yaml")
		if err := os.WriteFile(config, []byte("fip:\n  path: "+image+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		p := start(t, nil, "recover", "-s", "keembay", "-f", config, "--expect", fastboot.KeemBayUBoot.String(), "--json")
		board, port, _ := plugFastboot(t, fastboot.Config{KeemBay: true})
		if code := p.exit(t, time.Minute); code != 0 {
			t.Errorf("exit code %d\n%s", code, p)
		}
		started(t, board)
		events := p.events(t)
		if last := events[len(events)-1]; last["event"] != "done" || last["port"] != string(port) {
			t.Errorf("last event: %v", last)
		}
		r := board.Report()
		if got := fmt.Sprint(r.Last(fastboot.StageROM).Commands); got != fmt.Sprintf("[download:%08x]", len(fip)) {
			t.Errorf("the ROM was sent %s", got)
		}
	})
	t.Run("unplugged", func(t *testing.T) {
		config := filepath.Join(t.TempDir(), "board.yaml")
		if err := os.WriteFile(config, []byte("fip:\n  path: "+image+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		p := start(t, nil, "recover", "-s", "keembay", "-f", config)
		plugFastboot(t, fastboot.Config{KeemBay: true, Faults: []fastboot.Fault{{Kind: fastboot.Reset, Stage: fastboot.StageROM, At: 1_000_000}}})
		if code := p.exit(t, time.Minute); code != 0 || !strings.Contains(p.String(), "starting over") {
			t.Errorf("exit code %d\n%s", code, p)
		}
	})
}

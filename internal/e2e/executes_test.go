package e2e

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/vhci"
	"snag/usb"
)

// attempt is a board that executes what it receives, and the program that is to recover it.
type attempt struct {
	tool string
	executing
}

// attempts are those of TestExecutingBoards, outside the VM and inside.
func attempts() (all []attempt) {
	for _, tool := range []string{"uuu", "snag"} {
		all = append(all, attempt{tool, oneStage}, attempt{tool, twoStages})
	}
	return append(all, attempt{"sunxi-fel", fromFEL}, attempt{"snag", fromFEL})
}

func (a attempt) String() string { return a.tool + " " + a.board }

// TestExecutingBoards recovers boards whose firmware runs, and reads on their consoles how far it came. The boards,
// each with a QEMU for memory and processor, are beside the VM:
//
//	VM: uuu or snag - kernel - vhci_hcd - TCP ---- snag sim: USB/IP, ROM, SPL's SDP - QEMU's sabrelite - UART - test
//	VM: sunxi-fel or snag - ... ------------------ snag sim: USB/IP, ROM -------- QEMU's orangepi-pc - UART - test
func TestExecutingBoards(t *testing.T) {
	t.Parallel()
	arm := lab.Command(t, "qemu-system-arm", "qemu-system-arm")
	files := programs(t)
	snag := files["/lab/bin/snag"]
	var boards []*simulation
	var ports []string
	for _, a := range attempts() {
		for i, name := range a.files {
			files[filepath.Join("/lab/firmware", a.board, name)] = a.path(t, i)
		}
		s := a.simulate(t, snag, arm)
		boards, ports = append(boards, s), append(ports, s.port)
	}
	lab.GoTest(t, ".", "^TestWithExecutingBoards$", lab.Job{
		Script: `modprobe -a vhci-hcd usbhid virtio_net
udevadm settle # it renames the interface
for dev in /sys/class/net/*; do
	case $dev in */lo) ;; *) ip link set ${dev##*/} up; ip addr add 10.0.2.15/24 dev ${dev##*/} ;; esac
done
export SNAG_USBIP='` + strings.Join(ports, " ") + "'",
		Files: files, Packages: []string{"iproute2", "uuu", "sunxi-tools"}, Udev: true, // without udevd uuu sees no second stage
		Timeout: 5 * time.Minute,
		QEMU:    []string{"-netdev", "user,id=u", "-device", "virtio-net-pci,netdev=u,romfile="},
	})
	effects := make(map[string]string) // on a board, of the program before
	for i, a := range attempts() {
		got := boards[i].settled(t, a)
		if want, ok := effects[a.board]; ok && got != want {
			t.Errorf("%s: the effects on the board are\n%s, those of the other program\n%s", a, got, want)
		}
		effects[a.board] = got
	}
}

// simulation is a running snag sim.
type simulation struct {
	*program
	port    string // TCP, of its USB/IP server
	printed output // by the board
	talked  chan error
}

// simulate starts a board.
func (a attempt) simulate(t *testing.T, snag string, arm *exec.Cmd) *simulation {
	t.Helper()
	args := []string{"sim", cmp.Or(a.soc, "imx6q"), "--qemu", "--carrier", "usbip", "--listen", "127.0.0.1:0"}
	if len(a.files) == 2 {
		args = append(args, "--spl", "sdpv", "--spl-finds", "none")
	}
	s := &simulation{program: &program{Cmd: exec.Command(snag, args...)}, talked: make(chan error, 1)}
	s.Env = append(os.Environ(), arm.Env...)
	s.Env = append(s.Env, "PATH="+filepath.Dir(arm.Path)+":"+os.Getenv("PATH"))
	s.Cmd.Stdout, s.Cmd.Stderr = &s.stdout, &s.stderr
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Process.Kill(); s.Wait() })
	var tty string
	eventually(t, "snag sim to say where the board is", func() bool {
		out := s.stdout.String()
		tty, s.port = wordAfter(out, fmt.Sprintf("UART%d on ", a.uart)), wordAfter(out, "server at 127.0.0.1:")
		return tty != "" && s.port != ""
	})
	console, err := os.OpenFile(tty, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer console.Close()
		err := s.talk(console, a.talk)
		for err == nil && !strings.Contains(s.stdout.String(), "board on port 1-1: booted\n") {
			select {
			case <-t.Context().Done():
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
		s.Process.Signal(os.Interrupt) // U-Boot would use up a processor
		s.talked <- err
	}()
	context.AfterFunc(t.Context(), func() { console.Close() })
	return s
}

// wordAfter is the word after a text, if it came whole.
func wordAfter(s, text string) string {
	_, s, _ = strings.Cut(s, text)
	return s[:max(strings.IndexAny(s, ", \n"), 0)]
}

// talk reads what the board is to say, and types.
func (s *simulation) talk(console *os.File, talk []exchange) error {
	text := ""
	for _, x := range talk {
		for buf := make([]byte, 4096); !strings.Contains(text, x.says); {
			n, err := console.Read(buf)
			s.printed.Write(buf[:n])
			text += string(buf[:n])
			if err != nil {
				return fmt.Errorf("waiting for %q: %w", x.says, err)
			}
		}
		_, text, _ = strings.Cut(text, x.says)
		if _, err := console.WriteString(x.typed); err != nil {
			return err
		}
	}
	return nil
}

// settled waits until all was read, and returns what was done to the board.
func (s *simulation) settled(t *testing.T, a attempt) (effects string) {
	t.Helper()
	select {
	case err := <-s.talked:
		if err != nil {
			t.Errorf("%s: %v", a, err)
		}
	case <-time.After(30 * time.Second): // after all was recovered
		t.Fatalf("%s: the console still waits; it printed\n%s", a, &s.printed)
	}
	if code := s.exit(t, 10*time.Second); code != 0 {
		t.Errorf("%s: exit code %d", a, code)
	}
	t.Logf("%s\n--- console\n%s", s, strings.ReplaceAll(s.printed.String(), "\r", ""))
	_, effects, _ = strings.Cut(s.stdout.String(), " was started\n")
	return effects
}

// TestWithExecutingBoards is the part of TestExecutingBoards in the VM.
func TestWithExecutingBoards(t *testing.T) {
	lab.Inside(t)
	servers := strings.Fields(os.Getenv("SNAG_USBIP"))
	for i, a := range attempts() {
		t.Run(a.String(), func(t *testing.T) {
			port, err := vhci.Open("")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- port.Import(ctx, "10.0.2.2:"+servers[i], "1-1") }()
			defer func() {
				cancel()
				if err := <-ended; err != nil && t.Failed() { // a board that has said everything is switched off
					t.Error(err)
				}
			}()
			a.recover(t, port.Name())
			eventually(t, "the board to leave its port", func() bool {
				devices, err := usb.Sysfs{}.Devices()
				if err != nil {
					t.Fatal(err)
				}
				return !slices.ContainsFunc(devices, func(d usb.Device) bool { return d.Port == port.Name() })
			})
		})
	}
}

// recover recovers the board with its tool.
func (a attempt) recover(t *testing.T, port usb.Port) {
	t.Helper()
	dir := filepath.Join("/lab/firmware", a.board)
	if a.tool == "snag" {
		args := []string{"recover", "-s", cmp.Or(a.soc, "imx6q"), "--usb-path", string(port)}
		for i, slot := range a.slots {
			args = append(args, "-F", slot+"="+filepath.Join(dir, a.files[i]))
		}
		p := start(t, nil, args...)
		if code := p.exit(t, time.Minute); code != 0 {
			t.Errorf("exit code %d\n%s", code, p)
		}
		return
	}
	if a.tool == "sunxi-fel" {
		out, err := runFEL(t, port, a.tool, "uboot", filepath.Join(dir, a.files[0]))
		if err != nil {
			t.Errorf("sunxi-fel: %v\n%s", err, out)
		}
		return
	}
	script := "uuu_version 1.2.39\nSDP: boot -f " + a.files[0] + "\n"
	if len(a.files) == 2 {
		uboot, err := os.ReadFile(filepath.Join(dir, a.files[1]))
		if err != nil {
			t.Fatal(err)
		}
		header := binary.BigEndian.Uint32(uboot[16:]) - 64 // before the load address
		script += fmt.Sprintf("SDPV: write -f %s -addr %#x\nSDPV: jump -addr %#[2]x\nSDPV: done\n", a.files[1], header)
	} else {
		script += "SDP: done\n"
	}
	name := filepath.Join(dir, "script.lst") // uuu looks for the files beside it
	if err := os.WriteFile(name, []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("timeout", "60", "uuu", name).CombinedOutput(); err != nil {
		t.Errorf("uuu: %v\n%s\n%s", err, script, out)
	}
}

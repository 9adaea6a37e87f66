package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"snag/sim/am335x"
	"snag/sim/sandbox"
	"snag/sim/uart"
	"snag/usb"
)

// slow is a board whose stages last so long that what a test does in one is done in it: 4 s and 10 s.
var slow = am335x.Config{DelayIn: 10 * time.Millisecond, DelayOut: 10 * time.Millisecond}

// TestSandboxUnplugged has boards that leave for good, never come, or stand still.
func TestSandboxUnplugged(t *testing.T) {
	t.Parallel()
	const rom, spl = am335x.StageROM, am335x.StageSPL
	const away = 20 * time.Second // 15 s in which a board that left may be back
	for _, tc := range []struct {
		name   string
		kind   am335x.FaultKind
		stage  string
		at     int
		board  am335x.Config
		args   []string
		within time.Duration // of the last event before
		code   int
		stands string   // the stage that the end names
		says   []string // of the error and its hint
	}{
		{name: "ROM, begin", kind: am335x.Unplug, stage: rom, at: 512, within: away, code: 6, stands: rom, says: []string{"left port 1-1", "15s", "cable"}},
		{name: "ROM, middle", kind: am335x.Unplug, stage: rom, at: splSize / 2, within: away, code: 6, stands: rom, says: []string{"left port 1-1"}},
		{name: "ROM, before its last block", kind: am335x.Unplug, stage: rom, at: splSize - 512, within: away, code: 6, stands: rom, says: []string{"left port 1-1"}},
		{name: "ROM, after its last byte", kind: am335x.Unplug, stage: rom, at: splSize, within: 35 * time.Second, code: 6, stands: rom, says: []string{"did not appear on port 1-1 within 30s", "nothing enumerated", "serial console"}},
		{name: "SPL, begin", kind: am335x.Unplug, stage: spl, at: 1468, within: away, code: 6, stands: spl, says: []string{"left port 1-1"}},
		{name: "SPL, middle", kind: am335x.Unplug, stage: spl, at: ubootSize / 2, within: away, code: 6, stands: spl, says: []string{"left port 1-1"}},
		{name: "SPL, after its last byte", kind: am335x.Unplug, stage: spl, at: ubootSize, within: 10 * time.Second, code: 0, stands: spl},
		{name: "SPL never appears", board: am335x.Config{SPLNever: true}, within: 35 * time.Second, code: 6, stands: rom, says: []string{"did not appear", "SPL_USB_ETHER"}},
		{name: "ROM hangs", kind: am335x.Hang, stage: rom, at: 51_200, within: 75 * time.Second, code: 6, stands: rom, says: []string{"stopped asking", "of 109728 bytes", "1m0s", "reset the board"}},
		{name: "SPL hangs", kind: am335x.Hang, stage: spl, at: 146_800, within: 75 * time.Second, code: 6, stands: spl, says: []string{"stopped asking", "of 755576 bytes"}},
		{name: "ROM says nothing", board: am335x.Config{LossOut: 1}, args: []string{"--timeout", "30s"}, within: 35 * time.Second, code: 6, says: []string{"overall timeout of 30s", "--timeout"}},
		{name: "SPL that the ROM does not start", board: am335x.Config{Faults: []am335x.Fault{{Kind: am335x.Reset, Stage: rom, At: splSize},
			{Kind: am335x.Reset, Stage: rom, At: splSize}, {Kind: am335x.Reset, Stage: rom, At: splSize}}},
			within: 20 * time.Second, code: 6, stands: rom, says: []string{"3 times", "high-security"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t)
			fw := generate(t, 1)
			if tc.kind != "" {
				tc.board.Faults = []am335x.Fault{{Kind: tc.kind, Stage: tc.stage, At: tc.at}}
			}
			b.plug(tc.board, "1-1")
			r := b.recover(fw, append(tc.args, "--usb-path", "1-1")...)
			last := r.exit(tc.code, tc.within)
			r.says(last, tc.says...)
			if tc.stands != "" && last["stage"] != tc.stands && tc.code != 0 {
				t.Errorf("it ended at stage %v, want %s", last["stage"], tc.stands)
			}
		})
	}
}

func TestSandboxNoBoard(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	r := b.recover(generate(t, 1), "--timeout", "1s")
	last := r.exit(3, 5*time.Second)
	r.says(last, "no board within 1s", "0451:6141", "snag doctor")
}

// TestSandboxSignals ends snag at each stage. Nothing may be left of it.
func TestSandboxSignals(t *testing.T) {
	t.Parallel()
	for _, stage := range []struct{ name, event, stage string }{
		{"waiting", "waiting", ""}, {"ROM", "progress", "rom"}, {"between", "stage_done", "rom"}, {"SPL", "progress", "spl"},
	} {
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGKILL} {
			t.Run(fmt.Sprint(stage.name, " ", sig), func(t *testing.T) {
				t.Parallel()
				b := newBox(t)
				args := []string{"--usb-path", "1-1"}
				if sig != syscall.SIGKILL {
					args = append(args, "--on-wait", "sleep 1000") // which ends with snag, if snag can end it
				}
				r := b.recover(generate(t, 1), args...)
				if stage.name != "waiting" {
					b.plug(slow, "1-1")
				}
				r.await(stage.event, stage.stage)
				traces := r.traces()
				r.signal(sig)
				if sig == syscall.SIGKILL {
					if r.wait(); r.code != 128+9 {
						t.Errorf("exit code %d", r.code)
					}
				} else {
					r.exit(130, 3*time.Second)
				}
				traces.vanish(b, r)
			})
		}
	}
}

// TestSandboxWorkerKilled kills the process that holds the network namespace.
func TestSandboxWorkerKilled(t *testing.T) {
	t.Parallel()
	for _, stage := range []struct{ name, event, stage string }{
		{"waiting", "waiting", ""}, {"ROM", "progress", "rom"}, {"between", "stage_done", "rom"}, {"SPL", "progress", "spl"},
	} {
		t.Run(stage.name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t)
			r := b.recover(generate(t, 1), "--usb-path", "1-1")
			if stage.name != "waiting" {
				b.plug(slow, "1-1")
			}
			r.await(stage.event, stage.stage)
			traces := r.traces()
			r.did = time.Now()
			if err := syscall.Kill(traces.worker, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			last := r.exit(1, 3*time.Second)
			r.says(last, "network worker", "killed", "run snag again")
			traces.vanish(b, r)
		})
	}
}

// traces are what a running snag has in the system.
type traces struct {
	pids      []int
	snag      int
	worker    int
	namespace string // "net:[4026532000]", which the test keeps open: a number that is free goes to the next namespace
}

// traces finds snag, its worker and what else it started.
func (r *run) traces() traces {
	r.t.Helper()
	var tr traces
	for _, p := range processes() {
		environ, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.pid), "environ"))
		if slices.Contains(strings.Split(string(environ), "\x00"), r.mark) {
			tr.pids = append(tr.pids, p.pid)
		}
	}
	for _, p := range processes() {
		if slices.Contains(tr.pids, p.parent) && p.command == "snag-network-worker\x00" {
			tr.snag, tr.worker = p.parent, p.pid
			tr.pids = append(tr.pids, p.pid)
		}
	}
	link := fmt.Sprintf("/proc/%d/ns/net", tr.worker)
	kept, err1 := os.Open(link)
	var err2 error
	if tr.namespace, err2 = os.Readlink(link); err1 != nil || err2 != nil {
		r.t.Fatalf("the worker's namespace: %v, %v\n%s", err1, err2, r)
	}
	r.t.Cleanup(func() { kept.Close() })
	return tr
}

// vanish waits until all of it is gone.
func (tr traces) vanish(b *box, r *run) {
	r.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		var left []string
		for _, p := range processes() {
			if p.pid == os.Getpid() { // keeps it open
				continue
			}
			if slices.Contains(tr.pids, p.pid) && p.state != "Z" {
				left = append(left, fmt.Sprintf("process %d (%q)", p.pid, p.command))
			}
			dir := filepath.Join("/proc", strconv.Itoa(p.pid))
			links, _ := filepath.Glob(dir + "/fd/*")
			for _, l := range append(links, dir+"/ns/net") {
				if target, _ := os.Readlink(l); target == tr.namespace {
					left = append(left, l+" is "+target)
				}
			}
		}
		if out := b.output("cat", "/proc/net/unix"); strings.Contains(out, "@snag") {
			left = append(left, out)
		}
		if left == nil {
			return
		}
		if time.Now().After(deadline) {
			r.t.Errorf("left behind: %s\n%s", strings.Join(left, "\n"), r)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

type process struct {
	pid, parent    int
	state, command string
}

func processes() []process {
	var all []process
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		stat, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue // gone
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		command, _ := os.ReadFile(dir + "/cmdline")
		pid, _ := strconv.Atoi(filepath.Base(dir))
		parent, _ := strconv.Atoi(fields[1])
		all = append(all, process{pid, parent, fields[0], string(command)})
	}
	return all
}

// output runs a command in the sandbox.
func (b *box) output(args ...string) string {
	b.t.Helper()
	file := filepath.Join(b.t.TempDir(), "output")
	f, err := os.Create(file)
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	if status, err := b.Run(b.t.Context(), sandbox.Command{Args: args, Stdout: f, Stderr: f}); err != nil || status != 0 {
		b.t.Fatalf("%v: status %d, %v", args, status, err)
	}
	out, err := os.ReadFile(file)
	if err != nil {
		b.t.Fatal(err)
	}
	return string(out)
}

func TestSandboxPortInUse(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	fw := generate(t, 1)
	first := b.recover(fw, "--usb-path", "1-1")
	first.await("waiting", "")
	second := b.recover(fw, "--usb-path", "1-1")
	last := second.exit(1, 5*time.Second)
	pid := first.traces().snag
	second.says(last, "port 1-1 is in use", fmt.Sprintf("process %d", pid), "recover --json -v", fmt.Sprintf("kill %d", pid))
	board := b.plug(am335x.Config{}, "1-1")
	first.exit(0, time.Minute) // it has not noticed
	fw.booted(t, board)
}

func TestSandboxSeveralBoards(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for _, port := range []usb.Port{"1-1", "1-2.3"} {
		b.plug(am335x.Config{}, port)
		b.awaitDevice(port, am335x.ROMID)
	}
	r := b.recover(generate(t, 1))
	r.says(r.exit(2, 10*time.Second), "1-1 (0451:6141)", "1-2.3 (0451:6141)", "--usb-path")
}

func TestSandboxOnWait(t *testing.T) {
	t.Parallel()
	t.Run("runs", func(t *testing.T) {
		t.Parallel()
		b := newBox(t)
		fw := generate(t, 1)
		note := filepath.Join(t.TempDir(), "note")
		r := b.recover(fw, "--usb-path", "1-1", "--on-wait", `echo "to stdout"; echo "$SNAG_PORT $SNAG_SOC" > `+note)
		board := b.plug(am335x.Config{}, "1-1")
		r.exit(0, time.Minute)
		fw.booted(t, board)
		if got, err := os.ReadFile(note); string(got) != "1-1 am335x\n" {
			t.Errorf("the command's environment: %q, %v", got, err)
		}
	})
	t.Run("fails", func(t *testing.T) {
		t.Parallel()
		b := newBox(t)
		r := b.recover(generate(t, 1), "--on-wait", "exit 7")
		r.says(r.exit(1, 5*time.Second), "--on-wait", "exit 7", "exit status 7")
	})
	t.Run("hangs", func(t *testing.T) {
		t.Parallel()
		b := newBox(t)
		fw := generate(t, 1)
		r := b.recover(fw, "--on-wait", "trap '' TERM; sleep 1000; sleep 1000")
		board := b.plug(slow, "1-1")
		r.await("progress", "rom")
		traces := r.traces()
		r.exit(0, 10*time.Second)
		fw.booted(t, board)
		traces.vanish(b, r)
	})
}

func TestSandboxExpect(t *testing.T) {
	t.Parallel()
	other := usb.ID{Vendor: 0x18d1, Product: 0x4ee0}
	for _, tc := range []struct {
		name   string
		gadget usb.ID
		args   []string
		code   int
		within time.Duration
		says   []string
	}{
		{"seen", other, nil, 0, 20 * time.Second, nil},
		{"the ID of SPL", am335x.SPLID, []string{"--expect", am335x.SPLID.String()}, 0, 20 * time.Second, nil},
		{"another device", gadgetID, nil, 6, 75 * time.Second, []string{"everything was sent", "18d1:4ee0", "0525:a4a2 is there", "serial console"}},
		{"nothing", usb.ID{}, nil, 6, 75 * time.Second, []string{"did not appear on port 1-1 within 1m0s", "nothing is there"}},
		{"nothing in the overall time", usb.ID{}, []string{"--timeout", "45s"}, 6, 50 * time.Second, []string{"45s", "18d1:4ee0"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t)
			fw := generate(t, 1)
			board := b.plug(am335x.Config{Gadget: tc.gadget}, "1-1")
			r := b.recover(fw, append([]string{"--expect", other.String()}, tc.args...)...)
			r.says(r.exit(tc.code, tc.within), tc.says...)
			fw.booted(t, board)
		})
	}
}

func TestSandboxUART(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T, cfg uart.Config) *uart.Board {
		cfg.ROMPing, cfg.SPLPing = 200*time.Millisecond, 200*time.Millisecond
		board, err := uart.Start(cfg)
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { board.Close() })
		return board
	}
	t.Run("recovers", func(t *testing.T) {
		t.Parallel()
		b, fw, board := newBox(t), generate(t, 1), start(t, uart.Config{})
		r := b.recover(fw, "--uart", board.TTY)
		last := r.exit(0, time.Minute)
		if last["port"] != board.TTY || len(last["stages"].([]any)) != 2 {
			t.Errorf("last event %v", last)
		}
		if got := board.Received(); !got.Done || !bytes.HasPrefix(got.SPL, fw.spl) || !bytes.Equal(got.UBoot, fw.uboot) {
			t.Errorf("the board has %d and %d bytes, or they differ", len(got.SPL), len(got.UBoot))
		}
	})
	for _, tc := range []struct {
		name   string
		faults uart.Faults
		args   []string
		code   int
		within time.Duration
		says   []string
	}{
		{"silent", uart.Faults{Silent: true}, []string{"--timeout", "2s"}, 3, 5 * time.Second, []string{"no board within 2s", "UART0"}},
		{"boots from elsewhere", uart.Faults{Text: "Starting kernel ...\r\n"}, []string{"--timeout", "2s"}, 3, 5 * time.Second, []string{"no board within 2s", "remove the SD card"}},
		{"silent SPL", uart.Faults{SilentSPL: true}, nil, 6, 45 * time.Second, []string{"u-boot.img", "SPL_YMODEM_SUPPORT"}},
		{"silent SPL in the overall time", uart.Faults{SilentSPL: true}, []string{"--timeout", "20s"}, 6, 25 * time.Second, []string{"u-boot.img"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b, board := newBox(t), start(t, uart.Config{Faults: tc.faults})
			r := b.recover(generate(t, 1), append(tc.args, "--uart", board.TTY)...)
			r.says(r.exit(tc.code, tc.within), tc.says...)
		})
	}
	t.Run("unplugged", func(t *testing.T) {
		t.Parallel()
		b, board := newBox(t), start(t, uart.Config{Faults: uart.Faults{Silent: true}})
		r := b.recover(generate(t, 1), "--uart", board.TTY)
		r.await("waiting", "")
		r.did = time.Now()
		board.Close()
		r.says(r.exit(6, 5*time.Second), "u-boot-spl.bin", "still plugged in")
	})
	t.Run("interrupted", func(t *testing.T) {
		t.Parallel()
		b, board := newBox(t), start(t, uart.Config{Faults: uart.Faults{Silent: true}})
		r := b.recover(generate(t, 1), "--uart", board.TTY)
		r.await("waiting", "")
		second := b.recover(generate(t, 1), "--uart", board.TTY)
		second.says(second.exit(1, 5*time.Second), "in use by process")
		r.signal(syscall.SIGINT)
		r.exit(130, 3*time.Second)
	})
}

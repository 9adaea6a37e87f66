package qemu

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"snag/firmware"
	"snag/internal/lab"
)

// patient is how long a step of firmware may take on a busy computer.
const patient = 30 * time.Second

// keys keep U-Boot from booting by itself, typed long before it asks for any key and waits two seconds, which may be
// over before a busy computer's answer. It forgets what it has received when it sets its UART up, but no UART holds so
// many.
var keys = bytes.Repeat([]byte(" "), 100)

// start starts a machine for a test.
func start(t *testing.T) *Machine {
	t.Helper()
	m, err := Start(t.Context(), Config{QEMU: lab.Command(t, "qemu-system-arm", "qemu-system-arm")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// debian reads a file of Debian's firmware for a board.
func debian(t *testing.T, board, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(lab.Packages(t, "u-boot-imx:armhf")[0], "usr/lib/u-boot", board, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Image vector table, at the start of the images used here; IMX6DQRM, 8.7.1.1. Little-endian.
const (
	ivtEntry = 4
	ivtSelf  = 20
)

// load does what a boot ROM does with an image: it is written to where it says, read back, and executed at the entry
// that is then in memory.
func load(t *testing.T, m *Machine, image []byte) error {
	t.Helper()
	if !bytes.HasPrefix(image, []byte{0xd1, 0x00, 0x20, 0x40}) {
		t.Fatalf("the image begins with % x, not with an IVT", image[:4])
	}
	self := binary.LittleEndian.Uint32(image[ivtSelf:])
	write(t, m, self, image)
	var entry [4]byte
	if err := m.ReadMemory(t.Context(), self+ivtEntry, entry[:]); err != nil {
		t.Fatal(err)
	}
	return m.Jump(t.Context(), binary.LittleEndian.Uint32(entry[:]))
}

// write writes an image and compares what is in memory then.
func write(t *testing.T, m *Machine, addr uint32, image []byte) {
	t.Helper()
	if err := m.WriteMemory(t.Context(), addr, image); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(image))
	if err := m.ReadMemory(t.Context(), addr, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, image) {
		t.Fatalf("%d bytes at %#x are not what was written there", len(image), addr)
	}
}

// await waits for text on a console and logs what was printed.
func await(t *testing.T, c *Console, text string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	s, err := c.Await(ctx, text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestOneStage starts Debian's U-Boot for the board that QEMU models.
func TestOneStage(t *testing.T) {
	m := start(t)
	if err := load(t, m, debian(t, "mx6qsabrelite", "u-boot-dtb.imx")); err != nil {
		t.Fatal(err)
	}
	t.Log(await(t, m.UART[1], "U-Boot 20") + await(t, m.UART[1], "DRAM:"))

	// A ROM that nobody listens to any more is told so.
	if err := m.WriteMemory(t.Context(), ocram, []byte{1}); err == nil || !strings.Contains(err.Error(), "the processor runs") {
		t.Errorf("writing while U-Boot runs: %v", err)
	}
}

// loadUBoot does what SPL's U-Boot does with a legacy image: the header goes before the load address.
func loadUBoot(t *testing.T, m *Machine, image []byte) error {
	t.Helper()
	u, err := firmware.ParseUImage(image)
	if err != nil {
		t.Fatal(err)
	}
	write(t, m, u.Load-64, image)
	return m.Jump(t.Context(), u.Entry)
}

// TestTwoStages starts Debian's SPL, which sets up the board, then U-Boot, and has the board reset and recovered again.
func TestTwoStages(t *testing.T) {
	m := start(t)
	spl, uboot := debian(t, "mx6cuboxi", "SPL"), debian(t, "mx6cuboxi", "u-boot.img")
	for range 2 {
		if err := load(t, m, spl); err != nil {
			t.Fatal(err)
		}
		console := m.UART[0]
		printedSPL := await(t, console, "U-Boot SPL 20") + await(t, console, splIdle)
		t.Log(printedSPL)
		if err := loadUBoot(t, m, uboot); err != nil {
			t.Fatal(err)
		}
		console.Write(keys)
		printed := await(t, console, "=> ")
		console.Write([]byte("version\r"))
		printed += await(t, console, "\n=> ")
		t.Log(printed)
		if strings.Count(printed, "U-Boot 20") != 2 {
			t.Error("U-Boot does not say its version when asked")
		}
		ctx, cancel := context.WithTimeout(t.Context(), patient)
		defer cancel()
		if strings.Contains(printedSPL, "WDT:") { // a newer one resets over the watchdog's pin, which QEMU's board does not have
			if err := m.Reset(ctx); err != nil {
				t.Fatal(err)
			}
		} else {
			console.Write([]byte("reset\r"))
		}
		if err := m.AwaitReset(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// damaged returns the image with one byte of its first instruction changed.
func damaged(image []byte) []byte {
	image = bytes.Clone(image)
	at := binary.LittleEndian.Uint32(image[ivtEntry:]) - binary.LittleEndian.Uint32(image[ivtSelf:])
	image[at] ^= 0xff
	return image
}

// TestDamaged shows that what the other tests see is the images' doing.
func TestDamaged(t *testing.T) {
	const enough = 3 * time.Second // an unharmed image takes a tenth of it
	t.Run("one stage", func(t *testing.T) {
		t.Parallel()
		m := start(t)
		if err := load(t, m, damaged(debian(t, "mx6qsabrelite", "u-boot-dtb.imx"))); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), enough)
		defer cancel()
		if s, err := m.UART[1].Await(ctx, "U-Boot"); err == nil {
			t.Errorf("it prints %q", s)
		}
	})
	t.Run("SPL", func(t *testing.T) {
		t.Parallel()
		m := start(t)
		image := damaged(debian(t, "mx6cuboxi", "SPL"))
		self := binary.LittleEndian.Uint32(image[ivtSelf:])
		write(t, m, self, image)
		ctx, cancel := context.WithTimeout(t.Context(), enough)
		defer cancel()
		err := m.Jump(ctx, binary.LittleEndian.Uint32(image[ivtEntry:]))
		t.Log(err)
		if err == nil || m.UART[0].Text() != "" {
			t.Errorf("it ends with %v and prints %q", err, m.UART[0].Text())
		}
	})
}

// TestMemory reads and writes what is not memory of the kind that images go to.
func TestMemory(t *testing.T) {
	m := start(t)
	for _, test := range []struct {
		name        string
		addr        uint32
		write, read []byte
	}{
		{"OCRAM's end", ocramEnd - 4, []byte{1, 2, 3, 4}, []byte{1, 2, 3, 4}},
		{"DRAM's end", 0x4ffffffd, []byte{5, 6, 7}, []byte{5, 6, 7}},
		{"more than a packet, odd", 0x10000001, bytes.Repeat([]byte("abc"), 1501), bytes.Repeat([]byte("abc"), 1501)},
		{"nothing there", 0x08000000, []byte{1, 2, 3, 4}, []byte{0, 0, 0, 0}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := m.WriteMemory(t.Context(), test.addr, test.write); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(test.read))
			if err := m.ReadMemory(t.Context(), test.addr, got); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, test.read) {
				t.Errorf("wrote %.8x, read %.8x", test.write, got)
			}
		})
	}
}

// TestRegisters writes to a device as a DCD does: IMX6DQRM, 64.15, UART2 at 0x21e8000.
func TestRegisters(t *testing.T) {
	m := start(t)
	for _, w := range []struct{ addr, value uint32 }{
		{0x021e8080, 1}, {0x021e8084, 1<<2 | 1}, // UCR1, UCR2: on, with its transmitter
		{0x021e8040, 'h'}, {0x021e8040, 'i'}, // UTXD
	} {
		if err := m.WriteMemory(t.Context(), w.addr, binary.LittleEndian.AppendUint32(nil, w.value)); err != nil {
			t.Fatal(err)
		}
	}
	await(t, m.UART[1], "hi")
}

// TestReset resets a board that runs, and one that is held.
func TestReset(t *testing.T) {
	m := start(t)
	image := debian(t, "mx6qsabrelite", "u-boot-dtb.imx")
	for range 3 {
		if err := load(t, m, image); err != nil {
			t.Fatal(err)
		}
		await(t, m.UART[1], "U-Boot 20")
		for range 2 {
			if err := m.Reset(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.AwaitReset(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEnds shows what becomes of those who wait when QEMU ends.
func TestEnds(t *testing.T) {
	for _, test := range []struct {
		name, want string
		end        func(*Machine)
	}{
		{"closed", "closed", func(m *Machine) { m.Close() }},
		{"killed", "QEMU ended: signal: killed", func(m *Machine) { m.qemu.cmd.Process.Kill() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := start(t)
			if err := m.Jump(t.Context(), 0x10000000); err != nil {
				t.Fatal(err)
			}
			results := make(chan error)
			go func() { results <- m.AwaitReset(t.Context()) }()
			go func() {
				_, err := m.UART[0].Await(t.Context(), "text")
				results <- err
			}()
			test.end(m)
			reset, text := <-results, <-results
			if strings.Contains(reset.Error(), "UART1") {
				reset, text = text, reset
			}
			if !strings.Contains(reset.Error(), test.want) || !strings.Contains(text.Error(), "UART1: QEMU ended") {
				t.Errorf("AwaitReset: %v\nAwait: %v", reset, text)
			}
			if err := m.WriteMemory(t.Context(), 0, []byte{1}); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("WriteMemory: %v", err)
			}
			<-m.qemu.ended
		})
	}
	t.Run("context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m, err := Start(ctx, Config{QEMU: lab.Command(t, "qemu-system-arm", "qemu-system-arm")})
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		<-m.qemu.ended
		m.Close()
	})
}

// TestNoQEMU shows the errors of a QEMU that does not start, or not as this one.
func TestNoQEMU(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"/nowhere/qemu"}, "starting QEMU: fork/exec /nowhere/qemu: no such file"},
		{[]string{"/bin/sh", "-c", "echo unsupported machine type >&2; exit 1"}, "QEMU ended: exit status 1: unsupported machine type"},
		{[]string{"/bin/sh", "-c", "head -c1 <&3; echo no >&3; exec sleep 300"}, "acknowledges with 'n'"},
	} {
		began := time.Now()
		m, err := Start(t.Context(), Config{QEMU: &exec.Cmd{Path: test.args[0], Args: test.args}})
		if err == nil {
			m.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) || time.Since(began) > patient {
			t.Errorf("%q: %v after %v, want %q", test.args, err, time.Since(began), test.want)
		}
	}
}

// TestKilled kills a process that has a machine, with no chance to tidy up.
func TestKilled(t *testing.T) {
	const role = "SNAG_TEST_MACHINE"
	if os.Getenv(role) != "" {
		m := start(t)
		fmt.Printf("pid %d\n", m.qemu.cmd.Process.Pid)
		select {}
	}
	if testing.Short() {
		t.Skip("needs QEMU")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), role+"=1")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscanf(stdout, "pid %d\n", &pid); err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		t.Skipf("the other process has no machine: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || bytes.Contains(stat, []byte(") Z ")) {
			break // gone, or dead and its new parent has not looked
		}
		if time.Now().After(deadline) {
			t.Fatalf("QEMU, process %d, is still there: %s", pid, stat)
		}
	}
}

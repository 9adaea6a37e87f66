package uart

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// sx and sb of lrzsz recover the board: it is not made for our sender only.
func TestLrzszRecoversTheBoard(t *testing.T) {
	for _, program := range []string{"sx", "sb"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s of the package lrzsz is not installed: %v", program, err)
		}
	}
	b, err := Start(Config{ROMPing: 200 * time.Millisecond, SPLPing: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	spl, uboot := random(1, 40000), random(2, 50001)
	dir := t.TempDir()
	send := func(program, name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), program, "--quiet", "--binary", name)
		cmd.Dir = dir
		tty, err := os.OpenFile(b.TTY, os.O_RDWR|syscall.O_NOCTTY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer tty.Close()
		cmd.Stdin, cmd.Stdout = tty, tty
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s: %v", program, err)
		}
	}
	send("sx", "u-boot-spl.bin", spl)
	send("sb", "u-boot.img", uboot)
	select {
	case <-b.Ended():
	case <-time.After(10 * time.Second):
		t.Fatal("the board does not end")
	}
	got := b.Received()
	if b.Err() != nil || !got.Done || got.UBootName != "u-boot.img" || !bytes.Equal(got.UBoot, uboot) {
		t.Errorf("error %v, U-Boot %q, %d bytes of %d, or they differ", b.Err(), got.UBootName, len(got.UBoot), len(uboot))
	}
	if !bytes.HasPrefix(got.SPL, spl) || len(bytes.TrimLeft(got.SPL[len(spl):], "\x1a")) != 0 {
		t.Errorf("SPL: %d bytes of %d, or they differ", len(got.SPL), len(spl))
	}
}

func TestCRC(t *testing.T) {
	if !crcOK([]byte("123456789\x31\xc3")) || crcOK([]byte("123456788\x31\xc3")) {
		t.Error("123456789 has the CRC 31c3")
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add([]byte("u-boot.img\x001234 0 0\x00"))
	f.Add([]byte("\x00"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		if name, size, err := parseHeader(data); err == nil && (size < 0 || len(name) > len(data)) {
			t.Errorf("%q %d", name, size)
		}
	})
}

func random(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return data
}

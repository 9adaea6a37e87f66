package uboot_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"snag/sim/uboot"
)

func machine(t testing.TB) *uboot.Machine {
	return &uboot.Machine{
		Env: map[string]string{"emmc_dev": "2", "two": "one  two", "loop": "run loop", "greet": "echo hello ${name}; setenv done yes"},
		MMC: []*uboot.MMC{2: uboot.NewMMC(64<<20, 1<<20)},
		MTD: []*uboot.MTD{
			uboot.NewMTD("spi-nand0", true, 16<<17, 1<<17, 2048, uboot.MTDPart{Name: "boot", Off: 0, Size: 4 << 17}, uboot.MTDPart{Name: "rootfs", Off: 4 << 17, Size: 12 << 17}),
			uboot.NewMTD("nor0", false, 1<<20, 4096, 1),
		},
		Commands: map[string]uboot.Command{"fuse": func(_ context.Context, m *uboot.Machine, args []string) error {
			m.Printf("%q\n", args)
			return nil
		}},
		Violation: func(format string, args ...any) { t.Errorf(format, args...) },
	}
}

func TestShell(t *testing.T) {
	for _, tc := range []struct {
		line, says string
		fails      bool
	}{
		{line: "echo a b", says: "a b"},
		{line: "echo 'a  b' \"c  $emmc_dev\" d\\ e", says: "a  b c  2 d e"},
		{line: "echo $two; echo \"$two\"", says: "one two|one  two"},
		{line: "setenv x ${emmc_dev}${emmc_dev}; echo $x '$x'", says: "22 $x"},
		{line: "true && echo yes || echo no", says: "yes"},
		{line: "false && echo yes || echo no", says: "no"},
		{line: "if test $emmc_dev = 2; then echo two; else echo other; fi", says: "two"},
		{line: "if test $emmc_dev = 1; then echo one; elif test -n \"$two\"; then echo set; else echo other; fi", says: "set"},
		{line: "if env exists emmc_ack; then ; else setenv emmc_ack 0; fi; echo $emmc_ack", says: "0"},
		{line: "for i in 1 2 3; do echo $i; done", says: "1|2|3"},
		{line: "setenv n 0; while itest $n -lt 3; do echo $n; setexpr n $n + 1; done", says: "0|1|2"},
		{line: "setenv name you; run greet; echo $done", says: "hello you|yes"},
		{line: "run loop", fails: true, says: "the command line does not end"},
		{line: "while true; do true; done", fails: true},
		{line: "fuse prog -y 9 0 0xccddeeff", says: `["fuse" "prog" "-y" "9" "0" "0xccddeeff"]`},
		{line: "nonsense", fails: true, says: "Unknown command 'nonsense'"},
		{line: "echo 'a", fails: true, says: "unbalanced quote"},
		{line: "if true; then echo", fails: true},
		{line: "&& true", fails: true},
		{line: "false; true"},
		{line: "true; false", fails: true},
		{line: "# nothing"},
		{line: ""},
		{line: "mw.l 0x40000000 0x11223344 4; md.l 40000000 1", says: "40000000: 44 33 22 11"},
		{line: "mw.l 40000000 1 4; cmp.l 40000000 40000008 2 && mw.b 40000009 1; cmp.b 40000000 40000008 8", fails: true},
		{line: "mw.b 40000000 61 1; mw.b 40000001 62 2; crc32 40000000 3 40000010; setexpr.l c *40000010; echo $c", says: "==> 42237154|54712342"},
		{line: "mw.b 40000000 61 1; crc32 -v 40000000 1 e8b7be43"},
		{line: "mw.b 40000000 61 1; crc32 -v 40000000 1 e8b7be44", fails: true, says: "bad CRC"},
		{line: "mmc dev 2 && mw.b 40000000 5a 200 && mmc write 40000000 10 1 && mmc read 40001000 10 1 && cmp.b 40000000 40001000 200"},
		{line: "mmc write 40000000 1ffff 2", fails: true, says: "exceeds max"},
		{line: "mmc dev 2 1 && mmc write 40000000 7ff 1 && mmc write 40000000 800 1", fails: true},
		{line: "mmc dev 2 4", fails: true},
		{line: "mmc dev 0", fails: true},
		{line: "gpt write mmc 2 'name=root,size=1MiB,type=linux'"},
		{line: "gpt write mmc 2 'name=boot,size=1MiB;name=root,size=-' && gpt verify mmc 2 && gpt setenv mmc 2 root && echo $gpt_partition_addr && part size mmc 2 boot n && echo $n", says: "822|0x800"},
		{line: "gpt setenv mmc 2 boot", fails: true},
		{line: "mtd erase rootfs && mtd write rootfs 40000000 0 800 && mtd read rootfs 40001000 0 800 && cmp.b 40000000 40001000 800"},
		{line: "mtd erase rootfs 0 100", fails: true, says: "not a multiple"},
		{line: "sf read 40000000 0 100", fails: true, says: "sf probe"},
		{line: "sf probe && sf erase 0 +1234 && sf write 40000000 3 1000"},
		{line: "sf erase 0 1234", fails: true},
		{line: "nand erase.part boot && nand write 40000000 boot 1000"},
	} {
		t.Run(tc.line, func(t *testing.T) {
			m := machine(t)
			err := m.Run(t.Context(), tc.line)
			if (err != nil) != tc.fails {
				t.Errorf("error %v", err)
			}
			if got := strings.Join(m.Console(), "|"); !strings.Contains(got, tc.says) {
				t.Errorf("it printed %q, want %q", got, tc.says)
			}
		})
	}
	t.Run("reset", func(t *testing.T) {
		m := machine(t)
		if err := m.Run(t.Context(), "setenv x 1; reset; echo no"); !errors.Is(err, uboot.ErrReset) {
			t.Error(err)
		}
		m.Power()
		if m.Getenv("x") != "" || m.Getenv("emmc_dev") != "2" {
			t.Error(m.Environment())
		}
	})
}

func TestNAND(t *testing.T) {
	m := machine(t)
	var wrong []string
	d := m.MTD[0]
	d.Bad[5] = true
	d.Worn[7] = true
	d.Violation = func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	data := make([]byte, 3<<17)
	for i := range data {
		data[i] = byte(i>>17)*16 + byte(i%13)
	}
	if err := m.Write(0x40000000, data); err != nil {
		t.Fatal(err)
	}
	run := func(line string) {
		t.Helper()
		if err := m.Run(t.Context(), line); err != nil {
			t.Error(line, err)
		}
	}
	run("mtd erase rootfs; mtd write rootfs 40000000 0 60000; mtd read rootfs 41000000 0 60000; cmp.b 40000000 41000000 60000")
	if got, err := d.ReadGood(4<<17, int64(len(data))); err != nil || !bytes.Equal(got, data) {
		t.Error("another rootfs", err)
	}
	b := make([]byte, 16)
	d.ReadAt(b, 5<<17)
	if !bytes.Equal(b, bytes.Repeat([]byte{0xff}, 16)) || len(wrong) > 0 {
		t.Error(b, wrong)
	}
	run("mtd erase rootfs; mtd write rootfs 40000000 0 60000")
	if len(wrong) == 0 || !strings.Contains(wrong[0], "without having been erased") { // block 7 is worn
		t.Error(wrong)
	}
	if text := m.Console(); !slices.ContainsFunc(text, func(s string) bool { return strings.Contains(s, "erase failed") }) {
		t.Error(text)
	}
}

func FuzzShell(f *testing.F) {
	for _, s := range []string{"if test a = b; then echo ${x}; fi", "mw.l 40000000 1 10; crc32 40000000 10", "a && b || c", "mtd erase rootfs 0 20000", "gpt write mmc 2 'name=a,size=1MiB'"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.Contains(s, "sleep") {
			return
		}
		m := machine(t)
		m.Violation = nil
		m.RAM, m.RAMSize = 0x40000000, 1<<16
		m.Run(t.Context(), s)
	})
}

func FuzzGPT(f *testing.F) {
	t, err := uboot.LayGPT("name=a,size=1MiB;name=b,size=-", 4<<20)
	if err != nil {
		f.Fatal(err)
	}
	// Four entries: the fuzzer is slow with long inputs.
	b, _ := t.Encode(4 << 20)
	b = b[:1024+4*128]
	le := binary.LittleEndian
	le.PutUint32(b[512+80:], 4)
	le.PutUint32(b[512+88:], crc32.ChecksumIEEE(b[1024:]))
	clear(b[512+16 : 512+20])
	le.PutUint32(b[512+16:], crc32.ChecksumIEEE(b[512:512+92]))
	if g, err := uboot.ParseGPT(b, 4<<20); err != nil || len(g.Parts) != 2 {
		f.Fatal(g, err)
	}
	f.Add(b, "name=a,size=1MiB;name=b,start=3MiB,size=-")
	f.Fuzz(func(t *testing.T, b []byte, text string) {
		if g, err := uboot.ParseGPT(b, 4<<20); err == nil {
			p, _ := g.Encode(4 << 20)
			if _, err := uboot.ParseGPT(p, 4<<20); err != nil && len(g.Parts) <= 128 {
				t.Error(err)
			}
		}
		if g, err := uboot.LayGPT(text, 4<<20); err == nil {
			p, _ := g.Encode(4 << 20)
			if _, err := uboot.ParseGPT(p, 4<<20); err != nil {
				t.Errorf("%q: %v", text, err)
			}
		}
	})
}

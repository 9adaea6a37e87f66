package snagflash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"snag/plan"
)

// dry is what would be done.
func dry(t testing.TB, p *plan.Plan) string {
	t.Helper()
	var b strings.Builder
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "%d %s", s.Line, s.Action)
		switch a := s.Action.(type) {
		case *plan.Flash:
			fmt.Fprintf(&b, " [buffer %#x+%#x, erase block %#x, as is %t, verify %t, force %t]", a.To.Buffer, a.To.BufferSize, a.To.EraseBlock, a.AsIs, a.Verify, a.To.Force)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestParse(t *testing.T) {
	p, err := Parse("dir/flash.cmd", []byte(`# a comment
set target mmc1
set fb-addr 0x82000000
set fb-size 0x1000000
gpt name=boot,size=64M;name=root,size=-
flash boot.img 0x1000 boot
set paths-relative-to THIS_FILE
flash "two words.img" 0
flash rootfs.img.xz 1024 hwpart 1
print target
run oem-run:saveenv
run download:x
set target spi-nand0
set eraseblk-size 0x20000
flash u-boot.bin 0x20000
flash u-boot.bin 0 part1
run reset
exit
nobody reads this
`))
	if err != nil {
		t.Fatal(err)
	}
	const want = `5 uboot gpt write mmc 1 'name=boot,size=64M;name=root,size=-'
5 uboot part list mmc 1
6 flash boot.img to mmc 1:boot from 0x1000 on [buffer 0x82000000+0x1000000, erase block 0x0, as is false, verify false, force false]
8 flash dir/two words.img to mmc 1 [buffer 0x82000000+0x1000000, erase block 0x0, as is false, verify false, force false]
9 flash dir/rootfs.img.xz to mmc 1.1 from 0x400 on [buffer 0x82000000+0x1000000, erase block 0x0, as is false, verify false, force false]
10 note target: mmc1
11 uboot saveenv
12 download dir/x
15 flash dir/u-boot.bin to mtd spi-nand0 from 0x20000 on [buffer 0x82000000+0x1000000, erase block 0x20000, as is false, verify false, force false]
16 flash dir/u-boot.bin to mtd part1 [buffer 0x82000000+0x1000000, erase block 0x20000, as is false, verify false, force false]
17 reset
`
	if got := dry(t, p); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestMistakes(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"", "f: no command in it"},
		{"\n\nflsh x", `f:3:1: unknown command "flsh"`},
		{"set target", "set: expected VARIABLE VALUE"},
		{"set target /dev/sda", "set: expected VARIABLE VALUE"},
		{"set tarjet mmc0", "no such variable"},
		{"flash x 0", "the variable target is not set"},
		{"set target mmc0\nflash", "expected IMAGE OFFSET"},
		{"set target mmc0\nflash x many", `offset "many"`},
		{"set target mmc0\nflash x 100", "whole blocks"},
		{"set target mmc0\nflash x 0 hwpart 9", "expected 0 to 7"},
		{"set target mmc0\nflash x 0 hwpart one two", "expected a partition, or hwpart N"},
		{"set target mmc0\nflash x 0 a;reset", "expected letters"},
		{"set target nor0\nset eraseblk-size 0x10000\nflash x 0x1000", "whole erase blocks"},
		{"set target mmc0\nflash \"x 0", "the quote has no end"},
		{"set target nor0\ngpt name=a,size=-", "only mmc targets"},
		{"set target mmc0\ngpt name=a'; reset", "a quote would end"},
		{"print target", "target is not set"},
		{"run", "unknown fastboot command"},
		{"run oem_runn:x", "did you mean oem_run?"},
		{"run boot:x", "nothing may stand behind it"},
		{"run erase", "expected a partition behind a colon"},
		{"run flash_sparse:x", "expected FILE:PARTITION"},
		{"set paths-relative-to HOME\nset target mmc0\nflash x 0", "expected CWD or THIS_FILE"},
	} {
		_, err := Parse("f", []byte(tc.text))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: got %v, want %q", tc.text, err, tc.want)
		}
	}
}

func TestFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("set target mmc0\nflash x 0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		f         Flags
		want, err string
	}{
		{f: Flags{Protocol: "fastboot", Commands: []string{"getvar:version", "download:boot.img", "flash:0:1", "oem-format", "oem_partconf:1 1",
			"ucmd:mmc dev 0", "acmd:reset", "flash_sparse:a.img:0:1", "reboot-bootloader"}}, want: `0 fastboot getvar:version
0 download boot.img
0 fastboot flash:0:1
0 fastboot oem format
0 fastboot oem partconf:1 1
0 fastboot UCmd:mmc dev 0
0 fastboot ACmd:reset
0 flash a.img to fastboot 0:1 [buffer 0x0+0x0, erase block 0x0, as is false, verify false, force false]
0 fastboot reboot-bootloader
`},
		{f: Flags{Protocol: "dfu", DFU: []string{"0:a.img", "rootfs:b.img"}}, want: `0 flash a.img to dfu 0 [buffer 0x0+0x0, erase block 0x0, as is true, verify false, force false]
0 flash b.img to dfu rootfs [buffer 0x0+0x0, erase block 0x0, as is true, verify false, force false]
0 detach
`},
		{f: Flags{Protocol: "dfu", DFU: []string{"0:a.img"}, Keep: true, Verify: true}, want: "0 flash a.img to dfu 0 [buffer 0x0+0x0, erase block 0x0, as is true, verify true, force false]\n"},
		{f: Flags{Protocol: "dfu", Detach: true}, want: "0 detach\n"},
		{f: Flags{Protocol: "dfu", Reset: true}, want: "0 reset\n"},
		{f: Flags{Protocol: "ums", Source: "a.img", Device: "/dev/sdx", Force: true}, want: "0 flash a.img to /dev/sdx [buffer 0x0+0x0, erase block 0x0, as is false, verify false, force true]\n"},
		{f: Flags{Protocol: "ums", Source: "d/a.img", Dest: "/"}, want: "0 flash d/a.img to /a.img [buffer 0x0+0x0, erase block 0x0, as is true, verify false, force false]\n"},
		{f: Flags{Protocol: "ums", Source: "a.img", Dest: "b.img"}, want: "0 flash a.img to b.img [buffer 0x0+0x0, erase block 0x0, as is true, verify false, force false]\n"},
		{f: Flags{Protocol: "fastboot", Commands: []string{"download:a", "flash:b"}, Verify: true}, err: "--verify: flash:b: what fastboot's flash has written cannot be read back"},
		{f: Flags{Protocol: "fastboot", Commands: []string{"flash_sparse:a:b"}, Verify: true}, err: "--verify: what fastboot's flash has written cannot be read back"},
		{f: Flags{Protocol: "fastboot-uboot", File: file, Verify: true}, want: "2 flash x to mmc 0 [buffer 0x0+0x0, erase block 0x0, as is false, verify true, force false]\n"},
		{f: Flags{Protocol: "dfu", DFU: []string{"0:a.img"}, Force: true}, err: "-P dfu, and --force: only disks"},
		{f: Flags{Protocol: "usb"}, err: "-P usb: expected one of fastboot, fastboot-uboot, dfu, ums"},
		{f: Flags{Protocol: "fastboot"}, err: "nothing to do"},
		{f: Flags{Protocol: "fastboot", DFU: []string{"0:a"}}, err: "flags of another protocol"},
		{f: Flags{Protocol: "fastboot-uboot", Commands: []string{"boot"}}, err: "-f is of -P fastboot"},
		{f: Flags{Protocol: "dfu"}, err: "-D ALTERNATE:FILE is missing"},
		{f: Flags{Protocol: "dfu", DFU: []string{"a.img"}}, err: "expected ALTERNATE:FILE"},
		{f: Flags{Protocol: "ums", Source: "a"}, err: "expected --src FILE"},
		{f: Flags{Protocol: "ums", Source: "a", Dest: "b", Device: "/dev/c"}, err: "one of them"},
		{f: Flags{Protocol: "ums", Source: "a", Device: "sdx"}, err: "expected a block device"},
	} {
		p, err := tc.f.Plan()
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%+v: got %v, want %q", tc.f, err, tc.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", tc.f, err)
			continue
		}
		if got := dry(t, p); got != tc.want {
			t.Errorf("got\n%s\nwant\n%s", got, tc.want)
		}
	}
}

// TestPrompt reads lines, tells mistakes and goes on, and ends.
func TestPrompt(t *testing.T) {
	var prompt strings.Builder
	p, err := Flags{Protocol: "fastboot-uboot", Interactive: true, Input: strings.NewReader("set target mmc0\nflsh\nrun boot\nquit\nrun reset\n"), Prompt: &prompt}.Plan()
	if err != nil {
		t.Fatal(err)
	}
	next := p.Steps[0].Action.(*plan.Interactive).Next
	var got []string
	for {
		actions, err := next(context.Background())
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range actions {
			got = append(got, a.String())
		}
	}
	if s := strings.Join(got, "\n"); !strings.HasPrefix(s, `note unknown command "flsh"`) || !strings.HasSuffix(s, "\nfastboot boot") {
		t.Errorf("got %s", s)
	}
	if n := strings.Count(prompt.String(), "snag flash > "); n != 4 {
		t.Errorf("%d prompts", n)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("set target mmc1\nset fb-addr 0x82000000\ngpt name=boot,size=64M;name=root,size=-\nflash \"a b\" 0x1000 boot\n")
	f.Add("set target nor0\nset eraseblk-size 4096\nset fb-size 65536\nset paths-relative-to THIS_FILE\nflash a 4096 part\nprint\n")
	f.Add("run oem-run:x\nrun flash_sparse:a:b\nrun download:x\nrun reset\nhelp\nquit\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse("dir/file", []byte(text))
		if err != nil {
			if _, ok := errors.AsType[*plan.Error](err); !ok {
				t.Fatalf("%v is no *plan.Error", err)
			}
			return
		}
		for _, s := range p.Steps {
			if fl, ok := s.Action.(*plan.Flash); ok {
				if err := fl.To.Check(); err != nil {
					t.Fatal(err)
				}
			}
			if strings.ContainsAny(s.Action.String(), "\n\r") {
				t.Fatalf("%q", s.Action)
			}
		}
	})
}

// TestNOR is told by the target's name: only what is written is erased there.
func TestNOR(t *testing.T) {
	for target, want := range map[string]bool{"nor0": true, "spi-nor1": true, "spi-nand0": false, "nand0": false} {
		p, err := Parse("f", []byte("set target "+target+"\nflash x 0 part"))
		if err != nil {
			t.Fatal(err)
		}
		if to := p.Steps[0].Action.(*plan.Flash).To; to.NOR != want || to.Name != "part" {
			t.Errorf("%s: %+v", target, to)
		}
	}
}

package firmware

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"snag/firmware/firmwaretest"
)

// What mkimage and dtc make is read, and what the tests' builders make is read by dumpimage and dtc:
// so neither the parsers nor the builders are believed on their own word.

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func write(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMkimageUImage(t *testing.T) {
	mkimage := tool(t, "mkimage", "u-boot-tools")
	dir := t.TempDir()
	data := pattern(5000)
	in, out := write(t, dir, "in", data), filepath.Join(dir, "out")
	for _, v := range []struct{ arch, os, typ, comp string }{
		{"arm", "u-boot", "firmware", "none"}, {"arm64", "linux", "kernel", "gzip"}, {"riscv", "opensbi", "firmware", "zstd"},
		{"mips", "linux", "ramdisk", "lzma"}, {"arm", "rtems", "standalone", "lz4"}, {"ppc", "vxworks", "kernel", "bzip2"},
	} {
		run(t, mkimage, "-A", v.arch, "-O", v.os, "-T", v.typ, "-C", v.comp, "-a", "0x80800000", "-e", "0x80800040", "-n", "a name", "-d", in, out)
		u, err := ParseUImage(read(t, out))
		if err != nil {
			t.Errorf("%+v: %v", v, err)
			continue
		}
		got := fmt.Sprint(u.Arch, u.OS, u.Type, u.Compression)
		if got != fmt.Sprint(v.arch, v.os, v.typ, v.comp) || u.Name != "a name" || u.Load != 0x80800000 || u.Entry != 0x80800040 || !bytes.Equal(u.Data, data) {
			t.Errorf("%+v was read as %s, %q, %#x, %#x", v, got, u.Name, u.Load, u.Entry)
		}
	}
}

func TestDumpimageReadsOurUImage(t *testing.T) {
	dumpimage := tool(t, "dumpimage", "u-boot-tools")
	img := write(t, t.TempDir(), "img", makeUImage("U-Boot for a test", 0x80800000, pattern(100)))
	if out := run(t, dumpimage, "-l", img); !strings.Contains(out, "ARM U-Boot Firmware (uncompressed)") || !strings.Contains(out, "U-Boot for a test") {
		t.Error(out)
	}
}

const imageTree = `/dts-v1/;
/ {
	description = "a test";
	#address-cells = <1>;
	images {
		firmware-1 {
			description = "U-Boot 2025.01 for am335x board";
			data = /incbin/("uboot");
			type = "firmware"; arch = "arm"; os = "u-boot"; compression = "none";
			load = <0x80800000>;
			hash-1 { algo = "crc32"; };
			hash-2 { algo = "md5"; };
			hash-3 { algo = "sha1"; };
			hash-4 { algo = "sha256"; };
			hash-5 { algo = "sha384"; };
			hash-6 { algo = "sha512"; };
		};
		fdt-1 {
			description = "board";
			data = /incbin/("dtb");
			type = "flat_dt"; arch = "arm"; compression = "none";
			hash-1 { algo = "sha256"; };
		};
	};
	configurations {
		default = "conf-1";
		conf-1 { description = "board"; firmware = "firmware-1"; fdt = "fdt-1"; };
	};
};
`

func TestMkimageFIT(t *testing.T) {
	mkimage := tool(t, "mkimage", "u-boot-tools")
	tool(t, "dtc", "device-tree-compiler") // mkimage runs it
	for name, args := range map[string][]string{"internal": nil, "external": {"-E"}, "position": {"-E", "-p", "0x2000"}, "aligned": {"-E", "-B", "0x200"}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "uboot", pattern(3001))
			write(t, dir, "dtb", pattern(555))
			its := write(t, dir, "image.its", []byte(imageTree))
			out := filepath.Join(dir, "image.itb")
			run(t, mkimage, append(args, "-f", its, out)...)
			b := read(t, out)
			f, err := ParseFIT(b)
			if err != nil {
				t.Fatal(err)
			}
			if len(f.Images) != 2 || !bytes.Equal(f.Images[0].Data, pattern(3001)) || !bytes.Equal(f.Images[1].Data, pattern(555)) {
				t.Fatalf("%d images", len(f.Images))
			}
			if f.Images[0].External != (args != nil) || len(f.Images[0].Hashes) != 6 || f.Default != "conf-1" || len(f.Unverified()) != 0 {
				t.Errorf("%+v", f)
			}
			for _, h := range f.Images[0].Hashes {
				if !h.OK {
					t.Errorf("%s was not verified", h.Algo)
				}
			}
			at := bytes.Index(b, pattern(3001)) + 1
			if _, err := ParseFIT(damage(b, at)); err == nil || strings.Count(err.Error(), "the tree says") != 6 {
				t.Errorf("damaged: %v", err)
			}
		})
	}
}

func TestDTCReadsOurTree(t *testing.T) {
	dtc := tool(t, "dtc", "device-tree-compiler")
	dir := t.TempDir()
	img := write(t, dir, "img", makeFIT("arm", false))
	out := run(t, dtc, "-q", "-I", "dtb", "-O", "dts", img)
	for _, want := range []string{`description = "test"`, "firmware-1 {", "load = <0x80800000>", `algo = "sha256"`, `default = "conf-1"`} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestMkimageMLO(t *testing.T) {
	mkimage := tool(t, "mkimage", "u-boot-tools")
	dir := t.TempDir()
	spl := makeSPL(0x402f0400, "U-Boot SPL 2025.01 (today)", 5000)
	in, out := write(t, dir, "in", spl), filepath.Join(dir, "MLO")
	run(t, mkimage, "-T", "omapimage", "-a", "0x402f0400", "-d", in, out)
	b := read(t, out)
	m, err := ParseMLO(b)
	if err != nil || m.Load != 0x402f0400 || !bytes.Equal(m.Data, spl) || len(m.Items) != 1 || m.Items[0] != (TOCItem{"CHSETTINGS", 0x40, 0xc}) {
		t.Errorf("%+v, %v", m, err)
	}
	if !bytes.Equal(b, makeMLO(0x402f0400, spl)) {
		t.Error("the tests build another MLO than mkimage")
	}
	run(t, mkimage, "-T", "omapimage", "-n", "byteswap", "-a", "0x402f0400", "-d", in, out)
	if info := Identify(read(t, out)); info.Kind != KindTISwapped {
		t.Errorf("byteswap: %v", info)
	}
}

// TestMkimageOthers makes first stages of other SoCs.
func TestMkimageOthers(t *testing.T) {
	mkimage := tool(t, "mkimage", "u-boot-tools")
	dir := t.TempDir()
	in := write(t, dir, "in", makeSPL(0, "U-Boot SPL 2025.01 (today)", 8192))
	for _, tt := range []struct {
		args []string
		kind Kind
		want string
	}{
		{[]string{"-T", "sunxi_egon", "-n", "sun8i-test"}, KindEGON, "Allwinner eGON"},
		{[]string{"-T", "stm32image", "-a", "0x2ffc2500", "-e", "0x2ffc2500"}, KindSTM32, "STM32MP"},
		{[]string{"-T", "rksd", "-n", "rk3288"}, KindRKIDBlock, "Rockchip"},
		{[]string{"-T", "rksd", "-n", "rk3568"}, KindRKIDBlock, "Rockchip"},
		{[]string{"-T", "zynqmpimage"}, KindZynqMP, "ZynqMP"},
		{[]string{"-T", "zynqimage"}, KindOtherSoC, "Zynq-7000"},
	} {
		out := filepath.Join(dir, "out")
		if b, err := exec.Command(mkimage, append(tt.args, "-d", in, out)...).CombinedOutput(); err != nil {
			t.Logf("this mkimage cannot make %q: %v: %s", tt.args, err, b)
			continue
		}
		if info := Identify(read(t, out)); info.Kind != tt.kind || !strings.Contains(info.Text, tt.want) {
			t.Errorf("%q: kind %d, %v", tt.args, info.Kind, info)
		}
	}
}

// mkimageCfg runs mkimage with a configuration file in a directory that holds program.bin, U-Boot's stand-in.
func mkimageCfg(t *testing.T, cfg string, args ...string) []byte {
	t.Helper()
	mkimage := tool(t, "mkimage", "u-boot-tools")
	dir := t.TempDir()
	write(t, dir, "program.bin", pattern(20000))
	write(t, dir, "plugin.bin", pattern(1200))
	write(t, dir, "image.cfg", []byte(cfg))
	cmd := exec.Command(mkimage, append(append([]string{"-n", "image.cfg"}, args...), "out")...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", cmd.Args, err, out)
	}
	return read(t, filepath.Join(dir, "out"))
}

func TestMkimageIMX(t *testing.T) {
	img := mkimageCfg(t, `IMAGE_VERSION 2
BOOT_FROM sd
DATA 4 0x020e05a8 0x30
CLR_BIT 4 0x020e05a8 0x30
SET_BIT 4 0x020e05ac 0x1
CHECK_BITS_SET 4 0x020c8000 0x80000000
CHECK_BITS_CLR 4 0x020c8000 0x80000000
DATA 4 0x020e05b0 0x30
DATA 2 0x020e05b4 0x31
`, "-T", "imximage", "-e", "0x17800000", "-d", "program.bin")
	v, err := FindIVT(img, 0)
	if err != nil || v.Offset != 0 || v.Self != 0x177ff400 || v.BootData.Start != 0x177ff000 || v.Entry != 0x17800000 {
		t.Fatalf("%+v, %v", v, err)
	}
	body, addr, err := v.Image(img)
	if err != nil || addr != v.Self || len(body) != len(img) || !bytes.Equal(body[0xc00:0xc00+20000], pattern(20000)) {
		t.Errorf("%d of %d bytes for %#x, %v", len(body), len(img), addr, err)
	}
	dcd, err := v.DCDBytes(img)
	if err != nil {
		t.Fatal(err)
	}
	cmds, err := ParseDCD(dcd)
	var got []string
	for _, c := range cmds {
		got = append(got, fmt.Sprintf("%s %d %#x %#x %s", c.Op, c.Width, c.Address, c.Value, c.Condition))
	}
	want := "write 4 0x20e05a8 0x30 all clear|clear bits 4 0x20e05a8 0x30 all clear|set bits 4 0x20e05ac 0x1 all clear|" +
		"check 4 0x20c8000 0x80000000 all set|check 4 0x20c8000 0x80000000 all clear|write 4 0x20e05b0 0x30 all clear|write 4 0x20e05b4 0x31 all clear"
	if err != nil || strings.Join(got, "|") != want { // mkimage makes every width 4
		t.Errorf("%q, %v", got, err)
	}
}

func TestMkimageIMXSigned(t *testing.T) {
	img := mkimageCfg(t, "IMAGE_VERSION 2\nBOOT_FROM sd\nCSF 0x2000\n", "-T", "imximage", "-e", "0x17800000", "-d", "program.bin")
	v, err := FindIVT(img, 0)
	if err != nil || v.CSF == 0 || v.DCD != 0 {
		t.Fatalf("%+v, %v", v, err)
	}
	if v.Announced() != len(img)+0x2000 {
		t.Errorf("%#x bytes announced, the file has %#x: the signature's 0x2000 should be missing", v.Announced(), len(img))
	}
	if b, err := v.CSFBytes(img); err == nil {
		t.Errorf("a CSF of %d bytes in an image that is not signed", len(b))
	}
}

func TestMkimageIMXPlugin(t *testing.T) {
	img := mkimageCfg(t, "IMAGE_VERSION 2\nBOOT_FROM sd\nPLUGIN plugin.bin 0x00907000\n", "-T", "imximage", "-e", "0x17800000", "-d", "program.bin")
	v, err := FindIVT(img, 0)
	if err != nil || !v.IsPlugin() || v.Self != 0x907400 || v.Entry != 0x90742c {
		t.Fatalf("%+v, %v", v, err)
	}
	if v, err = FindIVT(img, v.Offset+IVTSize); err != nil || v.IsPlugin() || v.Entry != 0x17800000 {
		t.Fatalf("second: %+v, %v", v, err)
	}
	body, _, err := v.Image(img)
	if err != nil || !bytes.HasPrefix(body[v.Entry-v.Self:], pattern(20000)) {
		t.Errorf("second: %d bytes, %v", len(body), err)
	}
}

func TestMkimageIMX51(t *testing.T) {
	img := mkimageCfg(t, "BOOT_FROM sd\nDATA 4 0x73fa88a0 0x200\nDATA 4 0x73fa850c 0x20c5\nDATA 1 0x73fa8510 0x20\n",
		"-T", "imximage", "-e", "0x97800000", "-d", "program.bin")
	h, err := FindFlashHeader(img, 0)
	if err != nil || h.Self != 0x977ff400 || h.Entry != 0x97800000 || h.Start != 0x977ff000 || len(h.Instructions) != 3 || h.Instructions[2].Width != 1 {
		t.Fatalf("%+v, %v", h, err)
	}
	if body, addr, err := h.Image(img); err != nil || addr != h.Self || len(body) != len(img) || int(h.Length) != len(img)+0x400 {
		t.Errorf("%d of %d bytes for %#x, %v", len(body), len(img), addr, err)
	}
}

func TestMkimageIMX8(t *testing.T) {
	img := mkimageCfg(t, "BOOT_FROM SD 0x400\nSOC_TYPE IMX8QX\nCONTAINER\nIMAGE SCU plugin.bin\nCONTAINER\nIMAGE A35 program.bin 0x80000000\n",
		"-T", "imx8image", "-d", "program.bin")
	s, err := ParseContainers(img, 0)
	if err != nil || len(s.Containers) != 2 || s.Size != len(img) {
		t.Fatalf("%+v, %v", s, err)
	}
	for _, c := range s.Containers {
		for n, i := range c.Images {
			if !i.Verified || i.Algo != "sha384" {
				t.Errorf("image %d of the container at %#x: %+v", n, c.Offset, i)
			}
		}
	}
	if i := s.Containers[1].Images[0]; i.Load != 0x80000000 || !bytes.HasPrefix(img[i.Offset:], pattern(20000)) {
		t.Errorf("%+v", i)
	}
}

const streamCfg = `SECTION 0x0 BOOTABLE
 TAG LAST
 LOAD     0x1000 plugin.bin
 LOAD  IVT 0x8000 0x1000
 CALL HAB 0x8000 0x0
 LOAD     0x40002000 program.bin
 FILL 0x100 0x0 0x20
 LOAD  IVT 0x8000 0x40002000
 CALL HAB 0x8000 0x0
`

func TestMkimageMXS(t *testing.T) {
	img := mkimageCfg(t, streamCfg, "-T", "mxsimage", "-d", "image.cfg")
	s, err := ParseBootStream(img)
	if err != nil || !s.Opened || s.Size != len(img) || len(s.Sections) != 1 || len(s.Sections[0].Commands) != 7 {
		t.Fatalf("%+v, %v", s, err)
	}
	if c := s.Sections[0].Commands[3]; c.Name != "load" || c.Address != 0x40002000 || c.Count != 20000 {
		t.Errorf("%+v", c)
	}
	if _, err := ParseBootStream(damage(img, len(img)/2)); err == nil {
		t.Error("a changed byte went unnoticed")
	}
}

// TestDumpimageReadsOurStream shows that the tests' builder makes what U-Boot takes for a boot stream.
func TestDumpimageReadsOurStream(t *testing.T) {
	dumpimage := tool(t, "dumpimage", "u-boot-tools")
	for _, key := range [][]byte{make([]byte, 16), pattern(16)} {
		img := write(t, t.TempDir(), "u-boot.sb", firmwaretest.SomeStream(key))
		if out := run(t, dumpimage, "-l", img); !strings.Contains(out, "Verification PASSED") {
			t.Error(out)
		}
	}
}

func TestMkimageKeystone(t *testing.T) {
	mkimage := tool(t, "mkimage", "u-boot-tools")
	dir := t.TempDir()
	in, out := write(t, dir, "in", makeSPL(0x0c100000, "U-Boot SPL 2025.01 (today)", 5000)), filepath.Join(dir, "out")
	run(t, mkimage, "-T", "gpimage", "-a", "0x0c100000", "-d", in, out)
	if info := Identify(read(t, out)); info.Kind != KindOtherSoC || !strings.Contains(info.Text, "Keystone") {
		t.Error(info)
	}
}

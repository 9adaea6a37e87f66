package firmware

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
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
	if err != nil || m.Load != 0x402f0400 || !bytes.Equal(m.Data, spl) || strings.Join(m.Items, " ") != "CHSETTINGS" {
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
		want string
	}{
		{[]string{"-T", "sunxi_egon", "-n", "sun8i-test"}, "Allwinner eGON"},
		{[]string{"-T", "stm32image", "-a", "0x2ffc2500", "-e", "0x2ffc2500"}, "STM32MP"},
		{[]string{"-T", "rksd", "-n", "rk3288"}, "Rockchip"},
		{[]string{"-T", "rksd", "-n", "rk3568"}, "Rockchip"},
		{[]string{"-T", "zynqmpimage"}, "Zynq"},
		{[]string{"-T", "zynqimage"}, "Zynq"},
	} {
		out := filepath.Join(dir, "out")
		if b, err := exec.Command(mkimage, append(tt.args, "-d", in, out)...).CombinedOutput(); err != nil {
			t.Logf("this mkimage cannot make %q: %v: %s", tt.args, err, b)
			continue
		}
		if info := Identify(read(t, out)); info.Kind != KindOtherSoC || !strings.Contains(info.Text, tt.want) {
			t.Errorf("%q: %v", tt.args, info)
		}
	}
}

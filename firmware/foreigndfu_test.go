package firmware

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"snag/firmware/firmwaretest"
	"snag/internal/lab"
)

// The images of the DFU families, with mkimage, fiptool, openssl and readelf.

// mkimageHas skips the test if mkimage does not know a type of image.
func mkimageHas(t *testing.T, mkimage, typ string) {
	t.Helper()
	out, _ := exec.Command(mkimage, "-T", "list").CombinedOutput()
	if !strings.Contains(string(out), "\t"+typ+" ") {
		t.Skipf("this mkimage (Debian package u-boot-tools) does not know the type %s", typ)
	}
}

// in runs a program in a directory.
func in(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", cmd.Args, err, out)
	}
	return string(out)
}

func TestMkimageSTM32(t *testing.T) {
	mkimage := tool(t, "mkimage", "u-boot-tools")
	dumpimage := tool(t, "dumpimage", "u-boot-tools")
	dir := t.TempDir()
	data := pattern(5000)
	img := write(t, dir, "in", data)
	out := filepath.Join(dir, "out")
	run(t, mkimage, "-T", "stm32image", "-a", "0x2ffc2400", "-e", "0x2ffc2500", "-d", img, out)
	s, err := ParseSTM32(read(t, out))
	if err != nil || s.Major != 1 || s.Load != 0x2ffc2400 || s.Entry != 0x2ffc2500 || !bytes.Equal(s.Payload, data) || s.Signed || s.TypeName() != "U-Boot" {
		t.Errorf("%+v, %v", s, err)
	}
	// And what the tests build.
	img = write(t, dir, "ours", firmwaretest.STM32{Version: [2]byte{1, 0}, Load: 0x2ffc2400, Entry: 0x2ffc2500, Payload: data}.Bytes())
	text := run(t, dumpimage, "-T", "stm32image", "-l", img)
	for _, want := range []string{"STM32 V1.0", "5000 bytes", "0x2ffc2400", "0x2ffc2500", fmt.Sprintf("0x%08x", s.Sum)} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestMkimageSPKG(t *testing.T) {
	mkimage := tool(t, "mkimage", "u-boot-tools")
	mkimageHas(t, mkimage, "spkgimage")
	dir := t.TempDir()
	write(t, dir, "program.bin", pattern(5000))
	write(t, dir, "spkg.cfg", []byte("VERSION 1\nNAND_ECC_ENABLE 1\nNAND_ECC_BLOCK_SIZE 1\nNAND_ECC_SCHEME 5\nNAND_BYTES_PER_ECC_BLOCK 52\nADD_DUMMY_BLP 1\nPADDING 4K\n"))
	in(t, dir, mkimage, "-T", "spkgimage", "-n", "spkg.cfg", "-a", "0x20040000", "-e", "0x20040108", "-d", "program.bin", "out")
	s, err := ParseSPKG(read(t, filepath.Join(dir, "out")))
	if err != nil || s.Load != 0x20040000 || s.Offset != 0x108 || !s.DummyBLp || !bytes.HasPrefix(s.Program(), pattern(5000)) {
		t.Errorf("%+v, %v", s, err)
	}
	write(t, dir, "ours", firmwaretest.SPKG{Load: 0x20040000, Offset: 264, BLp: true, Padding: 4096, Program: pattern(5000)}.Bytes())
	if text := in(t, dir, mkimage, "-T", "spkgimage", "-l", "ours"); !strings.Contains(text, "0x20040000") {
		t.Error(text)
	}
}

func TestMkimageZynqMP(t *testing.T) {
	mkimage := tool(t, "mkimage", "u-boot-tools")
	dumpimage := tool(t, "dumpimage", "u-boot-tools")
	dir := t.TempDir()
	write(t, dir, "fsbl.bin", pattern(30000))
	write(t, dir, "pmu.bin", pattern(10000))
	write(t, dir, "bl31.bin", pattern(9000))
	write(t, dir, "u-boot.bin", pattern(90000))
	const rest = "[destination_cpu=a5x-0,exception_level=el-3,trustzone,load=0xfffea000,startup=0xfffea000]bl31.bin\n" +
		"[destination_cpu=a5x-0,exception_level=el-2,load=0x8000000,startup=0x8000000]u-boot.bin\n}\n"
	for name, tt := range map[string]struct {
		bif   string
		pmufw int
	}{
		"plain": {"image:\n{\n[bootloader,destination_cpu=a5x-0,load=0xfffc0000]fsbl.bin\n" + rest, 0},
		"PMU":   {"image:\n{\n[pmufw_image]pmu.bin\n[bootloader,destination_cpu=a5x-0,load=0xfffc0000]fsbl.bin\n" + rest, 10048},
	} {
		write(t, dir, "image.bif", []byte(tt.bif))
		in(t, dir, mkimage, "-T", "zynqmpbif", "-d", "image.bif", "boot.bin")
		whole := read(t, filepath.Join(dir, "boot.bin"))
		z, err := ParseZynqMP(whole)
		if err != nil || z.PMUFW != tt.pmufw || z.FSBL != 30000 || len(z.Partitions) != 3 || !z.Complete() || !bytes.Equal(whole[z.FSBLStart:][:30000], pattern(30000)) {
			t.Fatalf("%s: %+v, %v", name, z, err)
		}
		if p := z.Partitions[1]; !p.Secure() || p.EL() != 3 || p.Load != 0xfffea000 || !bytes.Equal(whole[p.Start:][:9000], pattern(9000)) {
			t.Errorf("%s: %+v", name, p)
		}
		first, err := z.FirstStage(whole)
		if err != nil || len(first) > 50000 {
			t.Fatalf("%s: %d bytes, %v", name, len(first), err)
		}
		write(t, dir, "first.bin", first)
		if text := in(t, dir, dumpimage, "-T", "zynqmpimage", "-l", "first.bin"); !strings.Contains(text, "30000 bytes") || strings.Contains(text, "payload on CPU") {
			t.Errorf("%s: the first stage:\n%s", name, text)
		}
	}

	in(t, dir, mkimage, "-T", "zynqmpimage", "-n", "pmu.bin", "-d", "fsbl.bin", "boot.bin")
	b := read(t, filepath.Join(dir, "boot.bin"))
	z, err := ParseZynqMP(b)
	if err != nil || z.PMUFW != 10000 || z.FSBL != 30000 || z.Complete() {
		t.Fatalf("%+v, %v", z, err)
	}
	if first, err := z.FirstStage(b); err != nil || !bytes.Equal(first, b) {
		t.Errorf("%d bytes of %d, %v", len(first), len(b), err)
	}

	write(t, dir, "ours", firmwaretest.SomeBoot())
	text := in(t, dir, dumpimage, "-T", "zynqmpimage", "-l", "ours")
	for _, want := range []string{"3000 bytes", "Load   : 0xfffc0000", "CPU pmu (PMU)", "0x08000000", "0x00100000"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestFiptool(t *testing.T) {
	dir := t.TempDir()
	fiptool := func(args ...string) string {
		t.Helper()
		cmd := lab.Command(t, "fiptool", "arm-trusted-firmware-tools", args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", cmd.Args, err, out)
		}
		return string(out)
	}
	write(t, dir, "in", pattern(1000))
	// Every image that it can pack, whose names ours must be.
	var args []string
	for _, n := range fipNames {
		if n.name != "ddr-fw" && n.name != "stm32mp-cfg-cert" { // STM32MP's
			args = append(args, "--"+n.name, "in")
		}
	}
	fiptool(append(append([]string{"create", "--align", "64", "--blob", "uuid=00112233-4455-6677-8899-aabbccddeeff,file=in"}, args...), "fip")...)
	f, err := ParseFIP(read(t, filepath.Join(dir, "fip")))
	if err != nil || len(f.Entries) != len(args)/2+1 {
		t.Fatalf("%d entries, %v", len(f.Entries), err)
	}
	info := fiptool("info", "fip")
	for _, e := range f.Entries {
		want := fmt.Sprintf("%s: offset=0x%X, size=0x%X, cmdline=\"--%s\"", e.Text, e.Offset, len(e.Data), e.Name)
		if e.Name == "" {
			want = fmt.Sprintf("%s: offset=0x%X", strings.ToUpper(e.Text), e.Offset)
		}
		if !strings.Contains(info, want) || !bytes.Equal(e.Data, pattern(1000)) {
			t.Errorf("no %q in\n%s", want, info)
		}
	}
	write(t, dir, "ours", firmwaretest.FIP(firmwaretest.FIPImage{UUID: firmwaretest.UUIDBL33, Data: pattern(77)}, firmwaretest.FIPImage{UUID: firmwaretest.UUIDHW, Data: pattern(9)}))
	if info := fiptool("info", "ours"); !strings.Contains(info, "BL33: offset=0x88, size=0x4D") || !strings.Contains(info, "HW_CONFIG: offset=0xD5, size=0x9") {
		t.Error(info)
	}
}

const tiConfig = `[ req ]
distinguished_name = name
x509_extensions = v3_ca
prompt = no
dirstring_type = nobmp
[ name ]
C = US
CN = A test
emailAddress = test@example.com
[ v3_ca ]
basicConstraints = CA:true
`

// tiCert has openssl make a certificate with extensions.
func tiCert(t *testing.T, openssl, dir, extensions string) []byte {
	t.Helper()
	write(t, dir, "config", []byte(tiConfig+extensions))
	in(t, dir, openssl, "req", "-new", "-x509", "-newkey", "rsa:2048", "-keyout", "key", "-nodes", "-outform", "DER", "-out", "cert", "-config", "config", "-sha512")
	return read(t, filepath.Join(dir, "cert"))
}

func TestOpenSSL(t *testing.T) {
	openssl := tool(t, "openssl", "openssl")
	dir := t.TempDir()
	sum := func(b []byte) string {
		s := sha512.Sum512(b)
		return "shaType = OID:2.16.840.1.101.3.4.2.3\nshaValue = FORMAT:HEX,OCT:" + hex.EncodeToString(s[:]) + "\n"
	}
	program := pattern(4000)
	cert := tiCert(t, openssl, dir, `1.3.6.1.4.1.294.1.1 = ASN1:SEQUENCE:boot_seq
1.3.6.1.4.1.294.1.2 = ASN1:SEQUENCE:image_integrity
1.3.6.1.4.1.294.1.3 = ASN1:SEQUENCE:swrv
1.3.6.1.4.1.294.1.8 = ASN1:SEQUENCE:debug
[ boot_seq ]
certType = INTEGER:1
bootCore = INTEGER:16
bootCoreOpts = INTEGER:2
destAddr = FORMAT:HEX,OCT:41c00000
imageSize = INTEGER:4000
[ image_integrity ]
`+sum(program)+`[ swrv ]
swrv = INTEGER:65537
[ debug ]
debugUID = FORMAT:HEX,OCT:0000000000000000000000000000000000000000000000000000000000000000
debugType = INTEGER:4
coreDbgEn = INTEGER:0
coreDbgSecEn = INTEGER:0
`)
	b := append(cert, program...)
	i, err := ParseTIImage(b)
	if err != nil || i.CertSize != len(cert) || i.Revision != 65537 || i.Combined || len(i.Components) != 1 || len(i.Extensions) != 4 {
		t.Fatalf("%+v, %v", i, err)
	}
	if c := i.Components[0]; c.Load != 0x41c00000 || c.Core != 16 || c.Options != 2 || !c.Verified || c.Size != 4000 {
		t.Errorf("%+v", c)
	}
	if info := Identify(b); info.Kind != KindTIX509 || !strings.Contains(info.Text, "boot loader for the ROM") {
		t.Error(info)
	}
	_, err = ParseTIImage(damage(b, len(b)-9))
	wants(t, "damaged", err, "is damaged")

	parts := [][]byte{pattern(3000), pattern(2000), pattern(500)}
	comp := func(typ, core int, load string, b []byte) string {
		return fmt.Sprintf("compType = INTEGER:%d\nbootCore = INTEGER:%d\ncompOpts = INTEGER:0\ndestAddr = FORMAT:HEX,OCT:%s\ncompSize = INTEGER:%d\n", typ, core, load, len(b)) + sum(b)
	}
	cert = tiCert(t, openssl, dir, `1.3.6.1.4.1.294.1.3=ASN1:SEQUENCE:swrv
1.3.6.1.4.1.294.1.9=ASN1:SEQUENCE:ext_boot_info
[swrv]
swrv=INTEGER:1
[ext_boot_info]
extImgSize=INTEGER:5500
numComp=INTEGER:3
sbl=SEQUENCE:sbl
sysfw=SEQUENCE:sysfw
sysfw_data=SEQUENCE:sysfw_data
[sbl]
`+comp(1, 16, "43c00000", parts[0])+"[sysfw]\n"+comp(2, 0, "00040000", parts[1])+"[sysfw_data]\n"+comp(18, 0, "00067000", parts[2]))
	i, err = ParseTIImage(append(cert, bytes.Join(parts, nil)...))
	if err != nil || !i.Combined || len(i.Components) != 3 {
		t.Fatalf("%+v, %v", i, err)
	}
	for n, c := range i.Components {
		if !c.Verified || c.Size != len(parts[n]) {
			t.Errorf("%+v", c)
		}
	}

	// And what the tests build.
	for name, b := range map[string][]byte{"boot": firmwaretest.TIBoot(0x43c00000, pattern(100)), "combined": firmwaretest.SomeTiboot3(), "signed": firmwaretest.TISigned(pattern(99))} {
		write(t, dir, "ours", b)
		text := in(t, dir, openssl, "x509", "-inform", "DER", "-in", "ours", "-noout", "-subject", "-ext", "basicConstraints")
		if !strings.Contains(text, "a test") || !strings.Contains(text, "CA:TRUE") {
			t.Errorf("%s: %s", name, text)
		}
		asn1 := in(t, dir, openssl, "asn1parse", "-inform", "DER", "-in", "ours")
		if !strings.Contains(asn1, "1.3.6.1.4.1.294.1.3\n") {
			t.Errorf("%s: %s", name, asn1)
		}
	}
}

func TestReadelf(t *testing.T) {
	readelf := tool(t, "readelf", "binutils")
	dir := t.TempDir()
	for name, b := range map[string][]byte{"64": firmwaretest.ELF64(0xfffc0000, pattern(100)), "32": firmwaretest.ELF32(0x80001000, pattern(100))} {
		e, err := ParseELF(b)
		if err != nil {
			t.Fatal(err)
		}
		text := in(t, dir, readelf, "-hlW", write(t, dir, name, b))
		for _, want := range []string{fmt.Sprintf("Entry point address:               %#x", e.Entry), "LOAD", "064 0x00"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
	}
	// A program of this host's, with all that compilers put in.
	b := read(t, readelf)
	e, err := ParseELF(b)
	if err != nil || len(e.Segments) < 2 || !strings.Contains(in(t, dir, readelf, "-hW", readelf), fmt.Sprintf("%#x", e.Entry)) {
		t.Errorf("%+v, %v", e, err)
	}
}

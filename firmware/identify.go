package firmware

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"

	"snag/firmware/fat"
)

// Kind is a file's format.
type Kind int

// The formats that Identify tells apart.
const (
	KindUnknown Kind = iota
	KindEmpty
	KindBlank // one byte repeated
	KindText
	KindELF
	KindArchive // compressed, or an archive
	KindUImage  // a legacy U-Boot image
	KindFIT     // a flattened image tree
	KindDTB     // a device tree that is no FIT
	KindTIMemory
	KindTISwapped
	KindTISigned
	KindARM
	KindARM64
	KindIVT         // i.MX50 to i.MX8M: an image vector table
	KindFlashHeader // i.MX25 to i.MX51
	KindContainer   // i.MX8Q, 8ULP, 9x
	KindBootStream  // i.MX23, i.MX28
	KindSTM32       // STM32MP: an STM32 header
	KindFIP         // TF-A's package: STM32MP, Keem Bay and others
	KindTIX509      // K3: an X.509 certificate in front
	KindSPKG        // RZ/N1
	KindZynqMP      // Zynq UltraScale+: a boot image
	KindMBN         // Qualcomm, before ELF
	KindEGON        // Allwinner: an eGON image, with U-Boot behind it or without
	KindAML         // Amlogic: a BL2, or all from BL2 to U-Boot
	KindAMLFIP      // Amlogic: what BL2 loads
	KindAMLCard     // Amlogic: a BL2 as on a card
	KindSAMBAApplet // SAMA5, SAM9: an applet of SAM-BA
	KindRKLoader    // Rockchip: a loader container
	KindRKIDBlock   // Rockchip: an ID block with its images
	KindOtherSoC    // a first stage, or an image, in another SoC vendor's format
	KindDisk        // an image of a whole disk or file system
	KindBootfiles   // Broadcom: an archive of boot files
)

// Info is what Identify found.
type Info struct {
	Kind Kind
	Text string // in words, with an article: "an Allwinner eGON SPL"
}

func (i Info) String() string { return i.Text }

// Identify says what a file is, by its contents alone. It does not verify: a damaged image is
// still what it claims to be.
func Identify(b []byte) Info {
	switch {
	case len(b) == 0:
		return Info{KindEmpty, "an empty file"}
	case uniform(b):
		return Info{KindBlank, fmt.Sprintf("%d bytes of %#02x and nothing else", len(b), b[0])}
	}
	if info, ok := identifyHeader(b); ok {
		return info
	}
	if info, ok := identifyAML(b); ok {
		return info
	}
	for _, m := range magics {
		if matches(b, m.off, m.magic) {
			return Info{m.kind, m.text}
		}
	}
	for _, look := range []func([]byte) (Info, bool){
		identifyTree, identifyUImage, identifyTI, identifyELF, identifyNXP, identifyDER, identifyApplet, identifyARM, identifyMBN, identifyDisk, identifyText,
	} {
		if info, ok := look(b); ok {
			return info
		}
	}
	return Info{KindUnknown, fmt.Sprintf("nothing that snag knows (it begins with % x)", b[:min(8, len(b))])}
}

// uniform reports whether b is one byte over and over. Of most files that are not it looks at the beginning only.
func uniform(b []byte) bool { return len(b) > 0 && bytes.Equal(b[1:], b[:len(b)-1]) }

func matches(b []byte, off int, magic string) bool {
	return len(b) >= off+len(magic) && string(b[off:off+len(magic)]) == magic
}

// magics are the formats that fixed bytes at a fixed place give away.
var magics = []struct {
	off   int
	magic string
	kind  Kind
	text  string
}{
	{4, "eGON.BT1", KindOtherSoC, "an Allwinner eGON boot1 image"},
	{0, "TOC0.GLH", KindOtherSoC, "an Allwinner TOC0 (secure boot) SPL"},
	{32768, "\x3b\x8c\xdc\xfc", KindOtherSoC, "a Rockchip image of a card or of flash (ID block at 32 KiB)"},
	{8192 + 4, "eGON.BT0", KindOtherSoC, "an Allwinner SD card image (eGON SPL at 8 KiB)"},
	{0, "sunxi-package\x00", KindOtherSoC, "an Allwinner boot package (TOC1) of the vendor's U-Boot"},
	{0, "\x33\x22\x11\x00\x01\x00\x00\x00", KindOtherSoC, "an i.MX23 or i.MX28 SD card image (u-boot.sd)"}, // U-Boot, tools/mxsboot.c
	{0, "\x55\xaa\xf0\x0f", KindOtherSoC, "the contents of a Raspberry Pi's boot EEPROM (pieeprom.bin)"},
	{0, "RKFW", KindArchive, "a firmware package for Rockchip (update.img): unpack it first, the loader is in it"},
	{0, "RKAF", KindArchive, "a firmware package for Rockchip (update.img): unpack it first, the loader is in it"},
	{8, "\x56\x19\xb5\x27", KindArchive, "a firmware package for Amlogic (aml_upgrade_package.img): unpack it first, BL2 and U-Boot are in it"}, // pyamlboot, AML-IMAGE-FORMAT.md
	{0, "RK30", KindOtherSoC, "a Rockchip first stage"},
	{0, "RK31", KindOtherSoC, "a Rockchip first stage"},
	{0, "RK32", KindOtherSoC, "a Rockchip first stage"},
	{0, "RK33", KindOtherSoC, "a Rockchip first stage"},
	{0x14, "STMP", KindBootStream, "a boot stream (.sb) of i.MX23 or i.MX28"},
	{0x24, "\x18\x28\x6f\x01", KindARM, "a Linux kernel (zImage)"},
	{0x38, "ARM\x64", KindARM64, "a Linux kernel for 64-bit ARM or RISC-V (Image)"},
	{0, "\x1f\x8b", KindArchive, "a gzip-compressed file: unpack it first"},
	{0, "\xfd7zXZ\x00", KindArchive, "an xz-compressed file: unpack it first"},
	{0, "BZh", KindArchive, "a bzip2-compressed file: unpack it first"},
	{0, "\x28\xb5\x2f\xfd", KindArchive, "a zstd-compressed file: unpack it first"},
	{0, "PK\x03\x04", KindArchive, "a zip archive: unpack it first"},
	{0, "!<arch>\n", KindArchive, "an ar archive (a Debian package?): unpack it first"},
	{257, "ustar", KindArchive, "a tar archive: unpack it first"},
	{0, "\x3a\xff\x26\xed", KindDisk, "an Android sparse image"},
}

func identifyTree(b []byte) (Info, bool) {
	if !matches(b, 0, "\xd0\x0d\xfe\xed") {
		return Info{}, false
	}
	t, err := ParseFDT(b)
	switch {
	case err != nil:
		return Info{KindFIT, "a damaged device tree or FIT image"}, true
	case t.IsFIT():
		return Info{KindFIT, "a FIT image" + quoted(t.Root.Text("description"))}, true
	}
	return Info{KindDTB, "a device tree of a board" + quoted(t.Root.Text("model")) + ", not a boot image"}, true
}

func identifyUImage(b []byte) (Info, bool) {
	if !matches(b, 0, "\x27\x05\x19\x56") {
		return Info{}, false
	}
	if len(b) < uImageHeaderSize {
		return Info{KindUImage, "the beginning of a legacy uImage"}, true
	}
	return Info{KindUImage, fmt.Sprintf("a legacy uImage%s for %s", quoted(printable(strings.TrimRight(string(b[32:64]), "\x00"))),
		nameOf(uImageArch, b[29]))}, true
}

func identifyTI(b []byte) (Info, bool) {
	switch {
	case swappedMLO(b):
		return Info{KindTISwapped, "a TI MLO with swapped bytes, for SPI flash (MLO.byteswap)"}, true
	case hasTOC(b):
		items := tocItems(b[:min(len(b), tiConfigSize)])
		if items[0].Name != "CHSETTINGS" || len(items) > 1 {
			var names []string
			for _, i := range items {
				names = append(names, i.Name)
			}
			return Info{KindTISigned, "a TI boot image with a table of contents (" + strings.Join(names, ", ") + "), as for high-security devices"}, true
		}
		if len(b) > tiConfigSize && hasGP(b[tiConfigSize:]) {
			return Info{KindTIMemory, "a TI MLO for " + TISoC(binary.LittleEndian.Uint32(b[tiConfigSize+4:]))}, true
		}
		return Info{KindTIMemory, "the beginning of a TI MLO"}, true
	case hasKeystoneGP(b):
		return Info{KindOtherSoC, "a TI Keystone first stage (GP header)"}, true
	case hasGP(b):
		return Info{KindTIMemory, "a TI first stage with a GP header for " + TISoC(binary.LittleEndian.Uint32(b[4:]))}, true
	case bytes.Contains(b[:min(len(b), 4096)], []byte("CERT_ISW")):
		return Info{KindTISigned, "a signed first stage for a TI high-security device"}, true
	}
	return Info{}, false
}

// TISoC says which of TI's SoCs a first stage with this load address is for. The addresses are
// U-Boot's SPL_TEXT_BASE (ISW_ENTRY_ADDR) of each SoC.
func TISoC(load uint32) string {
	switch {
	case load == 0x402f0400:
		return "AM335x"
	case load == 0x40301950:
		return "AM335x (high-security device)"
	case load == 0x402f4000, load == 0x40300350, load == 0x403018e0:
		return "AM43xx"
	case load >= 0x40200000 && load < 0x40210000:
		return "OMAP3, AM35x or DM37x"
	case load >= 0x40300000 && load < 0x40302000:
		return "OMAP4, OMAP5, DRA7xx, AM57xx or TI81xx"
	}
	return fmt.Sprintf("a TI SoC with internal memory at %#x", load)
}

func identifyELF(b []byte) (Info, bool) {
	if !matches(b, 0, elfMagic) || len(b) < 20 {
		return Info{}, false
	}
	var order binary.ByteOrder = binary.LittleEndian
	if b[5] == 2 {
		order = binary.BigEndian
	}
	machine := elfMachine(order.Uint16(b[18:]))
	if e, _ := ParseELF(b); e != nil && e.hashSegment() >= 0 {
		return Info{KindELF, "an ELF file for " + machine + " with a Qualcomm hash segment"}, true
	}
	return Info{KindELF, "an ELF file for " + machine + " (what the linker made; boards want the .bin or .img made from it)"}, true
}

// identifyMBN comes late: a header without magic is known by its lengths alone.
func identifyMBN(b []byte) (Info, bool) {
	m, _ := ParseMBN(b)
	switch {
	case m == nil:
		return Info{}, false
	case m.SBL:
		return Info{KindMBN, "a Qualcomm first stage (SBL1, 80-byte MBN header)"}, true
	}
	return Info{KindMBN, fmt.Sprintf("a Qualcomm boot image (MBN header, image id %d)", m.ID)}, true
}

// nxpPlaces are where images for i.MX begin: in files for USB, and in those that were made for, or
// taken from, a boot medium.
var nxpPlaces = []int{0, 0x400, FlexSPISize, FlexSPISize + 0x400, ContainersSD, ContainersSD + 0x400}

// identifyNXP finds an image vector table, a flash header or a container of i.MX.
func identifyNXP(b []byte) (Info, bool) {
	for _, off := range nxpPlaces {
		if off > len(b) {
			break
		}
		kind, text := nxpAt(b, off)
		if kind == KindUnknown {
			continue
		}
		what := "an NXP i.MX image (" + text
		if kind == KindContainer {
			what = "an NXP i.MX8 or i.MX9 image (" + text
		}
		if off > 0 {
			what += fmt.Sprintf(" at %#x", off)
		}
		what += ")"
		_, flexspi := FlexSPIHeader(b, 0)
		switch {
		case matches(b, 510, "\x55\xaa"):
			what = "an image of a disk with " + what
		case flexspi:
			what += " for NOR flash (FlexSPI)"
		}
		if s := banner(b[off:]); s != "" && kind != KindContainer {
			what += ", " + s
		}
		return Info{kind, what}, true
	}
	return Info{}, false
}

func nxpAt(b []byte, off int) (Kind, string) {
	switch {
	case isIVT(b[off:]):
		v, err := ParseIVT(b, off)
		switch {
		case err != nil:
			return KindIVT, "damaged IVT"
		case v.IsHDMI():
			return KindIVT, "IVT of HDMI firmware"
		case v.IsPlugin():
			return KindIVT, "IVT of a plugin"
		}
		return KindIVT, "IVT"
	case isContainer(b[off:]) && b[off+3] == containerTag && (off == 0 || b[off+11] > 0):
		if b[off] == 2 {
			return KindContainer, "container, version 2"
		}
		return KindContainer, "container"
	case off <= 0x400 && len(b) >= off+flashHeaderSize && binary.LittleEndian.Uint32(b[off+4:]) == flashHeaderBarker:
		if _, err := parseFlashHeader(b, off); err == nil {
			return KindFlashHeader, "flash header of i.MX25 to i.MX51"
		}
	}
	return KindUnknown, ""
}

// identifyHeader finds what the ROMs that boot over DFU and fastboot take, but for TI's.
func identifyHeader(b []byte) (Info, bool) {
	zynq, mp := isZynq(b)
	switch {
	case matches(b, 0, stm32Magic):
		text := "an STM32MP image (STM32 header)"
		if s, _ := ParseSTM32(b); s != nil {
			text = fmt.Sprintf("an STM32MP image (STM32 header, version %d.%d: %s)", s.Major, s.Minor, s.TypeName())
		}
		return Info{KindSTM32, text}, true
	case isFIP(b):
		text := "a firmware image package (FIP)"
		if f, _ := ParseFIP(b); f != nil && len(f.Entries) > 0 {
			var names []string
			for _, e := range f.Entries[:min(len(f.Entries), 8)] {
				names = append(names, cmp.Or(e.Name, e.Text))
			}
			text = "a firmware image package (FIP: " + strings.Join(names, ", ") + ")"
		}
		return Info{KindFIP, text}, true
	case matches(b, 0, spkgMagic) && len(b) >= spkgHeaderSize:
		return Info{KindSPKG, "an image for Renesas RZ/N1 (SPKG)"}, true
	case mp:
		text := "a Xilinx ZynqMP boot image"
		if z, _ := ParseZynqMP(b); z != nil && z.Complete() {
			text += fmt.Sprintf(" with %d partitions", len(z.Partitions))
		} else if z != nil {
			text += " with a first stage alone"
		}
		return Info{KindZynqMP, text}, true
	case isEGON(b):
		return Info{KindEGON, egonText(b)}, true
	case isRockchipLoader(b):
		text := "a Rockchip loader container"
		if len(b) >= rockchipHeaderSize {
			text += " for " + rockchipChip(binary.LittleEndian.Uint32(b[21:]))
		}
		return Info{KindRKLoader, text}, true
	case isRockchipIDBlock(b):
		text := "a Rockchip boot image for media (ID block)"
		if d, _ := ParseRockchipIDBlock(b); d != nil && d.Tag != "" {
			text = "a Rockchip boot image for media (ID block, " + d.Tag + ")"
		}
		return Info{KindRKIDBlock, text}, true
	case zynq:
		return Info{KindOtherSoC, "a Xilinx Zynq-7000 boot image (its FSBL does not go into ZynqMP's OCM)"}, true
	case isBootfiles(b):
		return Info{KindBootfiles, "a tar archive of boot files for Broadcom SoCs"}, true
	}
	return Info{}, false
}

// egonText says what an eGON image is.
func egonText(b []byte) string {
	e, _ := ParseEGON(b)
	text := "an Allwinner eGON SPL"
	switch {
	case e == nil || !e.SPL:
		return "an Allwinner eGON image (boot0, not U-Boot's SPL)"
	case e.DeviceTree != "":
		text += " for " + e.DeviceTree
	}
	if e.Branch == "riscv" {
		text += " (RISC-V)"
	}
	if off, err := e.UBoot(b); err == nil {
		for _, look := range []func([]byte) (Info, bool){identifyTree, identifyUImage} {
			if info, ok := look(b[off:]); ok {
				text += " with " + info.Text
			}
		}
	}
	return text
}

// identifyDER finds what begins with an X.509 certificate: TI's K3 images.
func identifyDER(b []byte) (Info, bool) {
	if isTIImage(b) {
		t, _ := ParseTIImage(b)
		switch {
		case t == nil || len(t.Components) == 0:
			return Info{KindTIX509, "a TI K3 image (X.509 certificate in front)"}, true
		case t.Combined:
			return Info{KindTIX509, "a TI K3 boot image (tiboot3.bin, combined with the system firmware)"}, true
		case t.Components[0].Type == 0:
			return Info{KindTIX509, "an image signed for TI K3's system firmware"}, true
		}
		return Info{KindTIX509, "a TI K3 boot image (" + t.Components[0].TypeName() + " for the ROM)"}, true
	}
	if matches(b, 0, "\x30\x82") && len(b) >= 64 && b[4] == 0x30 {
		return Info{KindUnknown, "an X.509 certificate or other DER data"}, true
	}
	return Info{}, false
}

func identifyARM(b []byte) (Info, bool) {
	// U-Boot for Allwinner's 64-bit SoCs may begin with what is a branch in 32-bit state, and nothing much in 64-bit
	// state, where the next word is one (arch/arm/include/asm/arch-sunxi/boot0.h).
	if len(b) >= 64 && b[3] == armBranch && binary.LittleEndian.Uint32(b[4:])>>26 == 0b000101 {
		if s := banner(b); s != "" {
			return Info{KindARM64, "a bare 64-bit ARM program (" + s + ") that may be entered in 32-bit state"}, true
		}
	}
	if p, ok := ParseARM(b); ok {
		what := "a bare ARM program"
		if p.UBoot != "" {
			what += " (" + p.UBoot + ")"
		}
		if p.Vectors {
			what += fmt.Sprintf(" linked for %#x", p.Base)
		}
		return Info{KindARM, what}, true
	}
	// U-Boot for arm64 begins with an unconditional branch, then a NOP or the text base.
	if len(b) >= 64 && binary.LittleEndian.Uint32(b)>>26 == 0b000101 {
		if s := banner(b); s != "" {
			return Info{KindARM64, "a bare 64-bit ARM program (" + s + ")"}, true
		}
		if isUBootARM64(b) {
			return Info{KindARM64, "a bare 64-bit ARM program (U-Boot's, of which there is no name)"}, true
		}
	}
	return Info{}, false
}

func identifyDisk(b []byte) (Info, bool) {
	if !matches(b, 510, "\x55\xaa") {
		return Info{}, false
	}
	switch d, err := fat.Open(b); {
	case err == nil && d.Partition == 0:
		return Info{KindDisk, fmt.Sprintf("an image of a FAT%d file system", d.Bits)}, true
	case err == nil:
		return Info{KindDisk, fmt.Sprintf("an image of a disk with a FAT%d file system in partition %d", d.Bits, d.Partition)}, true
	}
	for part := b[446:510]; len(part) > 0; part = part[16:] {
		if part[0]&0x7f != 0 {
			return Info{}, false
		}
	}
	return Info{KindDisk, "an image of a disk (boot sector in front)"}, true
}

func identifyText(b []byte) (Info, bool) {
	head := b[:min(len(b), 1024)]
	for i := range min(4, len(head)) { // the cut may be inside a character
		if utf8.Valid(head[:len(head)-i]) {
			head = head[:len(head)-i]
			break
		}
	}
	if !utf8.Valid(head) || bytes.ContainsFunc(head, func(r rune) bool { return r < ' ' && !strings.ContainsRune("\t\n\r\f", r) }) {
		return Info{}, false
	}
	low := strings.ToLower(string(head))
	switch {
	case strings.HasPrefix(low, "version https://git-lfs"):
		return Info{KindText, "a Git LFS pointer, not the file it points to (git lfs pull)"}, true
	case strings.HasPrefix(strings.TrimSpace(low), "<!doctype html") || strings.HasPrefix(strings.TrimSpace(low), "<html"):
		return Info{KindText, "a web page: the download went wrong"}, true
	case strings.HasPrefix(low, "s0") && len(b) > 64:
		return Info{KindText, "a Motorola S-record file: boards want the binary"}, true
	}
	return Info{KindText, "a text file"}, true
}

func quoted(s string) string {
	if s == "" {
		return ""
	}
	return fmt.Sprintf(" %q", s)
}

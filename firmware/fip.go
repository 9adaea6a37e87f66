package firmware

import (
	"encoding/binary"
	"fmt"
	"math"
)

// A firmware image package of Trusted Firmware-A: its documentation, "Firmware Design", section "Firmware Image Package
// (FIP)", and include/tools_share/firmware_image_package.h. Little-endian. A table of contents:
//
//	offset size field
//	0      4    0xaa640001
//	4      4    serial number, not 0; fiptool writes 0x12345678
//	8      8    flags; bits 32 to 47 are the platform's
//
// then entries, of which the last has a UUID of 0 and, as its offset, the end of the package:
//
//	0      16   UUID
//	16     8    offset in the file
//	24     8    size
//	32     8    flags
const (
	fipMagic      = "\x01\x00\x64\xaa"
	fipHeaderSize = 16
	fipEntrySize  = 40
	fipMaxEntries = 256
)

// FIP is a firmware image package.
type FIP struct {
	Serial  uint32
	Flags   uint64
	Table   int // size of the table of contents
	Size    int // up to the end of the last image
	Entries []FIPEntry
}

// FIPEntry is an image in it.
type FIPEntry struct {
	UUID   [16]byte
	Name   string // as fiptool's option names it: "nt-fw"; empty if the UUID is not known
	Text   string // as fiptool describes it: "Non-Trusted Firmware BL33"; else the UUID
	Offset int
	Data   []byte // part of the parsed slice; what there is of it if the file is cut
	Size   uint64 // as the table tells it
	Flags  uint64
}

// isFIP accepts any serial number but 0, as TF-A does.
func isFIP(b []byte) bool {
	return len(b) >= fipHeaderSize && matches(b, 0, fipMagic) && binary.LittleEndian.Uint32(b[4:]) != 0
}

// ParseFIP reads the table of contents. If it can be read but an image lies outside of the file, the package is
// returned with the error. The format has no checksums.
func ParseFIP(b []byte) (*FIP, error) { return parseFIP(b, 0) }

// parseFIP reads a package whose table of contents stands at a place of b, from whose begin its offsets count.
func parseFIP(b []byte, at int) (*FIP, error) {
	switch {
	case len(b) < at+fipHeaderSize:
		return nil, fmt.Errorf("FIP: %w: the file has %d bytes", ErrTruncated, len(b))
	case !matches(b, at, fipMagic):
		return nil, fmt.Errorf("no FIP: the file begins with % x instead of % x", b[at:at+4], fipMagic)
	}
	f := &FIP{Serial: binary.LittleEndian.Uint32(b[at+4:]), Flags: binary.LittleEndian.Uint64(b[at+8:])}
	if f.Serial == 0 {
		return nil, fmt.Errorf("FIP: its serial number is 0")
	}
	var cut error
	for off := at + fipHeaderSize; ; off += fipEntrySize {
		if off > len(b)-fipEntrySize {
			return nil, fmt.Errorf("FIP: %w: the file ends inside the table of contents, after %d entries", ErrTruncated, len(f.Entries))
		}
		e := FIPEntry{UUID: [16]byte(b[off:]), Size: binary.LittleEndian.Uint64(b[off+24:]), Flags: binary.LittleEndian.Uint64(b[off+32:])}
		start := binary.LittleEndian.Uint64(b[off+16:])
		if e.UUID == [16]byte{} {
			f.Table = off + fipEntrySize
			break
		}
		if len(f.Entries) == fipMaxEntries {
			return nil, fmt.Errorf("FIP: more than %d entries", fipMaxEntries)
		}
		e.Name, e.Text = fipName(e.UUID)
		have := uint64(len(b))
		if start > have || e.Size > have-start {
			if cut == nil {
				cut = fmt.Errorf("FIP: %w: %s has %d bytes at %#x, the file ends at %#x", ErrTruncated, e.Text, e.Size, start, have)
			}
			start = min(start, have)
		}
		e.Offset = int(start)
		e.Data = b[e.Offset:min(have, start+min(e.Size, math.MaxInt32))]
		f.Size = max(f.Size, e.Offset+len(e.Data))
		f.Entries = append(f.Entries, e)
	}
	f.Size = max(f.Size, f.Table)
	for _, e := range f.Entries {
		if e.Offset < f.Table && cut == nil {
			cut = fmt.Errorf("FIP: %s at %#x lies in the table of contents, which ends at %#x", e.Text, e.Offset, f.Table)
		}
	}
	return f, cut
}

// Entry returns the image that fiptool's option of that name packs: "nt-fw".
func (f *FIP) Entry(name string) (FIPEntry, bool) {
	for _, e := range f.Entries {
		if e.Name == name && name != "" {
			return e, true
		}
	}
	return FIPEntry{}, false
}

func fipName(uuid [16]byte) (name, text string) {
	s := fmt.Sprintf("%x-%x-%x-%x-%x", uuid[:4], uuid[4:6], uuid[6:8], uuid[8:10], uuid[10:])
	for _, n := range fipNames {
		if n.uuid == s {
			return n.name, n.text
		}
	}
	return "", s
}

// fipNames are the images of TF-A's tools/fiptool/tbbr_config.c and, last, of STM32MP's plat_def_uuid_config.c.
var fipNames = []struct{ uuid, name, text string }{
	{"65922703-2f74-e644-8dff-579ac1ff0610", "scp-fwu-cfg", "SCP Firmware Updater Configuration FWU SCP_BL2U"},
	{"60b3eb37-c1e5-ea41-9df3-19eda11f6801", "ap-fwu-cfg", "AP Firmware Updater Configuration BL2U"},
	{"4f511d11-2be5-4e49-b4c5-83c2f715840a", "fwu", "Firmware Updater NS_BL2U"},
	{"71408ab2-18d6-874c-8b2e-c6dccd50f096", "fwu-cert", "Non-Trusted Firmware Updater certificate"},
	{"5ff9ec0b-4d22-3e4d-a544-c39d81c73f0a", "tb-fw", "Trusted Boot Firmware BL2"},
	{"9766fd3d-89be-e849-ae5d-78a140608213", "scp-fw", "SCP Firmware SCP_BL2"},
	{"47d4086d-4cfe-9846-9b95-2950cbbd5a00", "soc-fw", "EL3 Runtime Firmware BL31"},
	{"05d0e189-53dc-1347-8d2b-500a4b7a3e38", "tos-fw", "Secure Payload BL32 (Trusted OS)"},
	{"0b70c29b-2a5a-7840-9f65-0a5682738288", "tos-fw-extra1", "Secure Payload BL32 Extra1 (Trusted OS Extra1)"},
	{"8ea87bb1-cfa2-3f4d-85fd-e7bba50220d9", "tos-fw-extra2", "Secure Payload BL32 Extra2 (Trusted OS Extra2)"},
	{"d6d0eea7-fcea-d54b-9782-9934f234b6e4", "nt-fw", "Non-Trusted Firmware BL33"},
	{"6c0762a6-12f2-4b56-92cb-ba8f633606d9", "rmm-fw", "Realm Monitor Management Firmware"},
	{"5807e16a-8459-47be-8ed5-648e8dddab0e", "fw-config", "FW_CONFIG"},
	{"08b8f1d9-c9cf-9349-a962-6fbc6b7265cc", "hw-config", "HW_CONFIG"},
	{"6c0458ff-af6b-7d4f-82ed-aa27bc69bfd2", "tb-fw-config", "TB_FW_CONFIG"},
	{"9979814b-0376-fb46-8c8e-8d267f7859e0", "soc-fw-config", "SOC_FW_CONFIG"},
	{"26257c1a-dbc6-7f47-8d96-c4c4b0248021", "tos-fw-config", "TOS_FW_CONFIG"},
	{"28da9815-93e8-7e44-ac66-1aaf801550f9", "nt-fw-config", "NT_FW_CONFIG"},
	{"862d1d72-f860-e411-920b-8be762160f24", "rot-cert", "Root Of Trust key certificate"},
	{"827ee890-f860-e411-a1b4-777a21b4f94c", "trusted-key-cert", "Trusted key certificate"},
	{"024221a1-f860-e411-8d9b-f33c0e15a014", "scp-fw-key-cert", "SCP Firmware key certificate"},
	{"8ab8becc-f960-e411-9ad0-eb4822d8dcf8", "soc-fw-key-cert", "SoC Firmware key certificate"},
	{"9477d603-fb60-e411-85dd-b7105b8cee04", "tos-fw-key-cert", "Trusted OS Firmware key certificate"},
	{"8ad5832a-fb60-e411-8aaf-df30bbc49859", "nt-fw-key-cert", "Non-Trusted Firmware key certificate"},
	{"d6e269ea-5d63-e411-8d8c-9fbabe9956a5", "tb-fw-cert", "Trusted Boot Firmware BL2 certificate"},
	{"44be6f04-5e63-e411-b28b-73d8eaae9656", "scp-fw-cert", "SCP Firmware content certificate"},
	{"e2b20c20-5e63-e411-9ce8-abccf92bb666", "soc-fw-cert", "SoC Firmware content certificate"},
	{"a49f4411-5e63-e411-8728-3f05722af33d", "tos-fw-cert", "Trusted OS Firmware content certificate"},
	{"8ec4c1f3-5d63-e411-a7a9-87ee40b23fa7", "nt-fw-cert", "Non-Trusted Firmware content certificate"},
	{"776dfd44-8697-4c3b-91eb-c13e025a2a6f", "sip-sp-cert", "SiP owned Secure Partition content certificate"},
	{"ddcbbf4a-cad6-11ea-87d0-0242ac130003", "plat-sp-cert", "Platform owned Secure Partition content certificate"},
	{"36d83d85-761d-4daf-96f1-cd99d6569b00", "cca-cert", "CCA Content Certificate"},
	{"52222d31-820f-494d-8bbc-ea6825d3c35a", "core-swd-cert", "Core Secure World Key Certificate"},
	{"d43cd902-5b9f-412e-8ac6-92b6d18be60d", "plat-key-cert", "Platform Key Certificate"},
	{"b11249be-92dd-4b10-867c-2c6a4b47a7fb", "ddr-fw", "DDR_FW"},
	{"501d8dd2-8bce-49a5-84eb-559a9f2eaeaf", "stm32mp-cfg-cert", "STM32MP CONFIG CERT"},
}

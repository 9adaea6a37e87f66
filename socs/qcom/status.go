package qcom

import "fmt"

// statuses are the codes of END_IMAGE_TX (edl, sahara_defs.py, the constants; its table of texts is off by one against
// them).
var statuses = map[uint32]string{
	0x01: "invalid command in this state",
	0x02: "protocol mismatch",
	0x03: "invalid version of the board's protocol",
	0x04: "invalid version of the host's protocol",
	0x05: "invalid packet size",
	0x06: "unexpected image id",
	0x07: "invalid size of the image header",
	0x08: "invalid size of the image data",
	0x09: "invalid image type",
	0x0a: "invalid length sent",
	0x0b: "invalid length received",
	0x0c: "transfer error",
	0x0d: "error reading data",
	0x0e: "unsupported number of program headers",
	0x0f: "invalid size of a program header",
	0x10: "several shared segments",
	0x11: "no place for the program headers",
	0x12: "invalid destination address",
	0x13: "invalid size of the image header's data",
	0x14: "invalid ELF header",
	0x15: "unknown error of the host",
	0x16: "timeout receiving",
	0x17: "timeout sending",
	0x18: "invalid mode asked for by the host",
	0x19: "invalid memory read",
	0x1a: "the host cannot handle so much data",
	0x1b: "memory debug is not supported",
	0x1c: "invalid switch of mode",
	0x1d: "a command failed",
	0x1e: "invalid parameter of a command",
	0x1f: "unsupported command",
	0x20: "data for another command",
	0x21: "authentication of the hash table failed",
	0x22: "a segment's hash is wrong",
	0x23: "no hash table in the ELF file",
	0x24: "initialisation failed",
	0x25: "authentication of the image failed",
	0x26: "invalid size of the hash table",
	0x27: "USB enumeration failed",
	0x28: "USB bulk transfer failed",
}

// statusText names a status.
func statusText(status uint32) string {
	if s := statuses[status]; s != "" {
		return fmt.Sprintf("status %#x, %s", status, s)
	}
	return fmt.Sprintf("status %#x, which is not known", status)
}

// statusHint tells what to do about a status.
func statusHint(status uint32) string {
	switch {
	case status >= 0x21 && status <= 0x23, status == 0x25, status == 0x26:
		return "the file is damaged, or not signed for this chip: check that it was built for this SoC, and signed with the vendor's key if the part is closed"
	case status == 0x06:
		return "the file is for another step: check which file is which, and their image_id"
	case status >= 0x07 && status <= 0x09, status >= 0x0e && status <= 0x14:
		return "the file is not what this step loads: check that it is the ELF or MBN file that was built for this board"
	}
	return "power-cycle the board into EDL and run snag again; try another cable, and a port without hubs in between"
}

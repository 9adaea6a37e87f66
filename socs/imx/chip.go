package imx

import (
	"fmt"

	"snag/socs"
	"snag/usb"
)

// protocol is what a boot ROM speaks.
type protocol int

const (
	sdpHID  protocol = iota // commands and answers as HID reports
	sdpBulk                 // the same commands, less of them, over bulk endpoints
	stream                  // SDPS: the host only pushes data
)

// chip is what differs between the boot ROMs. The IDs, the addresses for the DCD and which ROM skips it are those of
// uuu's tables (libuuu/config.cpp, rominfo.cpp); what uuu does not know (i.MX23, 50, 51, Vybrid) is from imx_usb's
// *.conf and imx_sdp.c. The memory map is that of the reference manuals, chapter "Memory Maps".
type chip struct {
	name   string // for people
	models string // socs' models that have it, by space
	ids    []usb.ID
	// release is the first bcdDevice that speaks the protocol (uuu, config.cpp): the ROMs before it are of silicon A0.
	release uint16

	proto  protocol
	report int // bytes of a data report without its ID; of a bulk packet

	// SDP.

	// dcd is where DCD_WRITE may stage the DCD. 7D: 0x911000 in uuu and Snagboot, 0x910000 in imx_usb;
	// 7ULP: 0x2f018000 and 0x2f020000. uuu's are NXP's own.
	dcd uint32
	// clear says that the ROM has no SKIP_DCD_HEADER: the table is sent without its DCD's address. For
	// 6SX uuu clears and Snagboot skips; clearing works on either, since the ROM then sees no DCD at all.
	clear bool
	// flashHeader says that the image begins with the flash header of i.MX51, not an IVT.
	flashHeader bool

	// Streams.

	cbw   bool // a command block goes first
	whole bool // all of the file is sent, SPL asks the ROM for its part; else the first container set alone
	sb    bool // the file is a boot stream (.sb)
	v2    bool // containers may be of version 2
	only2 bool // and of no other

	container bool // images are containers, else they have an IVT
	mx8m      bool // IVTs are of version 0x41
	mcu       bool // IVTs are of any version: NXP's MCUXpresso SDK makes 0x41 and 0x43 (fsl_flexspi_nor_boot.h, IVT_VERSION)
	hdmi      bool // the image may begin with HDMI firmware
	spl       bool // the first stage may be an SPL that serves SDP itself
	arm64     bool

	unproven bool // no other program has recovered the virtual board (docs/imx.md)

	entries []uint32 // where SPLs of this chip are linked to, if that tells it from its siblings
	ocram   []span   // internal memory that a first stage may use
	dram    []span
}

// span is a range of addresses, the end not included.
type span struct{ start, end uint64 }

func within(spans []span, addr uint64) bool {
	for _, s := range spans {
		if s.start <= addr && addr < s.end {
			return true
		}
	}
	return false
}

const (
	nxp       = 0x1fc9
	freescale = 0x15a2
	sigmatel  = 0x066f
)

func id(vendor, product uint16) []usb.ID { return []usb.ID{{Vendor: vendor, Product: product}} }

// The sizes of the data reports.
const (
	fullReport  = 1024
	shortReport = 1020 // uuu, sdps.cpp: for ROMs with an interrupt OUT endpoint whose packets hold no more
)

const top = 1 << 32

var (
	ocram6  = []span{{0x00900000, 0x00940000}}
	dram6Q  = []span{{0x10000000, top}}
	dram6   = []span{{0x80000000, top}}
	ocram8M = []span{{0x007e0000, 0x00820000}, {0x00900000, 0x00990000}} // TCM, OCRAM
	dram8M  = []span{{0x40000000, 3 << 31}}
	ocram8Q = []span{{0x00100000, 0x00140000}, {0x1ffe0000, 0x20040000}, {0x34fe0000, 0x35020000}, {0x38fe0000, 0x39020000}}
	dram8   = []span{{0x80000000, 1 << 36}}
	ocram9  = []span{{0x1ffc0000, 0x20660000}} // Cortex-M TCM, OCRAM
)

// chips is the table.
var chips = []chip{
	{name: "i.MX23", models: "imx23", ids: id(sigmatel, 0x3780), proto: stream, report: fullReport, cbw: true,
		whole: true, sb: true, unproven: true},
	{name: "i.MX28", models: "imx28", ids: id(freescale, 0x004f), proto: stream, report: fullReport, cbw: true,
		whole: true, sb: true},

	{name: "i.MX50", models: "imx50", ids: id(freescale, 0x0052), proto: sdpHID, report: 64, dcd: 0xf8006400, clear: true,
		ocram: []span{{0xf8000000, 0xf8020000}}, dram: []span{{0x70000000, 0xb0000000}}},
	{name: "i.MX51", models: "imx51", ids: id(freescale, 0x0041), proto: sdpBulk, report: 64, flashHeader: true,
		ocram: []span{{0x1ffe0000, 0x20000000}}, dram: []span{{0x90000000, 0xb0000000}}},
	{name: "i.MX53", models: "imx53", ids: id(freescale, 0x004e), proto: sdpBulk, report: 512,
		ocram: []span{{0xf8000000, 0xf8020000}}, dram: []span{{0x70000000, 0xf0000000}}},
	{name: "Vybrid", models: "vf610", ids: id(freescale, 0x006a), proto: sdpHID, report: fullReport,
		dcd: 0x3f400000, clear: true,
		ocram: []span{{0x3f000000, 0x3f580000}}, dram: []span{{0x80000000, 0xe0000000}}},

	{name: "i.MX6Q", models: "imx6q", ids: id(freescale, 0x0054), proto: sdpHID, report: fullReport,
		dcd: 0x00910000, clear: true, spl: true, ocram: ocram6, dram: dram6Q},
	{name: "i.MX6D/DL/S", models: "imx6d", ids: id(freescale, 0x0061), proto: sdpHID, report: fullReport,
		dcd: 0x00910000, clear: true, spl: true, ocram: ocram6, dram: dram6Q},
	{name: "i.MX6SL", models: "imx6sl", ids: id(freescale, 0x0063), proto: sdpHID, report: fullReport,
		dcd: 0x00910000, clear: true, spl: true, ocram: ocram6, dram: dram6},
	{name: "i.MX6SX", models: "imx6sx", ids: id(freescale, 0x0071), proto: sdpHID, report: fullReport,
		dcd: 0x00910000, clear: true, spl: true, ocram: ocram6, dram: dram6},
	{name: "i.MX6UL", models: "imx6ul", ids: id(freescale, 0x007d), proto: sdpHID, report: fullReport,
		dcd: 0x00910000, spl: true, ocram: ocram6, dram: dram6},
	{name: "i.MX6ULL/ULZ", models: "imx6ull", ids: id(freescale, 0x0080), proto: sdpHID, report: fullReport,
		dcd: 0x00910000, spl: true, ocram: ocram6, dram: dram6},
	{name: "i.MX6SLL", models: "imx6sll", ids: id(nxp, 0x0128), proto: sdpHID, report: fullReport,
		dcd: 0x00910000, spl: true, ocram: ocram6, dram: dram6},
	{name: "i.MX7D/S", models: "imx7d imx7s", ids: id(freescale, 0x0076), proto: sdpHID, report: fullReport,
		dcd: 0x00911000, spl: true,
		ocram: []span{{0x00900000, 0x00950000}}, dram: dram6},
	{name: "i.MX7ULP", models: "imx7ulp", ids: id(nxp, 0x0126), proto: sdpHID, report: fullReport,
		dcd: 0x2f018000, spl: true,
		ocram: []span{{0x1ffc0000, 0x20030000}, {0x2f000000, 0x2f040000}}, dram: []span{{0x60000000, 0xa0000000}}},
	{name: "i.MX RT106x", models: "imxrt106x", ids: id(nxp, 0x0135), proto: sdpHID, report: fullReport, dcd: 0x00001000, mcu: true,
		ocram: []span{{0, 0x00080000}, {0x20000000, 0x202c0000}}, dram: []span{{0x80000000, 0xe0000000}}},

	{name: "i.MX8MQ", models: "imx8mq", ids: id(nxp, 0x012b), proto: sdpHID, report: fullReport, dcd: 0x00910000,
		mx8m: true, hdmi: true, spl: true, arm64: true, entries: []uint32{0x007e1000}, ocram: ocram8M, dram: dram8M},
	{name: "i.MX8MM", models: "imx8mm", ids: id(nxp, 0x0134), proto: sdpHID, report: fullReport, dcd: 0x00910000,
		mx8m: true, spl: true, arm64: true, entries: []uint32{0x007e1000}, ocram: ocram8M, dram: dram8M},
	{name: "i.MX8MN", models: "imx815", ids: id(nxp, 0x013e), proto: stream, report: shortReport, whole: true,
		mx8m: true, arm64: true, entries: []uint32{0x00912000}, ocram: ocram8M, dram: dram8M},
	{name: "i.MX8MP", models: "imx865", ids: id(nxp, 0x0146), proto: stream, report: shortReport, whole: true,
		mx8m: true, arm64: true, entries: []uint32{0x00920000}, ocram: ocram8M, dram: dram8M},

	{name: "i.MX8QM", models: "imx8qm", ids: id(nxp, 0x0129), release: 2, proto: stream, report: fullReport,
		container: true, spl: true, arm64: true, ocram: ocram8Q, dram: dram8},
	{name: "i.MX8QXP", models: "imx8qxp", ids: id(nxp, 0x012f), release: 2, proto: stream, report: fullReport,
		container: true, spl: true, arm64: true, ocram: ocram8Q, dram: dram8},
	// 8DXL: Snagboot sends a command block, uuu, which is NXP's own, does not.
	{name: "i.MX8DXL", models: "imx8dxl", ids: id(nxp, 0x0147), proto: stream, report: fullReport,
		container: true, spl: true, arm64: true, ocram: ocram8Q, dram: dram8},
	{name: "i.MX8ULP", models: "imx8ulp", ids: []usb.ID{{Vendor: nxp, Product: 0x014a}, {Vendor: nxp, Product: 0x014b}}, proto: stream, report: shortReport,
		whole:     true,
		container: true, arm64: true, ocram: []span{{0x1ffc0000, 0x22060000}}, dram: dram8},
	{name: "i.MX91", models: "imx91", ids: id(nxp, 0x0159), proto: stream, report: shortReport, whole: true,
		container: true, arm64: true, ocram: ocram9, dram: dram8},
	{name: "i.MX93", models: "imx93", ids: id(nxp, 0x014e), proto: stream, report: shortReport, whole: true,
		container: true, arm64: true, ocram: ocram9, dram: dram8},
	// i.MX95 of the first silicon revision takes containers of version 0, later ones version 2.
	{name: "i.MX95", models: "imx95", ids: []usb.ID{{Vendor: nxp, Product: 0x015d}, {Vendor: nxp, Product: 0x015c}}, proto: stream, report: shortReport,
		container: true, v2: true, spl: true, arm64: true, ocram: ocram9, dram: dram8},
	{name: "i.MX943", models: "imx943", ids: id(nxp, 0x0027), proto: stream, report: shortReport,
		container: true, v2: true, only2: true, spl: true, arm64: true, ocram: ocram9, dram: dram8},
	{name: "i.MX952", models: "imx952", ids: id(nxp, 0x0028), proto: stream, report: shortReport,
		container: true, v2: true, only2: true, spl: true, arm64: true, ocram: ocram9, dram: dram8},
}

// identities are what the ROMs show, of whatever release: what is too old is refused in words.
func identities() []socs.Identity {
	var all []socs.Identity
	for _, c := range chips {
		for _, i := range c.ids {
			all = append(all, socs.Identity{ID: i, Models: fields(c.models)})
		}
	}
	return all
}

// unproven are the models of the chips that are.
func unproven() []string {
	var all []string
	for _, c := range chips {
		if c.unproven {
			all = append(all, fields(c.models)...)
		}
	}
	return all
}

// splIDs are what U-Boot's SPL shows, where it was not given an ID of its own. Mainline U-Boot adds 0x0fff to
// CONFIG_USB_GADGET_PRODUCT_NUM (drivers/usb/gadget/g_dnl.c, mach-imx/spl.c): 0525:a4a5, 1fc9:0152 and
// Toradex's and Freescale's own come to the first four; then NXP's U-Boot, and Boundary Devices'.
var splIDs = []usb.ID{
	{Vendor: 0x0525, Product: 0xb4a4},
	{Vendor: nxp, Product: 0x1151},
	{Vendor: 0x1b67, Product: 0x4fff},
	{Vendor: sigmatel, Product: 0x37ff},
	{Vendor: nxp, Product: 0x0151},
	{Vendor: 0x3016, Product: 0x1001},
}

// laterIdentities are splIDs, of the models that such an SPL may run on.
func laterIdentities() []socs.Identity {
	var models []string
	for _, c := range chips {
		if c.spl {
			models = append(models, fields(c.models)...)
		}
	}
	var all []socs.Identity
	for _, i := range splIDs {
		all = append(all, socs.Identity{ID: i, Models: models})
	}
	return all
}

// chipOf finds a model's chip.
func chipOf(m socs.Model) (*chip, error) {
	for i := range chips {
		for _, name := range fields(chips[i].models) {
			if name == m.Name {
				return &chips[i], nil
			}
		}
	}
	return nil, fmt.Errorf("no boot ROM is known for the model %q", m.Name)
}

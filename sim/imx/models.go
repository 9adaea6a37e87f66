package imx

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"snag/sim/usbdev"
	"snag/usb"
)

// Protocol is what a ROM speaks.
type Protocol string

const (
	SDP  Protocol = "sdp"      // commands and reports over HID
	Bulk Protocol = "sdp-bulk" // the same commands, bare, over two bulk endpoints
	SDPS Protocol = "sdps"     // a stream of data reports over HID
)

// SPLKind is what U-Boot SPL serves on USB.
type SPLKind string

const (
	SPLNone SPLKind = "none" // the ROM starts the last stage itself
	SDPU    SPLKind = "sdpu" // SDP; the jump's address must be the image
	SDPV    SPLKind = "sdpv" // SDP; the image is searched for behind the jump's address
	ROMAPI  SPLKind = "rom"  // SPL asks the ROM for more of the same stream
)

// Model is a kind of board, told by its SoC.
type Model struct {
	Name    string // as snag names the SoC
	ID      usb.ID
	Also    []usb.ID // other IDs of the same ROM
	Release uint16   // bcdDevice
	Product string   // iProduct; empty: none

	Protocol Protocol
	Speed    usbdev.Speed
	OutEP    bool // there is an interrupt OUT endpoint 1
	NeedOut  bool // and it alone is served: SET_REPORT is not
	Data     int  // bytes of a data report without its ID; of a packet for Bulk

	OldHeader bool     // the image begins with flash header v1 (i.MX51)
	Staging   []uint32 // where DCD_WRITE may put a DCD; none: there is no such command
	Skip      bool     // there is SKIP_DCD_HEADER; otherwise the host clears IVT.dcd
	DRAM      uint32   // where memory begins that a DCD has to set up
	UID       bool     // the chip's unique ID is string 4

	CBW    bool // a stream begins with a command block
	SPL    SPLKind
	Header string // what the first image is: "ivt", "container" (several), "sb"

	// ProvenBy are the peers, tools that nobody here wrote, that have recovered the virtual board, as a test has
	// it. Empty: none; the model is what the sources say and no more.
	ProvenBy string
}

const (
	fsl = 0x15a2
	nxp = 0x1fc9
)

// ocram is where both uuu (rominfo.cpp, free_addr) and imx_usb (the first address in its *.conf) stage a DCD
// on most parts. They differ on 7D (uuu 0x911000, imx_usb 0x910000) and 7ULP (0x2f018000 and 0x2f020000);
// both work on the silicon, as both projects' users report, so the model takes either.
const ocram = 0x00910000

// Models returns all models, by the order of their families.
func Models() []Model {
	id := func(vendor, product uint16) usb.ID { return usb.ID{Vendor: vendor, Product: product} }
	var all []Model
	add := func(m Model, name string, vid usb.ID, product string) *Model {
		m.Name, m.ID, m.Product = name, vid, product
		if m.Release == 0 {
			m.Release = 0x0001
		}
		all = append(all, m)
		return &all[len(all)-1]
	}

	// i.MX23 is in imx_usb's table as a member of i.MX28's family, without a configuration file.
	stream := Model{Protocol: SDPS, Speed: usbdev.HighSpeed, Data: 1024, CBW: true, SPL: SPLNone, Header: "sb", DRAM: 0x40000000}
	add(stream, "imx23", id(0x066f, 0x3780), "")
	add(stream, "imx28", id(fsl, 0x004f), "")

	hid := Model{Protocol: SDP, Speed: usbdev.HighSpeed, Data: 1024, SPL: SPLNone, Header: "ivt"}
	m := add(hid, "imx50", id(fsl, 0x0052), "SE Blank CODEX")
	m.Data, m.Staging, m.DRAM = 64, []uint32{0xf8006400}, 0x70000000

	bulk := Model{Protocol: Bulk, SPL: SPLNone, Header: "ivt"}
	m = add(bulk, "imx51", id(fsl, 0x0041), "SE Blank ELVIS")
	m.Speed, m.Data, m.OldHeader, m.DRAM = usbdev.FullSpeed, 64, true, 0x90000000
	m = add(bulk, "imx53", id(fsl, 0x004e), "SE Blank RINGO")
	m.Speed, m.Data, m.DRAM = usbdev.HighSpeed, 512, 0x70000000

	m = add(hid, "vf610", id(fsl, 0x006a), "")
	m.Staging, m.DRAM = []uint32{0x3f400000}, 0x80000000

	// The ROMs of these four know no SKIP_DCD_HEADER. Of the 6SX uuu clears IVT.dcd and Snagboot sends the skip
	// command; uuu is the tool of the chip's maker, so the model is without the command.
	mx6 := hid
	mx6.Staging, mx6.DRAM = []uint32{ocram}, 0x10000000
	add(mx6, "imx6q", id(fsl, 0x0054), "SE Blank ARIK")
	add(mx6, "imx6d", id(fsl, 0x0061), "SE Blank ARIK")
	add(mx6, "imx6sl", id(fsl, 0x0063), "SE Blank MEGREZ").DRAM = 0x80000000
	add(mx6, "imx6sx", id(fsl, 0x0071), "SE Blank SX").DRAM = 0x80000000

	skip := mx6
	skip.Skip, skip.DRAM = true, 0x80000000
	add(skip, "imx6ul", id(fsl, 0x007d), "SE Blank 6UL")
	add(skip, "imx6ull", id(fsl, 0x0080), "SE Blank 6ULL")
	add(skip, "imx6sll", id(nxp, 0x0128), "SE Blank 6SLL")
	add(skip, "imx7d", id(fsl, 0x0076), "SE Blank ULT1").Staging = []uint32{0x911000, ocram}
	m = add(skip, "imx7ulp", id(nxp, 0x0126), "")
	m.Staging, m.DRAM = []uint32{0x2f018000, 0x2f020000}, 0x60000000
	m = add(skip, "imxrt106x", id(nxp, 0x0135), "SE Blank RT Family")
	m.Staging = []uint32{0x1000}

	mx8m := skip
	mx8m.DRAM, mx8m.UID, mx8m.SPL = 0x40000000, true, SDPV
	add(mx8m, "imx8mq", id(nxp, 0x012b), "SE Blank 8MQ")
	add(mx8m, "imx8mm", id(nxp, 0x0134), "SE Blank 8MM")

	// bcdDevice 0000 and 0001 are silicon A0, whose ROM uuu does not know.
	mx8x := Model{Protocol: SDPS, Speed: usbdev.HighSpeed, Data: 1024, SPL: SDPV, Header: "container", UID: true, Release: 0x0002, DRAM: 0x80000000}
	add(mx8x, "imx8qm", id(nxp, 0x0129), "SE Blank QM")
	add(mx8x, "imx8qxp", id(nxp, 0x012f), "SE Blank QXP")
	// Snagboot sends the 8DXL a command block, uuu (config.cpp: compatible with MX8QXP) does not; the model
	// follows the chip's maker.
	add(mx8x, "imx8dxl", id(nxp, 0x0147), "SE Blank DXL")

	api := Model{Protocol: SDPS, Speed: usbdev.HighSpeed, OutEP: true, NeedOut: true, Data: 1020, SPL: ROMAPI, Header: "ivt", UID: true, Release: 0x0002, DRAM: 0x40000000}
	add(api, "imx8mn", id(nxp, 0x013e), "SE Blank 815")
	add(api, "imx8mp", id(nxp, 0x0146), "SE Blank 865")
	api.Header, api.DRAM = "container", 0x80000000
	add(api, "imx8ulp", id(nxp, 0x014a), "SE Blank 8ULP").Also = []usb.ID{id(nxp, 0x014b)}
	add(api, "imx91", id(nxp, 0x0159), "SE Blank 91")
	add(api, "imx93", id(nxp, 0x014e), "SE Blank 93")
	api.SPL = SDPV
	add(api, "imx95", id(nxp, 0x015d), "SE Blank 95").Also = []usb.ID{id(nxp, 0x015c)}
	add(api, "imx943", id(nxp, 0x0027), "SE Blank 943")
	add(api, "imx952", id(nxp, 0x0028), "SE Blank 952")
	for i := range all {
		all[i].ProvenBy = provenBy[all[i].Name]
	}
	return all
}

// provenBy is what internal/e2e's TestIMX finds with Debian's uuu 1.4.193 and imx_usb (2020-05-17). "(ROM)" is
// for a peer that does the ROM's stage and cannot go on with that board's SPL; "(by hand)" is for uuu 1.5.243, which the
// same test runs where SNAG_UUU names one.
var provenBy = map[string]string{
	"imx28":     "uuu",
	"imx50":     "imx_usb",
	"imx51":     "imx_usb",
	"imx53":     "imx_usb",
	"vf610":     "imx_usb",
	"imx6q":     "imx_usb, uuu",
	"imx6d":     "imx_usb, uuu",
	"imx6sl":    "imx_usb, uuu",
	"imx6sx":    "imx_usb, uuu",
	"imx6ul":    "imx_usb, uuu",
	"imx6ull":   "imx_usb, uuu",
	"imx6sll":   "imx_usb, uuu",
	"imx7d":     "imx_usb, uuu",
	"imx7ulp":   "imx_usb, uuu",
	"imxrt106x": "uuu",
	"imx8mq":    "imx_usb (ROM), uuu",
	"imx8mm":    "imx_usb (ROM), uuu",
	"imx8qm":    "uuu",
	"imx8qxp":   "uuu",
	"imx8dxl":   "uuu",
	"imx8mn":    "imx_usb (ROM), uuu",
	"imx8mp":    "uuu",
	"imx8ulp":   "uuu",
	"imx91":     "uuu",
	"imx93":     "uuu",
	"imx95":     "uuu 1.5 (by hand)",
	"imx943":    "uuu 1.5 (by hand)",
	"imx952":    "uuu 1.5 (by hand)",
}

// aliases are other names of models: of a sibling with the same ROM, and those by which NXP's ROMs and Snagboot call two.
var aliases = map[string]string{
	"imx6dl": "imx6d", "imx6s": "imx6d", "imx6ulz": "imx6ull", "imx7s": "imx7d", "imx815": "imx8mn", "imx865": "imx8mp",
	"imxrt1060": "imxrt106x", "vybrid": "vf610",
}

// Names are all names that [FindModel] knows, aliases included.
func Names() []string {
	var all []string
	for _, m := range Models() {
		all = append(all, m.Name)
	}
	return append(all, slices.Sorted(maps.Keys(aliases))...)
}

// FindModel returns the model of a name.
func FindModel(name string) (Model, error) {
	if other, ok := aliases[name]; ok {
		name = other
	}
	all := Models()
	i := slices.IndexFunc(all, func(m Model) bool { return m.Name == name })
	if i < 0 {
		return Model{}, fmt.Errorf("no virtual board %q: there are %s", name, strings.Join(Names(), " "))
	}
	return all[i], nil
}

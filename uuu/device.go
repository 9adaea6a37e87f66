package uuu

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"snag/socs"
	"snag/usb"
)

// device is a line of the table: who speaks a protocol.
type device struct {
	proto       Protocol
	chip        string // as uuu calls it, and scripts by @CHIP@; empty where the ID says nothing of it
	compatible  string // the chip whose ROM it has, if not its own
	id          usb.ID
	first, last uint16 // bcdDevice
}

const lastRelease = 0xffff

// devices is uuu's table (libuuu/config.cpp), and behind it the other IDs of SPLs that socs/imx knows.
func devices() []device {
	const nxp, freescale, sigmatel = 0x1fc9, 0x15a2, 0x066f
	d := func(proto Protocol, chip, compatible string, vendor, product, first, last uint16) device {
		return device{proto, chip, compatible, usb.ID{Vendor: vendor, Product: product}, first, last}
	}
	const any = lastRelease
	// U-Boot's SPL: those from 0500 on search for U-Boot; 9999 is an old one that does not know its USB controller.
	spl := func(vendor, product uint16) []device {
		return []device{
			d(SDPU, "SPL", "", vendor, product, 0, 0x04ff),
			d(SDPV, "SPL1", "", vendor, product, 0x0500, 0x9998),
			d(SDPU, "SPL", "", vendor, product, 0x9999, 0x9999),
		}
	}
	return slices.Concat([]device{
		d(SDPS, "MX8QXP", "", nxp, 0x012f, 2, any),
		d(SDPS, "MX8QM", "MX8QXP", nxp, 0x0129, 2, any),
		d(SDPS, "MX8DXL", "MX8QXP", nxp, 0x0147, 0, any),
		d(SDPS, "MX28", "", freescale, 0x004f, 0, any),
		d(SDPS, "MX815", "", nxp, 0x013e, 0, any),
		d(SDPS, "MX865", "MX815", nxp, 0x0146, 0, any),
		d(SDPS, "MX8ULP", "MX815", nxp, 0x014a, 0, any),
		d(SDPS, "MX8ULP", "MX815", nxp, 0x014b, 0, any),
		d(SDPS, "MX93", "MX815", nxp, 0x014e, 0, any),
		d(SDPS, "MX91", "MX815", nxp, 0x0159, 0, any),
		d(SDPS, "MX95", "", nxp, 0x015d, 0, any),
		d(SDPS, "MX95", "", nxp, 0x015c, 0, any),
		d(SDPS, "MX943", "MX95", nxp, 0x0027, 0, any),
		d(SDPS, "MX952", "MX95", nxp, 0x0028, 0, any),
		d(SDP, "MX7D", "", freescale, 0x0076, 0, any),
		d(SDP, "MX6Q", "", freescale, 0x0054, 0, any),
		d(SDP, "MX6D", "MX6Q", freescale, 0x0061, 0, any),
		d(SDP, "MX6SL", "MX6Q", freescale, 0x0063, 0, any),
		d(SDP, "MX6SX", "MX6Q", freescale, 0x0071, 0, any),
		d(SDP, "MX6UL", "MX7D", freescale, 0x007d, 0, any),
		d(SDP, "MX6ULL", "MX7D", freescale, 0x0080, 0, any),
		d(SDP, "MX6SLL", "MX7D", nxp, 0x0128, 0, any),
		d(SDP, "MX7ULP", "", nxp, 0x0126, 0, any),
		d(SDP, "MXRT106X", "", nxp, 0x0135, 0, any),
		d(SDP, "MX8MM", "MX8MQ", nxp, 0x0134, 0, any),
		d(SDP, "MX8MQ", "", nxp, 0x012b, 0, any),
		d(FBK, "", "", sigmatel, 0x9afe, 0, any),
		d(FBK, "", "", sigmatel, 0x9bff, 0, any),
		d(FBK, "", "", nxp, 0x0153, 0, any),
		d(FB, "", "", 0x0525, 0xa4a5, 0, any),
		d(FB, "", "", 0x18d1, 0x0d02, 0, any),
		d(FB, "", "", 0x3016, 0x0001, 0, any),
		d(FB, "", "", nxp, 0x0152, 0, any),
		d(FB, "", "", 0x0483, 0x0afb, 0, any),
		d(FB, "", "", 0x1d6b, 0x0104, 0, any),
	},
		spl(0x0525, 0xb4a4), spl(nxp, 0x0151), spl(0x3016, 0x1001),
		spl(nxp, 0x1151), spl(0x1b67, 0x4fff), spl(sigmatel, 0x37ff),
	)
}

// models are snag's names of the chips whose ROMs SDP and SDPS lines are for.
var models = map[string]string{
	"MX8QXP": "imx8qxp", "MX8QM": "imx8qm", "MX8DXL": "imx8dxl", "MX28": "imx28", "MX815": "imx815", "MX865": "imx865", "MX8ULP": "imx8ulp",
	"MX93": "imx93", "MX91": "imx91", "MX95": "imx95", "MX943": "imx943", "MX952": "imx952", "MX7D": "imx7d", "MX6Q": "imx6q", "MX6D": "imx6d",
	"MX6SL": "imx6sl", "MX6SX": "imx6sx", "MX6UL": "imx6ul", "MX6ULL": "imx6ull", "MX6SLL": "imx6sll", "MX7ULP": "imx7ulp",
	"MXRT106X": "imxrt106x", "MX8MM": "imx8mm", "MX8MQ": "imx8mq",
}

// model is the model whose ROM a device has.
func (d device) model() string {
	if m, ok := models[strings.ToUpper(d.chip)]; ok {
		return m
	}
	return models[strings.ToUpper(d.compatible)]
}

// configure parses a CFG line, and does what it says: "CFG: SDP -chip MX9 -compatible MX8MQ -vid 0x1fc9 -pid 0x1234".
func (s *Script) configure(at word, text string) error {
	proto, ok := protocols[strings.ToUpper(strings.TrimSuffix(at.text, ":"))]
	if !ok || proto == CFG {
		return at.errorf("protocol %q: expected SDP, SDPS, SDPU, SDPV, FB or FBK", at.text)
	}
	o, err := parseOptions(at, text, map[string]bool{
		"-chip": true, "-compatible": true, "-vid": true, "-pid": true, "-bcdversion": true, "-bcdmin": true, "-bcdmax": true,
	})
	if err != nil {
		return err
	}
	if err := o.words(0, 0, "the options of CFG"); err != nil {
		return err
	}
	for _, name := range []string{"-vid", "-pid"} {
		if !o.has(name) {
			return at.errorf("expected %s NUMBER", name)
		}
	}
	n := make(map[string]uint16)
	for name, def := range map[string]uint64{"-vid": 0, "-pid": 0, "-bcdversion": 0, "-bcdmin": 0, "-bcdmax": lastRelease} {
		v, err := o.number(name, 16, def)
		if err != nil {
			return err
		}
		n[name] = uint16(v)
	}
	d := device{proto, o.value["-chip"].text, o.value["-compatible"].text, usb.ID{Vendor: n["-vid"], Product: n["-pid"]}, n["-bcdmin"], n["-bcdmax"]}
	if d.first > d.last {
		return o.given["-bcdmin"].errorf("-bcdmin %#04x is above -bcdmax %#04x: no device would be meant", d.first, d.last)
	}
	if o.has("-bcdversion") {
		d.first, d.last = n["-bcdversion"], n["-bcdversion"]
	}
	if (proto == SDP || proto == SDPS) && d.model() == "" {
		return cmp.Or(o.value["-compatible"], o.value["-chip"], at).errorf("no chip is known that %q is, or is compatible to (%q)", d.chip, d.compatible)
	}
	if (proto == SDP || proto == SDPS) && !slices.ContainsFunc(devices(), func(k device) bool { return k.proto == proto && k.model() == d.model() }) {
		return at.errorf("the boot ROM of %s does not speak %s", d.model(), proto)
	}
	s.devices = append([]device{d}, s.devices...)
	return nil
}

// find looks up a device; the first that fits counts.
func (s *Script) find(u usb.Device) (device, bool) {
	i := slices.IndexFunc(s.devices, func(d device) bool { return d.identity().Is(u) })
	if i < 0 {
		return device{}, false
	}
	return s.devices[i], true
}

func (d device) identity() socs.Identity {
	return socs.Identity{ID: d.id, First: d.first, Last: d.last}
}

// rom tells whether the protocol is a boot ROM's.
func (p Protocol) rom() bool { return p == SDP || p == SDPS }

// stage is what events call it.
func (p Protocol) stage() string {
	switch p {
	case SDP, SDPS:
		return "rom"
	case SDPU, SDPV:
		return "spl"
	}
	return "fastboot"
}

func (d device) String() string {
	if d.chip == "" {
		return fmt.Sprintf("%s (%s)", d.proto, d.id)
	}
	return fmt.Sprintf("%s (%s, %s)", d.proto, d.chip, d.id)
}

package fuse

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"snag/socs"
)

// Place is where a word is, as U-Boot's command counts: i.MX6 has banks of eight words, i.MX7 and 8M of four.
type Place struct{ Bank, Word int }

func (p Place) String() string { return fmt.Sprintf("bank %d word %d", p.Bank, p.Word) }

// Word is a word of fuses in which MAC addresses are.
type Word struct {
	Place
	Name  string // the reference manual's
	Value uint32 // the addresses' bits
	Mask  uint32 // where addresses have bits; the others are not touched
}

// Plan is what is to be burnt.
type Plan struct {
	SoC       string // the model
	Addresses []net.HardwareAddr
	Words     []Word // in the order in which they are burnt, one after the other in one bank
	Warnings  []string

	layout *layout
}

// layout is where a family's SoCs have their addresses. The bytes 2 to 5 of the first address are the first word, from
// the highest byte down; its bytes 0 and 1 are the lower half of the second word. The second address has its bytes 4
// and 5 in the upper half of that, and 0 to 3 in the third word.
type layout struct {
	first Place
	names [3]string
	// lock is the bit of bank 0's word 0 that protects the words from burning (MAC_ADDR_LOCK, whose other bit, above
	// it, protects the shadow registers).
	lock uint32
	// env is U-Boot's variable soc on them (CONFIG_SYS_SOC).
	env string
	// shadow and data are registers of the controller: the shadow of a word, and what the last sensing of it has found.
	shadow, data func(Place) uint32
}

// The controllers' registers (U-Boot, struct ocotp_regs): fuse words are shadowed from 0x400 on, every 0x10 bytes.
var (
	mx6 = layout{
		first: Place{4, 2}, names: [3]string{"MAC0", "MAC1", "MAC2"}, lock: 1 << 8, env: "mx6",
		// Behind bank 5 there is a hole, which none of the words here is behind.
		shadow: func(p Place) uint32 { return 0x021bc400 + uint32(p.Bank)*0x80 + uint32(p.Word)*0x10 },
		data:   func(Place) uint32 { return 0x021bc040 },
	}
	mx7 = layout{
		first: Place{9, 0}, names: [3]string{"MAC_ADDR0", "MAC_ADDR1", "MAC_ADDR2"}, lock: 1 << 14, env: "mx7",
		shadow: func(p Place) uint32 { return 0x30350400 + uint32(p.Bank)*0x40 + uint32(p.Word)*0x10 },
		data:   func(p Place) uint32 { return 0x30350070 + uint32(p.Word)*0x10 }, // it senses whole banks
	}
	mx8m = layout{
		first: mx7.first, names: mx7.names, lock: mx7.lock, env: "imx8m", shadow: mx7.shadow,
		data: func(Place) uint32 { return 0x30350040 },
	}
)

// lockPlace is where all of them have the lock bits.
var lockPlace = Place{0, 0}

// supported are the models, and how many addresses each has room for: what U-Boot's mac.c reads there. i.MX6SLL and
// 6ULZ have no Ethernet.
var supported = []struct {
	model  string
	most   int
	layout *layout
}{
	{"imx6d", 1, &mx6}, {"imx6q", 1, &mx6}, {"imx6sl", 1, &mx6}, {"imx6sx", 2, &mx6}, {"imx6ul", 2, &mx6}, {"imx6ull", 2, &mx6},
	{"imx7d", 2, &mx7}, {"imx7s", 1, &mx7},
	{"imx8mm", 1, &mx8m}, {"imx815", 1, &mx8m}, {"imx865", 2, &mx8m},
}

// Models are the models whose fuses can be burnt, and the names by which people know them better.
func Models() []string {
	var all []string
	for _, s := range supported {
		all = append(all, s.model)
		if m, err := socs.Lookup(s.model); err == nil {
			all = append(all, slices.DeleteFunc(slices.Clone(m.Aliases), func(a string) bool { return why[a] != "" })...)
		}
	}
	return all
}

// why says of models that look as if they belonged to the others why they do not.
var why = map[string]string{
	"imx6sll": "it has no Ethernet",
	"imx6ulz": "it has no Ethernet", // an imx6ull otherwise
	"imx8mq":  "U-Boot does not sense its fuses (from revision 2.1 on), so that what is burnt could not be read back",
	"imx8qm":  "its U-Boot asks for every word on the serial console, and each can be written once only",
	"imx8qxp": "its U-Boot asks for every word on the serial console, and each can be written once only",
	"imx8dxl": "its U-Boot asks for every word on the serial console, and each can be written once only",
	"imx8ulp": "its words are locked by the first write to them",
}

// MAC is the plan for one address, or two, in a SoC's fuses. The SoC's name is one that socs.Lookup knows.
func MAC(soc string, addresses ...net.HardwareAddr) (*Plan, error) {
	model, err := socs.Lookup(soc)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(supported, func(s struct {
		model  string
		most   int
		layout *layout
	}) bool {
		return s.model == model.Name
	})
	name := model.Name
	if a := strings.ToLower(soc); slices.Contains(model.Aliases, a) {
		name = a
	}
	if reason := why[name]; reason != "" || i < 0 {
		if reason == "" {
			reason = "where it has MAC addresses is not known"
		}
		return nil, fmt.Errorf("fuses of %s: %s; there are %s", name, reason, strings.Join(Models(), ", "))
	}
	s := &supported[i]
	if n := len(addresses); n == 0 || n > s.most {
		return nil, fmt.Errorf("%d MAC addresses: %s has room for %d", n, model.Name, s.most)
	}
	p := &Plan{SoC: model.Name, Addresses: addresses, layout: s.layout}
	for i, a := range addresses {
		warning, err := check(a)
		if err != nil {
			return nil, fmt.Errorf("mac%d, %s: %w", i, a, err)
		}
		if warning != "" {
			p.Warnings = append(p.Warnings, fmt.Sprintf("mac%d, %s: %s", i, a, warning))
		}
	}
	word := func(i int) *Word {
		for len(p.Words) <= i {
			n := len(p.Words)
			p.Words = append(p.Words, Word{Place: Place{s.layout.first.Bank, s.layout.first.Word + n}, Name: s.layout.names[n]})
		}
		return &p.Words[i]
	}
	set := func(i int, shift int, bytes ...byte) {
		w := word(i)
		for n, b := range bytes {
			at := shift + 8*(len(bytes)-1-n)
			w.Value |= uint32(b) << at
			w.Mask |= 0xff << at
		}
	}
	a := addresses[0]
	set(0, 0, a[2:]...)
	set(1, 0, a[:2]...)
	if len(addresses) == 2 {
		b := addresses[1]
		if slices.Equal(a, b) {
			return nil, fmt.Errorf("both MAC addresses are %s", a)
		}
		set(1, 16, b[4:]...)
		set(2, 0, b[:4]...)
	} else if s.most == 2 {
		p.Warnings = append(p.Warnings, fmt.Sprintf("without the second MAC address the upper half of %s stays empty, and is not burnt by snag later: it burns a word once", p.Words[1].Name))
	}
	return p, nil
}

// Address parses a MAC address: six bytes, with colons, dashes or nothing between them.
func Address(s string) (net.HardwareAddr, error) {
	a, err := net.ParseMAC(strings.TrimSpace(s))
	if err != nil || len(a) != 6 || strings.Contains(s, ".") {
		return nil, fmt.Errorf("MAC address %q: expected six bytes, as in 00:04:9f:01:23:45", s)
	}
	return a, nil
}

// check says what an address must not be, and what it should not be, for a board of its own.
func check(a net.HardwareAddr) (warning string, err error) {
	if len(a) != 6 {
		return "", fmt.Errorf("%d bytes, expected 6", len(a))
	}
	all := func(b byte) bool { return !slices.ContainsFunc(a, func(x byte) bool { return x != b }) }
	switch {
	case all(0):
		return "", errors.New("all zero")
	case all(0xff):
		return "", errors.New("it is the broadcast address")
	case a[0]&1 != 0:
		return "", errors.New("it is a multicast address: bit 0 of the first byte is set")
	case a[0]&2 != 0:
		return "it is locally administered (bit 1 of the first byte is set), and not one of a manufacturer's range", nil
	}
	return "", nil
}

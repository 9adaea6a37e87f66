package usb

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Port is a physical USB port as Linux names it: the bus, then the chain of hub ports
// ("1-2.3": bus 1, root port 2, port 3 of the hub there). A board is its port: its VID:PID
// and its device number change with every stage, its port does not. The zero value is no port.
type Port string

// maxHubs is the longest chain of ports: USB 2.0 specification, section 4.1.1, allows seven
// tiers, of which the first is the root hub.
const maxHubs = 6

// ParsePort checks s as BUS-PORT[.PORT...], each number from 1 to 255 without leading zeros.
func ParsePort(s string) (Port, error) {
	bus, chain, ok := strings.Cut(s, "-")
	if !ok {
		return "", fmt.Errorf("USB port %q: expected BUS-PORT[.PORT...], for instance 1-2.3", s)
	}
	parts := strings.Split(chain, ".")
	if len(parts) > maxHubs {
		return "", fmt.Errorf("USB port %q: more than %d hub ports", s, maxHubs)
	}
	for _, n := range append(parts, bus) {
		if v, err := strconv.ParseUint(n, 10, 8); err != nil || v == 0 || n[0] == '0' || n[0] == '+' {
			return "", fmt.Errorf("USB port %q: %q is not a number from 1 to 255", s, n)
		}
	}
	return Port(s), nil
}

// Compare orders ports as people count: 1-2 before 1-10.
func (p Port) Compare(q Port) int {
	return slices.CompareFunc(portNumbers(p), portNumbers(q), func(x, y string) int {
		if len(x) != len(y) {
			return len(x) - len(y)
		}
		return strings.Compare(x, y)
	})
}

func portNumbers(p Port) []string {
	return strings.FieldsFunc(string(p), func(r rune) bool { return r == '-' || r == '.' })
}

// ID is what a device says it is: idVendor and idProduct of its device descriptor
// (USB 2.0 specification, table 9-8).
type ID struct{ Vendor, Product uint16 }

// ParseID reads VID:PID, one to four hexadecimal digits each.
func ParseID(s string) (ID, error) {
	vid, pid, ok := strings.Cut(s, ":")
	v, err1 := parseHex16(vid)
	p, err2 := parseHex16(pid)
	if !ok || err1 != nil || err2 != nil || v == 0 && p == 0 { // which stands for none
		return ID{}, fmt.Errorf("USB ID %q: expected VID:PID in hexadecimal, for instance 0451:6141", s)
	}
	return ID{v, p}, nil
}

// ParseBoard reads what says which board: its port, or the ID that it shows.
func ParseBoard(s string) (Port, ID, error) {
	if strings.Contains(s, ":") {
		id, err := ParseID(s)
		return "", id, err
	}
	port, err := ParsePort(s)
	return port, ID{}, err
}

func parseHex16(s string) (uint16, error) {
	if len(s) > 4 {
		return 0, strconv.ErrRange
	}
	v, err := strconv.ParseUint(s, 16, 16)
	return uint16(v), err
}

// String is the form of lsusb: four lower-case digits each.
func (id ID) String() string { return fmt.Sprintf("%04x:%04x", id.Vendor, id.Product) }

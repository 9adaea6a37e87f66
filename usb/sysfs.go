package usb

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Sysfs is the kernel's view of the attached devices. The zero value reads /sys and /dev;
// tests and simulators point it elsewhere. Layout: Linux, Documentation/ABI/testing/sysfs-bus-usb
// and sysfs-class-net.
type Sysfs struct {
	Sys string // "/sys" if empty
	Dev string // "/dev" if empty
}

func (s Sysfs) sys(elem ...string) string {
	if s.Sys == "" {
		s.Sys = "/sys"
	}
	return filepath.Join(append([]string{s.Sys}, elem...)...)
}

// Device is an attached USB device, as sysfs tells without opening it.
// Strings that the device itself supplied are its own claims: at most 255 bytes, not yet made
// safe for a terminal.
type Device struct {
	Port    Port
	ID      ID
	Release uint16 // bcdDevice
	Bus     int    // busnum
	Address int    // devnum: changes with every enumeration
	Speed   string // Mbit/s, as sysfs has it: "480"
	Config  int    // active bConfigurationValue; 0 while not configured

	Manufacturer, Product, Serial string

	Node       string // the usbfs node: "/dev/bus/usb/001/005"
	Interfaces []Interface
}

// Interface is one interface of a device's active configuration.
type Interface struct {
	Number                    int
	Class, SubClass, Protocol uint8
	Driver                    string // the kernel driver that is bound; empty if none
	Net                       string // its network interface's name, if the driver made one
}

// isDevice reports whether a directory of sysfs is a device's: its name is a port, as 1-2.3, not usb1 or 1-2:1.0.
func isDevice(name string) bool {
	bus, chain, _ := strings.Cut(name, "-")
	if !isNumber(bus) {
		return false
	}
	for n := range strings.SplitSeq(chain, ".") {
		if !isNumber(n) {
			return false
		}
	}
	return true
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// Devices lists what is attached, root hubs left out, in port order. A device that vanishes
// while it is read, or that is being reset, is left out. A kernel without USB has no devices: that is no error.
func (s Sysfs) Devices() ([]Device, error) {
	entries, err := os.ReadDir(s.sys("bus/usb/devices"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list USB devices: %w", err)
	}
	var devices []Device
	for _, e := range entries {
		if !isDevice(e.Name()) {
			continue
		}
		d, err := s.Device(Port(e.Name()))
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if d.Address == 0 {
			continue // it is being reset (hub_port_reset in Linux's drivers/usb/core/hub.c), and has it again in a moment
		}
		devices = append(devices, d)
	}
	slices.SortFunc(devices, func(a, b Device) int { return a.Port.Compare(b.Port) })
	return devices, nil
}

// Fingerprint is a text that is another one after a device came, went, enumerated again or was configured, and costs a
// fraction of what Devices does.
func (s Sysfs) Fingerprint() (string, error) {
	entries, err := os.ReadDir(s.sys("bus/usb/devices"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("list USB devices: %w", err)
	}
	var b strings.Builder
	for _, e := range entries { // the interfaces of the active configuration are among them
		b.WriteString(e.Name())
		if isDevice(e.Name()) {
			address, _ := ReadAttribute(s.sys("bus/usb/devices", e.Name(), "devnum"))
			b.WriteString(" " + address)
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}

// Device reads the device on one port. The error wraps fs.ErrNotExist if there is none.
func (s Sysfs) Device(port Port) (Device, error) {
	dir, err := os.Open(s.sys("bus/usb/devices", string(port))) // it remains that of this device, whatever is on the port later
	if err != nil {
		return Device{}, fmt.Errorf("USB device on port %s: %w", port, err)
	}
	defer dir.Close()
	r := reader{dir: dir}
	d := Device{
		Port:         port,
		ID:           ID{uint16(r.number("idVendor", 16, 16)), uint16(r.number("idProduct", 16, 16))},
		Release:      uint16(r.number("bcdDevice", 16, 16)),
		Bus:          int(r.number("busnum", 10, 16)),
		Address:      int(r.number("devnum", 10, 16)),
		Speed:        r.text("speed"),
		Manufacturer: r.text("manufacturer"),
		Product:      r.text("product"),
		Serial:       r.text("serial"),
	}
	if r.err != nil {
		return Device{}, fmt.Errorf("USB device on port %s: %w", port, r.err)
	}
	d.Config, _ = strconv.Atoi(r.text("bConfigurationValue")) // empty while not configured
	dev := s.Dev
	if dev == "" {
		dev = "/dev"
	}
	d.Node = filepath.Join(dev, "bus/usb", fmt.Sprintf("%03d/%03d", d.Bus, d.Address))

	// The interfaces are children of the device's real directory.
	children, err := dir.Readdirnames(-1)
	if err != nil {
		return Device{}, fmt.Errorf("USB device on port %s: %w", port, err)
	}
	for _, name := range children {
		below, ok := strings.CutPrefix(name, string(port)+":") // "1-2:1.0": configuration 1, interface 0
		configuration, number, _ := strings.Cut(below, ".")
		if !ok || !isNumber(configuration) || !isNumber(number) {
			continue
		}
		i := reader{dir: dir, below: name + "/"}
		in := Interface{
			Class:    uint8(i.number("bInterfaceClass", 16, 8)),
			SubClass: uint8(i.number("bInterfaceSubClass", 16, 8)),
			Protocol: uint8(i.number("bInterfaceProtocol", 16, 8)),
		}
		if i.err != nil {
			continue // the configuration is being changed
		}
		in.Number, _ = strconv.Atoi(number)
		if driver, err := os.Readlink(filepath.Join(dir.Name(), name, "driver")); err == nil {
			in.Driver = filepath.Base(driver)
		}
		if in.Driver != "" {
			if nets, err := os.ReadDir(filepath.Join(dir.Name(), name, "net")); err == nil && len(nets) > 0 {
				in.Net = nets[0].Name()
			}
		}
		d.Interfaces = append(d.Interfaces, in)
	}
	slices.SortFunc(d.Interfaces, func(a, b Interface) int { return a.Number - b.Number })
	return d, nil
}

// Active reads what of the device on a port changes while one is there: its address, which each enumeration changes, and
// its configuration, 0 while it has none. It costs a fraction of what Device does.
func (s Sysfs) Active(port Port) (address, config int, err error) {
	dir, err := os.Open(s.sys("bus/usb/devices", string(port)))
	if err != nil {
		return 0, 0, fmt.Errorf("USB device on port %s: %w", port, err)
	}
	defer dir.Close()
	r := reader{dir: dir}
	address = int(r.number("devnum", 10, 16))
	if r.err != nil {
		return 0, 0, fmt.Errorf("USB device on port %s: %w", port, r.err)
	}
	config, _ = strconv.Atoi(r.text("bConfigurationValue")) // empty while not configured
	return address, config, nil
}

// gone reports whether err is how sysfs tells that a device left while it was read.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV)
}

// reader reads the attribute files of a sysfs directory, or of one below it, and keeps the first error.
type reader struct {
	dir   *os.File
	below string // what that one's files' names begin with: "1-2:1.0/"
	err   error
}

// maxAttribute bounds an attribute: a USB string descriptor holds at most 126 UTF-16 units,
// which sysfs shows as UTF-8.
const maxAttribute = 512

// text reads an attribute that may be absent; none of a device that is not there.
func (r *reader) text(name string) string {
	if r.err != nil {
		return ""
	}
	text, err := readAttribute(r.dir, r.below+name)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(text, "\n")
}

// number reads an attribute that every device has.
func (r *reader) number(name string, base, bits int) uint64 {
	if r.err != nil {
		return 0
	}
	text, err := readAttribute(r.dir, r.below+name)
	if err != nil {
		r.err = err
		return 0
	}
	v, err := strconv.ParseUint(strings.TrimSpace(text), base, bits)
	if err != nil {
		r.err = fmt.Errorf("%s: %w", name, err)
	}
	return v
}

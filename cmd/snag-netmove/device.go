package main

import (
	"bytes"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// usbMajor is the major number of usbfs nodes: Documentation/admin-guide/devices.txt, 189.
const usbMajor = 189

// drivers are the kernel's network drivers that boot ROMs and boot loaders are served by.
var drivers = [...]string{"rndis_host", "cdc_ether", "cdc_ncm", "cdc_eem", "cdc_subset"}

// builtin are the IDs that need no entry in the list: the AM335x boot ROM, and its SPL.
// A test of package netsetup compares them with the ones there.
var builtin = [...]id{
	{0x0451, 0x6141},
	{0x0451, 0xd022},
}

// id is idVendor and idProduct of a device descriptor (USB 2.0 specification, table 9-8).
type id struct{ vendor, product uint16 }

func (i id) String() string { return hex4(i.vendor) + ":" + hex4(i.product) }

func hex4(n uint16) string {
	s := strconv.FormatUint(uint64(n), 16)
	return "0000"[len(s):] + s
}

// host is where the helper looks for devices. Only tests have others than those of run.
type host struct {
	sysfs, dev, conf string
	openNode         func(path string) (node, error)
}

// node is an open usbfs node.
type node struct {
	fd           int
	char         bool // a character device
	major, minor uint32
}

// check refuses an interface that is not a plain USB network device of an allowed driver and ID whose
// node the caller may open.
func (h host) check(index int, l link) *refusal {
	notUSB := func(why string) *refusal {
		return &refusal{exitNotUSB, "interface " + itoa(index) + " is not a USB network device: " + why}
	}
	switch {
	case l.index != index:
		return system("RTM_GETLINK", unix.EPROTO)
	case !l.ethernet:
		return notUSB("no Ethernet")
	case l.virtual:
		return notUSB("virtual, stacked on another or part of one")
	case l.parentBus != "usb":
		return notUSB("its parent is not on the USB bus")
	}
	device, ok := deviceOf(l.parent)
	if !ok {
		return notUSB("its parent is not named as a USB interface")
	}

	driver := make([]byte, 256)
	n, err := unix.Readlink(h.sysfs+"/bus/usb/devices/"+l.parent+"/driver", driver)
	if err != nil {
		return h.missing(index, err)
	}
	if !allowedDriver(string(driver[:n])) {
		return notUSB("its driver is not one of " + strings.Join(drivers[:], ", "))
	}

	dir := h.sysfs + "/bus/usb/devices/" + device
	dev, err := readDevice(dir)
	if err != nil {
		return h.missing(index, err)
	}
	if r := h.listed(dev.id); r != nil {
		return r
	}

	path := h.dev + "/bus/usb/" + pad3(dev.bus) + "/" + pad3(dev.num)
	nd, err := h.openNode(path)
	switch {
	case err == unix.EACCES || err == unix.EPERM:
		return &refusal{exitNode, "the caller may not open the node of USB device " + dev.id.String() + " for writing"}
	case err == unix.ENOENT || err == unix.ENODEV || err == unix.ENXIO:
		return &refusal{exitNode, "there is no node of USB device " + dev.id.String() + " (bus " + itoa(dev.bus) + ", device " + itoa(dev.num) + ")"}
	case err != nil:
		return system("open of the device node", err)
	}
	// The node stays open to the end of the process, so that the device number is not given to another.
	if !nd.char || nd.major != usbMajor || int(nd.minor) != (dev.bus-1)*128+dev.num-1 {
		return &refusal{exitNode, "the node of USB device " + dev.id.String() + " is not that of bus " + itoa(dev.bus) + ", device " + itoa(dev.num)}
	}
	again, err := readDevice(dir)
	if err != nil {
		return h.missing(index, err)
	}
	if again != dev {
		return gone(index)
	}
	return nil
}

// missing says that something of the device is not in sysfs. It has just been unplugged, mostly.
func (h host) missing(index int, err error) *refusal {
	if err == unix.ENOENT || err == unix.ENODEV {
		return gone(index)
	}
	return system("sysfs", err)
}

// listed refuses an ID that is neither built in nor in the list of further ones.
func (h host) listed(dev id) *refusal {
	for _, i := range builtin {
		if i == dev {
			return nil
		}
	}
	more, r := readConf(h.conf)
	if r != nil {
		return r
	}
	for _, i := range more {
		if i == dev {
			return nil
		}
	}
	return &refusal{exitNotListed, "USB ID " + dev.String() + " is neither built in nor in " + confPath}
}

// usbDevice is what sysfs says of a USB device.
type usbDevice struct {
	id       id
	bus, num int // busnum 1..., devnum 1..127
}

func readDevice(dir string) (usbDevice, error) {
	var d usbDevice
	for _, f := range []struct {
		name string
		base int
		bits int
		set  func(uint64)
	}{
		{"/idVendor", 16, 16, func(n uint64) { d.id.vendor = uint16(n) }},
		{"/idProduct", 16, 16, func(n uint64) { d.id.product = uint16(n) }},
		{"/busnum", 10, 12, func(n uint64) { d.bus = int(n) }},
		{"/devnum", 10, 7, func(n uint64) { d.num = int(n) }},
	} {
		b, err := readSmall(dir + f.name)
		if err != nil {
			return d, err
		}
		n, ok := attribute(b, f.base, f.bits)
		if !ok {
			return d, unix.EPROTO
		}
		f.set(n)
	}
	if d.bus == 0 || d.num == 0 {
		return d, unix.ENODEV
	}
	return d, nil
}

// attribute reads a number of sysfs: hexadecimal ones have four digits, and a line feed ends both.
func attribute(b []byte, base, bits int) (uint64, bool) {
	b, ok := bytes.CutSuffix(b, []byte("\n"))
	if !ok || base == 16 && len(b) != 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b), base, bits)
	return n, err == nil
}

// deviceOf takes the device out of the name of a USB interface: "1-2.3" of "1-2.3:1.0"
// (Documentation/driver-api/usb/usb.rst: BUS-PORT[.PORT...]:CONFIGURATION.INTERFACE).
func deviceOf(parent string) (string, bool) {
	device, interf, ok := strings.Cut(parent, ":")
	if !ok || len(parent) > 63 {
		return "", false
	}
	bus, ports, ok := strings.Cut(device, "-")
	if !ok || !decimal(bus) {
		return "", false
	}
	for _, p := range strings.Split(ports, ".") {
		if !decimal(p) {
			return "", false
		}
	}
	config, number, ok := strings.Cut(interf, ".")
	return device, ok && decimal(config) && decimal(number)
}

func decimal(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}

// allowedDriver says whether a driver link (".../bus/usb/drivers/NAME") ends in an allowed name.
func allowedDriver(target string) bool {
	dir, name := target[:strings.LastIndexByte(target, '/')+1], target[strings.LastIndexByte(target, '/')+1:]
	if !strings.HasSuffix(dir, "/bus/usb/drivers/") {
		return false
	}
	for _, d := range drivers {
		if d == name {
			return true
		}
	}
	return false
}

func pad3(n int) string {
	s := itoa(n)
	if len(s) < 3 {
		s = "000"[len(s):] + s
	}
	return s
}

// openNode opens a usbfs node with the rights of the caller: a file capability leaves the file system
// user ID alone, and CAP_NET_ADMIN overrides no permission of files.
func openNode(path string) (node, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return node{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return node{}, err
	}
	return node{
		fd:    fd,
		char:  st.Mode&unix.S_IFMT == unix.S_IFCHR,
		major: unix.Major(uint64(st.Rdev)),
		minor: unix.Minor(uint64(st.Rdev)),
	}, nil
}

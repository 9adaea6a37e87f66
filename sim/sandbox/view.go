package sandbox

import (
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"snag/sim/usbdev"
)

// controller is where the virtual bus hangs: a PCI host controller, as on a PC.
const controller = "devices/pci0000:00/0000:00:14.0"

// view is the sysfs tree that the command sees. The kernel documents the attributes in
// Documentation/ABI/testing/sysfs-bus-usb, sysfs-class-net; the layout is the one of Linux 6.
//
//	bus/usb/devices/1-1 -> ../../../devices/pci…/usb1/1-1
//	devices/pci…/usb1/1-1/{idVendor,…}                          the device
//	devices/pci…/usb1/1-1/1-1:1.0/{bInterfaceClass,…,driver}    an interface
//	devices/pci…/usb1/1-1/1-1:1.0/net/usb0/{ifindex,…,device}   its network interface
//	class/net/usb0 -> ../../devices/pci…/usb1/1-1/1-1:1.0/net/usb0
//
// Its methods are not for use by several goroutines at once.
type view struct {
	root    string
	devnum  map[string]int // last device number by bus
	devices map[string]*shown
	nets    map[int]string // directory of a network interface by its index
	uevent  func(action, devpath string, env ...string)
}

// shown is a device of the tree.
type shown struct {
	dir    string // below root
	config *usbdev.Config
	names  []string // of the interfaces: "1-1:1.0"
	env    [][]string
}

func newView(root string) (*view, error) {
	v := &view{
		root: root, devnum: make(map[string]int), devices: make(map[string]*shown), nets: make(map[int]string),
		uevent: openUevents(),
	}
	for _, dir := range []string{
		"bus/usb/devices", "bus/usb/drivers/usb", "bus/usb/drivers/rndis_host", "bus/usb/drivers/cdc_ether",
		"class/net", "devices/virtual/net", "devices/platform", controller,
	} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return nil, fmt.Errorf("sysfs view: %w", err)
		}
	}
	return v, nil
}

// files are attributes by name; a value gets a final newline.
type files map[string]string

func (v *view) write(dir string, f files) error {
	if err := os.MkdirAll(filepath.Join(v.root, dir), 0o755); err != nil {
		return err
	}
	for name, value := range f {
		// By renaming, so that a reader never finds half an attribute.
		tmp := filepath.Join(v.root, dir, ".new")
		if err := os.WriteFile(tmp, []byte(value+"\n"), 0o444); err != nil {
			return err
		}
		if err := os.Rename(tmp, filepath.Join(v.root, dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// link makes a relative symbolic link at name to target, both below root.
func (v *view) link(name, target string) error {
	rel, err := filepath.Rel(filepath.Dir(name), target)
	if err != nil {
		return err
	}
	if err := os.Symlink(rel, filepath.Join(v.root, name)); err != nil && !os.IsExist(err) {
		return err
	}
	return nil
}

// device is the directory of a port: hubs are directories on the way.
func deviceDir(port string) string {
	bus, chain, _ := strings.Cut(port, "-")
	dir := controller + "/usb" + bus
	name := bus + "-"
	for i, n := range strings.Split(chain, ".") {
		if i > 0 {
			name += "."
		}
		name += n
		dir += "/" + name
	}
	return dir
}

// addBus makes the root hub of a port's bus, once.
func (v *view) addBus(bus string) error {
	dir := controller + "/usb" + bus
	if v.devnum[bus] > 0 {
		return nil
	}
	v.devnum[bus] = 1
	return firstError(
		v.write(dir, files{
			"busnum": bus, "devnum": "1", "devpath": "0", "idVendor": "1d6b", "idProduct": "0002", "bcdDevice": "0612",
			"speed": "480", "manufacturer": "Linux xhci-hcd", "product": "xHCI Host Controller", "serial": "0000:00:14.0",
			"bConfigurationValue": "1", "bDeviceClass": "09", "bDeviceSubClass": "00", "bDeviceProtocol": "01",
			"bNumConfigurations": "1", "bNumInterfaces": " 1", "bMaxPacketSize0": "64", "version": " 2.00", "maxchild": "16",
			"uevent": "MAJOR=189\nMINOR=0\nDEVNAME=bus/usb/00" + bus + "/001\nDEVTYPE=usb_device\nDRIVER=usb\nPRODUCT=1d6b/2/612\nTYPE=9/0/1\nBUSNUM=00" + bus + "\nDEVNUM=001",
		}),
		v.link(dir+"/subsystem", "bus/usb"),
		v.link(dir+"/driver", "bus/usb/drivers/usb"),
		v.link("bus/usb/devices/usb"+bus, dir),
	)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return fmt.Errorf("sysfs view: %w", err)
		}
	}
	return nil
}

// driver is the driver that the kernel would bind to a configuration's interfaces; "" for none that
// matters here.
func driver(c *usbdev.Config) string {
	switch {
	case c.IsRNDIS():
		return "rndis_host"
	case c.IsECM():
		return "cdc_ether"
	}
	return ""
}

// addDevice shows a device at a port, in its first configuration, the kernel's choice.
func (v *view) addDevice(port string, d *usbdev.Descriptors) error {
	bus, chain, ok := strings.Cut(port, "-")
	if !ok || len(d.Configs) == 0 {
		return fmt.Errorf("port %q, %d configurations", port, len(d.Configs))
	}
	if err := v.addBus(bus); err != nil {
		return err
	}
	v.devnum[bus]++
	num, dir := v.devnum[bus], deviceDir(port)
	busnum, _ := strconv.Atoi(bus)
	c := &d.Configs[0]
	raw := d.Device()
	numbers := make(map[uint8]bool)
	for _, i := range c.Interfaces {
		numbers[i.Number] = true
	}
	for i := range d.Configs {
		raw = append(raw, d.Config(i)...)
	}
	product := fmt.Sprintf("PRODUCT=%x/%x/%x", d.ID.Vendor, d.ID.Product, d.Release)
	typ := fmt.Sprintf("TYPE=%d/%d/%d", d.Class, d.SubClass, d.Protocol)
	env := []string{
		"MAJOR=189", fmt.Sprintf("MINOR=%d", (busnum-1)*128+num-1), fmt.Sprintf("DEVNAME=bus/usb/%03d/%03d", busnum, num),
		"DEVTYPE=usb_device", "DRIVER=usb", product, typ, fmt.Sprintf("BUSNUM=%03d", busnum), fmt.Sprintf("DEVNUM=%03d", num),
	}
	attrs := files{
		"busnum": bus, "devnum": strconv.Itoa(num), "devpath": chain,
		"idVendor": fmt.Sprintf("%04x", d.ID.Vendor), "idProduct": fmt.Sprintf("%04x", d.ID.Product),
		"bcdDevice": fmt.Sprintf("%04x", d.Release), "version": " 2.00", "speed": d.Speed.Mbps(), "maxchild": "0",
		"bConfigurationValue": strconv.Itoa(int(c.Value)), "bNumConfigurations": strconv.Itoa(len(d.Configs)),
		"bNumInterfaces": fmt.Sprintf("%2d", len(numbers)), "bMaxPacketSize0": strconv.Itoa(int(raw[7])),
		"bDeviceClass": hexByte(d.Class), "bDeviceSubClass": hexByte(d.SubClass), "bDeviceProtocol": hexByte(d.Protocol),
		"uevent": strings.Join(env, "\n"),
	}
	for name, s := range map[string]string{"manufacturer": d.Manufacturer, "product": d.Product, "serial": d.Serial} {
		if s != "" {
			attrs[name] = s
		}
	}
	s := &shown{dir: dir, config: c}
	v.devices[port] = s
	err := firstError(
		v.write(dir, attrs),
		os.WriteFile(filepath.Join(v.root, dir, "descriptors"), raw, 0o444),
		v.link(dir+"/subsystem", "bus/usb"),
		v.link(dir+"/driver", "bus/usb/drivers/usb"),
		v.link("bus/usb/devices/"+port, dir),
	)
	v.uevent("add", dir, append([]string{"SUBSYSTEM=usb"}, env...)...)
	drv := driver(c)
	for _, i := range c.Interfaces {
		if i.Alt != 0 || err != nil {
			continue
		}
		name := fmt.Sprintf("%s:%d.%d", port, c.Value, i.Number)
		alias := fmt.Sprintf("usb:v%04Xp%04Xd%04Xdc%02Xdsc%02Xdp%02Xic%02Xisc%02Xip%02Xin%02X",
			d.ID.Vendor, d.ID.Product, d.Release, d.Class, d.SubClass, d.Protocol, i.Class, i.SubClass, i.Protocol, i.Number)
		env := []string{"DEVTYPE=usb_interface", product, typ,
			fmt.Sprintf("INTERFACE=%d/%d/%d", i.Class, i.SubClass, i.Protocol), "MODALIAS=" + alias}
		if drv != "" {
			env = append([]string{"DRIVER=" + drv}, env...)
		}
		err = firstError(
			v.write(dir+"/"+name, files{
				"bInterfaceNumber": hexByte(i.Number), "bAlternateSetting": " 0", "bNumEndpoints": hexByte(uint8(len(i.Endpoints))),
				"bInterfaceClass": hexByte(i.Class), "bInterfaceSubClass": hexByte(i.SubClass), "bInterfaceProtocol": hexByte(i.Protocol),
				"modalias": alias, "authorized": "1", "uevent": strings.Join(env, "\n"),
			}),
			v.link(dir+"/"+name+"/subsystem", "bus/usb"),
			v.link("bus/usb/devices/"+name, dir+"/"+name),
		)
		if err == nil && drv != "" {
			err = firstError(v.link(dir+"/"+name+"/driver", "bus/usb/drivers/"+drv),
				v.link("bus/usb/drivers/"+drv+"/"+name, dir+"/"+name))
		}
		s.names, s.env = append(s.names, name), append(s.env, env)
		v.uevent("add", dir+"/"+name, append([]string{"SUBSYSTEM=usb"}, env...)...)
	}
	return err
}

func hexByte(b uint8) string { return hex.EncodeToString([]byte{b}) }

// removeDevice takes a device out of the tree.
func (v *view) removeDevice(port string) {
	s := v.devices[port]
	if s == nil {
		return
	}
	delete(v.devices, port)
	for i, name := range s.names {
		os.Remove(filepath.Join(v.root, "bus/usb/devices", name))
		if drv := driver(s.config); drv != "" {
			os.Remove(filepath.Join(v.root, "bus/usb/drivers", drv, name))
		}
		v.uevent("remove", s.dir+"/"+name, append([]string{"SUBSYSTEM=usb"}, s.env[i]...)...)
	}
	os.Remove(filepath.Join(v.root, "bus/usb/devices", port))
	os.RemoveAll(filepath.Join(v.root, s.dir))
	v.uevent("remove", s.dir, "SUBSYSTEM=usb", "DEVTYPE=usb_device")
}

// addNet shows a network interface, of the device at a port or of none, or brings its attributes up
// to date.
func (v *view) addNet(port string, a *netlink.LinkAttrs) {
	parent := "devices/virtual"
	if s := v.devices[port]; s != nil && len(s.names) > 0 {
		parent = s.dir + "/" + s.names[0]
	}
	dir := parent + "/net/" + a.Name
	if old, ok := v.nets[a.Index]; ok && old != dir {
		v.removeNet(a.Index) // renamed, or another of that index
	}
	_, known := v.nets[a.Index]
	v.nets[a.Index] = dir
	carrier := "0"
	if a.RawFlags&0x10000 != 0 { // IFF_LOWER_UP
		carrier = "1"
	}
	env := []string{"INTERFACE=" + a.Name, "IFINDEX=" + strconv.Itoa(a.Index)}
	addr := a.HardwareAddr
	if len(addr) == 0 {
		addr = make(net.HardwareAddr, 6)
	}
	kind := "1"
	if a.Flags&net.FlagLoopback != 0 {
		kind = "772"
	}
	// Whoever looks is to find what there is; a tmpfs that is full shows as a missing attribute.
	v.write(dir, files{
		"address": addr.String(), "ifindex": strconv.Itoa(a.Index), "iflink": strconv.Itoa(a.Index), "mtu": strconv.Itoa(a.MTU),
		"type": kind, "addr_len": "6", "flags": fmt.Sprintf("%#x", a.RawFlags&0xffff), "operstate": a.OperState.String(),
		"carrier": carrier, "dev_id": "0x0", "uevent": strings.Join(env, "\n"),
	})
	v.link(dir+"/subsystem", "class/net")
	if port != "" {
		// As the kernel has it, which climbs to the common ancestor of USB device and interface.
		os.Symlink("../../../"+filepath.Base(parent), filepath.Join(v.root, dir, "device"))
	}
	v.link("class/net/"+a.Name, dir)
	if !known {
		v.uevent("add", dir, append([]string{"SUBSYSTEM=net"}, env...)...)
	}
}

// removeNet takes a network interface out of the tree.
func (v *view) removeNet(index int) {
	dir, ok := v.nets[index]
	if !ok {
		return
	}
	delete(v.nets, index)
	name := filepath.Base(dir)
	if target, err := os.Readlink(filepath.Join(v.root, "class/net", name)); err == nil && filepath.Join("class/net", target) == dir {
		os.Remove(filepath.Join(v.root, "class/net", name))
	}
	os.RemoveAll(filepath.Join(v.root, dir))
	os.Remove(filepath.Dir(filepath.Join(v.root, dir))) // "net", if it is empty
	v.uevent("remove", dir, "SUBSYSTEM=net", "INTERFACE="+name, "IFINDEX="+strconv.Itoa(index))
}

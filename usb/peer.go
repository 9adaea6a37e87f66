package usb

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Peer returns the name that a physical port has on the other bus of its controller: a connector of a USB 3 controller
// or hub is a port of a high-speed bus and one of a super-speed bus, and a board is on the one or on the other,
// depending on what its current stage can do. The result is empty if the port has no peer that the kernel knows of.
//
// The kernel shows it as a link between the ports of two hubs (Linux, Documentation/ABI/testing/sysfs-bus-usb,
// "usb<n>-port<m>/peer"), here those of bus 1, port 2, and of port 3 of the hub there:
//
//	bus/usb/devices/usb1/1-0:1.0/usb1-port2/peer -> .../usb2/2-0:1.0/usb2-port2
//	bus/usb/devices/1-2/1-2:1.0/1-2-port3/peer   -> .../2-2/2-2:1.0/2-2-port3
func (s Sysfs) Peer(port Port) (Port, error) {
	if _, err := ParsePort(string(port)); err != nil {
		return "", err
	}
	var hub, ifaces, name string
	if i := strings.LastIndexByte(string(port), '.'); i >= 0 {
		hub = string(port[:i])
		ifaces, name = hub+":*.0", hub+"-port"+string(port[i+1:])
	} else {
		bus, number, _ := strings.Cut(string(port), "-")
		hub = "usb" + bus
		ifaces, name = bus+"-0:*.0", hub+"-port"+number
	}
	found, err := filepath.Glob(s.sys("bus/usb/devices", hub, ifaces))
	if err != nil || len(found) == 0 {
		return "", err
	}
	target, err := os.Readlink(filepath.Join(found[0], name, "peer"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil // it has none, or the hub is leaving
	}
	if err != nil {
		return "", fmt.Errorf("peer of USB port %s: %w", port, err)
	}
	hub, number, ok := strings.Cut(filepath.Base(target), "-port")
	if !ok {
		return "", fmt.Errorf("peer of USB port %s: expected a hub's port, got %q", port, target)
	}
	if bus, root := strings.CutPrefix(hub, "usb"); root {
		return ParsePort(bus + "-" + number)
	}
	return ParsePort(hub + "." + number)
}

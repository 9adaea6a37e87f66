//go:build linux

package netsetup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"snag/usb"
)

// Interface is a network interface of a USB device, as the host sees it.
type Interface struct {
	Index  int      // the interface index, the only thing that it is addressed by
	Name   string   // for people: it may be renamed at any time
	Port   usb.Port // the physical port of its device
	ID     usb.ID
	Config int    // bConfigurationValue of the USB interface that carries it
	Number int    // bInterfaceNumber of that interface
	Driver string // kernel driver: "rndis_host", "cdc_ether"; empty while there is none
}

// Host is where the interfaces of boards appear. The zero value is the network namespace that the
// process is in, with sysfs where it belongs.
type Host struct {
	// NetNS names a network namespace (a file of /run/netns, as ip-netns(8) makes them) to look into
	// instead of the current one. It takes root.
	NetNS string

	// Sysfs is where sysfs is mounted, "/sys" if empty.
	Sysfs string
}

func (h Host) sysfs(elem ...string) string {
	root := h.Sysfs
	if root == "" {
		root = "/sys"
	}
	return filepath.Join(append([]string{root}, elem...)...)
}

// do calls f on a thread that is in the host's namespace.
func (h Host) do(f func() error) error {
	if h.NetNS == "" {
		return f()
	}
	if h.NetNS != filepath.Base(h.NetNS) || h.NetNS == "." || h.NetNS == ".." {
		return &NoNamespaceError{h.NetNS, errors.New("expected the name of a file in /run/netns")}
	}
	path := "/run/netns/" + h.NetNS
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); errors.Is(err, unix.ENOENT) {
		return &NoNamespaceError{h.NetNS, err}
	} else if err == nil && st.Type != unix.NSFS_MAGIC {
		return &NoNamespaceError{h.NetNS, fmt.Errorf("%s is an ordinary file", path)} // its namespace has ended
	}
	err := inNetNS(path, f)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return &SetupError{
			Op: "look into network namespace " + h.NetNS, Reason: ReasonNotPermitted, Err: err,
			Hint: "run snag as root, or leave --netns out",
		}
	}
	return err
}

// Interfaces lists the network interfaces of USB devices, by index. What is just coming or going may
// be missing from it.
func (h Host) Interfaces() ([]Interface, error) { return h.interfaces(nil) }

// interfaces is Interfaces. What was found before is not asked again about what stays as it is.
func (h Host) interfaces(before []Interface) ([]Interface, error) {
	var found []Interface
	var err error
	if h.NetNS == "" {
		found, err = h.fromSysfs(before)
	} else {
		found, err = h.fromNetlink()
	}
	slices.SortFunc(found, func(a, b Interface) int { return cmp.Compare(a.Index, b.Index) })
	return found, err
}

// fromSysfs reads /sys/class/net, which shows the interfaces of the current namespace, as links:
//
//	../../devices/.../usb1/1-2/1-2:1.0/net/eth0
func (h Host) fromSysfs(before []Interface) ([]Interface, error) {
	entries, err := os.ReadDir(h.sysfs("class/net"))
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	var found []Interface
	for _, e := range entries {
		link, err := os.Readlink(h.sysfs("class/net", e.Name()))
		if err != nil {
			continue // gone
		}
		parent := filepath.Base(filepath.Dir(filepath.Dir(link)))
		port, _, _, ok := parseUSBInterface(parent)
		if !ok {
			continue // virtual, or of another bus
		}
		index, err := readNumber(h.sysfs("class/net", e.Name(), "ifindex"), 10, 31)
		if err != nil {
			continue
		}
		i := Interface{Index: int(index), Name: e.Name()}
		if n := slices.IndexFunc(before, func(b Interface) bool { return b.Index == i.Index && b.Port == port && b.Driver != "" }); n >= 0 {
			i = before[n]
			i.Name = e.Name()
		} else if !h.describe(&i, parent) {
			continue
		}
		found = append(found, i)
	}
	return found, nil
}

// fromNetlink asks the kernel for the interfaces of the named namespace. sysfs shows USB devices, but
// not interfaces, of all namespaces.
func (h Host) fromNetlink() ([]Interface, error) {
	var links []netlink.Link
	err := h.do(func() (err error) {
		links, err = netlink.LinkList()
		return err
	})
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list network interfaces of namespace %s: %w", h.NetNS, err)
	}
	var found []Interface
	for _, l := range links {
		a := l.Attrs()
		i := Interface{Index: a.Index, Name: a.Name}
		if a.ParentDevBus == "usb" && h.describe(&i, a.ParentDev) {
			found = append(found, i)
		}
	}
	return found, nil
}

// describe completes i by what sysfs tells of its USB interface, "1-2.3:1.0".
func (h Host) describe(i *Interface, parent string) bool {
	var ok bool
	if i.Port, i.Config, i.Number, ok = parseUSBInterface(parent); !ok {
		return false
	}
	dir := h.sysfs("bus/usb/devices", string(i.Port))
	vendor, err1 := readNumber(filepath.Join(dir, "idVendor"), 16, 16)
	product, err2 := readNumber(filepath.Join(dir, "idProduct"), 16, 16)
	if err1 != nil || err2 != nil {
		return false
	}
	i.ID = usb.ID{Vendor: uint16(vendor), Product: uint16(product)}
	if driver, err := os.Readlink(h.sysfs("bus/usb/devices", parent, "driver")); err == nil {
		i.Driver = filepath.Base(driver)
	}
	return true
}

// parseUSBInterface takes apart the name of a USB interface in sysfs, PORT:CONFIGURATION.INTERFACE
// (Documentation/driver-api/usb/usb.rst).
func parseUSBInterface(s string) (port usb.Port, config, number int, ok bool) {
	device, rest, ok1 := strings.Cut(s, ":")
	c, n, ok2 := strings.Cut(rest, ".")
	port, err := usb.ParsePort(device)
	cv, err1 := strconv.ParseUint(c, 10, 8)
	nv, err2 := strconv.ParseUint(n, 10, 8)
	if !ok1 || !ok2 || err != nil || err1 != nil || err2 != nil {
		return "", 0, 0, false
	}
	return port, int(cv), int(nv), true
}

// readNumber reads a file of sysfs that holds one number.
func readNumber(path string, base, bits int) (uint64, error) {
	text, err := usb.ReadAttribute(path)
	if err != nil {
		return 0, err
	}
	return parseNumber(text, base, bits)
}

func parseNumber(s string, base, bits int) (uint64, error) {
	return strconv.ParseUint(strings.TrimSuffix(s, "\n"), base, bits)
}

// Watch tells what network interfaces of USB devices there are: at once, and then whenever that has
// changed, until ctx ends, which closes the channel. A slow reader gets the latest list, not each one.
// The kernel's link events wake it; below them it looks once a second. An interface
// that was moved into a [Namespace] is no longer listed; what becomes of it tells [Adopted].
func (h Host) Watch(ctx context.Context) (<-chan []Interface, error) {
	last, err := h.Interfaces()
	if err != nil {
		return nil, err
	}
	var events <-chan struct{}
	if err := h.do(func() (err error) { events, err = linkEvents(ctx); return err }); err != nil {
		return nil, fmt.Errorf("listen for link events: %w", err)
	}
	lists := make(chan []Interface)
	go func() {
		defer close(lists)
		poll := time.NewTicker(pollInterval)
		defer poll.Stop()
		out := lists // nil while there is nothing new
		for {
			select {
			case <-ctx.Done():
				return
			case out <- slices.Clone(last):
				out = nil
				continue
			case <-events:
			case <-poll.C:
			}
			now, err := h.interfaces(last)
			if err == nil && !slices.Equal(now, last) {
				last, out = now, lists
			}
		}
	}()
	return lists, nil
}

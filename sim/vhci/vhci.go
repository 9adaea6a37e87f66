// Package vhci plugs virtual USB devices into the running Linux kernel, through its USB/IP virtual
// host controllers (module vhci_hcd). It needs root.
//
// A controller takes one end of a socket pair; on the other end this package serves the device
// by package usbip. The kernel then enumerates it like any other and binds its own drivers. A kernel has one
// controller, or several (CONFIG_USBIP_VHCI_NR_HCS; Debian's has eight), whose ports are numbered one after the other.
package vhci

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"snag/sim/usbdev"
	"snag/sim/usbip"
	"snag/usb"
)

// dir is the first controller's directory. It has the files that devices of all are attached and detached with, and
// each one's status: "status", "status.1" and so on.
const dir = "/sys/devices/platform/vhci_hcd.0"

// Available returns nil if this process can plug devices in, or an error that says what is missing.
func Available() error {
	if _, err := os.Stat(dir); err != nil {
		return errors.New("this kernel has no virtual USB host controller: run modprobe vhci-hcd")
	}
	f, err := os.OpenFile(dir+"/attach", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("virtual USB host controller: %w (it takes root)", err)
	}
	return f.Close()
}

// Port is one port of the controller. It implements [usbdev.Port].
type Port struct {
	controller int
	number     int      // among all controllers' ports
	name       usb.Port // as the kernel names what is plugged in there

	mu    sync.Mutex
	stop  context.CancelFunc
	ended chan error // of the device's server; nil if nothing is attached
}

// row is one line of the status file.
type row struct {
	super  bool
	number int
	free   bool
}

// parseStatus reads the status file: a heading, then a line a port, of which the first three
// columns matter here: hub ("hs" or "ss"), port number, status (004: free):
//
//	hub port sta spd dev      sockfd local_busid
//	hs  0000 004 000 00000000 000000 0-0
func parseStatus(s string) []row {
	var rows []row
	sc := bufio.NewScanner(strings.NewReader(s))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < 3 || f[0] != "hs" && f[0] != "ss" {
			continue
		}
		n, err1 := strconv.Atoi(f[1])
		st, err2 := strconv.Atoi(f[2])
		if err1 != nil || err2 != nil {
			continue
		}
		rows = append(rows, row{f[0] == "ss", n, st == 4})
	}
	return rows
}

// Open finds the port that the kernel names want, or a free one for a high- or full-speed device
// if want is empty. Two calls before an Attach may return the same free port: taken lists those
// not to return.
func Open(want usb.Port, taken ...*Port) (*Port, error) {
	all, err := ports(taken)
	if err != nil {
		return nil, err
	}
	var names []string
	for i, p := range all {
		switch { // "1-1 to 1-15" of each hub
		case i == 0 || p.super != all[i-1].super:
			names = append(names, string(p.name))
		case i == len(all)-1 || p.super != all[i+1].super:
			names[len(names)-1] += " to " + string(p.name)
		}
		switch {
		case p.taken:
		case want == p.name && !p.free:
			return nil, fmt.Errorf("port %s of the virtual USB host controller is occupied", want)
		case want == p.name || want == "" && p.free && !p.super:
			return &p.Port, nil
		}
	}
	if want == "" {
		return nil, errors.New("no free port at the virtual USB host controller")
	}
	return nil, fmt.Errorf("the virtual USB host controller has no port %s, but %s", want, strings.Join(names, ", "))
}

// OpenApart is Open for a free port of the controller that has the fewest devices, those on the ports taken included:
// Linux enumerates the devices of one hub one after the other, half a second each, but those of several at once.
func OpenApart(taken ...*Port) (*Port, error) {
	all, err := ports(taken)
	if err != nil {
		return nil, err
	}
	used := make(map[int]int)
	for _, p := range all {
		if p.taken || !p.free {
			used[p.controller]++
		}
	}
	all = slices.DeleteFunc(all, func(p *port) bool { return p.taken || !p.free || p.super })
	if len(all) == 0 {
		return nil, errors.New("no free port at the virtual USB host controllers")
	}
	first := slices.MinFunc(all, func(a, b *port) int { return cmp.Compare(used[a.controller], used[b.controller]) })
	return &first.Port, nil
}

// port is a port as it is now.
type port struct {
	Port
	super, free, taken bool
}

// ports lists the ports of all controllers.
func ports(taken []*Port) ([]*port, error) {
	var all []*port
	for controller := 0; ; controller++ {
		status, err := os.ReadFile(statusFile(controller))
		if controller > 0 && errors.Is(err, fs.ErrNotExist) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("virtual USB host controller: %w", err)
		}
		high, super, err := buses(controller)
		if err != nil {
			return nil, err
		}
		first := map[bool]int{}
		for _, r := range parseStatus(string(status)) {
			if _, ok := first[r.super]; !ok {
				first[r.super] = r.number
			}
			bus := high
			if r.super {
				bus = super
			}
			name := usb.Port(fmt.Sprintf("%d-%d", bus, r.number-first[r.super]+1))
			all = append(all, &port{
				Port:  Port{controller: controller, number: r.number, name: name},
				super: r.super, free: r.free,
				taken: slices.ContainsFunc(taken, func(t *Port) bool { return t.number == r.number }),
			})
		}
	}
}

func statusFile(controller int) string {
	if controller == 0 {
		return dir + "/status"
	}
	return fmt.Sprintf("%s/status.%d", dir, controller)
}

// buses finds the bus numbers of a controller's two root hubs.
func buses(controller int) (high, super int, err error) {
	hubs, _ := filepath.Glob(fmt.Sprintf("%s/../vhci_hcd.%d/usb[0-9]*", dir, controller))
	for _, hub := range hubs {
		n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(hub), "usb"))
		if err != nil {
			continue
		}
		speed, _ := os.ReadFile(hub + "/speed")
		if strings.TrimSpace(string(speed)) == "480" {
			high = n
		} else {
			super = n
		}
	}
	if high == 0 {
		return 0, 0, errors.New("the virtual USB host controller has no root hub")
	}
	return high, super, nil
}

// Name is the port as the kernel names what is plugged in there.
func (p *Port) Name() usb.Port { return p.name }

// attachTimeout bounds how long a port may stay busy after a detach.
const attachTimeout = 5 * time.Second

// sendAhead is how much of transfers to the device the kernel may write before they are read: with the usual 208 KiB it
// would wait for the device several times in a long one, as no wire makes it.
const sendAhead = 4 << 20

// Attach implements [usbdev.Port]. The kernel keeps a port busy for some 10 ms after a detach:
// it is tried again until it is free. It also takes its time to remove what was there, and would go on with a device of
// the same descriptors as if it had never been away, without configuring it: that is awaited too.
func (p *Port) Attach(ctx context.Context, dev usbdev.Device) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended != nil {
		return fmt.Errorf("port %s: occupied", p.name)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("port %s: socket pair: %w", p.name, err)
	}
	defer unix.Close(fds[1]) // the kernel holds its own reference
	if err := unix.SetsockoptInt(fds[1], unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendAhead); err != nil {
		unix.Close(fds[0])
		return fmt.Errorf("port %s: room for transfers in the socket: %w", p.name, err)
	}
	file := os.NewFile(uintptr(fds[0]), "vhci "+string(p.name))
	conn, err := net.FileConn(file)
	file.Close()
	if err != nil {
		return fmt.Errorf("port %s: socket pair: %w", p.name, err)
	}
	if err := p.give(ctx, fds[1], dev.Descriptors().Speed); err != nil {
		conn.Close()
		return err
	}
	serveCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.stop, p.ended = stop, make(chan error, 1)
	go func(ended chan<- error) { ended <- usbip.Serve(serveCtx, conn, dev) }(p.ended)
	return nil
}

// give hands the kernel a socket that carries a device.
func (p *Port) give(ctx context.Context, fd int, speed usbdev.Speed) error {
	line := fmt.Sprintf("%d %d %d %d", p.number, fd, 1<<16|(p.number+1), speed)
	ctx, cancel := context.WithTimeout(ctx, attachTimeout)
	defer cancel()
	for ctx.Err() == nil {
		if _, err := os.Stat("/sys/bus/usb/devices/" + string(p.name)); err != nil {
			break
		}
		select {
		case <-ctx.Done(): // to be tried nevertheless
		case <-time.After(2 * time.Millisecond):
		}
	}
	for {
		err := os.WriteFile(dir+"/attach", []byte(line), 0)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("attach to port %s of the virtual USB host controller: %w", p.name, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("attach to port %s of the virtual USB host controller: %w", p.name, err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// Detach implements [usbdev.Port]. The kernel unplugs a device whose socket ends, and has then completed what the
// device has answered; at a word to its detach file it would drop the answers that it has not read.
func (p *Port) Detach() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended == nil {
		return nil
	}
	p.stop()
	served := <-p.ended
	p.stop, p.ended = nil, nil
	if !errors.Is(served, os.ErrDeadlineExceeded) {
		return nil
	}
	err := os.WriteFile(dir+"/detach", []byte(strconv.Itoa(p.number)), 0)
	if err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: the kernel dropped it itself
		return fmt.Errorf("detach from port %s of the virtual USB host controller: %w", p.name, err)
	}
	return nil
}

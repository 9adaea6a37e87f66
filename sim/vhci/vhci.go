// Package vhci plugs virtual USB devices into the running Linux kernel, through its USB/IP virtual
// host controller (module vhci_hcd). It needs root.
//
// The controller takes one end of a socket pair; on the other end this package serves the device
// by package usbip. The kernel then enumerates it like any other and binds its own drivers.
package vhci

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"snag/sim/usbdev"
	"snag/sim/usbip"
	"snag/usb"
)

// dir is the first controller's directory.
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
	number int      // the controller's number of the port
	name   usb.Port // as the kernel names what is plugged in there

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
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return nil, fmt.Errorf("virtual USB host controller: %w", err)
	}
	high, super, err := buses()
	if err != nil {
		return nil, err
	}
	firstSuper := -1
	var names []string
rows:
	for _, r := range parseStatus(string(status)) {
		name := usb.Port(fmt.Sprintf("%d-%d", high, r.number+1))
		if r.super {
			if firstSuper < 0 {
				firstSuper = r.number
			}
			name = usb.Port(fmt.Sprintf("%d-%d", super, r.number-firstSuper+1))
		}
		names = append(names, string(name))
		for _, t := range taken {
			if t.number == r.number {
				continue rows
			}
		}
		if want == name && !r.free {
			return nil, fmt.Errorf("port %s of the virtual USB host controller is occupied", want)
		}
		if want == name || want == "" && r.free && !r.super {
			return &Port{number: r.number, name: name}, nil
		}
	}
	if want == "" {
		return nil, errors.New("no free port at the virtual USB host controller")
	}
	return nil, fmt.Errorf("the virtual USB host controller has no port %s, but %s", want, strings.Join(names, " "))
}

// buses finds the bus numbers of the controller's two root hubs.
func buses() (high, super int, err error) {
	hubs, _ := filepath.Glob(dir + "/usb[0-9]*")
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

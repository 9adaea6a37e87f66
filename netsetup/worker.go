//go:build linux

package netsetup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// workerName is argument 0 of the worker; nobody starts snag so by accident.
const workerName = "snag-network-worker"

// workerFD is the worker's end of the socket pair.
const workerFD = 3

// carrierWait is how long a link may take to get its carrier before it is reported without one. The
// servers answer on it anyway, as soon as the kernel lets packets through.
const carrierWait = 2 * time.Second

// WorkerMain is the main program of the worker, which is snag itself started in a namespace of its own.
// Whatever program uses [Open] calls it first thing in main (a test: in TestMain) and ends if it
// returns true. In an ordinary process it does nothing and returns false.
func WorkerMain() bool {
	if len(os.Args) != 1 || os.Args[0] != workerName {
		return false
	}
	if err := work(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n", err)
		os.Exit(1)
	}
	return true
}

// worker is what the worker's only loop knows.
type worker struct {
	to    channel
	rt    *netlink.Handle
	known map[int]bool // interfaces that are not to be taken for a new one

	pending []pending
	current int // the interface that has the address, 0 if none has
}

// pending is a configured interface whose carrier is awaited.
type pending struct {
	id, index int
	name      string
	begun     time.Time
}

// work sets the namespace up and then serves requests until snag closes its end.
func work() error {
	unix.CloseOnExec(workerFD)
	f := os.NewFile(workerFD, "snag")
	conn, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return fmt.Errorf("socket to snag: %w", err)
	}
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return errors.New("descriptor 3 is not the socket to snag")
	}
	w := &worker{to: channel{uc}, known: make(map[int]bool)}

	m, _, err := w.to.receive()
	if err != nil {
		return err
	}
	if m.Kind != kindSetup {
		return fmt.Errorf("unexpected message %q", m.Kind)
	}
	events, err := w.setup(m)
	if err != nil {
		w.fail(0, err)
		return err
	}

	requests := make(chan message)
	closed := make(chan error, 1)
	go func() {
		for {
			m, _, err := w.to.receive()
			if err != nil {
				closed <- err
				return
			}
			requests <- m
		}
	}()
	for {
		// The poll is the net underneath the events, and what ends the wait for a carrier.
		var poll <-chan time.Time
		switch {
		case len(w.pending) > 0:
			poll = time.After(carrierWait / 8)
		case len(w.known) > 1:
			poll = time.After(pollInterval)
		}
		var err error
		select {
		case <-closed: // snag has ended, or does not speak our language: either way it is over
			return nil
		case m := <-requests:
			err = w.configure(m)
		case <-events:
		case <-poll:
		}
		if err == nil {
			err = w.look()
		}
		if err != nil {
			return err
		}
	}
}

// setup makes the namespace what the servers need and reports it ready.
func (w *worker) setup(m message) (<-chan struct{}, error) {
	var err error
	if w.rt, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	events, err := linkEvents(context.Background())
	if err != nil {
		return nil, fmt.Errorf("listen for link events: %w", err)
	}
	links, err := w.rt.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		w.known[l.Attrs().Index] = true
	}
	if err := w.rt.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 1}}); err != nil {
		return nil, fmt.Errorf("set lo up: %w", err)
	}
	for _, s := range [][2]string{
		{"net/ipv6/conf/all/disable_ipv6", "1"},
		{"net/ipv6/conf/default/disable_ipv6", "1"},
		{"net/ipv4/conf/all/rp_filter", "0"},
		{"net/ipv4/conf/default/rp_filter", "0"},
	} {
		w.sysctl(s[0], s[1])
	}

	bootp, tftp := uint16(portBOOTPInside), uint16(portTFTPInside)
	natErr := errors.New("not asked for")
	if !m.NoNAT {
		natErr = TranslatePorts()
	}
	if natErr != nil {
		// Root of its own namespace, the worker may bind the servers' own ports as well.
		w.note("no NAT in this kernel (%v): the servers use ports %d and %d themselves", natErr, portBOOTP, portTFTP)
		bootp, tftp = portBOOTP, portTFTP
	}
	bs, err := listen(bootp)
	if err != nil {
		return nil, fmt.Errorf("bind UDP port %d: %w", bootp, err)
	}
	defer unix.Close(bs)
	ts, err := listen(tftp)
	if err != nil {
		return nil, fmt.Errorf("bind UDP port %d: %w", tftp, err)
	}
	defer unix.Close(ts)
	ns, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the network namespace: %w", err)
	}
	defer unix.Close(ns)
	if err := dropPrivileges(); err != nil {
		w.note("the network worker keeps capabilities that it does not need: %v", err)
	}
	return events, w.to.send(message{Kind: kindReady}, ns, bs, ts)
}

// listen binds a UDP socket for one of the servers. It stays in this namespace wherever it is passed.
func listen(port uint16) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil {
		unix.Close(fd)
		return 0, err
	}
	const buffer = 4 << 20 // a window of 64 blocks of 8 KiB, several times over
	for _, o := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[0], buffer) != nil {
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[1], buffer) // the kernel takes what is allowed of it
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(port)}); err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

// dropPrivileges gives up, on all threads, every capability but the one that configuring interfaces needs.
func dropPrivileges() error {
	if _, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); e != 0 {
		return e // ENOTSUP in a program with cgo
	}
	return setCapabilities(1 << unix.CAP_NET_ADMIN)
}

// sysctl sets what can be set: in a container /proc/sys may be read-only.
func (w *worker) sysctl(name, value string) {
	err := os.WriteFile("/proc/sys/"+name, []byte(value), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) { // a kernel without IPv6 has nothing to switch off
		w.note("sysctl %s=%s: %v", name, value, err)
	}
}

func (w *worker) note(format string, args ...any) {
	w.to.send(message{Kind: kindNote, Text: fmt.Sprintf(format, args...)})
}

// fail reports what went wrong with request id, 0 for the set-up.
func (w *worker) fail(id int, err error) error {
	m := message{Kind: kindFailed, ID: id, Text: err.Error()}
	errors.As(err, &m.Errno)
	return w.to.send(m)
}

// configure prepares the interface that has just been moved into the namespace: the one that is new.
// Its index may differ from the one it had (it is given another if that is taken here).
func (w *worker) configure(m message) error {
	if m.Kind != kindConfigure {
		return fmt.Errorf("unexpected message %q", m.Kind)
	}
	begun := time.Now()
	links, err := w.rt.LinkList()
	if err != nil {
		return w.fail(m.ID, fmt.Errorf("list interfaces: %w", err))
	}
	var link netlink.Link
	for _, l := range links {
		if a := l.Attrs(); !w.known[a.Index] && (m.Parent == "" || a.ParentDev == m.Parent) {
			link = l
			break
		}
	}
	if link == nil {
		return w.fail(m.ID, unix.ENODEV)
	}
	index, name := link.Attrs().Index, link.Attrs().Name
	w.known[index] = true
	w.sysctl("net/ipv6/conf/"+name+"/disable_ipv6", "1")
	w.sysctl("net/ipv4/conf/"+name+"/rp_filter", "0")
	if err := w.address(link); err != nil {
		return w.fail(m.ID, err)
	}
	w.pending = append(w.pending, pending{m.ID, index, name, begun})
	return nil
}

// address gives the interface the server's address and sets it up with its routes. If another one
// still has the address it loses it, and with it the route of the network.
//
// The address has the mask that the board is told, so that a board of a fixed address in that network
// is answered too. The client and the limited broadcast have host routes: 255.255.255.255 would have
// none without a default route.
func (w *worker) address(link netlink.Link) error {
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: server.Addr().AsSlice(), Mask: net.CIDRMask(server.Bits(), 32)}}
	index := link.Attrs().Index
	if w.current != 0 && w.current != index {
		old := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: w.current}}
		if err := w.rt.AddrDel(old, addr); err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("take address %v from interface %d: %w", server, w.current, err)
		}
	}
	w.current = index
	if err := w.rt.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("add address %v: %w", server, err)
	}
	if err := w.rt.LinkSetUp(link); err != nil {
		return fmt.Errorf("set the link up: %w", err)
	}
	for _, ip := range []net.IP{client.AsSlice(), net.IPv4bcast} {
		route := &netlink.Route{
			LinkIndex: index, Scope: netlink.SCOPE_LINK, Src: addr.IP,
			Dst: &net.IPNet{IP: ip, Mask: net.CIDRMask(32, 32)},
		}
		if err := w.rt.RouteReplace(route); err != nil {
			return fmt.Errorf("route %v: %w", ip, err)
		}
	}
	return nil
}

// look compares what is known with what is there: reports interfaces that have vanished, and those
// whose carrier has come or will not be waited for any longer.
func (w *worker) look() error {
	links, err := w.rt.LinkList()
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil // changed meanwhile; the next look is not far
	}
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	there := make(map[int]*netlink.LinkAttrs)
	for _, l := range links {
		there[l.Attrs().Index] = l.Attrs()
	}

	var still []pending
	for _, p := range w.pending {
		a := there[p.index]
		switch {
		case a == nil:
			err = w.fail(p.id, unix.ENODEV)
		case a.RawFlags&unix.IFF_LOWER_UP != 0, time.Since(p.begun) >= carrierWait:
			err = w.to.send(message{
				Kind: kindConfigured, ID: p.id, Index: p.index, Name: p.name,
				Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0, Took: time.Since(p.begun),
			})
		default:
			still = append(still, p)
		}
		if err != nil {
			return err
		}
	}
	w.pending = still

	for index := range w.known {
		if there[index] != nil {
			continue
		}
		delete(w.known, index)
		if index == w.current {
			w.current = 0
		}
		if err := w.to.send(message{Kind: kindGone, Index: index}); err != nil {
			return err
		}
	}
	return nil
}

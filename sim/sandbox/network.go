package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// wiring is the network side of the machine: the namespace of the command and the boards'.
type wiring struct {
	view *view
	send func(message, ...*os.File)

	board     chan func()     // runs functions in the boards' namespace
	hostLinks *netlink.Handle // the command's namespace
	links     *netlink.Handle // the boards' namespace
	hostNS    *os.File

	mu    sync.Mutex
	gen   int
	ports map[string]*plug
}

// plug is a device that is plugged in.
type plug struct {
	port    string
	host    net.HardwareAddr
	gen     int
	ifindex int // of the command's end, while it is in the command's namespace; else 0
	end     int // index of the board's end
	up      bool
}

func newNetwork(v *view, send func(message, ...*os.File)) (*wiring, error) {
	n := &wiring{view: v, send: send, board: make(chan func()), ports: make(map[string]*plug)}
	var err error
	if n.hostNS, err = os.Open("/proc/self/ns/net"); err != nil {
		return nil, err
	}
	if n.hostLinks, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	if lo, err := n.hostLinks.LinkByName("lo"); err == nil {
		n.hostLinks.LinkSetUp(lo)
		v.addNet("", lo.Attrs()) // now, not when the update below is read
	}
	hostUpdates := make(chan netlink.LinkUpdate, 256)
	if err := netlink.LinkSubscribeWithOptions(hostUpdates, nil, netlink.LinkSubscribeOptions{ListExisting: true}); err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	boardUpdates := make(chan netlink.LinkUpdate, 256)
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: this thread is in the boards' namespace
		started <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("the boards' network namespace: %w", err)
			}
			// The kernel must not talk on the boards' ends of the cables. /proc/sys/net is the thread's.
			os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
			var err error
			if n.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
				return err
			}
			return netlink.LinkSubscribe(boardUpdates, nil)
		}()
		for f := range n.board {
			f()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	go func() {
		for u := range hostUpdates {
			n.hostUpdate(u)
		}
	}()
	go func() {
		for u := range boardUpdates {
			n.boardUpdate(u)
		}
	}()
	return n, nil
}

// attach shows a device in sysfs and, if it is a network device, makes its interface.
func (n *wiring) attach(q message) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ports[q.Port] != nil {
		return errors.New("the port is occupied")
	}
	if err := n.view.addDevice(q.Port, q.Device); err != nil {
		return err
	}
	p := &plug{port: q.Port, host: q.HostMAC}
	n.ports[q.Port] = p
	if len(q.HostMAC) == 0 {
		return nil
	}
	if err := n.makeLink(p); err != nil {
		delete(n.ports, q.Port)
		n.view.removeDevice(q.Port)
		return err
	}
	return nil
}

// makeLink makes a veth pair in the boards' namespace and moves one end to the command's, after its
// sysfs entry is there: as in the kernel, who hears of the interface finds it. n.mu is held.
func (n *wiring) makeLink(p *plug) error {
	n.gen++
	p.gen, p.up, p.ifindex = n.gen, false, 0
	name, err := n.freeName(p.host)
	if err != nil {
		return err
	}
	end := fmt.Sprintf("board%d", p.gen)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = name, p.host
	if err := n.links.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: end}); err != nil {
		return fmt.Errorf("veth pair: %w", err)
	}
	host, err := n.links.LinkByName(name)
	if err != nil {
		return err
	}
	board, err := n.links.LinkByName(end)
	if err != nil {
		return err
	}
	p.end = board.Attrs().Index
	if err := n.links.LinkSetUp(board); err != nil {
		return fmt.Errorf("%s up: %w", end, err)
	}
	var socket *os.File
	var socketErr error
	done := make(chan struct{})
	n.board <- func() {
		defer close(done)
		// A USB adapter has no checksum offload: whoever reads must find whole datagrams.
		if socketErr = noOffload(name); socketErr == nil {
			socket, socketErr = packetSocket(p.end)
		}
	}
	<-done
	if socketErr != nil {
		n.links.LinkDel(board)
		return socketErr
	}
	defer socket.Close()
	n.send(message{Op: "link", Port: p.port, Gen: p.gen}, socket)
	p.ifindex = host.Attrs().Index
	n.view.addNet(p.port, host.Attrs())
	if err := n.links.LinkSetNsFd(host, int(n.hostNS.Fd())); err != nil {
		n.view.removeNet(p.ifindex)
		n.links.LinkDel(board)
		return fmt.Errorf("%s to the command's namespace: %w", name, err)
	}
	// It keeps its index if that is free there.
	if l, err := n.hostLinks.LinkByName(name); err == nil && l.Attrs().Index != p.ifindex {
		n.view.removeNet(p.ifindex)
		p.ifindex = l.Attrs().Index
		n.view.addNet(p.port, l.Attrs())
	}
	return nil
}

// freeName is the name that the kernel's usbnet would choose: usbN for an address that is locally
// administered, else ethN.
func (n *wiring) freeName(m net.HardwareAddr) (string, error) {
	links, err := n.hostLinks.LinkList()
	if err != nil {
		return "", fmt.Errorf("list of interfaces: %w", err)
	}
	used := make(map[string]bool)
	for _, l := range links {
		used[l.Attrs().Name] = true
	}
	prefix := "eth"
	if m[0]&2 != 0 {
		prefix = "usb"
	}
	for i := 0; ; i++ {
		if name := fmt.Sprintf("%s%d", prefix, i); !used[name] {
			return name, nil
		}
	}
}

// noOffload turns transmit checksum offload off on an interface of the calling thread's namespace.
func noOffload(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	const ethtoolSTXCSUM = 0x17 // ETHTOOL_STXCSUM
	value := struct{ cmd, data uint32 }{ethtoolSTXCSUM, 0}
	if err := ethtool(fd, name, &value.cmd); err != nil {
		return fmt.Errorf("%s: checksum offload off: %w", name, err)
	}
	return nil
}

// packetSocket opens a socket that reads and writes whole frames of an interface of the calling
// thread's namespace.
func packetSocket(ifindex int) (*os.File, error) {
	const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL<<8&0xff00 // in network byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifindex}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "packet socket"), nil
}

// detach takes the device away: the interface, wherever the command has it, then sysfs.
func (n *wiring) detach(port string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.ports[port]
	if p == nil {
		return nil
	}
	delete(n.ports, port)
	if p.end != 0 {
		if l, err := n.links.LinkByIndex(p.end); err == nil {
			// It may have died just now, with a namespace that the command had put its peer into.
			if err := n.links.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
				return fmt.Errorf("%s: %w", l.Attrs().Name, err)
			}
		}
		n.view.removeNet(p.ifindex)
	}
	n.view.removeDevice(port)
	return nil
}

// hostUpdate keeps sysfs in step with the interfaces of the command's namespace.
func (n *wiring) hostUpdate(u netlink.LinkUpdate) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := u.Link.Attrs()
	if u.Header.Type == unix.RTM_DELLINK {
		n.view.removeNet(a.Index)
		for _, p := range n.ports {
			if p.ifindex == a.Index {
				p.ifindex = 0
			}
		}
		return
	}
	// An update that waited in the queue may tell of an interface that has left meanwhile.
	if _, err := n.hostLinks.LinkByIndex(a.Index); err != nil {
		return
	}
	port := ""
	for _, p := range n.ports {
		if p.end != 0 && a.ParentIndex == p.end && bytes.Equal(a.HardwareAddr, p.host) {
			port, p.ifindex = p.port, a.Index
		}
	}
	n.view.addNet(port, a)
}

// boardUpdate tells the caller of carriers, and replaces a pair that died with a namespace: a veth
// pair does, where a USB adapter comes back to the first namespace.
func (n *wiring) boardUpdate(u netlink.LinkUpdate) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.ports {
		if p.end == 0 || p.end != u.Link.Attrs().Index {
			continue
		}
		if u.Header.Type == unix.RTM_DELLINK {
			n.send(message{Op: "carrier", Port: p.port, Gen: p.gen})
			n.view.removeNet(p.ifindex)
			if err := n.makeLink(p); err != nil {
				fmt.Fprintf(os.Stderr, "sandbox: port %s: the interface does not come back: %v\n", p.port, err)
			}
			return
		}
		if up := u.IfInfomsg.Flags&unix.IFF_LOWER_UP != 0; up != p.up {
			p.up = up
			n.send(message{Op: "carrier", Port: p.port, Gen: p.gen, Up: up})
		}
	}
}

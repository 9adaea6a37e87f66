//go:build linux

// Package netsetup makes the network that a board boots from: a network namespace of its own for each
// board, with the board's interface in it and nothing else, so that the host's network is neither
// changed nor reached.
//
// [Open] starts a worker, which is snag itself in a new network namespace (and, for an ordinary user, a
// new user namespace, where it is root over nothing else). The worker sets up the address translation
// between the servers' own ports and unprivileged ones, binds these, and passes the sockets out; the
// servers run in the ordinary process ([Namespace.Link]). [Namespace.Adopt] moves an interface in, for an
// ordinary user with the help of the privileged helper (cmd/snag-netmove), and has the worker configure it.
//
// A namespace has no name. It lives by the descriptors and the worker of its process: however that ends,
// the worker is killed, the kernel takes the namespace apart, and a USB interface that is still plugged in
// returns to the host. No function here changes anything outside the namespace.
//
// [Host] finds the interfaces of boards. [ProbeUserNamespaces] and [HelperStatus] tell whether the system
// lets all this work; when it does not the error is a [*SetupError], which says what to do.
//
// What the kernel does is described in user_namespaces(7), network_namespaces(7), rtnetlink(7) and nft(8).
package netsetup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"snag/netboot"
)

// The addresses of the little network between host and board. Each namespace has the same.
var (
	server = netboot.HostAddress
	client = netboot.BoardAddress
)

// How long things may take that need no board. They take a hundredth of it, but on a machine that starts
// eight recoveries at a time and has other things to do.
const (
	startTimeout     = 30 * time.Second // until the worker is ready
	configureTimeout = 20 * time.Second // until the worker has configured an interface
	stopTimeout      = 2 * time.Second  // until the worker has ended by itself
)

// Options are the choices of [Open]. The zero value is good.
type Options struct {
	Log    *slog.Logger // what happens in detail; nil for nothing
	Helper string       // path of snag-netmove; empty for where "snag setup" or a package puts it
	Host   Host         // where the interfaces come from

	noNAT bool // as if the kernel had no NAT
	user  bool // a user namespace even for root
}

// Namespace is a network namespace for one board. Its methods may be called from any goroutine.
type Namespace struct {
	log    *slog.Logger
	helper string
	host   Host

	netns *os.File
	link  netboot.Link

	to       channel
	adopting sync.Mutex    // one interface at a time
	done     chan struct{} // closed when the worker has ended
	closing  sync.Once

	mu      sync.Mutex
	err     error // why done is closed
	closed  bool
	lastID  int
	waiting map[int]chan message  // requests without an answer
	gone    map[int]chan struct{} // adopted interfaces, by their index inside
}

// Adopted is an interface inside a namespace, up and with its address.
type Adopted struct {
	Index   int           // inside the namespace
	Name    string        // likewise
	Carrier bool          // the link has a carrier; one without may get it any time
	Waited  time.Duration // until the user was allowed to open the USB device's node
	Moved   time.Duration // to move it, retries included
	Up      time.Duration // from there until the link was up

	// Gone is closed when the interface has vanished, or the namespace with it.
	Gone <-chan struct{}
}

// Open makes a namespace and starts its worker. The context is for the start only. An error is a
// [*SetupError] if the system does not allow it.
func Open(ctx context.Context, o Options) (*Namespace, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ns := &Namespace{
		log:     o.Log,
		helper:  o.Helper,
		host:    o.Host,
		done:    make(chan struct{}),
		waiting: make(map[int]chan message),
		gone:    make(map[int]chan struct{}),
	}
	if ns.log == nil {
		ns.log = slog.New(slog.DiscardHandler)
	}

	flags := []uintptr{unix.CLONE_NEWUSER | unix.CLONE_NEWNET}
	if os.Geteuid() == 0 && !o.user {
		// Root of a container may lack the capability for the first.
		flags = []uintptr{unix.CLONE_NEWNET, unix.CLONE_NEWUSER | unix.CLONE_NEWNET}
	}
	var err error
	var p *process
	for _, f := range flags {
		if p, err = startWorker(f); !errors.Is(err, unix.EPERM) {
			break
		}
	}
	if err != nil {
		return nil, explainNamespace("/proc", err)
	}
	ns.to = p.to

	ready := make(chan error, 1)
	go func() {
		ready <- ns.greet(message{Kind: kindSetup, NoNAT: o.noNAT})
	}()
	select {
	case err = <-ready:
	case <-ctx.Done():
		p.kill() // ends greet
		<-ready
		err = context.Cause(ctx)
	}
	if err != nil {
		p.kill()
		p.to.conn.Close()
		ns.release()
		if stderr := p.wait(); errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: %v", ErrWorker, stderr)
		}
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			return nil, explainNamespace("/proc", err)
		}
		return nil, fmt.Errorf("set up the network namespace: %w", err)
	}
	go ns.listen(p)
	return ns, nil
}

// greet sends the worker its task and takes the namespace and the sockets.
func (ns *Namespace) greet(m message) error {
	if err := ns.to.send(m); err != nil {
		return err
	}
	for {
		m, fds, err := ns.to.receive()
		if err != nil {
			return err
		}
		switch m.Kind {
		case kindNote:
			ns.log.Info(m.Text)
		case kindFailed:
			return m.failure()
		case kindReady:
			return ns.take(fds)
		default:
			return fmt.Errorf("worker message %q, expected %q", m.Kind, kindReady)
		}
	}
}

// failure is the error of a message that reports one.
func (m message) failure() error {
	switch m.Errno {
	case 0:
		return errors.New(m.Text)
	case unix.ENODEV, unix.ENXIO:
		return ErrGone
	}
	return &workerError{m.Text, m.Errno}
}

// workerError is an error of the worker that errors.Is knows by the number that the system gave.
type workerError struct {
	text  string
	errno syscall.Errno
}

func (e *workerError) Error() string { return e.text }
func (e *workerError) Unwrap() error { return e.errno }

// take checks the three descriptors of a ready message and keeps them.
func (ns *Namespace) take(fds []int) error {
	ns.netns = os.NewFile(uintptr(fds[0]), "network namespace")
	bootp := os.NewFile(uintptr(fds[1]), "BOOTP socket")
	defer bootp.Close()
	tftp := os.NewFile(uintptr(fds[2]), "TFTP socket")
	defer tftp.Close()
	if kind, err := unix.IoctlRetInt(fds[0], unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		return errors.New("worker message: not a network namespace")
	}
	var err error
	if ns.link.BOOTP, err = packetConn(bootp); err != nil {
		return err
	}
	conn, err := packetConn(tftp)
	if err != nil {
		return err
	}
	if ns.link.TFTP, err = netboot.Detach(conn.(*net.UDPConn)); err != nil {
		return err
	}
	ns.link.Server, ns.link.Client = server, client
	return nil
}

// packetConn makes a descriptor that should be a UDP socket one of the package net.
func packetConn(f *os.File) (net.PacketConn, error) {
	for _, o := range [][2]int{
		{unix.SO_DOMAIN, unix.AF_INET},
		{unix.SO_TYPE, unix.SOCK_DGRAM},
		{unix.SO_PROTOCOL, unix.IPPROTO_UDP},
	} {
		if v, err := unix.GetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, o[0]); err != nil || v != o[1] {
			return nil, errors.New("worker message: not a UDP socket")
		}
	}
	if err := unix.SetNonblock(int(f.Fd()), true); err != nil { // Fd made it blocking
		return nil, err
	}
	return net.FilePacketConn(f) // a duplicate
}

// listen takes the worker's messages until it ends, and then releases everything.
func (ns *Namespace) listen(p *process) {
	var failed error
	for {
		m, _, err := ns.to.receive() // only a ready message has descriptors, and ...
		if err == nil && m.Kind == kindReady {
			err = errors.New("worker message: ready a second time") // ... the end closes them with all else
		}
		if err != nil {
			failed = err
			break
		}
		switch m.Kind {
		case kindNote:
			ns.log.Info(m.Text)
		case kindGone:
			ns.mu.Lock()
			if c, ok := ns.gone[m.Index]; ok {
				close(c)
				delete(ns.gone, m.Index)
			}
			ns.mu.Unlock()
		case kindConfigured, kindFailed:
			ns.mu.Lock()
			c := ns.waiting[m.ID]
			delete(ns.waiting, m.ID)
			if c != nil && m.Kind == kindConfigured {
				ns.gone[m.Index] = make(chan struct{})
			}
			ns.mu.Unlock()
			if c != nil {
				c <- m
			}
		}
	}

	if !errors.Is(failed, io.EOF) && !errors.Is(failed, net.ErrClosed) {
		p.kill() // it does not speak our language
	}
	// An end of file tells that the worker is ending, or has been told to.
	timer := time.AfterFunc(stopTimeout, func() { p.kill() })
	how := p.wait()
	timer.Stop()
	ns.release()

	ns.mu.Lock()
	defer ns.mu.Unlock()
	switch {
	case ns.closed:
		ns.err = net.ErrClosed
	case errors.Is(failed, io.EOF):
		ns.err = fmt.Errorf("%w: %v", ErrWorker, how)
	default:
		ns.err = fmt.Errorf("%w: %w", ErrWorker, failed)
	}
	for _, c := range ns.gone {
		close(c)
	}
	ns.gone = nil
	close(ns.done)
}

// release closes all that keeps the namespace.
func (ns *Namespace) release() {
	ns.to.conn.Close()
	if ns.netns != nil {
		ns.netns.Close()
	}
	if ns.link.BOOTP != nil {
		ns.link.BOOTP.Close()
	}
	if ns.link.TFTP != nil {
		ns.link.TFTP.Close()
	}
}

// Link is the way to the board: the sockets, and the addresses. They belong to the namespace, which
// closes them when it ends.
func (ns *Namespace) Link() netboot.Link { return ns.link }

// Done is closed when the namespace has ended, by Close or otherwise.
func (ns *Namespace) Done() <-chan struct{} { return ns.done }

// Err is why the namespace has ended: [net.ErrClosed] after Close, otherwise an [ErrWorker]; nil as
// long as it has not.
func (ns *Namespace) Err() error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	return ns.err
}

// Close ends the worker and gives the namespace up. Interfaces of USB devices return to the host, soon
// after.
func (ns *Namespace) Close() error {
	ns.closing.Do(func() {
		ns.mu.Lock()
		ns.closed = true
		ns.mu.Unlock()
		// The worker sees the end of file, and so does listen.
		ns.to.conn.CloseWrite()
	})
	<-ns.done
	return nil
}

// Adopt moves the interface of that index into the namespace and waits until it is up there, with its
// address and routes. It waits for the permission of the USB device's node, which udev may not have
// given yet, for at most nodeWait. Errors: [ErrGone], [ErrWorker], a [*SetupError], or that of ctx.
func (ns *Namespace) Adopt(ctx context.Context, index int) (*Adopted, error) {
	ns.adopting.Lock()
	defer ns.adopting.Unlock()
	if err := ns.Err(); err != nil {
		return nil, err
	}
	a := &Adopted{}
	parent, err := ns.move(ctx, index, a)
	if err != nil {
		return nil, err
	}
	if err := ns.configure(ctx, parent, a); err != nil {
		if errors.Is(err, ErrWorker) || errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return nil, err
		}
		return nil, fmt.Errorf("configure interface %d: %w", index, err)
	}
	ns.log.Info("interface adopted", "name", a.Name, "index", a.Index, "carrier", a.Carrier,
		"waited", a.Waited, "moved", a.Moved, "up", a.Up)
	return a, nil
}

// configure has the worker configure the interface that has just been moved in, and waits until it is up.
func (ns *Namespace) configure(ctx context.Context, parent string, a *Adopted) error {
	begun := time.Now()
	answer := make(chan message, 1)
	ns.mu.Lock()
	ns.lastID++
	id := ns.lastID
	ns.waiting[id] = answer
	ns.mu.Unlock()
	defer func() {
		ns.mu.Lock()
		delete(ns.waiting, id)
		ns.mu.Unlock()
	}()
	if err := ns.to.send(message{Kind: kindConfigure, ID: id, Parent: parent}); err != nil {
		<-ns.done
		return ns.Err()
	}
	timeout := time.NewTimer(configureTimeout)
	defer timeout.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timeout.C:
		return fmt.Errorf("no answer from the network worker in %v", configureTimeout)
	case <-ns.done:
		return ns.Err()
	case m := <-answer:
		if m.Kind == kindFailed {
			return m.failure()
		}
		a.Index, a.Name, a.Carrier, a.Up = m.Index, m.Name, m.Carrier, time.Since(begun)
		ns.mu.Lock()
		if c, ok := ns.gone[m.Index]; ok {
			a.Gone = c
		}
		ns.mu.Unlock()
		if a.Gone == nil { // vanished again already
			return ErrGone
		}
	}
	return nil
}

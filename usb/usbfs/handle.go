//go:build linux

package usbfs

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"snag/usb"
)

// handle is an open device. It implements [usb.Handle].
type handle struct {
	dev   usb.Device
	desc  *usb.Descriptors
	sysfs usb.Sysfs
	file  *os.File
	conn  syscall.RawConn
	fd    int // of file, for who reaps
	chunk int // the longest URB
	depth int // URBs in flight on an OUT endpoint
	room  int // bytes in flight there, if they are several URBs

	leadFor time.Duration // of a leader

	endpoints  [32]chan struct{}      // held by the transfer that is under way, by endpoint number and direction
	posts      [16]window             // what Post began, by endpoint number; as endpoints
	interfaces chan struct{}          // held by a request of interface.go
	quick      bool                   // see Host
	requests   sync.WaitGroup         // of interface.go, submissions, and the leader
	spares     atomic.Pointer[spares] // transfers of endpoint 0 that are not in use

	gone   chan struct{}
	closed chan struct{} // closed when Close begins
	ended  chan struct{} // closed when it is done

	mu      sync.Mutex
	watcher                  // reap.go
	closing bool             // nothing is submitted any more
	landed  chan struct{}    // when closing: closed when flights is empty
	lost    bool             // the device is gone, and nothing is reaped any more
	flights []*transfer      // URBs that the kernel has, in the order of their submissions
	config  uint8            // the active configuration
	claims  map[uint8]*claim // by interface
}

// claim is an interface of this handle's.
type claim struct {
	alt      uint8
	detached bool // a kernel driver was bound
}

// newHandle makes a handle of an open node. It owns the file then.
func newHandle(dev usb.Device, host Host, file *os.File) (*handle, error) {
	desc, err := readDescriptors(file)
	if err != nil {
		return nil, err
	}
	conn, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	h := &handle{
		dev: dev, desc: desc, sysfs: host.Sysfs, quick: host.Quick, file: file, conn: conn, fd: int(file.Fd()), chunk: chunkContiguous, depth: depth, room: flightBytes, leadFor: leadFor,
		interfaces: make(chan struct{}, 1),
		gone:       make(chan struct{}),
		closed:     make(chan struct{}),
		ended:      make(chan struct{}),
		config:     uint8(dev.Config),
		claims:     make(map[uint8]*claim),
	}
	for i := range h.endpoints {
		h.endpoints[i] = make(chan struct{}, 1)
	}
	var caps uint32
	switch err := h.ioctl(reqCapabilities, unsafe.Pointer(&caps)); err {
	case nil, unix.ENOTTY: // before Linux 3.6 there is no such request
	default:
		return nil, err
	}
	if caps&capScatterGather != 0 {
		h.chunk = chunkScattered
	}
	if err := h.startWatcher(); err != nil {
		return nil, err
	}
	return h, nil
}

// maxDescriptors bounds what is read: a configuration has at most 64 KiB, and the kernel takes eight of them.
const maxDescriptors = 18 + 8<<16

// readDescriptors reads all descriptors from a node. The kernel gives the device descriptor's words in its own byte
// order, which is little-endian on all machines that snag is built for.
func readDescriptors(file *os.File) (*usb.Descriptors, error) {
	raw, err := io.ReadAll(io.NewSectionReader(file, 0, maxDescriptors))
	if err != nil {
		return nil, err
	}
	return usb.ParseDescriptors(raw)
}

// Device implements [usb.Handle].
func (h *handle) Device() usb.Device { return h.dev }

// Descriptors implements [usb.Handle].
func (h *handle) Descriptors() *usb.Descriptors { return h.desc }

// Gone implements [usb.Handle].
func (h *handle) Gone() <-chan struct{} { return h.gone }

// failed describes a request that failed; nil if none did.
func (h *handle) failed(op string, ep int, err error) error {
	if err == nil {
		return nil
	}
	return &usb.TransferError{Op: op, Port: h.dev.Port, ID: h.dev.ID, Endpoint: ep, Err: err}
}

// lock waits until the transfers on an endpoint that were asked for before are over. It checks that one may begin.
func (h *handle) lock(ctx context.Context, ep uint8) error {
	if err := ctx.Err(); err != nil {
		return why(ctx)
	}
	l := h.endpoint(ep)
	select {
	case <-h.closed:
		return os.ErrClosed
	default:
	}
	select {
	case l <- struct{}{}: // nobody has it, or waits for it
		return nil
	default:
	}
	select {
	case l <- struct{}{}: // waiting senders are served in their order
		return nil
	case <-ctx.Done():
		return why(ctx)
	case <-h.closed:
		return os.ErrClosed
	case <-h.gone:
		return usb.ErrGone
	}
}

// unlock has the next one begin.
func (h *handle) unlock(ep uint8) { <-h.endpoint(ep) }

func (h *handle) endpoint(ep uint8) chan struct{} { return h.endpoints[ep&0xf|ep>>7<<4] }

// packet is the packet size of an endpoint of a claimed interface.
func (h *handle) packet(ep uint8) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing {
		return 0, os.ErrClosed
	}
	unclaimed := -1
	for _, c := range h.desc.Configs {
		if c.Value != h.config {
			continue
		}
		for _, s := range c.Settings {
			for _, e := range s.Endpoints {
				if e.Address != ep {
					continue
				}
				switch claim := h.claims[s.Number]; {
				case claim == nil:
					unclaimed = int(s.Number)
				case claim.alt == s.Alt:
					return max(e.MaxPacket, 1), nil
				}
			}
		}
	}
	if unclaimed >= 0 {
		return 0, fmt.Errorf("interface %d is not claimed", unclaimed)
	}
	return 0, fmt.Errorf("no active interface has endpoint %#02x", ep)
}

// Close implements [usb.Handle]. Requests about interfaces that the kernel is performing are waited for.
func (h *handle) Close() error {
	h.mu.Lock()
	if h.closing {
		h.mu.Unlock()
		<-h.ended
		return nil
	}
	h.closing = true
	landed := make(chan struct{})
	if len(h.flights) == 0 {
		close(landed)
	} else {
		h.landed = landed
	}
	close(h.closed)
	h.mu.Unlock()

	defer close(h.ended)
	h.discardAll()
	h.watched()
	<-landed
	h.requests.Wait()
	h.stopWatcher()
	h.freeSpares()
	h.freePosts()
	err := h.giveBack()
	if cerr := h.file.Close(); err == nil {
		err = cerr
	}
	return h.failed("close", -1, err)
}

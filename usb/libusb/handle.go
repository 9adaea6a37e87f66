package libusb

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/google/gousb"

	"snag/usb"
)

// Handle is an open device. It implements [usb.Handle].
type Handle struct {
	info usb.Device
	desc *usb.Descriptors
	lib  *gousb.Context
	dev  *gousb.Device

	endpoints  [32]chan struct{} // held by the transfer that is under way, by endpoint number and direction
	interfaces chan struct{}     // held by a request of interface.go, which alone changes claims and config
	work       sync.WaitGroup    // control transfers and requests of interface.go

	ctx  context.Context // ends when Close is called
	stop context.CancelFunc
	done chan struct{} // closed when Close is done

	gone  chan struct{}
	leave sync.Once // closes gone

	mu      sync.Mutex
	closing bool
	config  *gousb.Config // nil while the device is not configured
	value   uint8         // of config
	claims  map[uint8]*claim
}

// claim is an interface of this handle's.
type claim struct {
	alt     uint8
	intf    *gousb.Interface
	flights []*flight // what libusb has, the oldest first; guarded by Handle.mu
}

// newHandle makes a Handle, which owns lib and dev then.
func newHandle(ctx context.Context, lib *gousb.Context, dev *gousb.Device, info usb.Device) (*Handle, error) {
	h := &Handle{
		info: info, lib: lib, dev: dev,
		interfaces: make(chan struct{}, 1),
		done:       make(chan struct{}),
		gone:       make(chan struct{}),
		claims:     make(map[uint8]*claim),
	}
	for i := range h.endpoints {
		h.endpoints[i] = make(chan struct{}, 1)
	}
	h.ctx, h.stop = context.WithCancel(context.Background())
	err := h.begin(ctx)
	if err != nil {
		h.stop()
		h.work.Wait()
		return nil, err
	}
	looks := looks(h.ctx)
	h.work.Add(1)
	go func() {
		defer h.work.Done()
		for range looks {
			if !present(lib, info) {
				h.left()
			}
		}
	}()
	return h, nil
}

// begin reads the descriptors and takes the active configuration.
func (h *Handle) begin(ctx context.Context) error {
	raw, err := rawDescriptors(ctx, h)
	if err != nil {
		return err
	}
	if h.desc, err = usb.ParseDescriptors(raw); err != nil {
		return err
	}
	if h.desc.ID != h.info.ID || h.desc.Release != h.info.Release {
		return fmt.Errorf("%w: it is %s now", usb.ErrGone, h.desc.ID)
	}
	n, err := h.dev.ActiveConfigNum()
	if err != nil {
		return err
	}
	h.info.Config = n
	if n == 0 {
		return nil
	}
	return h.takeConfig(uint8(n))
}

// getDescriptors asks a device for all its descriptors (USB 2.0, 9.4.3).
func getDescriptors(ctx context.Context, h usb.Handle) ([]byte, error) {
	get := func(kind, index uint8, size uint16) ([]byte, error) {
		b := make([]byte, size)
		n, err := h.Control(ctx, usb.Setup{Type: 0x80, Request: usb.ReqGetDescriptor, Value: uint16(kind)<<8 | uint16(index), Length: size}, b)
		return b[:n], err
	}
	const device, config = 1, 2
	raw, err := get(device, 0, 18)
	if err != nil || len(raw) < 18 {
		return raw, err
	}
	for i := range raw[17] {
		head, err := get(config, i, 9)
		if err != nil || len(head) < 4 {
			break // what was read until then counts
		}
		all, err := get(config, i, binary.LittleEndian.Uint16(head[2:]))
		if err != nil {
			break
		}
		raw = append(raw, all...)
	}
	return raw, nil
}

// Device implements [usb.Handle].
func (h *Handle) Device() usb.Device { return h.info }

// Descriptors implements [usb.Handle].
func (h *Handle) Descriptors() *usb.Descriptors { return h.desc }

// Gone implements [usb.Handle].
func (h *Handle) Gone() <-chan struct{} { return h.gone }

// left notes that the device is gone.
func (h *Handle) left() { h.leave.Do(func() { close(h.gone) }) }

// failed describes a request that failed; nil if none did.
func (h *Handle) failed(op string, ep int, err error) error {
	if err == nil {
		return nil
	}
	if err = cause(err); errors.Is(err, usb.ErrGone) {
		h.left()
	}
	return &usb.TransferError{Op: op, Port: h.info.Port, ID: h.info.ID, Endpoint: ep, Err: err}
}

// lock waits until the transfers on an endpoint that were asked for before are over.
func (h *Handle) lock(ctx context.Context, ep uint8) (unlock func(), err error) {
	if ctx.Err() != nil {
		return nil, why(ctx)
	}
	if h.ctx.Err() != nil {
		return nil, os.ErrClosed
	}
	l := h.endpoints[ep&0xf|ep>>7<<4]
	select {
	case l <- struct{}{}: // waiting senders are served in their order
		return func() { <-l }, nil
	case <-ctx.Done():
		return nil, why(ctx)
	case <-h.ctx.Done():
		return nil, os.ErrClosed
	case <-h.gone:
		return nil, usb.ErrGone
	}
}

// busy lets Close wait for what the caller is about to do, until it calls work.Done.
func (h *Handle) busy() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing {
		return os.ErrClosed
	}
	h.work.Add(1)
	return nil
}

// Close implements [usb.Handle]. It waits for a control transfer that libusb has begun.
func (h *Handle) Close() error {
	h.mu.Lock()
	if h.closing {
		h.mu.Unlock()
		<-h.done
		return nil
	}
	h.closing = true
	h.mu.Unlock()
	defer close(h.done)
	h.stop()
	h.work.Wait()
	h.giveBack()
	return h.failed("close", -1, errors.Join(h.dev.Close(), h.lib.Close()))
}

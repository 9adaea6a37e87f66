// Package usbnet is the host's side of a USB network adapter, with RNDIS or CDC-ECM, in user space: Ethernet frames in
// and out of a [usb.Handle], without any network interface of the system.
//
// [Find] finds the function by the interfaces' classes, [Open] selects its configuration, takes its interfaces from the
// kernel's driver and brings the link up. [Adapter.Run] moves the frames until the device leaves; [Adapter.Send] sends
// one. What the frames hold is the caller's business (snag/netboot/ethernet).
//
// RNDIS is brought up with INITIALIZE, QUERY of the address and SET of the packet filter ([MS-RNDIS], section 3.2.5;
// messages in snag/usb/rndis). U-Boot's gadget counts its link as up only when the host has also read the notification
// that follows (drivers/usb/gadget/ether.c), while ROMs may send none: so answers are asked for without waiting for it,
// and notifications are read once the link is up, or an answer was not there at once. ECM is up with its data
// interface's alternate setting (ECM 1.2, section 3.3).
//
// The device is taken to be hostile: every wait has a deadline, and memory does not depend on what it says.
package usbnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"snag/usb"
	"snag/usb/rndis"
)

const (
	// maxFrame is an Ethernet frame without its checksum.
	maxFrame = 1514

	// transfer is the room for one transfer to the host, a multiple of all packet sizes of bulk endpoints; RNDIS
	// devices are told it. It is what Linux tells them (usbnet's rx_urb_size for an MTU of 1500).
	transfer = 2048

	// inFlight is how many transfers to the host are waited for at a time at most, where the system can.
	inFlight = 8

	// queued is how many frames may wait for room in the device's queue: those of a TFTP window, twice.
	queued = 128

	// bringUp bounds Open, and answer one request of it, as in Linux (rndis_host.h, RNDIS_CONTROL_TIMEOUT_MS).
	bringUp = 10 * time.Second
	answer  = 5 * time.Second

	// alive is how long an RNDIS device may say nothing before it is asked for a sign of life ([MS-RNDIS], section
	// 3.2.1.1).
	alive = 5 * time.Second

	// failing is how long a device's transfers may fail, one after the other, before that is the end: a device that
	// leaves has failing transfers for some time before the system notices.
	failing = 2 * time.Second

	// goodbye bounds what Close tells the device.
	goodbye = time.Second
)

// filter is the packet filter that Linux sets: all that a board may send (rndis_host.h, RNDIS_DEFAULT_FILTER).
const filter = rndis.FilterDirected | rndis.FilterAllMulticast | rndis.FilterBroadcast | rndis.FilterPromiscuous

// hostMAC is the host's address on a link whose device names none: a locally administered one.
var hostMAC = [6]byte{0x02, 's', 'n', 'a', 'g', 0x01}

// Counts are what became of frames and messages so far.
type Counts struct {
	In, Out    int64 // frames
	Malformed  int64 // messages from the device that are none, and frames of no possible length
	Overflowed int64 // frames that were not sent because the device does not take those before them
	Failed     int64 // transfers that failed and were made again
}

// Adapter is a network adapter whose link is up.
type Adapter struct {
	Function
	MAC [6]byte // the host's, as the device names it

	h      usb.Handle
	poster usb.Poster // h, if it is one
	log    *slog.Logger

	queue, free chan []byte  // frames to the device that wait, and buffers for them
	waiting     atomic.Int64 // frames of the queue that the kernel has not got: others wait behind them
	refused     chan error   // has what kept Send from beginning a transfer: the end of one before it
	taken       atomic.Bool  // the device has taken a frame

	posting sync.Mutex // held while posted is in use
	posted  []byte     // the transfer that Send begins itself

	// control is held for the time of a request and its answer.
	control  sync.Mutex
	id       uint32        // of the last request
	notified chan struct{} // gets a value with each notification
	listen   func()        // starts to read notifications
	answered time.Time     // when the last request was
	heard    atomic.Int64  // when the device said something last, UnixNano

	stop    context.CancelFunc // of what Open started
	running sync.WaitGroup

	in, out, malformed, overflowed, failed atomic.Int64
}

// ErrNoFunction says that a device has no network adapter that is known here.
var ErrNoFunction = errors.New("no RNDIS or CDC-ECM function")

// Open brings the link of a device's network adapter up. The handle remains the caller's, who closes the adapter first;
// the kernel's driver gets the interfaces back then. log may be nil.
func Open(ctx context.Context, h usb.Handle, log *slog.Logger) (*Adapter, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	f, ok := Find(h.Descriptors(), uint8(h.Device().Config))
	if !ok {
		return nil, fmt.Errorf("USB device %s on port %s: %w", h.Device().ID, h.Device().Port, ErrNoFunction)
	}
	a := &Adapter{
		Function: f, MAC: hostMAC, h: h, log: log,
		queue: make(chan []byte, queued), free: make(chan []byte, queued), refused: make(chan error, 1), notified: make(chan struct{}, 1),
	}
	a.poster, _ = h.(usb.Poster)
	ctx, cancel := context.WithTimeoutCause(ctx, bringUp, fmt.Errorf("not up within %v: %w", bringUp, context.DeadlineExceeded))
	defer cancel()
	if err := h.Configure(ctx, f.Config); err != nil {
		return nil, err
	}
	// The control interface first: with it the kernel's driver lets go of both.
	if err := h.Claim(ctx, f.Control); err != nil {
		return nil, err
	}
	if err := h.Claim(ctx, f.Data); err != nil {
		a.release()
		return nil, err
	}
	running, stop := context.WithDeadline(context.WithoutCancel(ctx), time.Now().Add(forever))
	a.stop = stop
	a.listen = sync.OnceFunc(func() { a.running.Go(func() { a.notifications(running) }) })
	up := a.initialize
	if f.Kind == ECM {
		up = a.connect
	}
	err := a.selectData(ctx)
	if err == nil {
		err = up(ctx)
	}
	if err != nil {
		a.Close()
		return nil, fmt.Errorf("USB device %s on port %s: %s link: %w", h.Device().ID, h.Device().Port, f.Kind, err)
	}
	a.listen()
	return a, nil
}

// forever is the deadline of transfers that may wait for as long as the device is there.
const forever = 10 * 365 * 24 * time.Hour

// selectData selects the alternate setting that has the bulk endpoints. To ECM devices that is also the sign that the
// host is there, so that it is sent to those as well which have but one setting (as Linux does, usbnet.c,
// usbnet_get_endpoints), and may refuse it.
func (a *Adapter) selectData(ctx context.Context) error {
	if a.Alt == 0 && a.Kind != ECM {
		return nil
	}
	err := a.h.SetAlt(ctx, a.Data, a.Alt)
	if a.Alt == 0 && errors.Is(err, usb.ErrStall) {
		return nil
	}
	return err
}

// connect brings up an ECM link.
func (a *Adapter) connect(ctx context.Context) error {
	// A device that names no address, or nonsense, is given one.
	asking, cancel := context.WithTimeout(ctx, answer)
	s, err := usb.String(asking, a.h, a.mac)
	cancel()
	if err != nil {
		a.log.Info("ecm device does not tell its address", "err", err)
	} else if mac, ok := parseMAC(s); ok {
		a.MAC = mac
	}
	// SET_ETHERNET_PACKET_FILTER (ECM 1.2, section 6.2.4): all multicast, directed, broadcast. A device without filters
	// may refuse it.
	const setFilter, packets = 0x43, 1<<1 | 1<<2 | 1<<3
	_, err = a.h.Control(ctx, usb.Setup{Type: recipientIfac, Request: setFilter, Value: packets, Index: uint16(a.Control)}, nil)
	if err != nil && !errors.Is(err, usb.ErrStall) {
		return err
	}
	return nil
}

// notifications reads the interrupt endpoint for as long as there is one to read. What it says matters only to RNDIS:
// that an answer is there.
func (a *Adapter) notifications(ctx context.Context) {
	if a.Notify.Address == 0 || a.Notify.MaxPacket == 0 {
		return
	}
	buf := make([]byte, a.Notify.MaxPacket) // no more: one that fills the packet ends no transfer
	var f failures
	for {
		_, err := a.h.In(ctx, a.Notify.Address, buf)
		switch {
		case err == nil:
			f.over()
			select {
			case a.notified <- struct{}{}:
			default:
			}
		case !f.again(ctx, a.h, a.Notify.Address, err):
			return // nothing depends on it alone
		}
	}
}

// failures are transfers of an endpoint that failed in a row.
type failures struct{ since time.Time }

func (f *failures) over() { f.since = time.Time{} }

// again says whether to go on after an error, and waits a moment.
func (f *failures) again(ctx context.Context, h usb.Handle, ep uint8, err error) bool {
	if ctx.Err() != nil || errors.Is(err, usb.ErrGone) {
		return false
	}
	now := time.Now()
	if f.since.IsZero() {
		f.since = now
	}
	if now.Sub(f.since) > failing {
		return false
	}
	if errors.Is(err, usb.ErrStall) {
		_ = h.ClearHalt(ctx, ep) // else the next transfer says so
	}
	return wait(ctx, h.Gone(), 10*time.Millisecond)
}

// wait waits for a time; it is false if the context or the device ends before.
func wait(ctx context.Context, gone <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-gone:
	case <-ctx.Done():
	}
	return false
}

// Run moves frames until the context ends or the device leaves, then it returns nil; or until its transfers fail for
// good. What comes is handed to input, one at a time, and is input's until that returns.
func (a *Adapter) Run(ctx context.Context, input func(frame []byte)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if _, ok := ctx.Deadline(); !ok {
		ctx, cancel = context.WithDeadline(ctx, time.Now().Add(forever))
		defer cancel()
	}
	a.heard.Store(time.Now().UnixNano())
	var sending error
	var others sync.WaitGroup
	others.Go(func() {
		defer cancel()
		sending = a.sendAll(ctx)
	})
	if a.Kind == RNDIS {
		others.Go(func() { a.keepAlive(ctx) })
	}
	receiving := a.receive(ctx, input)
	cancel()
	others.Wait()
	c := a.Counts()
	a.log.Info("usb network adapter", "kind", a.Kind, "in", c.In, "out", c.Out, "malformed", c.Malformed, "overflowed", c.Overflowed, "failed", c.Failed)
	return errors.Join(receiving, sending)
}

// receive takes transfers from the device.
func (a *Adapter) receive(ctx context.Context, input func([]byte)) error {
	var f failures
	take := func(b []byte) {
		f.over()
		a.heard.Store(time.Now().UnixNano())
		a.take(b, input)
	}
	for {
		err := usb.Receive(ctx, a.h, a.In.Address, transfer, inFlight, take)
		if ctx.Err() != nil || errors.Is(err, usb.ErrGone) {
			return nil
		}
		a.failed.Add(1)
		if !f.again(ctx, a.h, a.In.Address, err) {
			if ctx.Err() != nil || gone(a.h) {
				return nil
			}
			return err
		}
	}
}

func gone(h usb.Handle) bool {
	select {
	case <-h.Gone():
		return true
	default:
		return false
	}
}

// take hands on the frames of a transfer.
func (a *Adapter) take(b []byte, input func([]byte)) {
	hand := func(frame []byte) {
		// One byte more is padding in the place of a zero-length packet (U-Boot, drivers/usb/gadget/ether.c).
		if len(frame) < 14 || len(frame) > maxFrame+1 {
			a.malformed.Add(1)
			return
		}
		a.in.Add(1)
		input(frame)
	}
	if a.Kind == ECM {
		if len(b) > 0 {
			hand(b)
		}
		return
	}
	for len(b) > 0 {
		frame, rest, err := rndis.NextPacket(b)
		if err != nil {
			a.malformed.Add(1)
			return
		}
		if frame != nil {
			hand(frame)
		}
		b = rest
	}
}

// sendAll sends what Send queues.
func (a *Adapter) sendAll(ctx context.Context) error {
	var f failures
	var next []byte
	// wait puts the frame before aside and gets the next; it is false when there is nothing more to send.
	wait := func() bool {
		if next != nil {
			a.spare(next)
			a.waiting.Add(-1)
			next = nil
		}
		select {
		case next = <-a.queue:
			return true
		case <-a.h.Gone():
		case <-ctx.Done():
		}
		return false
	}
	stream := func() (int64, error) {
		return a.h.Stream(ctx, a.Out.Address, 0, func(yield func([]byte) bool) {
			for more := true; more; more = wait() {
				a.out.Add(1)
				if !yield(next) || a.poster != nil && a.waiting.Load() == 1 { // what comes then need not wait
					return
				}
			}
		})
	}
	for again := false; again || wait(); {
		again = false
		var err error
		select {
		case err = <-a.refused:
			again = true
		default:
			err = a.post(next)
			if errors.Is(err, usb.ErrNoRoom) {
				var n int64
				if n, err = stream(); n > 0 || err == nil {
					a.taken.Store(true)
				}
			}
		}
		if a.taken.Swap(false) {
			f.over()
		}
		if err == nil {
			continue
		}
		if ctx.Err() != nil || errors.Is(err, usb.ErrGone) {
			return nil
		}
		a.failed.Add(1)
		if !f.again(ctx, a.h, a.Out.Address, err) {
			if ctx.Err() != nil || gone(a.h) {
				return nil
			}
			return err
		}
	}
	return nil
}

// post begins the transfer of a frame if that can be done without waiting; else usb.ErrNoRoom says so.
func (a *Adapter) post(b []byte) error {
	if a.poster == nil {
		return usb.ErrNoRoom
	}
	taken, err := a.poster.Post(a.Out.Address, b)
	if taken > 0 {
		a.taken.Store(true)
	}
	if err == nil {
		a.out.Add(1)
	}
	return err
}

// ErrFull says that the device does not take the frames that wait for it, so that one more was dropped.
var ErrFull = errors.New("the device does not take frames")

// ErrTooLong says that a frame is longer than the link carries.
var ErrTooLong = errors.New("frame longer than 1514 bytes")

// Send queues a frame, which is copied. It does not wait: the error is ErrFull or ErrTooLong. It may be called from
// several goroutines.
func (a *Adapter) Send(frame []byte) error {
	if len(frame) > maxFrame {
		return ErrTooLong
	}
	if a.waiting.Load() == 0 && a.poster != nil {
		err := a.postNow(frame)
		if err == nil {
			return nil
		}
		if !errors.Is(err, usb.ErrNoRoom) {
			select {
			case a.refused <- err:
			default:
			}
		}
	}
	var b []byte
	select {
	case b = <-a.free:
	default:
		b = make([]byte, 0, rndis.HeaderSize+maxFrame+1)
	}
	b = a.appendTransfer(b[:0], frame)
	a.waiting.Add(1)
	select {
	case a.queue <- b:
		return nil
	default:
		a.waiting.Add(-1)
		a.spare(b)
		a.overflowed.Add(1)
		return ErrFull
	}
}

// postNow begins the transfer of a frame if that can be done without waiting, without a buffer from the queue's.
func (a *Adapter) postNow(frame []byte) error {
	a.posting.Lock()
	defer a.posting.Unlock()
	a.posted = a.appendTransfer(a.posted[:0], frame)
	return a.post(a.posted)
}

// appendTransfer appends the transfer that a frame is.
func (a *Adapter) appendTransfer(b, frame []byte) []byte {
	if a.Kind == RNDIS {
		b = rndis.AppendPacket(b, frame)
	} else {
		b = append(b, frame...)
	}
	if len(b)%a.Out.MaxPacket == 0 {
		b = append(b, 0) // in the place of a zero-length packet, as Linux's usbnet has it
	}
	return b
}

// spare keeps a buffer for another frame.
func (a *Adapter) spare(b []byte) {
	select {
	case a.free <- b:
	default:
	}
}

// Counts are the counts so far.
func (a *Adapter) Counts() Counts {
	return Counts{In: a.in.Load(), Out: a.out.Load(), Malformed: a.malformed.Load(), Overflowed: a.overflowed.Load(), Failed: a.failed.Load()}
}

// Close takes the link down and gives the interfaces back to the kernel's driver. Run must have returned.
func (a *Adapter) Close() {
	if a.Kind == RNDIS && !gone(a.h) {
		ctx, cancel := context.WithTimeout(context.Background(), goodbye)
		_ = a.command(ctx, rndis.Halt(a.id+1)) // the device need not take it
		cancel()
	}
	a.stop()
	a.running.Wait()
	a.release()
}

// release gives back the interfaces that were claimed.
func (a *Adapter) release() {
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	for _, iface := range []uint8{a.Data, a.Control} {
		_ = a.h.Release(ctx, iface) // as far as it was claimed; closing the handle does the same
	}
}

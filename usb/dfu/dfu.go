// Package dfu is a client of USB's class for the upgrade of device firmware, by which boot ROMs and boot loaders take
// files.
//
// It is specified in "Universal Serial Bus Device Class Specification for Device Firmware Upgrade", version 1.1, here
// DFU 1.1; ST's extension DfuSe is in UM0424, "DfuSe USB device firmware upgrade STMicroelectronics extension". A file
// goes to an alternate setting of the DFU interface, in numbered blocks by control transfers, and after each the device
// is asked how it fares.
//
// [Open] claims the interface and reads what its settings are called; [Device.Find] finds one, [Device.Select] selects
// it. [Device.Download] and [Device.Upload] move a file (download.go, upload.go), [Device.Detach] and [Device.Reset]
// make a device go on to what it has received. What the device has to say of a failure is in a [StatusError]
// (status.go). dfuse.go has the addresses of DfuSe.
package dfu

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"snag/usb"
)

// Requests (DFU 1.1, section 3).
const (
	reqDetach      = 0
	reqDownload    = 1
	reqUpload      = 2
	reqGetStatus   = 3
	reqClearStatus = 4
	reqAbort       = 6

	toInterface   = 0x21 // class request to an interface
	fromInterface = 0xa1
	describe      = 0x81 // standard request for an interface's data
)

// The limits that hold where a [Device] has none of its own.
const (
	DefaultBlockTimeout    = 30 * time.Second
	DefaultManifestTimeout = 2 * time.Minute
)

// ErrLeft says that a device has taken a whole file and then did not answer any more. Most boot ROMs do so, since they
// start what they have received: to those who send them a file it is success.
var ErrLeft = errors.New("the device has the whole file and does not answer any more")

// ErrNoInterface says that a device has no DFU interface.
var ErrNoInterface = errors.New("no DFU interface")

// Device is an open DFU interface. Its methods are not to be called from several goroutines at a time.
type Device struct {
	// Functional is what the device can do; zero if it does not say.
	Functional Functional

	// Alts are the DFU settings of the interface, in the device's order. Their numbers need not begin at 0.
	Alts []Alt

	// BlockTimeout bounds each block, and each other request, with all the waiting for it that the device demands;
	// ManifestTimeout bounds what comes after the last block. Zero: the defaults.
	BlockTimeout, ManifestTimeout time.Duration

	// NoRecovery is for a device without CLRSTATUS and ABORT. A first block brings it back from whatever state it is
	// in, and it may say dfuDNLOAD-SYNC when it is idle: Xilinx's FSBL for ZynqMP (xfsbl_dfu_util.c).
	NoRecovery bool

	handle    usb.Handle
	iface     uint8
	selected  Alt
	block     int       // bytes
	notBefore time.Time // the next GETSTATUS; zero: it may be sent
	told      Answer    // to the last one

	// What each block has use for.
	reply [answerSize]byte
	pair  [2]usb.ControlTransfer
}

// Open claims the first interface of the active configuration that has a DFU setting, and asks for the names of these
// settings. No setting is selected, which is left to [Device.Select] or as it is. The handle remains the caller's.
func Open(ctx context.Context, h usb.Handle) (*Device, error) {
	all := settings(h)
	if len(all) == 0 {
		return nil, fmt.Errorf("USB device %s on port %s: %w in configuration %d", h.Device().ID, h.Device().Port, ErrNoInterface, h.Device().Config)
	}
	d := &Device{handle: h, iface: all[0].Number}
	if err := h.Claim(ctx, d.iface); err != nil {
		return nil, err
	}
	if err := d.describe(ctx, all); err != nil {
		// The context may be what ended.
		h.Release(context.WithoutCancel(ctx), d.iface)
		return nil, err
	}
	d.selected = d.Alts[0]
	return d, nil
}

// describe asks the device for what Open has to know.
func (d *Device) describe(ctx context.Context, all []usb.Setting) error {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	known := make(map[uint8]string) // by string index
	for _, s := range all {
		name, ok := known[s.Name]
		if !ok {
			var err error
			if name, err = usb.String(ctx, d.handle, s.Name); err != nil && !errors.Is(err, usb.ErrStall) && !errors.Is(err, usb.ErrNoString) {
				return fmt.Errorf("DFU device %s on port %s: name of alternate setting %d: %w", d.handle.Device().ID, d.handle.Device().Port, s.Alt, err)
			}
			known[s.Name] = name
		}
		d.Alts = append(d.Alts, Alt{Number: s.Alt, Name: name, Protocol: s.Protocol})
	}
	var ok bool
	if d.Functional, ok = FindFunctional(d.handle.Descriptors().Raw, uint8(d.handle.Device().Config), d.iface); !ok {
		b := make([]byte, 9)
		n, err := d.handle.Control(ctx, usb.Setup{
			Type: describe, Request: usb.ReqGetDescriptor, Value: descFunctional << 8, Index: uint16(d.iface), Length: uint16(len(b)),
		}, b)
		if err != nil && !errors.Is(err, usb.ErrStall) {
			return fmt.Errorf("DFU functional descriptor: %w", err)
		}
		d.Functional, _ = ParseFunctional(b[:n])
	}
	d.block = blockSize(d.Functional.TransferSize, d.handle.Descriptors())
	return nil
}

// maxBlock is what one control transfer carries on every host: a page, with libusb and with older Linux.
const maxBlock = 4096

// blockSize is the size of a block: what the device offers, in whole packets, because there are reports of devices that
// take no others. Without an offer it is one packet.
func blockSize(offer int, d *usb.Descriptors) int {
	packet := int(d.MaxPacket0)
	if d.USB >= 0x0300 && packet < 16 {
		packet = 1 << packet // an exponent
	}
	if packet == 0 {
		packet = 8
	}
	if offer == 0 {
		return min(packet, maxBlock)
	}
	offer = min(offer, maxBlock)
	if offer < packet {
		return offer
	}
	return offer / packet * packet
}

// Find returns a setting by its name, or, if the name ends in *, the first one whose name begins so. The error is an
// *AltError.
func (d *Device) Find(name string) (Alt, error) {
	prefix, cut := strings.CutSuffix(name, "*")
	for _, a := range d.Alts {
		if a.Name == name || cut && strings.HasPrefix(a.Name, prefix) {
			return a, nil
		}
	}
	return Alt{}, d.missing(fmt.Sprintf("%q", name))
}

// Number returns a setting by its number. The error is an *AltError.
func (d *Device) Number(n uint8) (Alt, error) {
	for _, a := range d.Alts {
		if a.Number == n {
			return a, nil
		}
	}
	return Alt{}, d.missing(fmt.Sprint(n))
}

func (d *Device) missing(want string) error {
	return &AltError{Port: d.handle.Device().Port, ID: d.handle.Device().ID, Want: want, Have: d.Alts}
}

// AltError is an alternate setting that a device does not have.
type AltError struct {
	Port usb.Port
	ID   usb.ID
	Want string
	Have []Alt
}

func (e *AltError) Error() string {
	var have []string
	for _, a := range e.Have {
		have = append(have, a.String())
	}
	return fmt.Sprintf("DFU device %s on port %s: there is no alternate setting %s, it has %s", e.ID, e.Port, e.Want, strings.Join(have, ", "))
}

// Select selects an alternate setting. SET_INTERFACE is sent once, even if the setting is selected: there are devices
// that count it. One that has no other setting may refuse it (USB 2.0, section 9.4.10), of which Linux tells nothing.
func (d *Device) Select(ctx context.Context, a Alt) error {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	if err := d.handle.SetAlt(ctx, d.iface, a.Number); err != nil && !(errors.Is(err, usb.ErrStall) && d.single()) {
		return fmt.Errorf("DFU alternate setting %s: %w", a, err)
	}
	d.selected = a
	return nil
}

// single tells whether the interface has but one setting.
func (d *Device) single() bool {
	n := 0
	for _, s := range d.handle.Descriptors().Settings(d.handle.Device().Config) {
		if s.Number == d.iface {
			n++
		}
	}
	return n == 1
}

// Release gives the interface back. Its first setting is selected by that.
func (d *Device) Release(ctx context.Context) error { return d.handle.Release(ctx, d.iface) }

// Detach tells a device to leave: in run-time mode for DFU mode, in U-Boot and TF-A for what they have received. That
// it is gone before it has acknowledged is no error.
func (d *Device) Detach(ctx context.Context) error {
	wait := max(d.Functional.DetachTimeout, time.Second)
	err := d.request(ctx, reqDetach, uint16(min(wait.Milliseconds(), 0xffff)), nil)
	if errors.Is(err, usb.ErrGone) || errors.Is(err, usb.ErrProtocol) {
		return nil
	}
	return d.refused(ctx, "DETACH", err)
}

// Abort ends a transfer: a device in dfuDNLOAD-IDLE or dfuUPLOAD-IDLE is in dfuIDLE then.
func (d *Device) Abort(ctx context.Context) error {
	return d.refused(ctx, "ABORT", d.request(ctx, reqAbort, 0, nil))
}

// Reset resets the port. A device in run-time mode that was detached, or one that waits in dfuMANIFEST-WAIT-RESET, goes
// on. The error wraps [usb.ErrGone] if another device comes back.
func (d *Device) Reset(ctx context.Context) error {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	d.notBefore = time.Time{}
	return d.handle.Reset(ctx)
}

// Status asks the device for its status and state, when it is due by what the device said last.
func (d *Device) Status(ctx context.Context) (Answer, error) {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	return d.status(ctx)
}

func (d *Device) status(ctx context.Context) (Answer, error) {
	var t time.Duration
	if !d.notBefore.IsZero() {
		t = time.Until(d.notBefore)
	}
	if err := d.wait(ctx, t); err != nil {
		return Answer{}, err
	}
	n, err := d.handle.Control(ctx, d.getStatus(), d.reply[:])
	return d.answer(d.reply[:n], err)
}

func (d *Device) getStatus() usb.Setup {
	return usb.Setup{Type: fromInterface, Request: reqGetStatus, Index: uint16(d.iface), Length: answerSize}
}

// answer decodes what GETSTATUS came to.
func (d *Device) answer(b []byte, err error) (Answer, error) {
	if err != nil {
		return Answer{}, fmt.Errorf("DFU GETSTATUS: %w", err)
	}
	a, err := ParseAnswer(b)
	if err != nil {
		return Answer{}, fmt.Errorf("USB device %s on port %s: %w: %w", d.handle.Device().ID, d.handle.Device().Port, usb.ErrProtocol, err)
	}
	d.told, d.notBefore = a, time.Time{}
	if a.Poll > 0 {
		d.notBefore = time.Now().Add(a.Poll)
	}
	return a, nil
}

// PollError is a device that demands more time than it may take. It matches [context.DeadlineExceeded].
type PollError struct {
	Port   usb.Port
	ID     usb.ID
	Status Status
	State  State
	Poll   time.Duration // bwPollTimeout, what is left of it
}

func (e *PollError) Error() string {
	return fmt.Sprintf("DFU device %s on port %s, status %s, state %s, wants to be left alone for %v before it tells more (bwPollTimeout), longer than it may take",
		e.ID, e.Port, e.Status, e.State, e.Poll)
}

func (e *PollError) Is(target error) bool { return target == context.DeadlineExceeded }

// wait is the time that the device asks for. Unless the context has more it is a *PollError at once: a device that has
// answered until the deadline is not one that does not answer.
func (d *Device) wait(ctx context.Context, t time.Duration) error {
	t = max(t, 0)
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= t {
		return &PollError{
			Port: d.handle.Device().Port, ID: d.handle.Device().ID, Status: d.told.Status, State: d.told.State, Poll: t.Round(time.Millisecond),
		}
	}
	if t == 0 {
		return nil
	}
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("DFU device %s on port %s, in the time for which it wants to be left alone: %w", d.handle.Device().ID, d.handle.Device().Port, ctx.Err())
	case <-d.handle.Gone():
		return fmt.Errorf("DFU device %s on port %s: %w", d.handle.Device().ID, d.handle.Device().Port, usb.ErrGone)
	}
}

// Without a time to wait a device is asked again at once, but maxEager times in a row only, and then once in lazy: not
// every device that says 0 knows what it asks for.
const (
	maxEager = 100
	lazy     = time.Millisecond
)

// settle asks for the status until the device is in another state than those.
func (d *Device) settle(ctx context.Context, passing ...State) (Answer, error) {
	a, err := d.status(ctx)
	return d.settleFrom(ctx, a, err, passing...)
}

// settleFrom does so behind a first question.
func (d *Device) settleFrom(ctx context.Context, a Answer, err error, passing ...State) (Answer, error) {
	for eager := 0; err == nil && a.Status == OK && slices.Contains(passing, a.State); eager++ {
		if a.Poll > 0 {
			eager = 0
		} else if eager >= maxEager {
			d.notBefore = time.Now().Add(lazy)
		}
		a, err = d.status(ctx)
	}
	return a, err
}

// bounded is a context for one block or one request.
func (d *Device) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	t := d.BlockTimeout
	if t <= 0 {
		t = DefaultBlockTimeout
	}
	return usb.Within(ctx, t, nil)
}

// request sends a request of the class to the device.
func (d *Device) request(ctx context.Context, request uint8, value uint16, data []byte) error {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	n, err := d.handle.Control(ctx, d.setup(request, value, data), data)
	if err == nil {
		err = d.whole(n, data)
	}
	return err
}

func (d *Device) setup(request uint8, value uint16, data []byte) usb.Setup {
	return usb.Setup{Type: toInterface, Request: request, Value: value, Index: uint16(d.iface), Length: uint16(len(data))}
}

// whole is an error unless the device took all.
func (d *Device) whole(n int, data []byte) error {
	if n < len(data) {
		return fmt.Errorf("%d of %d bytes were taken: %w", n, len(data), usb.ErrProtocol)
	}
	return nil
}

// refused describes the failure of what was done. Behind a stall it asks the device for the reason.
func (d *Device) refused(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, usb.ErrStall) {
		if a, statusErr := d.Status(ctx); statusErr == nil {
			return d.failed(ctx, op, a, err)
		}
	}
	return fmt.Errorf("DFU device %s on port %s, alternate setting %s: %s: %w", d.handle.Device().ID, d.handle.Device().Port, d.selected, op, err)
}

// failed makes a StatusError of what the device said of itself. The device is left in its state.
func (d *Device) failed(ctx context.Context, op string, a Answer, err error) error {
	e := &StatusError{
		Port: d.handle.Device().Port, ID: d.handle.Device().ID, Alt: d.selected,
		Op: op, Status: a.Status, State: a.State, Err: err,
	}
	if a.Text != 0 {
		ctx, cancel := d.bounded(ctx)
		defer cancel()
		e.Text, _ = usb.String(ctx, d.handle, a.Text) // there may be none
	}
	return e
}

package usb

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"
)

// DefaultTimeout bounds a transfer whose context has no deadline.
const DefaultTimeout = 10 * time.Second

// Host is a USB host controller with what is attached to it: a transport. usb/usbfs is Linux, usb/libusb other
// systems, sim/inproc has virtual devices. Its methods may be called from several goroutines.
type Host interface {
	// Devices lists what is attached, root hubs left out, in port order, without opening any of it.
	Devices() ([]Device, error)

	// Watch sends a value whenever the list may have changed since the last one was received, and once at
	// first. The channel is closed when ctx ends. A host that is not told of changes looks regularly.
	Watch(ctx context.Context) (<-chan struct{}, error)

	// Open opens a device that Devices listed. If another took its place meanwhile the error wraps ErrGone.
	// Permission that is refused right after the plug is asked for again until ctx ends or udevd must have run;
	// then the error is an *AccessError. A device that the system has yet to configure is awaited for a moment; one that
	// it does not configure is opened as it is.
	Open(ctx context.Context, d Device) (Handle, error)
}

// Looker is a Host that can look at one port alone, which costs a fraction of Devices where many devices are.
type Looker interface {
	// Device is what is attached to a port. The error wraps fs.ErrNotExist if nothing is, or it is being reset.
	Device(p Port) (Device, error)
}

// Peerer is a Host that knows which of its ports are one connector.
type Peerer interface {
	// Peer is the name that a port has on its controller's other bus, see [Sysfs.Peer].
	Peer(p Port) (Port, error)
}

// Namer is a Host whose ports are not the machine's: one of the same name may be there as well, on another host.
type Namer interface {
	// Name is the host's own, which no other has.
	Name() string
}

// Pairer is a Handle that can perform two control transfers without a pause of its own between them.
type Pairer interface {
	// ControlPair performs both, as Control does, the second being in the host controller's queue before the first has
	// ended. It is performed even if the first is refused with a stall.
	ControlPair(ctx context.Context, first, second *ControlTransfer)
}

// Poster is a Handle that can begin transfers without waiting for them, nor waking anybody who does.
type Poster interface {
	// Post begins a transfer to an endpoint, as Out's, and does not wait; data is copied. An error may be that of a
	// transfer begun before, and then, too, this one was not begun. It wraps ErrNoRoom if as much is in flight as may
	// be, or another call has the endpoint. taken is how many of those begun before the device was seen to have taken
	// since the last call.
	Post(ep uint8, data []byte) (taken int, err error)
}

// Abandoner is a Handle that can be told that its device will not answer any more: it runs something else, and is still
// on the bus.
type Abandoner interface {
	// Abandon has Close give no interface back to the kernel's drivers, whose probing would wait for the device.
	Abandon()
}

// ControlTransfer is a control transfer, and what became of it.
type ControlTransfer struct {
	Setup Setup
	Data  []byte // as long as the setup packet says
	N     int    // length of the data stage
	Err   error
}

// Handle is an open device. Its methods may be called from several goroutines; transfers on one endpoint are
// performed in the order of their calls.
//
// Every transfer ends when its context does, with an error that wraps the context's; one without a deadline
// ends after DefaultTimeout. What was transferred until then is counted. All errors are *TransferErrors.
type Handle interface {
	// Device is what was opened.
	Device() Device

	// Descriptors are the device's own, read without a transfer. The result is not to be changed.
	Descriptors() *Descriptors

	// Configure selects a configuration by its value. No interface may be claimed. It is not sent if the
	// configuration is active already.
	Configure(ctx context.Context, value uint8) error

	// Claim takes an interface; a kernel driver that is bound to it is detached. Release, or Close,
	// gives it back.
	Claim(ctx context.Context, iface uint8) error
	Release(ctx context.Context, iface uint8) error

	// SetAlt selects an alternate setting of a claimed interface. The request is always sent.
	SetAlt(ctx context.Context, iface, alt uint8) error

	// Control performs a control transfer on endpoint 0; data is as long as the setup packet says. It returns the
	// length of the data stage.
	Control(ctx context.Context, setup Setup, data []byte) (int, error)

	// In performs one bulk or interrupt transfer from an endpoint (bit 7 set). It ends with a short packet, which
	// may be empty, or with a full buffer. A packet larger than what is left of the buffer is ErrOverflow.
	In(ctx context.Context, ep uint8, buf []byte) (int, error)

	// Out performs one bulk or interrupt transfer to an endpoint, whatever its length. Empty data is one
	// zero-length packet; none is added to data that fills its last packet.
	Out(ctx context.Context, ep uint8, data []byte) (int, error)

	// Stream performs one transfer after the other to an endpoint, as Out each, with several in flight, so that
	// the wire is never idle. It takes the next slice from transfers when there is room, and copies it. It returns
	// the bytes that the device took. idle bounds the time in which no transfer is completed (0: DefaultTimeout),
	// ctx the whole.
	Stream(ctx context.Context, ep uint8, idle time.Duration, transfers iter.Seq[[]byte]) (int64, error)

	// StreamControl performs one control transfer to the device after the other, as Control each, with several in
	// flight where the system lets them be: the host controller then begins each as soon as the one before has ended.
	// Setup and data are taken from transfers when there is room, and copied. It returns how many the device took, so
	// that transfer n, counted from 0, is the one that failed. Those behind it are cancelled, but what was in flight
	// may have reached the device: endpoint 0 stays in no halt (USB 2.0, 8.5.3.4). idle and ctx are as in Stream.
	StreamControl(ctx context.Context, idle time.Duration, transfers iter.Seq2[Setup, []byte]) (int, error)

	// ClearHalt ends an endpoint's stall, on both sides.
	ClearHalt(ctx context.Context, ep uint8) error

	// Reset resets the port. A device that comes back as another one, or not at all, is gone: ErrGone. Claims
	// survive, alternate settings do not.
	Reset(ctx context.Context) error

	// Gone is closed when the device has left its port.
	Gone() <-chan struct{}

	// Close ends all transfers, releases all interfaces and gives them back to the kernel's drivers.
	Close() error
}

var (
	// ErrStall is the device's refusal of a request (USB 2.0, 8.5.3.4).
	ErrStall = errors.New("endpoint stalled")
	// ErrGone says that the device was unplugged, or re-enumerated.
	ErrGone = errors.New("device gone")
	// ErrOverflow says that the device sent a packet larger than what is left of the host's buffer.
	ErrOverflow = errors.New("packet larger than the buffer")
	// ErrProtocol says that the device did not answer, or not as USB demands: often it is just leaving.
	ErrProtocol = errors.New("no valid answer on the wire")
	// ErrNoRoom says that a transfer would have to wait.
	ErrNoRoom = errors.New("transfers are in flight already")
	// ErrBusy says that another program holds the interface.
	ErrBusy = errors.New("interface in use by another program")
)

// TransferError is a request that failed.
type TransferError struct {
	Op       string // "control", "in", "out", "claim", ...
	Port     Port
	ID       ID
	Endpoint int   // with direction; -1 where there is none
	Err      error // wraps one of the errors above, a context's, or the system's
}

func (e *TransferError) Error() string {
	if e.Endpoint < 0 {
		return fmt.Sprintf("USB %s of %s on port %s: %v", e.Op, e.ID, e.Port, e.Err)
	}
	return fmt.Sprintf("USB %s on endpoint %#02x of %s on port %s: %v", e.Op, e.Endpoint, e.ID, e.Port, e.Err)
}

func (e *TransferError) Unwrap() error { return e.Err }

// Setup is the setup packet of a control transfer (USB 2.0, table 9-2), little-endian:
//
//	off size
//	0   1    bmRequestType: bit 7 to the host; bits 6-5 standard, class, vendor; bits 4-0 recipient
//	1   1    bRequest
//	2   2    wValue
//	4   2    wIndex
//	6   2    wLength
type Setup struct {
	Type    uint8
	Request uint8
	Value   uint16
	Index   uint16
	Length  uint16
}

// ParseSetup decodes a setup packet.
func ParseSetup(b [8]byte) Setup {
	return Setup{
		Type:    b[0],
		Request: b[1],
		Value:   binary.LittleEndian.Uint16(b[2:]),
		Index:   binary.LittleEndian.Uint16(b[4:]),
		Length:  binary.LittleEndian.Uint16(b[6:]),
	}
}

// Bytes encodes the setup packet.
func (s Setup) Bytes() (b [8]byte) {
	b[0], b[1] = s.Type, s.Request
	binary.LittleEndian.PutUint16(b[2:], s.Value)
	binary.LittleEndian.PutUint16(b[4:], s.Index)
	binary.LittleEndian.PutUint16(b[6:], s.Length)
	return b
}

// ToHost says whether the data stage goes to the host.
func (s Setup) ToHost() bool { return s.Type&0x80 != 0 }

// Standard says whether it is a standard request, to be answered by USB 2.0 chapter 9.
func (s Setup) Standard() bool { return s.Type&0x60 == 0 }

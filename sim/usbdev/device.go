package usbdev

import (
	"context"
	"encoding/binary"
	"errors"
)

// Device is a USB device as its host sees it. Its methods are called from several goroutines; calls
// for one endpoint are made one at a time, in the order of the host's requests.
//
// Every method blocks until the transfer is complete, as a device that has nothing to say NAKs, and
// ends with the context's error when the host cancels it.
type Device interface {
	// Descriptors describes the device. The result is not to be changed.
	Descriptors() *Descriptors

	// Control performs a control transfer on endpoint 0. For a request to the device data is what
	// the host sent; for one to the host it is the buffer to fill, setup.Length long.
	// It returns the number of bytes of the data stage.
	Control(ctx context.Context, setup Setup, data []byte) (int, error)

	// In performs a bulk or interrupt transfer to the host. ep has bit 7 set.
	In(ctx context.Context, ep uint8, buf []byte) (int, error)

	// Out performs a bulk or interrupt transfer to the device. An empty data is a zero-length packet.
	// It returns when the device has taken all, or the number of bytes taken before an error.
	Out(ctx context.Context, ep uint8, data []byte) (int, error)
}

// Port is one physical USB port of some host, into which a virtual board is plugged. A board that
// re-enumerates detaches one device and attaches the next.
type Port interface {
	// Attach plugs dev in and returns as soon as the host can begin to enumerate it.
	Attach(ctx context.Context, dev Device) error

	// Detach unplugs what is attached, if anything is. The host's pending transfers end with an
	// error. It is to be called before the Device is closed.
	Detach() error
}

var (
	// ErrStall is the device's refusal of a request (USB 2.0, 8.5.3.4).
	ErrStall = errors.New("endpoint stalled")
	// ErrGone says that the device was unplugged.
	ErrGone = errors.New("device gone")
	// ErrOverflow says that the device sent a packet larger than what is left of the host's buffer.
	ErrOverflow = errors.New("packet larger than the buffer")
)

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

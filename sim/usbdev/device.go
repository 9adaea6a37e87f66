package usbdev

import (
	"context"

	"snag/usb"
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

// The errors of a transfer are those of package usb.
var (
	ErrStall    = usb.ErrStall
	ErrGone     = usb.ErrGone
	ErrOverflow = usb.ErrOverflow
)

// Setup is the setup packet of a control transfer.
type Setup = usb.Setup

// ParseSetup decodes a setup packet.
func ParseSetup(b [8]byte) Setup { return usb.ParseSetup(b) }

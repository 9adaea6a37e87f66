//go:build linux

package usbfs

import "unsafe"

// This file imports nothing but unsafe, so that its test can work out its constants for every architecture.

// urb is struct usbdevfs_urb without its tail, which only isochronous transfers have
// (include/uapi/linux/usbdevice_fs.h). Offsets with pointers of 8 and 4 bytes:
//
//	64 32 size                          64 32 size
//	0  0  1    type                     28 20 4    actual length: written when reaped
//	1  1  1    endpoint with direction  32 24 4    start frame
//	4  4  4    status: when reaped      36 28 4    packets, or the stream
//	8  8  4    flags                    40 32 4    error count
//	16 12 8/4  buffer                   44 36 4    signal
//	24 16 4    buffer's length          48 40 8/4  user's own
type urb struct {
	Type        uint8
	Endpoint    uint8
	Status      int32 // 0 or -errno
	Flags       uint32
	Buffer      unsafe.Pointer
	Length      int32
	Actual      int32
	StartFrame  int32
	Packets     int32
	ErrorCount  int32
	Signal      uint32
	UserContext uintptr
}

// Types of an URB. Bulk does for interrupt endpoints too: the kernel looks at the descriptor.
const (
	urbControl = 2
	urbBulk    = 3
)

// urbContinuation says that an URB is not the first of a transfer: if one before it fails, the kernel cancels it before
// the endpoint's queue moves on, and refuses those to come until there is one without the flag (EREMOTEIO).
const urbContinuation = 0x04

// setInterface is struct usbdevfs_setinterface.
type setInterface struct{ Interface, Alt uint32 }

// maxDriverName is USBDEVFS_MAXDRIVERNAME and the final NUL.
const maxDriverName = 256

// getDriver is struct usbdevfs_getdriver.
type getDriver struct {
	Interface uint32
	Driver    [maxDriverName]byte
}

// disconnectClaim is struct usbdevfs_disconnect_claim.
type disconnectClaim struct {
	Interface uint32
	Flags     uint32
	Driver    [maxDriverName]byte
}

const exceptDriver = 2 // USBDEVFS_DISCONNECT_CLAIM_EXCEPT_DRIVER

// driverIoctl is struct usbdevfs_ioctl: a request for an interface's driver.
type driverIoctl struct {
	Interface int32
	Code      int32
	Data      unsafe.Pointer
}

// Capabilities (USBDEVFS_CAP_...).
const capScatterGather = 0x08 // an URB's buffer need not be contiguous in the kernel

// The requests, numbered as include/uapi/asm-generic/ioctl.h does: 2 bits direction, 14 bits size, 'U', number. All
// architectures that snag is built for use the generic numbers. The kernel's header has most directions reversed.
const (
	dirNone  = uintptr('U') << 8
	dirWrite = 1<<30 | dirNone
	dirRead  = 2<<30 | dirNone

	reqSetInterface     = dirRead | unsafe.Sizeof(setInterface{})<<16 | 4
	reqSetConfiguration = dirRead | 4<<16 | 5
	reqGetDriver        = dirWrite | unsafe.Sizeof(getDriver{})<<16 | 8
	reqSubmitURB        = dirRead | unsafe.Sizeof(urb{})<<16 | 10
	reqDiscardURB       = dirNone | 11
	reqReapURB          = dirWrite | unsafe.Sizeof(uintptr(0))<<16 | 12
	reqReapURBNoDelay   = dirWrite | unsafe.Sizeof(uintptr(0))<<16 | 13
	reqClaim            = dirRead | 4<<16 | 15
	reqRelease          = dirRead | 4<<16 | 16
	reqDriver           = dirWrite | dirRead | unsafe.Sizeof(driverIoctl{})<<16 | 18
	reqReset            = dirNone | 20
	reqClearHalt        = dirRead | 4<<16 | 21
	reqDisconnect       = dirNone | 22
	reqConnect          = dirNone | 23
	reqCapabilities     = dirRead | 4<<16 | 26
	reqDisconnectClaim  = dirRead | unsafe.Sizeof(disconnectClaim{})<<16 | 27
)

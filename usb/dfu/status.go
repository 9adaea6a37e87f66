package dfu

import (
	"fmt"
	"time"

	"snag/usb"
)

// State is that of a device (DFU 1.1, section 6.1.2).
type State uint8

const (
	AppIdle           State = 0
	AppDetach         State = 1
	Idle              State = 2
	DownloadSync      State = 3
	DownloadBusy      State = 4
	DownloadIdle      State = 5
	ManifestSync      State = 6
	Manifest          State = 7
	ManifestWaitReset State = 8
	UploadIdle        State = 9
	Error             State = 10
)

var states = [...]string{
	"appIDLE", "appDETACH", "dfuIDLE", "dfuDNLOAD-SYNC", "dfuDNBUSY", "dfuDNLOAD-IDLE", "dfuMANIFEST-SYNC",
	"dfuMANIFEST", "dfuMANIFEST-WAIT-RESET", "dfuUPLOAD-IDLE", "dfuERROR",
}

// String is the specification's name.
func (s State) String() string {
	if int(s) < len(states) {
		return states[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Status is what a device says of its last request (DFU 1.1, section 6.1.2).
type Status uint8

// OK is the status of a device that has nothing to complain about. ErrAddress is that of one that has no room for what it is sent,
// if it says so: U-Boot says errUNKNOWN whatever went wrong.
const (
	OK         Status = 0
	ErrAddress Status = 8
	ErrUnknown Status = 0x0e
)

var statuses = [...]struct{ name, words string }{
	{"OK", ""},
	{"errTARGET", "the file is not for this device"},
	{"errFILE", "the file fails a check of its vendor"},
	{"errWRITE", "memory cannot be written"},
	{"errERASE", "memory cannot be erased"},
	{"errCHECK_ERASED", "memory is not empty after it was erased"},
	{"errPROG", "programming memory failed"},
	{"errVERIFY", "memory does not hold what was programmed"},
	{"errADDRESS", "an address out of range"},
	{"errNOTDONE", "the end of the file came too early"},
	{"errFIRMWARE", "the firmware is corrupt, and run-time mode cannot be entered"},
	{"errVENDOR", "an error of the vendor's own"},
	{"errUSBR", "an unexpected USB reset"},
	{"errPOR", "an unexpected power-on reset"},
	{"errUNKNOWN", "something went wrong that the device cannot name"},
	{"errSTALLEDPKT", "an unexpected request"},
}

// String is the specification's name, with its meaning in words.
func (s Status) String() string {
	if int(s) >= len(statuses) {
		return fmt.Sprintf("status %#02x", uint8(s))
	}
	if t := statuses[s]; t.words != "" {
		return t.name + " (" + t.words + ")"
	}
	return statuses[s].name
}

// Answer is that to GETSTATUS.
type Answer struct {
	Status Status
	Poll   time.Duration // to wait before the next GETSTATUS
	State  State
	Text   uint8 // string index; 0: none
}

// ParseAnswer decodes it (DFU 1.1, section 6.1.2), little-endian:
//
//	off size
//	0   1    bStatus
//	1   3    bwPollTimeout, ms
//	4   1    bState
//	5   1    iString
func ParseAnswer(b []byte) (Answer, error) {
	if len(b) < answerSize {
		return Answer{}, fmt.Errorf("DFU status: expected %d bytes, got % x", answerSize, b)
	}
	a := Answer{
		Status: Status(b[0]),
		Poll:   time.Duration(uint32(b[1])|uint32(b[2])<<8|uint32(b[3])<<16) * time.Millisecond,
		State:  State(b[4]),
		Text:   b[5],
	}
	if a.State > Error {
		return Answer{}, fmt.Errorf("DFU status: there is no state %d, got % x", b[4], b[:answerSize])
	}
	return a, nil
}

const answerSize = 6

// StatusError is a request that the device refused, or that left it in a state in which it should not be.
type StatusError struct {
	Port   usb.Port
	ID     usb.ID
	Alt    Alt    // the selected one
	Op     string // what was done: "block 3, at byte 12288"
	Status Status
	State  State
	Text   string // the device's own words; empty: none
	Err    error  // the transfer's, which wraps usb.ErrStall; nil if the refusal was in the status alone
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("DFU device %s on port %s, alternate setting %s: %s: ", e.ID, e.Port, e.Alt, e.Op)
	if e.Err != nil {
		s += "refused with a stall, "
	}
	s += fmt.Sprintf("status %s, state %s", e.Status, e.State)
	if e.Text != "" {
		s += fmt.Sprintf(", the device says %q", e.Text)
	}
	switch e.State {
	case AppIdle, AppDetach:
		s += "; the device is in run-time mode, and must be detached first"
	case ManifestWaitReset:
		s += "; it waits for a reset behind another file: unplug it and plug it in again"
	}
	return s
}

func (e *StatusError) Unwrap() error { return e.Err }

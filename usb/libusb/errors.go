package libusb

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"

	"github.com/google/gousb"

	"snag/usb"
)

// libusbError is an error of package usb with libusb's that says it.
type libusbError struct{ kind, err error }

func (e *libusbError) Error() string { return fmt.Sprintf("%v (%v)", e.kind, e.err) }

func (e *libusbError) Unwrap() []error { return []error{e.kind, e.err} }

// cause names an error of gousb as package usb does.
func cause(err error) error {
	var kind error
	status, code := gousb.TransferCompleted, codeOf(err)
	errors.As(err, &status)
	switch {
	case code == gousb.ErrorPipe, status == gousb.TransferStall:
		kind = usb.ErrStall
	case code == gousb.ErrorNoDevice, status == gousb.TransferNoDevice:
		kind = usb.ErrGone
	case code == gousb.ErrorOverflow, status == gousb.TransferOverflow:
		kind = usb.ErrOverflow
	case code == gousb.ErrorIO, status == gousb.TransferError:
		kind = usb.ErrProtocol
	case code == gousb.ErrorBusy:
		kind = usb.ErrBusy
	case code == gousb.ErrorTimeout, status == gousb.TransferTimedOut:
		kind = context.DeadlineExceeded
	default:
		return err
	}
	return &libusbError{kind, err}
}

// codeOf is libusb's code in an error, or Success. Where gousb adds something to an error it keeps but the text:
// "failed to claim ...: libusb: device or resource busy [code -6]".
func codeOf(err error) gousb.Error {
	var code gousb.Error
	if err == nil || errors.As(err, &code) {
		return code
	}
	if m := codeInText.FindStringSubmatch(err.Error()); m != nil {
		n, _ := strconv.Atoi(m[1])
		return gousb.Error(n)
	}
	return gousb.Success
}

var codeInText = regexp.MustCompile(`libusb: .* \[code (-\d{1,3})\]$`)

// why is a context's error, with its cause.
func why(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

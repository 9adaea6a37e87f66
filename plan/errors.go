package plan

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"snag/flash/block"
	"snag/flash/dfu"
	target "snag/flash/fastboot"
	"snag/flash/image"
	"snag/recovery"
	"snag/usb"
	"snag/usb/fastboot"
)

// errOverall is the end of the overall timeout, where the engine does not have it.
var errOverall = errors.New("not done within the overall timeout")

// failed is the error of the step at work.
func (x *session) failed(ctx context.Context, err error) error {
	absent, gone := errors.AsType[*block.AbsentError](err)
	refused, no := errors.AsType[*block.RefusedError](err)
	access, denied := errors.AsType[*block.AccessError](err)
	usbAccess, unruled := errors.AsType[*usb.AccessError](err)
	_, nobody := errors.AsType[*recovery.NoBoardError](err)
	switch {
	case nobody && errors.Is(context.Cause(ctx), errOverall): // which is why nobody was awaited any longer
		return fmt.Errorf("%s: %w", x.plan.where(x.at), err)
	case unruled && errors.Is(err, syscall.EACCES): // gadgets bear any ID, so no rule of snag's is for them
		err = &recovery.PermissionError{Err: err, Hint: fmt.Sprintf("run `sudo snag setup --usb %s` once, replug the board, and be in group plugdev or logged in at the seat", usbAccess.ID)}
	case gone:
		err = &recovery.NoBoardError{For: absent.For, After: absent.After, Found: absent.Found, Hint: absent.Hint}
	case no:
		err = &recovery.UsageError{Err: err, Hint: refused.Hint}
	case denied:
		err = &recovery.PermissionError{Err: err, Hint: access.Hint()}
	}
	_, ours := errors.AsType[*image.RangeError](err)
	if errors.Is(err, image.ErrWriting) || errors.Is(err, block.ErrDiffers) || errors.Is(err, dfu.ErrVerify) {
		ours = false // the medium's
	}
	return recovery.StepError(ctx, x.stageName(), x.plan.where(x.at), err, ours, hint(err))
}

// hint is what may have made a step fail.
func hint(err error) string {
	refused, ok := errors.AsType[*fastboot.FailError](err)
	small, tooSmall := errors.AsType[*fastboot.SizeError](err)
	switch {
	case tooSmall && small.Err != nil:
		return "the device takes less than its max-download-size: say how much with --buffer-size BYTES, in a plan buffer-size: BYTES"
	case ok && refused.Text == "":
		return "U-Boot gives no reason over fastboot: its serial console does"
	case ok:
		return ""
	case errors.Is(err, target.ErrBuffer):
		return "--buffer ADDRESS, in a plan buffer: ADDRESS; or --fastboot, for a partition that U-Boot's fastboot knows"
	case errors.Is(err, context.DeadlineExceeded):
		return "what its serial console says may tell why; a step that needs longer has a timeout"
	case errors.Is(err, usb.ErrGone), errors.Is(err, usb.ErrProtocol):
		return "the board left in the middle: check cable and power, and what its serial console says"
	}
	return ""
}

package recovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"go.bug.st/serial"
)

// defaultBaud is the line rate of the UARTs of all families' ROMs.
const defaultBaud = 115200

// openUART opens the serial line that the board is on.
func (b *board) openUART(context.Context) error {
	tty, err := resolveTTY(b.opt.UART)
	if err != nil {
		return ttyError(b.opt.UART, err)
	}
	if b.lock, err = lockPort(tty); err != nil {
		return err
	}
	claim, err := claimTTY(tty)
	if err != nil {
		return ttyError(tty, err)
	}
	line, err := serial.Open(tty, &serial.Mode{BaudRate: cmp.Or(b.opt.Baud, defaultBaud), DataBits: 8})
	if err != nil {
		claim.release()
		return ttyError(tty, err)
	}
	b.serial = claimedLine{line, claim}
	return nil
}

// resolveTTY follows /dev/serial/by-id and the like to the tty itself.
func resolveTTY(name string) (string, error) {
	p, err := filepath.EvalSymlinks(name)
	if err != nil {
		return "", err
	}
	return filepath.Abs(p)
}

// claimedLine is a serial line that is snag's alone until it is closed.
type claimedLine struct {
	serial.Port
	claim ttyClaim
}

func (l claimedLine) Close() error {
	defer l.claim.release()
	return l.Port.Close()
}

// ttyError says what is wrong with a tty, so that the exit code and the hint are right.
func ttyError(tty string, err error) error {
	var perr *serial.PortError
	denied := errors.Is(err, fs.ErrPermission) || errors.As(err, &perr) && perr.Code() == serial.PermissionDenied
	switch {
	case denied:
		return &TTYError{tty, err, "be in the group that owns it (sudo usermod -aG dialout $USER, then log in again)"}
	case errors.Is(err, syscall.EBUSY), errors.As(err, &perr) && perr.Code() == serial.PortBusy:
		return &TTYBusyError{tty, err}
	case errors.As(err, &perr) && perr.Code() == serial.InvalidSerialPort, errors.Is(err, syscall.EISDIR):
		return &UsageError{Err: fmt.Errorf("%s is no serial line: %w", tty, err), Hint: "ls -l /dev/serial/by-id lists the adapters that are plugged in"}
	case errors.Is(err, os.ErrNotExist), errors.As(err, &perr) && perr.Code() == serial.PortNotFound:
		return &UsageError{Err: fmt.Errorf("serial line %s: %w", tty, err), Hint: "ls -l /dev/serial/by-id lists the adapters that are plugged in"}
	}
	return fmt.Errorf("serial line %s: %w", tty, err)
}

// TTYBusyError says that another program works on a tty.
type TTYBusyError struct {
	TTY string
	Err error
}

func (e *TTYBusyError) Error() string {
	return fmt.Sprintf("serial line %s is in use by another program: %v", e.TTY, e.Err)
}
func (e *TTYBusyError) Unwrap() error { return e.Err }

// TTYError says that the caller may not open a tty.
type TTYError struct {
	TTY  string
	Err  error
	Hint string
}

func (e *TTYError) Error() string { return fmt.Sprintf("serial line %s: %v", e.TTY, e.Err) }
func (e *TTYError) Unwrap() error { return e.Err }

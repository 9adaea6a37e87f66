package recovery

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"snag/netsetup"
	"snag/socs"
	"snag/usb"
)

// The exit codes of every snag command. They are stable (README, docs/json.md).
const (
	ExitDone        = 0
	ExitFailed      = 1   // failed for a reason that no other code names: a locked port, --on-wait, a killed worker
	ExitUsage       = 2   // the command line or the firmware configuration is wrong
	ExitNoBoard     = 3   // no board in time
	ExitPermission  = 4   // no permission, or no setup
	ExitFirmware    = 5   // firmware refused; no board was touched
	ExitBoard       = 6   // the board, or the protocol with it, went wrong
	ExitInterrupted = 130 // by SIGINT, SIGTERM or SIGHUP
)

// UsageError is a request that cannot be carried out as it was put.
type UsageError struct {
	Err  error
	Hint string
}

func (e *UsageError) Error() string { return e.Err.Error() }
func (e *UsageError) Unwrap() error { return e.Err }

// PermissionError says that the caller may not do what is asked for, and how that is mended.
type PermissionError struct {
	Err  error
	Hint string
}

func (e *PermissionError) Error() string { return e.Err.Error() }
func (e *PermissionError) Unwrap() error { return e.Err }

// NoBoardError says that no board came in time.
type NoBoardError struct {
	For   string // what was awaited
	After time.Duration
	Found string // what was seen instead, if that may explain it
	Hint  string
}

// seconds is a wait in whole seconds, if it is as long as that.
func seconds(d time.Duration) string {
	if d >= time.Second {
		d = d.Round(time.Second)
	}
	return d.String()
}

func (e *NoBoardError) Error() string {
	s := "no board within " + seconds(e.After) + ": waited for " + e.For
	if e.After == 0 {
		s = "there is no " + e.For
	}
	if e.Found != "" {
		s += "; " + e.Found
	}
	return s
}

// Error is the end of a recovery that failed: which board, where it stood, why.
type Error struct {
	Port, SoC, Stage string
	Err              error
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.SoC)
	if e.Port != "" {
		b.WriteString(" on " + e.Port)
	}
	if e.Stage != "" {
		b.WriteString(", stage " + e.Stage)
	}
	if b.Len() == 0 {
		return e.Err.Error()
	}
	return strings.TrimLeft(b.String(), ", ") + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// ExitCode is the code that a program which ends with err should exit with.
func ExitCode(err error) int {
	var (
		usage      *UsageError
		unknown    *socs.UnknownModelError
		noBoard    *NoBoardError
		access     *usb.AccessError
		tty        *TTYError
		setup      *netsetup.SetupError
		permission *PermissionError
		firmware   *socs.FirmwareError
		board      *socs.BoardError
	)
	switch {
	case err == nil:
		return ExitDone
	case errors.Is(err, ErrInterrupted), errors.Is(err, context.Canceled):
		return ExitInterrupted
	case errors.As(err, &usage), errors.As(err, &unknown):
		return ExitUsage
	case errors.As(err, &noBoard):
		return ExitNoBoard
	case errors.As(err, &access), errors.As(err, &tty), errors.As(err, &setup), errors.As(err, &permission):
		return ExitPermission
	case errors.As(err, &firmware):
		return ExitFirmware
	case errors.As(err, &board):
		return ExitBoard
	}
	return ExitFailed
}

// Hint is what the user can do about err; empty if nothing is known.
func Hint(err error) string {
	var (
		usage      *UsageError
		noBoard    *NoBoardError
		access     *usb.AccessError
		tty        *TTYError
		setup      *netsetup.SetupError
		permission *PermissionError
		firmware   *socs.FirmwareError
		board      *socs.BoardError
		locked     *LockedError
		busy       *TTYBusyError
	)
	switch {
	case errors.As(err, &usage):
		return usage.Hint
	case errors.As(err, &noBoard):
		return noBoard.Hint
	case errors.As(err, &permission):
		return permission.Hint
	case errors.As(err, &access):
		return access.Hint()
	case errors.As(err, &tty):
		return tty.Hint
	case errors.As(err, &setup):
		return setup.Hint
	case errors.As(err, &firmware):
		return firmware.Hint
	case errors.As(err, &board):
		return board.Hint
	case errors.Is(err, netsetup.ErrWorker):
		return "snag's own network process was killed, perhaps for want of memory: run snag again"
	case errors.As(err, &busy):
		return fmt.Sprintf("end that program: fuser -v %s shows which it is", busy.TTY)
	case errors.As(err, &locked):
		return fmt.Sprintf("wait for it to end, or stop it: kill %d", locked.PID)
	}
	return ""
}

// ErrInterrupted is the cause of a context that a signal ended.
var ErrInterrupted = errors.New("interrupted")

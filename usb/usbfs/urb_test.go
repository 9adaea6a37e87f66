//go:build linux

package usbfs

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"snag/usb"
)

func TestCause(t *testing.T) {
	for errno, want := range map[unix.Errno]error{
		unix.EPIPE: usb.ErrStall, unix.ENODEV: usb.ErrGone, unix.ESHUTDOWN: usb.ErrGone, unix.EOVERFLOW: usb.ErrOverflow,
		unix.EPROTO: usb.ErrProtocol, unix.EILSEQ: usb.ErrProtocol, unix.ETIME: usb.ErrProtocol, unix.ETIMEDOUT: usb.ErrProtocol,
		unix.EBUSY: usb.ErrBusy, unix.EINVAL: unix.EINVAL,
	} {
		if err := cause(errno); !errors.Is(err, want) || !errors.Is(err, errno) {
			t.Errorf("%s: %v, expected it to be %v too", unix.ErrnoName(errno), err, want)
		}
	}
	if err := cause(nil); err != nil {
		t.Error(err)
	}
}

func TestPieces(t *testing.T) {
	for _, tc := range []struct{ n, packet, want int }{{16384, 512, 16384}, {16384, 1000, 16000}, {10, 64, 64}, {64, 64, 64}} {
		if got := pieces(tc.n, tc.packet); got != tc.want {
			t.Errorf("%d bytes in packets of %d: %d, expected %d", tc.n, tc.packet, got, tc.want)
		}
	}
}

func TestWhy(t *testing.T) {
	reason := errors.New("the user's wish")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	if err := why(ctx); !errors.Is(err, context.Canceled) || !errors.Is(err, reason) {
		t.Errorf("%v, expected both the end and its reason", err)
	}
}

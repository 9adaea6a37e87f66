package dfu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"snag/usb"
)

// Download sends a file to the selected setting, and sees the device through what it does with it. progress, which may
// be nil, is told how many bytes the device has taken so far.
//
// A device that is in the middle of a transfer, or in dfuERROR, is brought back to dfuIDLE first. After the last block
// the error wraps [ErrLeft] if the device does not answer any more. A device that waits for a reset is given one. An
// error that the device itself reports is a *[StatusError]; it stays in dfuERROR, where others may look at it.
func (d *Device) Download(ctx context.Context, data []byte, progress func(n int)) error {
	if err := d.idle(ctx); err != nil {
		return err
	}
	var block uint16 // it wraps
	if err := d.blocks(ctx, bytes.NewReader(data), func(at int64, b []byte) error {
		err := d.send(ctx, block, b, func() string { return fmt.Sprintf("block %d, at byte %d of %d", block, at, len(data)) })
		block++
		return err
	}, func(n int64) {
		if progress != nil {
			progress(int(n))
		}
	}); err != nil {
		return err
	}
	return d.finish(ctx, block)
}

// DownloadFrom is Download for a file of any length, which is read on the way. Where reading it fails, or ctx ends, the
// device is told to forget what it has (what it has written to a medium stays there), and the error is that of reading.
//
// U-Boot keeps the number of the next block over an ABORT and refuses the next file's first one for it, with
// errUNKNOWN; by that it is in order again (drivers/dfu/dfu.c, dfu_write). So a first block is sent a second time.
func (d *Device) DownloadFrom(ctx context.Context, r io.Reader, progress func(n int64)) error {
	if err := d.idle(ctx); err != nil {
		return err
	}
	var block uint16
	err := d.blocks(ctx, r, func(at int64, b []byte) error {
		first := block
		op := func() string { return fmt.Sprintf("block %d, at byte %d", first, at) }
		err := d.send(ctx, block, b, op)
		if status, ok := errors.AsType[*StatusError](err); ok && at == 0 && status.State == Error && status.Status == ErrUnknown {
			if err = d.idle(ctx); err == nil {
				err = d.send(ctx, block, b, op)
			}
		}
		block++
		return err
	}, progress)
	if err == nil {
		return d.finish(ctx, block)
	}
	if _, failed := errors.AsType[*StatusError](err); !failed && !errors.Is(err, usb.ErrGone) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
		defer cancel()
		d.Abort(ctx) // it may be what does not answer
	}
	return err
}

// abortTimeout is for an ABORT because of an error.
const abortTimeout = 2 * time.Second

// blocks cuts a file.
func (d *Device) blocks(ctx context.Context, r io.Reader, send func(at int64, b []byte) error, progress func(n int64)) error {
	buf := make([]byte, d.block)
	for at := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("DFU download, after %d bytes: %w", at, context.Cause(ctx))
		}
		n, err := fill(buf, r)
		switch {
		case err != nil:
			return err
		case n == 0 && at == 0:
			return errors.New("DFU download of an empty file")
		case n == 0:
			return nil
		}
		if err := send(at, buf[:n]); err != nil {
			return err
		}
		if at += int64(n); progress != nil {
			progress(at)
		}
	}
}

// fill reads until b is full or the file ends. To [io.ReadFull] a reader's own io.ErrUnexpectedEOF looks like an end.
func fill(b []byte, r io.Reader) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	if err == io.EOF {
		err = nil
	}
	return n, err
}

// idle brings the device to dfuIDLE (DFU 1.1, section A.1). CLRSTATUS is sent in dfuERROR only: TF-A enters that
// state if it comes in another one.
func (d *Device) idle(ctx context.Context) error {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	for try := 0; ; try++ {
		a, err := d.status(ctx)
		if err == nil && !d.NoRecovery && a.Status == OK {
			switch a.State {
			case DownloadSync, DownloadBusy, ManifestSync, Manifest: // of an earlier transfer
				a, err = d.settle(ctx, DownloadSync, DownloadBusy, ManifestSync, Manifest)
			}
		}
		switch {
		case err != nil:
			return err
		case d.NoRecovery && a.State != AppIdle && a.State != AppDetach:
			return nil
		case a.State == Idle && a.Status == OK:
			return nil
		case try == 2:
			return d.failed(ctx, "before the transfer", a, nil)
		case a.State == Error:
			if err := d.request(ctx, reqClearStatus, 0, nil); err != nil {
				return d.refused(ctx, "CLRSTATUS", err)
			}
			d.notBefore = time.Time{}
		case a.State == DownloadIdle, a.State == UploadIdle:
			if err := d.Abort(ctx); err != nil {
				return err
			}
		default:
			return d.failed(ctx, "before the transfer", a, nil)
		}
	}
}

// send sends one block and waits until the device has done with it. op says what it is called.
func (d *Device) send(ctx context.Context, block uint16, b []byte, op func() string) error {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	a, asked, err := d.deliver(ctx, block, b)
	switch {
	case errors.Is(err, usb.ErrStall) && asked == nil:
		return d.failed(ctx, op(), a, err)
	case err != nil:
		return d.refused(ctx, op(), err)
	}
	a, err = d.settleFrom(ctx, a, asked, DownloadSync, DownloadBusy)
	switch {
	case err != nil:
		return fmt.Errorf("DFU %s to alternate setting %s: %w", op(), d.selected, err)
	case a.Status != OK || a.State != DownloadIdle:
		return d.failed(ctx, op(), a, nil)
	}
	return nil
}

// deliver sends a block and asks for the status, which fails if the block did and it was not asked. A device that has a
// block waits for that, or answers nothing until it can: the question need not wait for the host. More is not to be
// had, for a device that is busy goes to dfuERROR if it is asked again before its time, and one that was not asked
// takes no further block (DFU 1.1, section A.2).
func (d *Device) deliver(ctx context.Context, block uint16, b []byte) (a Answer, asked, err error) {
	p, ok := d.handle.(usb.Pairer)
	if !ok || time.Now().Before(d.notBefore) {
		if err := d.request(ctx, reqDownload, block, b); err != nil {
			return a, err, err
		}
		a, asked = d.status(ctx)
		return a, asked, nil
	}
	download, status := &d.pair[0], &d.pair[1]
	*download = usb.ControlTransfer{Setup: d.setup(reqDownload, block, b), Data: b}
	*status = usb.ControlTransfer{Setup: d.getStatus(), Data: d.reply[:]}
	p.ControlPair(ctx, download, status)
	if err = download.Err; err == nil {
		err = d.whole(download.N, b)
	}
	a, asked = d.answer(status.Data[:status.N], status.Err)
	return a, asked, err
}

// finish sends the block without data that ends a download, and waits for the manifestation.
func (d *Device) finish(ctx context.Context, block uint16) error {
	t := d.ManifestTimeout
	if t <= 0 {
		t = DefaultManifestTimeout
	}
	all := ctx
	ctx, cancel := context.WithTimeout(ctx, t)
	defer cancel()
	const op = "manifestation"
	if err := d.request(ctx, reqDownload, block, nil); err != nil {
		// A stall is the only sign of a file that TF-A does not like.
		if errors.Is(err, usb.ErrStall) {
			return d.refused(ctx, "the end of the file", err)
		}
		return d.silent(all, "the end of the file", err)
	}
	passing := []State{ManifestSync, Manifest, DownloadBusy, DownloadSync}
	if d.NoRecovery {
		passing = passing[:3]
	}
	a, err := d.settle(ctx, passing...)
	switch {
	case err != nil:
		return d.silent(all, op, err)
	case a.Status != OK:
	case a.State == Idle, a.State == AppIdle, d.NoRecovery && a.State == DownloadSync: // appIDLE: it is in run-time mode again
		return nil
	case a.State == ManifestWaitReset:
		if d.Functional.WillDetach {
			return nil
		}
		if err := d.Reset(ctx); err != nil {
			return d.silent(all, "reset after the manifestation", err)
		}
		return nil
	}
	return d.failed(ctx, op, a, nil)
}

// silent is the error of a device that does not answer after it has the whole file. The end of the caller's context
// says nothing of the device, nor is one silent that demands time.
func (d *Device) silent(ctx context.Context, op string, err error) error {
	at := fmt.Sprintf("DFU device %s on port %s, alternate setting %s: %s", d.handle.Device().ID, d.handle.Device().Port, d.selected, op)
	var poll *PollError
	if ctx.Err() != nil || errors.As(err, &poll) {
		return fmt.Errorf("%s: %w", at, err)
	}
	return fmt.Errorf("%s: %w: %w", at, ErrLeft, err)
}

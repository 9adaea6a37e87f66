package dfu

import (
	"context"
	"fmt"
	"io"

	"snag/usb"
)

// Upload reads the file behind the selected setting, of which it takes limit bytes at most. A device that has more is
// told to stop. The bytes that came before an error are returned with it.
func (d *Device) Upload(ctx context.Context, limit int) ([]byte, error) {
	if err := d.idle(ctx); err != nil {
		return nil, err
	}
	return d.upload(ctx, 0, limit)
}

// upload reads blocks from a number on.
func (d *Device) upload(ctx context.Context, block uint16, limit int) ([]byte, error) {
	var data []byte
	for len(data) < limit {
		b := make([]byte, min(d.block, limit-len(data)))
		n, err := d.receive(ctx, block, b)
		data = append(data, b[:n]...)
		if err != nil {
			return data, d.refused(ctx, fmt.Sprintf("upload, block %d, at byte %d", block, len(data)), err)
		}
		if n < len(b) {
			return data, nil // a short block is the last, and the device is idle (DFU 1.1, section 6.2)
		}
		block++
	}
	return data, d.Abort(ctx)
}

// UploadTo is Upload for a file of any length, a block of which is written to w at a time. It returns how many bytes w
// was given. An error of w's ends the upload.
//
// Whole blocks are asked for, so that a file that is as long as limit comes to its end: U-Boot refuses another upload
// from a setting whose last one was aborted, until a download has been tried (drivers/dfu/dfu.c, dfu_read).
func (d *Device) UploadTo(ctx context.Context, w io.Writer, limit int64) (int64, error) {
	if err := d.idle(ctx); err != nil {
		return 0, err
	}
	b := make([]byte, d.block)
	at := int64(0)
	for block := uint16(0); ; block++ {
		n, err := d.receive(ctx, block, b)
		want := b[:min(int64(n), limit-at)]
		_, writeErr := w.Write(want)
		at += int64(len(want))
		switch {
		case err != nil:
			return at, d.refused(ctx, fmt.Sprintf("upload, block %d, at byte %d", block, at), err)
		case n < len(b):
			return at, writeErr
		case writeErr != nil:
			d.Abort(ctx)
			return at, writeErr
		case len(want) < n:
			return at, d.Abort(ctx)
		}
	}
}

func (d *Device) receive(ctx context.Context, block uint16, b []byte) (int, error) {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	return d.handle.Control(ctx, usb.Setup{Type: fromInterface, Request: reqUpload, Value: block, Index: uint16(d.iface), Length: uint16(len(b))}, b)
}

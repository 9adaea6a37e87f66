package dfu

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"snag/usb"
)

// Upload reads the file behind the selected setting, of which it takes limit bytes at most. A device that has more is
// told to stop. The bytes that came before an error are returned with it.
func (d *Device) Upload(ctx context.Context, limit int) ([]byte, error) {
	var b bytes.Buffer
	_, err := d.UploadTo(ctx, &b, int64(limit))
	return b.Bytes(), err
}

// UploadTo is Upload for a file of any length, a block of which is written to w at a time. It returns the number of bytes that came.
// An error of w's ends the upload.
func (d *Device) UploadTo(ctx context.Context, w io.Writer, limit int64) (int64, error) {
	if err := d.idle(ctx); err != nil {
		return 0, err
	}
	return d.upload(ctx, 0, w, limit)
}

// upload reads blocks from a number on.
func (d *Device) upload(ctx context.Context, block uint16, w io.Writer, limit int64) (int64, error) {
	buf := make([]byte, d.block)
	at := int64(0)
	for at < limit {
		b := buf[:min(int64(d.block), limit-at)]
		n, err := d.receive(ctx, block, b)
		at += int64(n)
		_, writeErr := w.Write(b[:n])
		if err != nil {
			return at, d.refused(ctx, fmt.Sprintf("upload, block %d, at byte %d", block, at), err)
		}
		if writeErr != nil {
			if n == len(b) {
				d.Abort(ctx)
			}
			return at, writeErr
		}
		if n < len(b) {
			return at, nil // a short block is the last, and the device is idle (DFU 1.1, section 6.2)
		}
		block++
	}
	return at, d.Abort(ctx)
}

func (d *Device) receive(ctx context.Context, block uint16, b []byte) (int, error) {
	ctx, cancel := d.bounded(ctx)
	defer cancel()
	return d.handle.Control(ctx, usb.Setup{Type: fromInterface, Request: reqUpload, Value: block, Index: uint16(d.iface), Length: uint16(len(b))}, b)
}

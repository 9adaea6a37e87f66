package dfu

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
)

// Commands of DfuSe, which are the data of block 0 (UM0424, section 3.2). An address follows, little-endian.
const (
	seSetAddress = 0x21
	seErase      = 0x41
)

// seFirst is the block whose data goes to the address itself (UM0424, section 3.2.3): block n goes to
// (n-2)*wTransferSize bytes behind it.
const seFirst = 2

// DfuSe says whether the device has ST's extension. The ROMs of STM32MP do not have it: their settings are only named
// in its manner.
func (d *Device) DfuSe() bool { return d.Functional.Version == VersionDfuSe }

// SetAddress sets the address that blocks are written to and read from.
func (d *Device) SetAddress(ctx context.Context, addr uint32) error {
	if err := d.idle(ctx); err != nil {
		return err
	}
	return d.setAddress(ctx, addr)
}

func (d *Device) setAddress(ctx context.Context, addr uint32) error {
	return d.command(ctx, seSetAddress, addr, "setting")
}

// Erase erases the page that an address is in, which may take as long as BlockTimeout.
func (d *Device) Erase(ctx context.Context, addr uint32) error {
	if err := d.idle(ctx); err != nil {
		return err
	}
	return d.command(ctx, seErase, addr, "erasing at")
}

// EraseAll erases all of the memory.
func (d *Device) EraseAll(ctx context.Context) error {
	if err := d.idle(ctx); err != nil {
		return err
	}
	return d.send(ctx, 0, []byte{seErase}, func() string { return "erasing all memory" })
}

func (d *Device) command(ctx context.Context, code byte, addr uint32, what string) error {
	return d.send(ctx, 0, binary.LittleEndian.AppendUint32([]byte{code}, addr), func() string { return fmt.Sprintf("%s address %#08x", what, addr) })
}

// DownloadAt writes data to an address. What is there must have been erased where it is flash. The device does not
// leave DFU mode; see [Device.Leave].
func (d *Device) DownloadAt(ctx context.Context, addr uint32, data []byte, progress func(n int)) error {
	if err := d.idle(ctx); err != nil {
		return err
	}
	block := uint16(0)
	return d.blocks(ctx, bytes.NewReader(data), func(at int64, b []byte) error {
		// The device reckons with its own block size, and the numbers end.
		if block < seFirst || d.block != d.Functional.TransferSize {
			block = seFirst
			if err := d.setAddress(ctx, addr+uint32(at)); err != nil {
				return err
			}
		}
		err := d.send(ctx, block, b, func() string { return fmt.Sprintf("block for address %#08x", addr+uint32(at)) })
		block++
		return err
	}, func(n int64) {
		if progress != nil {
			progress(int(n))
		}
	})
}

// UploadAt reads n bytes from an address. The error wraps [io.ErrUnexpectedEOF] if the memory ends before.
func (d *Device) UploadAt(ctx context.Context, addr uint32, n int) ([]byte, error) {
	piece := d.block
	if d.block == d.Functional.TransferSize { // the device reckons with it
		piece *= 0x10000 - seFirst
	}
	var data []byte
	for len(data) < n {
		if err := d.SetAddress(ctx, addr+uint32(len(data))); err != nil {
			return data, err
		}
		if err := d.Abort(ctx); err != nil { // leaves dfuDNLOAD-IDLE
			return data, err
		}
		want := min(piece, n-len(data))
		b, err := d.upload(ctx, seFirst, want)
		data = append(data, b...)
		if err == nil && len(b) < want {
			err = fmt.Errorf("DFU upload from address %#08x: %d of %d bytes: %w", addr, len(data), n, io.ErrUnexpectedEOF)
		}
		if err != nil {
			return data, err
		}
	}
	return data, nil
}

// Leave starts what is at an address. The error wraps [ErrLeft] if the device is gone with it, as it should be.
func (d *Device) Leave(ctx context.Context, addr uint32) error {
	if err := d.SetAddress(ctx, addr); err != nil {
		return err
	}
	return d.finish(ctx, seFirst)
}

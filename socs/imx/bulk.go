package imx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"snag/firmware"
	"snag/socs"
	"snag/usb"
)

// The ROMs of i.MX51 and 53 speak SDP over bulk endpoints: commands and answers bare, without report IDs. They know
// READ_REGISTER, WRITE_REGISTER, WRITE_FILE and ERROR_STATUS. The DCD is executed here, register by register; an image
// of type "application" is started by the next command. imx_usb, imx_sdp.c.

// oldImage plans the image of i.MX51.
func (c *checker) oldImage(p *plan, slot string, img socs.Image) ([]byte, error) {
	h, err := firmware.FindFlashHeader(img.Data, 0)
	switch {
	case errors.Is(err, firmware.ErrTruncated):
		return nil, socs.Refuse(again, "%w", err)
	case err != nil:
		if v, _ := firmware.FindIVT(img.Data, 0); v != nil {
			return nil, socs.Refuse(c.other(), "it has an IVT, expected the flash header of %s: it is for a later i.MX", c.chip.name)
		}
		return nil, c.unlike(img.Data, "u-boot.imx", err)
	}
	one := image{path: img.Path, header: h}
	if one.data, one.addr, err = h.Image(img.Data); err != nil {
		return nil, socs.Refuse(again, "%w", err)
	}
	if err := c.place(one.addr, len(one.data)); err != nil {
		return nil, err
	}
	if h.Offset > 0 {
		c.Note(slot, "the image begins at %#x of the file (as in one for a card): what stands before it is not sent", h.Offset)
	}
	one.dcd = h.Instructions
	p.images = []image{one}
	if within(c.dram, uint64(one.addr)) && len(one.dcd) == 0 {
		return nil, socs.Refuse("give u-boot.imx of a configuration with a DCD (CONFIG_IMX_CONFIG)", "it loads to DRAM (%#x) and has no DCD to set that up", one.addr)
	}
	return one.data, nil
}

// bulk talks SDP over bulk endpoints.
type bulk struct {
	handle  usb.Handle
	in, out usb.Endpoint
	sdp     *sdp // its errors
}

// openBulk takes the ROM's interface.
func (r *recovery) openBulk(ctx context.Context, stage *socs.Stage) (*bulk, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	h := stage.USB
	b := &bulk{handle: h, sdp: &sdp{stage: stageROM, tell: func(w word) { r.tellState(stageROM, w) }}}
	for _, i := range h.Device().Interfaces {
		s := h.Descriptors().Setting(uint8(h.Device().Config), uint8(i.Number), 0)
		if s == nil {
			continue
		}
		var ok bool
		if b.in, b.out, ok = s.Bulk(); ok {
			return b, h.Claim(ctx, s.Number)
		}
	}
	return nil, &socs.BoardError{Stage: stageROM, Err: fmt.Errorf("expected the boot ROM of %s: USB device %s on port %s has no interface with bulk endpoints both ways", r.chip.name, h.Device().ID, stage.Port),
		Hint: "unplug the board and plug it in again; if it stays so this device is no boot ROM"}
}

// word receives one word of an answer.
func (b *bulk) word(ctx context.Context, what any, patience time.Duration) (word, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	buf := make([]byte, max(b.in.MaxPacket, 64))
	n, err := b.handle.In(ctx, b.in.Address, buf)
	switch {
	case err != nil:
		return word{}, fmt.Errorf("%s: no answer: %w", what, err)
	case n < len(word{}): // more is what fills the packet up
		return word{}, b.sdp.wrong(fmt.Sprint(what), "an answer of 4 bytes", fmt.Sprintf("%d: % x", n, buf[:min(n, 16)]), hintAnswer)
	}
	return word(buf[:4]), nil
}

// send sends a command and takes the HAB word that comes before all else.
func (b *bulk) send(ctx context.Context, c command) error {
	short, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if _, err := b.handle.Out(short, b.out.Address, c.bytes()); err != nil {
		return fmt.Errorf("%s: %w", c, err)
	}
	w, err := b.word(ctx, c, answerTime)
	if err != nil {
		return err
	}
	return b.sdp.setState(c, w)
}

// read reads a register of 1, 2 or 4 bytes, which are in the target's order.
func (b *bulk) read(ctx context.Context, addr uint32, width int) (uint32, error) {
	c := command{code: cmdReadRegister, address: addr, width: uint8(8 * width), count: uint32(width)}
	if err := b.send(ctx, c); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	buf := make([]byte, max(b.in.MaxPacket, 64))
	n, err := b.handle.In(ctx, b.in.Address, buf)
	if err != nil {
		return 0, fmt.Errorf("%s: no answer: %w", c, err)
	}
	if n < width {
		return 0, b.sdp.wrong(c.String(), fmt.Sprintf("%d bytes", width), fmt.Sprintf("%d: % x", n, buf[:n]), hintAnswer)
	}
	var value uint32
	for i := range width {
		value |= uint32(buf[i]) << (8 * i)
	}
	return value, nil
}

func (b *bulk) write(ctx context.Context, addr uint32, width int, value uint32) error {
	c := command{code: cmdWriteRegister, address: addr, width: uint8(8 * width), count: uint32(width), value: value}
	if err := b.send(ctx, c); err != nil {
		return err
	}
	w, err := b.word(ctx, c, answerTime)
	if err == nil && w != wordWritten {
		err = b.sdp.wrong(c.String(), wordWritten, w, "the ROM refuses the address: is the firmware for this model?")
	}
	return err
}

// Checks of a DCD. A count is the number of polls before the check fails, 0 means that it is left out: the i.MX6
// reference manual, 8.7.2.2. imx_usb does so; Snagboot takes the count for another pair. Without a count the ROM polls
// for ever, Snagboot for 30 s.
const (
	checkTime = 30 * time.Second
	checkPoll = 10 * time.Millisecond
)

// execute does what a DCD says. Of the peers imx_usb refuses masked writes here, and Snagboot accesses of less than 4
// bytes.
func (b *bulk) execute(ctx context.Context, commands []firmware.DCDCommand) error {
	for _, cmd := range commands {
		var err error
		switch cmd.Op {
		case firmware.DCDWrite:
			err = b.write(ctx, cmd.Address, cmd.Width, cmd.Value)
		case firmware.DCDClear, firmware.DCDSet:
			var old uint32
			if old, err = b.read(ctx, cmd.Address, cmd.Width); err == nil {
				value := old &^ cmd.Value
				if cmd.Op == firmware.DCDSet {
					value = old | cmd.Value
				}
				err = b.write(ctx, cmd.Address, cmd.Width, value)
			}
		case firmware.DCDCheck:
			err = b.check(ctx, cmd)
		}
		if err != nil {
			return fmt.Errorf("DCD command at %#x: %w", cmd.Offset, err)
		}
	}
	return nil
}

// check polls a register.
func (b *bulk) check(ctx context.Context, cmd firmware.DCDCommand) error {
	if cmd.HasCount && cmd.Count == 0 {
		return nil
	}
	deadline := time.Now().Add(checkTime)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for polls := uint32(1); ; polls++ {
		value, err := b.read(ctx, cmd.Address, cmd.Width)
		if err != nil || cmd.Condition.Met(value, cmd.Value) {
			return err
		}
		if cmd.HasCount && polls == cmd.Count || time.Now().After(deadline) {
			return b.sdp.wrong(fmt.Sprintf("check of register %#08x, %d times", cmd.Address, polls),
				fmt.Sprintf("%s of %#x", cmd.Condition, cmd.Value), fmt.Sprintf("%#x", value), "the DCD is for another board: the DRAM was not set up")
		}
		timer.Reset(checkPoll)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
		}
	}
}

// serveBulk executes the DCD, writes the image and has it started; a plugin first, if there is one.
func (r *recovery) serveBulk(ctx context.Context, stage *socs.Stage) error {
	b, err := r.openBulk(ctx, stage)
	if err != nil {
		return err
	}
	for _, img := range r.plan.images {
		data := bytes.Clone(img.data)
		t := r.begin(stage, stageROM, img.path, len(data))
		if err := b.execute(ctx, img.dcd); err != nil {
			return err
		}
		// The ROM would execute it again.
		at := 12
		if img.header != nil {
			at = 20
		}
		clear(data[at:][:4])
		if err := b.writeFile(ctx, img.addr, data, t.At); err != nil {
			return err
		}
		if !img.plugin {
			t.Done()
		}
	}
	return nil
}

// writeFile writes an application, which the ROM starts when it is asked for the status. progress is told how much the
// ROM has.
func (b *bulk) writeFile(ctx context.Context, addr uint32, data []byte, progress func(int)) error {
	c := command{code: cmdWriteFile, address: addr, count: uint32(len(data)), file: fileApplication}
	if err := b.send(ctx, c); err != nil {
		return err
	}
	n, err := b.handle.Stream(ctx, b.out.Address, dataIdle, reports(data, bulkChunk, progress))
	if err != nil {
		return fmt.Errorf("%s: after %d bytes: %w", c, n, err)
	}
	progress(len(data))
	status := command{code: cmdErrorStatus}
	short, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if _, err := b.handle.Out(short, b.out.Address, status.bytes()); err != nil {
		return fmt.Errorf("%s: %w", status, err)
	}
	w, err := b.word(ctx, status, fileTime)
	if err == nil && w != wordComplete {
		err = b.sdp.wrong(c.String(), wordComplete, w.hab(), "the ROM could not store or start the image: is it for this model?")
	}
	return err
}

// bulkChunk is the size of one transfer of a file: some packets' worth. The ROM sees packets, not transfers.
const bulkChunk = 16 << 10

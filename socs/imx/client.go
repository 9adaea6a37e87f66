package imx

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"snag/event"
	"snag/socs"
	"snag/usb/hid"
)

// sdp talks SDP to a ROM, or an SPL, over HID.
type sdp struct {
	dev    *hid.Device
	stage  string
	report int  // bytes of a data report
	state  word // the last HAB word
	tell   func(word)
	remark func(event.Body)

	answered bool // an answer came: nothing that was left by another program is in the way any more
}

// wrong is an answer that is not what it should be.
func (s *sdp) wrong(what string, want, got any, hint string) error {
	return &socs.BoardError{Stage: s.stage, Err: fmt.Errorf("%s: expected %v, got %v", what, want, got), Hint: hint}
}

const hintAnswer = "reset the board and run snag again; if it stays so, try another cable and a port without hubs in between"

// maxStale is how many answers to another program's commands may still wait in the device.
const maxStale = 8

// await returns the payload of the next report, which must have an ID.
func (s *sdp) await(ctx context.Context, what any, id uint8) ([]byte, error) {
	for stale := 0; ; stale++ {
		got, b, err := s.dev.Receive(ctx)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: no answer (report %d): %w", what, id, err)
		case got == id:
			s.answered = true
			return b, nil
		case got == reportStatus && !s.answered && stale < maxStale:
			continue
		}
		return nil, s.wrong(fmt.Sprint(what), fmt.Sprintf("report %d", id), fmt.Sprintf("report %d: % x", got, b[:min(len(b), 16)]), hintAnswer)
	}
}

// awaitWord returns the word at the start of a report.
func (s *sdp) awaitWord(ctx context.Context, what any, id uint8) (word, error) {
	b, err := s.await(ctx, what, id)
	if err != nil {
		return word{}, err
	}
	if len(b) < len(word{}) {
		return word{}, s.wrong(fmt.Sprint(what), fmt.Sprintf("4 bytes in report %d", id), fmt.Sprintf("%d: % x", len(b), b), hintAnswer)
	}
	return word(b), nil
}

// awaitHAB takes report 3.
func (s *sdp) awaitHAB(ctx context.Context, what any) error {
	w, err := s.awaitWord(ctx, what, reportHAB)
	if err != nil {
		return err
	}
	return s.setState(what, w)
}

func (s *sdp) setState(what any, w word) error {
	if w != wordOpen && w != wordClosed {
		return s.wrong(fmt.Sprint(what)+": HAB state", fmt.Sprintf("%s (open) or %s (closed)", wordOpen, wordClosed), w, hintAnswer)
	}
	s.state = w
	s.tell(w)
	return nil
}

// perform sends a command with its data, and takes the HAB word and the status that are the answer.
func (s *sdp) perform(ctx context.Context, c command, data []byte, acked func(int)) (word, error) {
	if err := s.send(ctx, c, data, acked); err != nil {
		return word{}, err
	}
	patience := answerTime
	if len(data) > 0 {
		patience = fileTime
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.awaitHAB(ctx, c); err != nil {
		return word{}, err
	}
	return s.awaitWord(ctx, c, reportStatus)
}

// send sends a command with its data.
func (s *sdp) send(ctx context.Context, c command, data []byte, acked func(int)) error {
	short, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if err := s.dev.Send(short, reportCommand, c.bytes(), commandSize); err != nil {
		return fmt.Errorf("%s: %w", c, err)
	}
	if len(data) == 0 {
		return nil
	}
	// The last report is filled up: some ROMs store whole reports, and Windows' driver sends no others.
	n, err := s.dev.SendAll(ctx, reportData, s.report, dataIdle, reports(data, s.report, acked))
	if err != nil {
		return fmt.Errorf("%s: after %d bytes: %w", c, n, err)
	}
	return nil
}

// reports cuts data into pieces, and tells how many bytes went before each: those that the device has taken, but for
// the few reports that are in flight.
func reports(data []byte, size int, acked func(int)) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for off := 0; off < len(data); off += size {
			if acked != nil {
				acked(off)
			}
			if !yield(data[off:min(off+size, len(data))]) {
				return
			}
		}
	}
}

// writeDCD has the ROM execute a DCD, staged at an address.
func (s *sdp) writeDCD(ctx context.Context, addr uint32, dcd []byte) error {
	c := command{code: cmdWriteDCD, address: addr, count: uint32(len(dcd))}
	w, err := s.perform(ctx, c, dcd, nil)
	if err == nil && w != wordWritten {
		err = s.wrong(c.String(), wordWritten, w.hab(), "the ROM refuses the DCD, or a check in it failed: it is for another board or SoC; a closed part wants it signed")
	}
	return err
}

// writeFile writes to memory.
func (s *sdp) writeFile(ctx context.Context, addr uint32, data []byte, acked func(int)) error {
	c := command{code: cmdWriteFile, address: addr, count: uint32(len(data))}
	w, err := s.perform(ctx, c, data, acked)
	if err == nil && w != wordComplete {
		err = s.wrong(c.String(), wordComplete, w.hab(), "the device refuses the address, or could not store the data: is the firmware for this model?")
	}
	return err
}

// writeParts writes to memory by as many WRITE_FILE as it takes.
func (s *sdp) writeParts(ctx context.Context, addr uint32, data []byte, acked func(int)) error {
	const most = 0x200000 // of one; uuu and Snagboot split alike
	for off := 0; off < len(data); off += most {
		part := data[off:min(off+most, len(data))]
		if err := s.writeFile(ctx, addr+uint32(off), part, func(n int) { acked(off + n) }); err != nil {
			return err
		}
	}
	return nil
}

// skipDCD keeps the ROM from executing the DCD again at the jump.
func (s *sdp) skipDCD(ctx context.Context) error {
	c := command{code: cmdSkipDCD}
	w, err := s.perform(ctx, c, nil, nil)
	if err == nil && w != wordSkipped {
		err = s.wrong(c.String(), wordSkipped, w.hab(), hintAnswer)
	}
	return err
}

// readRegister reads a value of 8, 16 or 32 bits, little-endian in report 4.
func (s *sdp) readRegister(ctx context.Context, addr uint32, width int) (uint32, error) {
	c := command{code: cmdReadRegister, address: addr, width: uint8(width), count: uint32(width / 8)}
	if err := s.send(ctx, c, nil, nil); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if err := s.awaitHAB(ctx, c); err != nil {
		return 0, err
	}
	w, err := s.awaitWord(ctx, c, reportStatus)
	return binary.LittleEndian.Uint32(w[:]) & uint32(1<<width-1), err
}

// writeRegister writes a value of 8, 16 or 32 bits.
func (s *sdp) writeRegister(ctx context.Context, addr uint32, width int, value uint32) error {
	c := command{code: cmdWriteRegister, address: addr, width: uint8(width), count: uint32(width / 8), value: value}
	w, err := s.perform(ctx, c, nil, nil)
	if err == nil && w != wordWritten {
		err = s.wrong(c.String(), wordWritten, w.hab(), "the ROM refuses the address")
	}
	return err
}

// errorStatus asks for HAB's status.
func (s *sdp) errorStatus(ctx context.Context) (word, error) {
	return s.perform(ctx, command{code: cmdErrorStatus}, nil, nil)
}

// jump starts the image at an address. The device answers with the HAB word and, only if it does not jump, with HAB's
// status: success is silence, or the end of the enumeration. A device that leaves before the HAB word was reset: ROMs
// and SPL wait until that has gone. uuu, imx_usb and Snagboot end well also when they are told of a refusal.
func (s *sdp) jump(ctx context.Context, addr uint32) error {
	c := command{code: cmdJump, address: addr}
	if err := s.send(ctx, c, nil, nil); err != nil {
		return err
	}
	first, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if err := s.awaitHAB(first, c); err != nil {
		return err
	}
	second, cancel := context.WithTimeout(ctx, jumpTime)
	defer cancel()
	w, err := s.awaitWord(second, c, reportStatus)
	var stuck *socs.BoardError
	switch {
	case errors.As(err, &stuck):
		return err
	case err != nil: // silence, or it left
		return context.Cause(ctx)
	case w[0] == habSuccess || w[0] == habWarning || w == word{} || w == wordSkipped:
		// 0x900dd009 is what uuu (sdp.cpp) looks for here.
		s.remark(event.Warning{Text: fmt.Sprintf("the device answered the jump with %s", w.hab())})
		return nil
	}
	hint := "the image is not what this ROM starts: check that it was built for this SoC"
	if s.state == wordClosed {
		hint = "the part is closed (HAB enabled): it starts only images signed with the keys whose hash is in its fuses, DCD included"
	}
	if s.stage == stageSPL {
		hint = "SPL finds nothing to start at that address: check that SPL and U-Boot are from one build"
	}
	return &socs.BoardError{Stage: s.stage, Err: fmt.Errorf("%s was refused: expected no status, got %s", c, w.hab()), Hint: hint}
}

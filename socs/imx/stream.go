package imx

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"snag/event"
	"snag/firmware"
	"snag/socs"
	"snag/usb/hid"
)

// streamed plans a stream: all of the file, or the container set that the ROM takes, and what is left for SPL.
func (c *checker) streamed(p *plan, img socs.Image) ([]byte, error) {
	switch {
	case c.sb:
		return c.bootStream(p, img)
	case c.container:
		return c.containers(p, img)
	}
	v, err := firmware.FindIVT(img.Data, 0)
	if errors.Is(err, firmware.ErrTruncated) {
		return nil, socs.Refuse(again, "%w", err)
	} else if err != nil {
		return nil, c.unlike(img.Data, "flash.bin", err)
	}
	if _, err := c.image(slotFlash, img, v); err != nil {
		return nil, err
	}
	c.front(slotFlash, v)
	data := img.Data[v.Offset:]
	end := 0
	const most = 640 << 10 // SPL looks no further: U-Boot, spl_imx_romapi.c
	off, ok := findSecond(data, firmware.IVTSize, v.End()-v.Offset)
	switch {
	case !ok:
		c.Warn(slotFlash, "no U-Boot is recognised behind the first stage, which ends at %#x: SPL will ask the ROM for it in vain", v.End())
	case off > most:
		c.Warn(slotFlash, "U-Boot stands at %#x: SPL looks for it in the first %#x bytes after itself", off, most)
	default:
		c.Note(slotFlash, "the second stage stands at %#x: %s; SPL asks the ROM for it in the same stream", v.Offset+off, firmware.Identify(data[off:]))
		if end, err = c.endOf(img.Path, data, off); err != nil {
			return nil, err
		}
	}
	p.stream = &payload{path: img.Path, data: data, end: end}
	return data, nil
}

// endOf checks the second stage at an offset of a stream, and returns where it ends.
func (c *checker) endOf(path string, data []byte, off int) (int, error) {
	second, err := c.secondStage(slotFlash, path, data[off:])
	if err != nil || second.end == 0 {
		return 0, err
	}
	return off + second.end, nil
}

// sdBlocks is what stands before the boot stream in u-boot.sd, which is for a card (U-Boot, tools/mxsboot.c, mx28_create_sd_image).
const sdBlocks = 4 * 512

// bootStream plans a boot stream of i.MX23 and 28.
func (c *checker) bootStream(p *plan, img socs.Image) ([]byte, error) {
	if len(img.Data) > sdBlocks && binary.LittleEndian.Uint32(img.Data) == 0x00112233 && firmware.Identify(img.Data[sdBlocks:]).Kind == firmware.KindBootStream {
		c.Note(slotFlash, "the boot stream begins at %#x of the file (as in u-boot.sd, for a card): what stands before it is not sent", sdBlocks)
		img.Data = img.Data[sdBlocks:]
	}
	if firmware.Identify(img.Data).Kind != firmware.KindBootStream {
		return nil, c.unlike(img.Data, "u-boot.sb", nil)
	}
	sb, err := firmware.ParseBootStream(img.Data)
	if err != nil {
		return nil, socs.Refuse(again, "%w", err)
	}
	if !sb.Opened {
		c.Note(slotFlash, "it is encrypted with a key of the board's owner: what is in it was not checked")
	}
	p.stream = &payload{path: img.Path, data: img.Data}
	return img.Data, nil
}

// containers plans a file of containers.
func (c *checker) containers(p *plan, img socs.Image) ([]byte, error) {
	set, err := firmware.FindContainers(img.Data)
	if set == nil {
		return nil, c.unlike(img.Data, "flash.bin", err)
	}
	if err != nil {
		return nil, socs.Refuse(again, "%w", err)
	}
	if set.Offset > 0 {
		c.Note(slotFlash, "the containers begin at %#x of the file (as in one for a card): what stands before them is not sent", set.Offset)
	}
	if err := c.containerSoC(set); err != nil {
		return nil, err
	}
	for _, one := range set.Containers {
		if by := one.SignedBy(); by == "the owner" {
			c.Note(slotFlash, "the container at %#x is signed by %s: snag cannot verify that", one.Offset, by)
		}
	}
	data := img.Data[set.Offset:]
	if c.whole {
		p.stream = &payload{path: img.Path, data: data}
		off, ok := findSecond(data, set.Next, set.Next)
		if !ok {
			c.Warn(slotFlash, "no second stage is recognised behind the first, which ends at %#x: SPL will ask the ROM for it in vain", set.Offset+set.Next)
			return data, nil
		}
		c.Note(slotFlash, "the second stage stands at %#x: %s; SPL asks the ROM for it in the same stream", set.Offset+off, firmware.Identify(data[off:]))
		p.stream.end, err = c.endOf(img.Path, data, off)
		return data, err
	}
	p.stream = &payload{path: img.Path, data: data[:set.Size]}
	if set.Next >= len(data) {
		c.Warn(slotFlash, "nothing stands behind the first stage: if that is an SPL there is no U-Boot for it")
		return data, nil
	}
	p.second, err = c.behind(slotFlash, img, set.Offset, set.Offset+set.Next, set.Offset+set.Next)
	return data, err
}

// containerSoC looks for signs that containers are for another SoC: their version, and where they load to.
func (c *checker) containerSoC(set *firmware.ContainerSet) error {
	switch v := set.Containers[0].Version; {
	case v == 2 && !c.v2:
		return socs.Refuse(c.other(), "its containers are of version 2, as for i.MX95 and its kin; expected version 0 for %s", c.chip.name)
	case v == 0 && c.only2:
		return socs.Refuse(c.other(), "its containers are of version 0; expected version 2 for %s", c.chip.name)
	}
	var loads []uint64
	for _, one := range set.Containers {
		for _, i := range one.Images {
			if i.Type() == 3 && i.Size > 0 { // executables
				loads = append(loads, i.Load)
			}
		}
	}
	return c.reach(slotFlash, loads)
}

// reach refuses programs of which none goes where the chip has memory, and warns if only some do: other cores have
// memories of their own.
func (c *checker) reach(slot string, loads []uint64) error {
	var away []string
	for _, l := range loads {
		if !within(c.ocram, l) && !within(c.dram, l) {
			away = append(away, fmt.Sprintf("%#x", l))
		}
	}
	where := strings.Join(slices.Compact(slices.Clone(away)), ", ")
	switch {
	case len(away) == 0:
		return nil
	case len(away) < len(loads):
		c.Warn(slot, "some of its programs load to %s, where no memory of %s is known: is it for this SoC?", where, c.chip.name)
		return nil
	}
	return socs.Refuse(c.other(), "its programs load to %s, where %s has no memory", where, c.chip.name)
}

// serveStream pushes the file to a ROM that finds in it what it needs. There is no answer: the ROM takes the data, at last
// on behalf of SPL, which asks for the rest of the same stream after it has set up the DRAM.
func (r *recovery) serveStream(ctx context.Context, stage *socs.Stage) error {
	d, err := r.openHID(ctx, stage, stageROM)
	if err != nil {
		return err
	}
	file := r.plan.stream
	size := r.reportSize(d, stageROM, r.report)
	r.board.Emit(stageROM, event.StageBegun{File: file.path, Bytes: int64(len(file.data))})
	if r.cbw {
		short, cancel := context.WithTimeout(ctx, answerTime)
		defer cancel()
		block := commandBlock(uint32(len(file.data)))
		if err := d.Send(short, reportCommand, block, len(block)); err != nil {
			return fmt.Errorf("command block of the stream: %w", err)
		}
	} else {
		r.startLog(ctx, d)
	}
	progress := r.newProgress(stageROM, len(file.data))
	// The last report is filled up, as by uuu; Snagboot sends a short one.
	n, err := d.SendAll(ctx, reportData, size, streamIdle, reports(file.data, size, progress.at))
	switch {
	case err == nil:
		progress.done()
	case file.end > 0 && n >= int64(file.end) && ctx.Err() == nil:
		r.board.Emit(stageROM, event.Note{Text: fmt.Sprintf("the board has taken %d of %d bytes, and with these all of U-Boot: it does not want what stands behind that", n, len(file.data))})
	default:
		err = fmt.Errorf("after %d of %d bytes of the stream: %w", n, len(file.data), err)
		if n > 0 && errors.Is(err, context.DeadlineExceeded) {
			return &socs.BoardError{Stage: stageROM, Err: err,
				Hint: "the board takes no more of the file: it does not find in it what it looks for, or SPL could not set up the DRAM; watch its serial console"}
		}
		return err
	}
	r.done(stage, stageROM, file.path, int(n))
	return nil
}

// startLog reads what the ROM tells while it boots, until the next stage is there or the recovery ends: uuu (sdps.cpp) takes the
// text from the fourth byte of a report on.
func (r *recovery) startLog(ctx context.Context, d *hid.Device) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	done := make(chan struct{})
	r.endLog = func() { cancel(); <-done; r.endLog = noLog }
	go func() {
		defer close(done)
		const most = 100 // lines; a device may babble
		for range most {
			_, b, err := d.Receive(ctx)
			if err != nil {
				return
			}
			if len(b) <= 3 { // the ID is off
				continue
			}
			text := strings.TrimSpace(strings.Map(printable, strings.TrimRight(string(b[3:]), "\x00")))
			if text != "" {
				r.board.Emit("", event.Note{Text: "the ROM's log: " + text})
			}
		}
	}()
}

func printable(c rune) rune {
	if c < ' ' || c > '~' {
		return ' '
	}
	return c
}

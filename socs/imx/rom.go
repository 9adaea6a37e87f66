package imx

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"snag/event"
	"snag/socs"
	"snag/socs/stages"
	"snag/usb"
	"snag/usb/hid"
)

// serveROM gives the ROM what it takes.
func (r *recovery) serveROM(ctx context.Context, stage *socs.Stage) error {
	switch r.proto {
	case sdpBulk:
		return r.serveBulk(ctx, stage)
	case stream:
		return r.serveStream(ctx, stage)
	}
	return r.serveHID(ctx, stage)
}

// serveHID loads and starts the first stage by SDP over HID: DCD, file, no second run of the DCD, jump. A plugin
// returns to the ROM, which then takes the image behind it.
func (r *recovery) serveHID(ctx context.Context, stage *socs.Stage) error {
	s, err := r.openSDP(ctx, stage, stageROM, r.report)
	if err != nil {
		return err
	}
	for _, img := range r.plan.images {
		if err := r.loadImage(ctx, s, stage, img); err != nil {
			return err
		}
		if img.plugin {
			if _, err := s.errorStatus(ctx); err != nil {
				return fmt.Errorf("the ROM does not answer after the plugin: %w", err)
			}
		}
	}
	return nil
}

// loadImage writes one image and starts it.
func (r *recovery) loadImage(ctx context.Context, s *sdp, stage *socs.Stage, img image) error {
	t, err := r.writeImage(ctx, s, stage, img)
	if err != nil {
		return err
	}
	if err := r.startImage(ctx, s, img); err != nil {
		return err
	}
	if !img.plugin { // which is but a part of the stage
		t.Done()
	}
	return nil
}

// writeImage has an image's DCD executed, and writes it.
func (r *recovery) writeImage(ctx context.Context, s *sdp, stage *socs.Stage, img image) (*stages.Transfer, error) {
	data := img.data
	t := r.begin(stage, stageROM, img.path, len(data))
	if img.rawDCD != nil {
		if err := s.writeDCD(ctx, r.dcd, img.rawDCD); err != nil {
			return nil, err
		}
	}
	// ROMs without SKIP_DCD_HEADER must not find the DCD again. uuu and Snagboot write the first 1024 bytes once more,
	// with the DCD's address cleared; imx_usb and armory-boot clear it before they write, which leaves the same in
	// memory. A signature covers the address: on a closed part clearing it would be refused for certain.
	if r.clear && img.ivt.DCD != 0 && (s.state != wordClosed || img.ivt.CSF == 0) {
		data = clearDCD(data)
	}
	if err := s.writeParts(ctx, img.addr, data, t.At); err != nil {
		return nil, err
	}
	t.At(t.Total)
	return t, nil
}

// startImage starts an image that was written.
func (r *recovery) startImage(ctx context.Context, s *sdp, img image) error {
	if s.state == wordClosed && img.ivt.CSF == 0 {
		r.board.Emit(stageROM, event.Warning{Text: "the part is closed (HAB enabled) and the image is not signed: expect it to be refused"})
	}
	if !r.clear {
		if err := s.skipDCD(ctx); err != nil {
			return err
		}
	}
	return s.jump(ctx, img.addr)
}

// begin tells that a stage begins to take a file.
func (r *recovery) begin(stage *socs.Stage, name, path string, total int) *stages.Transfer {
	t := stages.Begin(r.board, name, path, total)
	t.Since = stage.Since
	return t
}

// clearDCD returns a copy of an image whose IVT knows no DCD.
func clearDCD(image []byte) []byte {
	image = bytes.Clone(image)
	clear(image[12:16])
	return image
}

// openSDP takes the HID interface of a ROM or an SPL.
func (r *recovery) openSDP(ctx context.Context, stage *socs.Stage, name string, report int) (*sdp, error) {
	d, err := r.openHID(ctx, stage, name)
	if err != nil {
		return nil, err
	}
	s := &sdp{dev: d, stage: name, report: r.reportSize(d, name, report)}
	s.tell = func(state word) { r.tellState(name, state) }
	s.remark = func(body event.Body) { r.board.Emit(name, body) }
	return s, nil
}

func (r *recovery) openHID(ctx context.Context, stage *socs.Stage, name string) (*hid.Device, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	d, err := hid.Open(ctx, stage.USB)
	var transfer *usb.TransferError
	switch {
	case err == nil:
		// SDP's reports have IDs, whatever the descriptor says: neither uuu nor imx_usb reads it.
		d.Reports.Numbered = true
		return d, nil
	case errors.As(err, &transfer):
		return nil, err
	case name == stageSPL:
		return nil, &socs.BoardError{Stage: name, Err: fmt.Errorf("expected the SDP gadget of U-Boot's SPL: %w", err),
			Hint: "the first stage runs, and it is another gadget (fastboot, DFU, mass storage): build the SPL with CONFIG_SPL_USB_SDP_SUPPORT, or, if this is U-Boot already, give it as the only stage"}
	}
	return nil, &socs.BoardError{Stage: name, Err: fmt.Errorf("expected the boot ROM of %s: %w", r.chip.name, err),
		Hint: "unplug the board and plug it in again; if it stays so this device is no boot ROM"}
}

// reportSize is how long data reports are: as the table says, or as the device does if that is less.
func (r *recovery) reportSize(d *hid.Device, stage string, want int) int {
	n, ok := d.Reports.Output[reportData]
	if !ok || n >= want || n < commandSize {
		return want
	}
	r.board.Emit(stage, event.Warning{Text: fmt.Sprintf("the device announces data reports of %d bytes, expected %d: sending it %d", n, want, n)})
	return n
}

// tellState tells the user once whether the part is open.
func (r *recovery) tellState(stage string, state word) {
	if state == r.state || stage != stageROM {
		return
	}
	r.state = state
	if state == wordClosed {
		r.board.Emit(stage, event.Note{Text: "the part is closed (HAB enabled): it starts signed images only"})
	} else {
		r.board.Emit(stage, event.Note{Text: "the part is open (HAB disabled): it starts any image"})
	}
}

// Package qcom recovers boards with Qualcomm's IQ-9075 (QCS9100) in Emergency Download mode (EDL).
//
// The boot ROM asks for its images by Sahara: which image, which bytes of it, in any order, until it says how the image
// ended. XBL is first; it sets up the DRAM and asks for U-Boot in the same way. The board decides what it is sent, so
// the images are a table by id, and their order is the board's.
//
// The pieces: packet.go has the packets, session.go serves one USB session, transport.go moves bytes and keeps USB's
// rules, check.go looks at firmware beforehand.
//
// There is no public documentation of Sahara. Sources: Snagboot 3.0, snagrecover/recoveries/qcom.py and
// protocols/qcom_sahara.py, which Qualcomm contributed; linux-msm/qdl, src/sahara.c, include/qdl.h and src/usb.c;
// bkerler/edl, edlclient/Library/sahara_defs.py for the status codes and modes.
package qcom

import (
	"context"
	"errors"
	"fmt"
	"time"

	"snag/event"
	"snag/socs"
	"snag/socs/stages"
	"snag/usb"
)

const (
	slotXBL   = "xbl"
	slotUBoot = "u-boot"

	keyImageID = "image_id"
)

// The stages are who asks: the ROM for XBL, XBL for U-Boot.
const (
	stageROM = "rom"
	stageXBL = "xbl"
)

// The ROM's ID, and that of a board which holds a crash dump.
var (
	edl  = usb.ID{Vendor: 0x05c6, Product: 0x9008}
	dump = usb.ID{Vendor: 0x05c6, Product: 0x900e}
)

// slots are the images with the ids that Snagboot's template has, in their usual order.
var slots = []struct {
	name string
	id   uint32
}{{slotXBL, 13}, {slotUBoot, 5}}

const (
	openTime    = 5 * time.Second
	reenumerate = 30 * time.Second
)

// Backend recovers Qualcomm boards.
type Backend struct{}

var _ socs.Backend = Backend{}

// Family describes Qualcomm's EDL.
func (Backend) Family() socs.Family {
	return socs.Family{
		Name:        "qcom",
		Title:       "Qualcomm IQ9 (EDL)",
		Carriers:    []socs.Carrier{socs.USB},
		ROM:         []socs.Identity{{ID: edl}, {ID: dump}},
		Reenumerate: reenumerate,
		BootMode:    "Emergency Download mode (EDL), by the DIP switch of the board, and a power cycle",
		Slots: []socs.Slot{
			{Name: slotXBL, Required: true, Doc: "the first stage, which sets up the DRAM: prog_snagboot_ddr.elf", Keys: []string{keyImageID}},
			{Name: slotUBoot, Doc: "U-Boot, which XBL asks for: u-boot.mbn", Keys: []string{keyImageID}},
		},
	}
}

// Recover implements socs.Backend.
func (Backend) Recover(ctx context.Context, job socs.Job) error {
	r := &recovery{board: job.Board}
	for _, s := range slots {
		if img, ok := job.Firmware[s.name]; ok {
			id, err := imageID(img, s.id)
			if err != nil {
				return err
			}
			r.images = append(r.images, &image{Image: img, slot: s.name, id: id})
		}
	}
	return stages.Drive(ctx, job.Board, r.serve, r.stage, hintFor)
}

// image is one of the files.
type image struct {
	socs.Image
	slot string
	id   uint32
	done bool // the board has it, and found it good
	runs int  // how often the board began with it
}

// recovery is one board on its way up.
type recovery struct {
	board  socs.Board
	images []*image
	active *image // that the board is reading
	rested bool   // the last image's end was told; the board may leave
}

// left counts the images that the board has not taken.
func (r *recovery) left() int {
	n := 0
	for _, i := range r.images {
		if !i.done {
			n++
		}
	}
	return n
}

// stage is who asks at the moment.
func (r *recovery) stage() string {
	if r.images[0].done {
		return stageXBL
	}
	return stageROM
}

func (r *recovery) note(format string, args ...any) {
	r.board.Emit(r.stage(), event.Note{Text: fmt.Sprintf(format, args...)})
}

func (r *recovery) warn(format string, args ...any) {
	r.board.Emit(r.stage(), event.Warning{Text: fmt.Sprintf(format, args...)})
}

// serve gives a board on a new USB session what it asks for.
func (r *recovery) serve(ctx context.Context, stage *socs.Stage) (done bool, err error) {
	err = stages.Gone(ctx, stage, r.talk(ctx, stage))
	switch {
	case err == nil:
		return true, nil
	case !errors.Is(err, usb.ErrGone):
	case r.left() == 0:
		r.note("the board left before it had said that it starts %s: taking that for success", r.images[len(r.images)-1].slot)
		return true, nil
	case r.active == nil && r.rested: // to start what it has
		return false, nil
	}
	return false, err
}

// talk is one USB session. It returns nil when the board has everything.
func (r *recovery) talk(ctx context.Context, stage *socs.Stage) error {
	short, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	t, err := open(short, stage.USB)
	switch {
	case errors.Is(err, errNoInterface) && !stage.ROM:
		return &socs.BoardError{Stage: r.stage(), Err: fmt.Errorf("expected the board to ask for more (%s) on port %s, got %s", edl, stage.Port, stage.ID),
			Hint: "what was started is another program than this configuration is for; put the board into EDL again"}
	case err != nil:
		return err
	}
	r.active, r.rested = nil, false
	s := &session{recovery: r, transport: t, since: stage.Since}
	err = s.run(ctx)
	if err != nil && !errors.Is(err, usb.ErrGone) && !errors.Is(err, context.DeadlineExceeded) {
		s.reset(ctx)
	}
	return err
}

// hintFor tells what may have caused a failure that the session had no words for.
func hintFor(err error) string {
	switch {
	case errors.Is(err, usb.ErrBusy):
		return "end the other program (qdl, edl, ModemManager, a virtual machine) that uses the board"
	case errors.Is(err, errNoInterface):
		return "power-cycle the board into EDL; if it stays so this device is no boot ROM"
	case errors.Is(err, errPacket):
		return "power-cycle the board into EDL and run snag again: what answers is out of step, or does not speak Sahara"
	}
	return "power-cycle the board into EDL and run snag again; try another cable, and a port without hubs in between"
}

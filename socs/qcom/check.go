package qcom

import (
	"errors"
	"fmt"

	"snag/firmware"
	"snag/socs"
)

const again = "copy or build the file again"

// Check implements socs.Backend. The images are sent as they are: the board takes them apart.
func (Backend) Check(_ socs.Model, fw socs.Firmware) (socs.Firmware, []socs.Finding, error) {
	c := socs.Checked{Sent: socs.Firmware{}}
	ids := map[uint32]string{}
	for _, s := range slots {
		img, ok := fw[s.name]
		if !ok {
			if s.name == slotXBL {
				c.Take(s.name, img, socs.Refuse("give prog_snagboot_ddr.elf", "missing: the boot ROM needs it"))
			} else if _, first := fw[slotXBL]; first {
				c.Note(slotXBL, "without u-boot the board has only what it was sent as xbl")
			}
			continue
		}
		id, err := imageID(img, s.id)
		if err == nil && ids[id] != "" {
			err = socs.Refuse("leave image_id out, or give each file its own", "%s %d is that of %s too", keyImageID, id, ids[id])
		}
		ids[id] = s.name
		if err == nil {
			err = look(&c, s.name, img)
		}
		c.Take(s.name, img, err)
	}
	for slot, img := range fw {
		if slot != slotXBL && slot != slotUBoot {
			c.Take(slot, img, socs.Refuse("give "+slotXBL+" and "+slotUBoot+" alone", "a board in EDL takes no such file"))
		}
	}
	if len(c.Errs) > 0 {
		return nil, nil, errors.Join(c.Errs...)
	}
	return c.Sent, c.Findings, nil
}

// imageID is the number by which the board asks for an image.
func imageID(img socs.Image, usual uint32) (uint32, error) {
	if img.Params[keyImageID] == nil {
		return usual, nil
	}
	if v, ok := img.Int(keyImageID); ok && v > 0 && v <= 0xffffffff {
		return uint32(v), nil
	}
	return 0, socs.Refuse(fmt.Sprintf("leave it out: it is %d then", usual), "%s: expected a number from 1 on, got %v", keyImageID, img.Params[keyImageID])
}

// look says why a file cannot be an image.
func look(c *socs.Checked, slot string, img socs.Image) error {
	const want = "give the ELF or MBN file that was built for this board"
	if len(img.Data) == 0 {
		return socs.Refuse(again, "the file is empty")
	}
	info := firmware.Identify(img.Data)
	switch info.Kind {
	case firmware.KindMBN:
		if _, err := firmware.ParseMBN(img.Data); err != nil {
			return socs.Refuse(again, "%w", err)
		}
		return nil
	case firmware.KindELF:
	default:
		return socs.Refuse(want, "expected an ELF or MBN file, it is %s", info)
	}
	e, err := firmware.ParseELF(img.Data)
	switch {
	case err != nil:
		return socs.Refuse(again, "%w", err)
	case e.Big || e.Machine != 40 && e.Machine != 183:
		return socs.Refuse(want, "expected an ELF file for ARM, it is for %s", e.MachineName())
	case len(e.Segments) == 0:
		return socs.Refuse(want, "the ELF file has nothing to load")
	}
	h, err := firmware.ParseMBNHashes(img.Data)
	switch {
	case errors.Is(err, firmware.ErrTruncated):
		return socs.Refuse(again, "%w", err)
	case err != nil:
		c.Warn(slot, "%s: %v", img.Path, err)
	case h == nil:
		c.Warn(slot, "%s has no hash segment, which the boot ROM may want: a file from the linker is to be made into one by Qualcomm's tools or by qtestsign", img.Path)
	default:
		for _, d := range h.Digests {
			if !d.OK {
				return socs.Refuse(again, "the bytes of program header %d have another %s than the hash segment says", d.Header, h.Algo)
			}
		}
	}
	return nil
}

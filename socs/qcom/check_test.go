package qcom_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"snag/firmware/firmwaretest"
	"snag/sim/qcom"
	"snag/socs"
	backend "snag/socs/qcom"
)

// noHashes takes the hash segment's mark off an ELF file.
func noHashes(b []byte) []byte {
	b = bytes.Clone(b)
	binary.LittleEndian.PutUint32(b[64+56+4:], 0)
	return b
}

func TestCheck(t *testing.T) {
	images := qcom.Generate(5000, 1)
	edit := func(b []byte, off int, with ...byte) []byte {
		b = bytes.Clone(b)
		copy(b[off:], with)
		return b
	}
	xbl := socs.Image{Path: "xbl.elf", Data: images.XBL}
	uboot := socs.Image{Path: "u-boot.elf", Data: images.UBoot}
	with := func(data []byte) socs.Firmware {
		return socs.Firmware{"xbl": {Path: "xbl.elf", Data: data}, "u-boot": uboot}
	}
	id := func(v any) socs.Firmware {
		x := xbl
		x.Params = map[string]any{"image_id": v}
		return socs.Firmware{"xbl": x, "u-boot": uboot}
	}
	for name, tc := range map[string]struct {
		fw    socs.Firmware
		says  string // the error
		finds string
	}{
		"as it should be":        {fw: with(images.XBL)},
		"MBN":                    {fw: socs.Firmware{"xbl": xbl, "u-boot": {Data: images.MBN}}},
		"xbl alone":              {fw: socs.Firmware{"xbl": xbl}, finds: "without u-boot"},
		"numbers":                {fw: id(21)},
		"no file":                {says: `firmware "xbl": missing`},
		"no xbl":                 {fw: socs.Firmware{"u-boot": uboot}, says: `firmware "xbl": missing`},
		"another slot":           {fw: socs.Firmware{"xbl": xbl, "spl": uboot}, says: `firmware "spl" (u-boot.elf): a board in EDL takes no such file`},
		"empty":                  {fw: with([]byte{}), says: "the file is empty"},
		"text":                   {fw: with([]byte("#!/bin/sh\necho hello world\n")), says: "expected an ELF or MBN file, it is a text file"},
		"STM32":                  {fw: with(append([]byte("STM2"), make([]byte, 600)...)), says: "it is an STM32MP image"},
		"for a PC":               {fw: with(edit(images.XBL, 18, 62)), says: "it is for x86-64"},
		"big-endian":             {fw: with(firmwaretest.ELF32(0x80001000, make([]byte, 100))), says: "it is for MIPS"},
		"cut in a segment":       {fw: with(images.XBL[:len(images.XBL)-1]), says: "segment 3 has 1667 bytes"},
		"cut in the hashes":      {fw: with(images.XBL[:4096+100]), says: "truncated"},
		"cut in the MBN":         {fw: socs.Firmware{"xbl": xbl, "u-boot": {Data: images.MBN[:4000]}}, says: "5000 bytes are announced behind the header, the file has 3960"},
		"a byte of the program":  {fw: with(edit(images.XBL, 8192+17, images.XBL[8192+17]^1)), says: "the bytes of program header 2 have another sha384 than the hash segment says"},
		"no hash segment":        {fw: with(noHashes(images.XBL)), finds: "xbl.elf has no hash segment"},
		"hashes of version 9":    {fw: with(edit(images.XBL, 4096+4, 9)), finds: "version 9"},
		"number of text":         {fw: id("13"), says: "image_id: expected a number from 1 on, got 13"},
		"number 0":               {fw: id(0), says: "image_id: expected a number from 1 on, got 0"},
		"negative number":        {fw: id(-1), says: "image_id: expected a number"},
		"the same number":        {fw: id(5), says: "image_id 5 is that of xbl too"},
		"nothing to load":        {fw: with(edit(edit(images.XBL, 64+2*56, 4), 64+3*56, 4)), says: "the ELF file has nothing to load"},
		"the other one's format": {fw: with(images.MBN)},
	} {
		t.Run(name, func(t *testing.T) {
			sent, findings, err := backend.Backend{}.Check(socs.Model{Name: "iq9075"}, tc.fw)
			var finds strings.Builder
			for _, f := range findings {
				finds.WriteString(f.Text)
			}
			if !strings.Contains(finds.String(), tc.finds) || tc.finds == "" && finds.Len() > 0 {
				t.Errorf("it found %q, want %q", finds.String(), tc.finds)
			}
			if tc.says == "" {
				if err != nil || len(sent) != len(tc.fw) || !bytes.Equal(sent["xbl"].Data, tc.fw["xbl"].Data) {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("%v, want %q", err, tc.says)
			}
			if e, ok := errors.AsType[*socs.FirmwareError](err); !ok || e.Hint == "" {
				t.Errorf("%v: no hint", err)
			}
		})
	}
}

func FuzzCheck(f *testing.F) {
	images := qcom.Generate(100, 1)
	f.Add(images.XBL, 13)
	f.Add(images.MBN, 5)
	f.Fuzz(func(t *testing.T, b []byte, id int) {
		fw := socs.Firmware{"xbl": {Data: b, Params: map[string]any{"image_id": id}}}
		sent, _, err := backend.Backend{}.Check(socs.Model{Name: "iq9075"}, fw)
		if (err == nil) != (sent != nil) {
			t.Error(sent, err)
		}
	})
}

// Package inspect takes firmware files apart for people: what a file is, which parts it has, where they
// lie and go to, whether their checksums are right, and what a SoC's backend makes of it.
//
// The formats are package firmware's. This package decides in which order to look for them, puts what it finds into
// one tree of [Part]s, and writes that as text ([Report.Write]) or JSON (docs/json.md).
package inspect

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"snag/firmware"
)

// Limit is how much of a file is looked at. Boot images are smaller; images of whole disks are not, but
// have what boots in front.
const Limit = 256 << 20

// Report is what was found in a file.
type Report struct {
	File     string   `json:"file"`
	Size     int64    `json:"size"` // of the whole file
	Text     string   `json:"text"` // what it is, in words
	Parts    []*Part  `json:"parts"`
	Problems []string `json:"problems"` // what is wrong with it
	Notes    []string `json:"notes"`    // what is worth knowing

	// These are there after For.
	SoC  string `json:"soc,omitempty"` // the model
	Uses []Use  `json:"uses,omitempty"`

	data []byte
}

// Part is a piece of the file.
type Part struct {
	Kind     string    `json:"kind"` // one of docs/json.md
	Text     string    `json:"text"`
	Offset   int       `json:"offset"` // in the file
	Size     int       `json:"size"`
	Load     *uint64   `json:"load,omitempty"`  // address that it goes to, where the format says one
	Entry    *uint64   `json:"entry,omitempty"` // address that it is started at
	Checks   []Check   `json:"checks,omitempty"`
	Commands []Command `json:"commands,omitempty"` // what it tells a ROM to do
	Parts    []*Part   `json:"parts,omitempty"`
}

// Check is a checksum.
type Check struct {
	Algo   string `json:"algo"`
	Result Result `json:"result"`
}

// Result is the outcome of a check.
type Result string

const (
	OK         Result = "ok"
	Bad        Result = "bad"
	Unverified Result = "unverified" // it cannot be computed here
)

// Command is one instruction of a DCD, a CSF or a boot stream.
type Command struct {
	Offset    int     `json:"offset"` // in the file
	Op        string  `json:"op"`
	Address   uint32  `json:"address"`
	Value     uint32  `json:"value"`
	Width     int     `json:"width,omitempty"`     // of an access, in bytes
	Condition string  `json:"condition,omitempty"` // of a check
	Count     *uint32 `json:"count,omitempty"`     // of a check: how often; of a load or fill: bytes
	Text      string  `json:"text"`
}

// Part kinds.
const (
	kindData       = "data"
	kindMBR        = "boot-sector"
	kindFlexSPI    = "flexspi-block"
	kindTag        = "tag"
	kindIVTImage   = "imx-image"
	kindHDMI       = "hdmi-firmware"
	kindIVT        = "ivt"
	kindBootData   = "boot-data"
	kindDCD        = "dcd"
	kindCSF        = "csf"
	kindFlashHdr   = "flash-header"
	kindProgram    = "program"
	kindSet        = "container-set"
	kindContainer  = "container"
	kindImage      = "image"
	kindSignature  = "signature"
	kindBootStream = "boot-stream"
	kindSection    = "section"
	kindHeader     = "header"
	kindFIT        = "fit"
	kindUImage     = "uimage"
	kindTOC        = "toc"
	kindMLO        = "mlo"

	kindSTM32       = "stm32-image"
	kindFIP         = "fip"
	kindTI          = "ti-image"
	kindCertificate = "certificate"
	kindSPKG        = "spkg"
	kindZynqMP      = "zynqmp-image"
	kindPartition   = "partition"
	kindEGON        = "egon"
	kindELF         = "elf"
	kindSegment     = "segment"
	kindMBN         = "mbn-image"
	kindHashes      = "hash-segment"
	kindAML         = "aml-image"

	kindApplet  = "samba-applet"
	kindMailbox = "mailbox"

	kindArchive    = "archive"
	kindFileSystem = "file-system"
	kindFile       = "file"
	kindRKLoader   = "rockchip-loader"
	kindRKIDBlock  = "rockchip-id-block"
)

// File reads a file and takes it apart. Of a file that is longer than Limit, only so much is looked at.
func File(path string) (*Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, &os.PathError{Op: "read", Path: path, Err: errors.New("it is a directory")}
	}
	data, err := io.ReadAll(io.LimitReader(f, Limit+1))
	if err != nil {
		return nil, err
	}
	if len(data) <= Limit {
		return Data(path, data), nil
	}
	r := Data(path, data[:Limit])
	r.Size = info.Size()
	r.note("only the first %d MiB were looked at", Limit>>20)
	return r, nil
}

// Data takes apart what was read from a file of that name.
func Data(name string, data []byte) *Report {
	info := firmware.Identify(data)
	r := &Report{File: name, Size: int64(len(data)), Text: info.Text, Parts: []*Part{}, Problems: []string{}, Notes: []string{}, data: data}
	r.around()
	var end int
	switch info.Kind {
	case firmware.KindIVT:
		end = r.ivts(0)
	case firmware.KindContainer:
		s, err := firmware.FindContainers(data)
		end = r.containers(s, err)
	case firmware.KindFlashHeader:
		end = r.flashHeader()
	case firmware.KindBootStream:
		end = r.bootStream()
	case firmware.KindUImage:
		end = r.uImage(0)
	case firmware.KindFIT:
		end = r.fit(0)
	case firmware.KindTIMemory:
		end = r.mlo()
	case firmware.KindSTM32:
		end = r.stm32()
	case firmware.KindFIP:
		end = r.fip()
	case firmware.KindTIX509:
		end = r.ti()
	case firmware.KindSPKG:
		end = r.spkg()
	case firmware.KindZynqMP:
		end = r.zynqmp()
	case firmware.KindEGON:
		end = r.egon()
	case firmware.KindELF:
		end = r.elf()
	case firmware.KindMBN:
		end = r.mbn()
	case firmware.KindAML, firmware.KindAMLCard:
		end = r.aml(info.Kind == firmware.KindAMLCard)
	case firmware.KindAMLFIP:
		end = r.amlFIP(0)
	case firmware.KindSAMBAApplet:
		r.applet()
	case firmware.KindBootfiles:
		r.bootfiles()
	case firmware.KindDisk:
		r.disk()
	case firmware.KindRKLoader:
		end = r.rockchipLoader()
	case firmware.KindRKIDBlock:
		end = r.rockchipIDBlock()
	case firmware.KindARM, firmware.KindARM64:
		if end = r.withFIT(info); end > 0 {
			break
		}
		fallthrough
	default:
		if _, err := firmware.FindIVT(data, 0); err == nil {
			end = r.ivts(0)
		}
	}
	if end > 0 {
		r.rest(end)
	}
	if len(r.Parts) == 0 && len(data) > 0 {
		r.add(plain(info, data))
	}
	slices.SortStableFunc(r.Parts, func(a, b *Part) int { return a.Offset - b.Offset })
	return r
}

func (r *Report) add(p *Part) { r.Parts = append(r.Parts, p) }

func (r *Report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// problem records an error; of a joined one each.
func (r *Report) problem(err error) {
	if err == nil {
		return
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			r.problem(e)
		}
		return
	}
	if len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, err.Error())
	}
}

const (
	maxProblems = 64
	maxParts    = 64 // that follow each other in a file
)

func addr[T uint32 | uint64](a T) *uint64 {
	v := uint64(a)
	return &v
}

// plain is the part for what has no parts.
func plain(info firmware.Info, data []byte) *Part {
	p := &Part{Kind: kindData, Text: info.Text, Size: len(data)}
	switch info.Kind {
	case firmware.KindARM, firmware.KindARM64:
		p.Kind = kindProgram
		if a, ok := firmware.ParseARM(data); ok && a.Vectors {
			p.Load = addr(a.Base)
		}
	}
	return p
}

// head is as much of a part as tells what it is: parts may overlap, and be as large as the file each.
func head(data []byte) []byte { return data[:min(len(data), 1<<20)] }

// program describes the body of an image; what it goes to is the caller's to say.
func program(off int, data []byte) *Part {
	text := "program"
	switch info := firmware.Identify(head(data)); info.Kind {
	case firmware.KindUnknown, firmware.KindBlank, firmware.KindEmpty, firmware.KindText:
	default:
		text = strings.TrimPrefix(strings.TrimPrefix(info.Text, "a "), "an ")
	}
	return &Part{Kind: kindProgram, Text: text, Offset: off, Size: len(data)}
}

// around finds what a medium has around an image.
func (r *Report) around() {
	if len(r.data) > 1024 && r.data[510] == 0x55 && r.data[511] == 0xaa {
		r.add(&Part{Kind: kindMBR, Text: "boot sector of a disk", Size: 512})
	}
	if off, ok := firmware.FlexSPIHeader(r.data, 0); ok {
		r.add(&Part{Kind: kindFlexSPI, Text: "FlexSPI configuration block", Offset: off, Size: min(512, len(r.data)-off)})
	}
	if start, size, ok := firmware.FindBurnTag(r.data); ok {
		r.add(&Part{Kind: kindTag, Text: fmt.Sprintf("tag behind the boot image: %d bytes at %#x", size, start), Offset: start + size,
			Size: min(len(r.data)-start-size, 32)})
	}
}

// rest looks for what follows the first image: what SPL loads.
func (r *Report) rest(from int) {
	for range maxParts {
		at, take := r.next(from)
		if take == nil {
			return
		}
		end := take(at)
		if end <= at {
			return
		}
		from = end
	}
}

// maxTries bounds how many places that look like something are tried.
const maxTries = 64

// next finds the next image from a place on: at any fourth byte, as U-Boot's SPL looks for it.
func (r *Report) next(from int) (at int, take func(int) int) {
	tries := 0
	for off := (from + 3) &^ 3; off+32 <= len(r.data); off += 4 {
		b := r.data[off:]
		var found bool
		switch {
		case string(b[:4]) == "\xd0\x0d\xfe\xed":
			t, err := firmware.ParseFDT(b)
			found, take = err == nil && t.IsFIT(), r.fit
		case string(b[:4]) == "\x27\x05\x19\x56":
			u, _ := firmware.ParseUImage(b)
			found, take = u != nil, r.uImage
		case b[3] == 0x87 && off%0x400 == 0:
			s, err := firmware.ParseContainers(r.data, off)
			found, take = s != nil && len(s.Containers[0].Images) > 0, func(int) int { return r.containers(s, err) }
		case b[0] == 0xd1 && b[1] == 0 && b[2] == firmware.IVTSize:
			_, err := firmware.ParseIVT(r.data, off)
			found, take = err == nil, r.ivts
		default:
			continue
		}
		if found {
			return off, take
		}
		if tries++; tries == maxTries {
			break
		}
	}
	return 0, nil
}

package plan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"snag/flash/image"
	"snag/internal/config"
	"snag/recovery"
	"snag/socs"
	"snag/usb"
)

// Check looks for what the steps need on this machine: files, formats, block maps and their signatures, firmware. The
// errors of all steps are joined.
func (p *Plan) Check(ctx context.Context) error {
	var errs []error
	for i, s := range p.Steps {
		if err := s.Action.check(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.where(i), err))
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return errors.Join(errs...)
}

// where says which step it is: "plan.yaml:7: step 3, flash disk.img to mmc 0".
func (p *Plan) where(i int) string {
	s := p.Steps[i]
	if p.Name == "" {
		return s.Action.String()
	}
	return fmt.Sprintf("%s:%d: step %d, %s", p.Name, s.Line, i+1, s.Action)
}

func (a *Flash) check(ctx context.Context) error { return a.Source.check(ctx) }

func (a *Verify) check(ctx context.Context) error {
	if err := a.able(); err != nil {
		return &recovery.UsageError{Err: err}
	}
	return a.Source.check(ctx)
}

// once reports whether the image can be opened but once, as a pipe.
func (src *Source) once() bool {
	st, err := os.Stat(src.Image)
	return src.Image == "-" || err == nil && !st.Mode().IsRegular() && !st.IsDir()
}

// check opens an image that can be opened again.
func (src *Source) check(ctx context.Context) error {
	if src.once() {
		return nil
	}
	im, err := src.open(ctx)
	if err != nil {
		return err
	}
	return im.Close()
}

// open opens the image. Its errors are those of an image that is refused.
func (src *Source) open(ctx context.Context) (*image.Image, error) {
	im, err := image.Open(ctx, src.Image, src.Options)
	if err != nil && ctx.Err() == nil {
		err = &socs.FirmwareError{Path: src.Image, Err: err}
	}
	return im, err
}

func (a *Download) check(context.Context) error {
	st, err := os.Stat(a.File)
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", a.File)
	}
	if err == nil && st.Size() == 0 {
		err = fmt.Errorf("%s: the file is empty", a.File)
	}
	if err == nil && st.Size() > 1<<32-1 {
		err = fmt.Errorf("%s: %d bytes are more than a download can have", a.File, st.Size())
	}
	if err == nil {
		var f *os.File
		if f, err = os.Open(a.File); err == nil {
			f.Close()
		}
	}
	if err != nil {
		return &socs.FirmwareError{Path: a.File, Err: err}
	}
	return nil
}

func (a *Recover) check(context.Context) error {
	var err error
	if a.model, a.backend, err = recovery.Lookup(a.SoC); err != nil {
		return err
	}
	var sources []config.Source
	for _, file := range a.Firmware {
		sources = append(sources, config.Source{File: file})
	}
	firmware, err := config.Load(sources, a.backend.Family().Slots)
	if problems, ok := errors.AsType[config.Problems](err); ok {
		if problems.Malformed() {
			return &recovery.UsageError{Err: problems}
		}
		return &socs.FirmwareError{Err: problems}
	}
	if err != nil {
		return err
	}
	a.firmware = firmware
	_, _, err = a.backend.Check(a.model, firmware)
	return err
}

// DryRun tells what would be done, without touching a board. What the board would be asked on the way is left out.
func (p *Plan) DryRun(w io.Writer) error {
	if p.Port != "" {
		fmt.Fprintf(w, "the board on port %s\n", p.Port)
	} else if p.ID != (usb.ID{}) {
		fmt.Fprintf(w, "the board that shows %s\n", p.ID)
	}
	for _, s := range p.Steps {
		line := ""
		if s.Line > 0 {
			line = strconv.Itoa(s.Line)
		}
		if _, err := fmt.Fprintf(w, "%4s  %s\n", line, s.Action); err != nil {
			return err
		}
		for _, line := range s.Action.does() {
			if _, err := fmt.Fprintf(w, "      > %s\n", line); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *Recover) does() []string {
	out := []string{fmt.Sprintf("the board's boot ROM gets the firmware of %s", strings.Join(a.Firmware, ", "))}
	for _, slot := range a.backend.Family().Slots {
		if img, ok := a.firmware[slot.Name]; ok {
			out = append(out, fmt.Sprintf("%s: %s, %d bytes", slot.Name, img.Path, len(img.Data)))
		}
	}
	return out
}

func (a *Flash) does() []string {
	out := append(a.Source.does(), a.To.does()...)
	if a.Verify {
		out = append(out, "what was written is read back and compared")
	}
	return out
}

func (a *Verify) does() []string {
	how := "what is there is read and compared, nothing is written"
	switch a.On.Kind {
	case ToMMC, ToMTD, ToSF:
		how = "for each piece that U-Boot's buffer takes: U-Boot reads it, UCmd:crc32, UCmd:cmp; nothing is written"
	case ToDFU:
		how = "an upload of alternate setting " + a.On.Name + " is compared, nothing is written"
	}
	return append(a.Source.does(), how)
}

func (src *Source) does() []string {
	if src.once() || image.IsURL(src.Image) {
		return []string{"the image is read when its turn comes"}
	}
	im, err := image.Open(context.Background(), src.Image, src.Options)
	if err != nil {
		return []string{"nothing: " + err.Error()}
	}
	defer im.Close()
	s := im.Format
	if im.Compression != "" {
		s += " in " + im.Compression
	}
	if im.Size >= 0 {
		s += fmt.Sprintf(", %d bytes", im.Size)
	}
	out := []string{"the image: " + s}
	if im.Map != nil {
		out = append(out, fmt.Sprintf("only the %d bytes that %s maps", im.Map.Mapped(), im.MapName))
	}
	if im.Signer != "" {
		out = append(out, "which is signed by "+im.Signer)
	}
	return out
}

// does says how what is written reaches the target.
func (t Target) does() []string {
	switch t.Kind {
	case ToFastboot:
		return []string{"for each piece that U-Boot's buffer takes: download:, flash:" + t.Name}
	case ToMMC:
		dev := fmt.Sprintf("mmc dev %x", t.Device)
		if t.Hardware > 0 {
			dev += fmt.Sprintf(" %x", t.Hardware)
		}
		out := []string{"UCmd:" + dev}
		if t.Partition != "" {
			out = append(out, "the place of partition "+t.Partition+" is looked up")
		}
		return append(out, "for each piece that U-Boot's buffer takes: download:, UCmd:mmc write")
	case ToSF:
		return []string{"UCmd:sf probe " + t.Name, "for each piece that U-Boot's buffer takes: download:, UCmd:sf erase, sf write"}
	case ToMTD:
		return []string{"UCmd:mtd erase " + t.Name, "for each piece that U-Boot's buffer takes: download:, UCmd:mtd write " + t.Name}
	case ToDFU:
		return []string{"alternate setting " + t.Name}
	case ToDisk:
		if t.Device >= 0 {
			return []string{fmt.Sprintf("disk %d of the board's mass storage", t.Device)}
		}
		return []string{"block device " + t.Name}
	}
	return []string{"file " + t.Name}
}

func (a *GPT) does() []string {
	if a.On.Kind == ToMMC {
		return []string{fmt.Sprintf("UCmd:gpt write mmc %x '%s'", a.On.Device, a.uboot())}
	}
	return []string{"a table for: " + a.uboot()}
}

func (a *Download) does() []string {
	if st, err := os.Stat(a.File); err == nil {
		return []string{fmt.Sprintf("download:%08x and the bytes of %s", st.Size(), a.File)}
	}
	return []string{"download: of " + a.File}
}

// Package dfu writes images to devices in DFU mode: U-Boot's dfu command with whatever medium is behind it, Linux and
// Android gadgets, microcontrollers with ST's DfuSe.
//
// A [Target] is an alternate setting of the device on a port. DFU has numbered blocks and no offsets: all of an image
// is sent, with zeros for what it leaves out, and what the block map of an image saves elsewhere is not saved here. The
// image is read on the way (stream.go), its DFU suffix checked and left out (suffix.go); what the device did with it is
// compared by an upload if that is asked for. A device in run-time mode is brought to DFU mode first (session.go).
// DfuSe has addresses (memory.go).
//
// Sources: "Universal Serial Bus Device Class Specification for Device Firmware Upgrade", version 1.1; UM0424; U-Boot
// (doc/usage/dfu.rst, drivers/dfu, drivers/usb/gadget/f_dfu.c, common/dfu.c).
package dfu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"snag/flash"
	"snag/flash/image"
	"snag/usb"
	"snag/usb/dfu"
)

// The limits that hold where a [Target] has none of its own. U-Boot erases and writes a buffer of 8 MiB, which takes
// NOR flash a minute, within one request.
const (
	DefaultWait            = 30 * time.Second
	DefaultBlockTimeout    = 2 * time.Minute
	DefaultManifestTimeout = 10 * time.Minute
)

// Target is an alternate setting of a DFU device. Host and Port must be given.
type Target struct {
	Host usb.Host
	Port usb.Port

	// Alt is the setting's name, or the beginning of its name with a * behind it, or its number. Empty: the only one.
	Alt string
	// Address is where the image goes on a device with DfuSe. Zero: to the beginning of the setting.
	Address uint32

	// Wait bounds the time until the device is there in DFU mode. BlockTimeout bounds each block, ManifestTimeout what
	// the device does behind the last one. Zero: the defaults.
	Wait, BlockTimeout, ManifestTimeout time.Duration
}

// String implements [flash.Target].
func (t *Target) String() string {
	return fmt.Sprintf("DFU %s, setting %s", t.Port, cmp.Or(t.Alt, "(the only one)"))
}

// Alts lists the device's settings.
func (t *Target) Alts(ctx context.Context) ([]dfu.Alt, error) {
	s, err := t.open(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close(ctx)
	return s.Alts, nil
}

// Detach has the device leave DFU mode: U-Boot ends its dfu command, or resets the board; a device with DfuSe starts
// what is at Address, or at the beginning of the setting. reset is for those that wait for the port to be reset then.
func (t *Target) Detach(ctx context.Context, reset bool) error {
	s, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer s.close(ctx)
	if s.DfuSe() {
		m, err := t.memory(ctx, s)
		if err == nil {
			err = s.Leave(ctx, m.addr)
		}
		if errors.Is(err, dfu.ErrLeft) {
			err = nil
		}
		return err
	}
	if err := s.Device.Detach(ctx); err != nil || !reset {
		return err
	}
	if err := s.Reset(ctx); err != nil && !errors.Is(err, usb.ErrGone) && !errors.Is(err, usb.ErrProtocol) {
		return err
	}
	return nil
}

// Write implements [flash.Target]. Progress counts all bytes of the image, also those that it leaves out.
func (t *Target) Write(ctx context.Context, im *image.Image, o flash.Options) error {
	return t.with(ctx, im, func() error { return t.write(ctx, im, o) })
}

// with closes the image behind do, and as soon as ctx ends, which is the error then.
func (t *Target) with(ctx context.Context, im *image.Image, do func() error) error {
	defer im.Close()
	stop := context.AfterFunc(ctx, func() { im.Close() })
	defer stop()
	err := do()
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%s: %w", t, context.Cause(ctx))
	}
	return err
}

func (t *Target) write(ctx context.Context, im *image.Image, o flash.Options) error {
	s, err := t.open(ctx)
	if err != nil {
		return err
	}
	defer s.close(ctx)
	a, err := t.setting(s.Device)
	if err != nil {
		return err
	}
	if err := s.able(true, o.Verify); err != nil {
		return err
	}
	tail := make([]byte, suffixSize)
	if im.Tail(tail) {
		if suffix, ok := parseSuffix(tail); ok {
			if err := suffix.check(s.ids); err != nil {
				return fmt.Errorf("%s: %w", im.Name, err)
			}
		}
	}
	if err := s.Select(ctx, a); err != nil {
		return err
	}
	w := &writing{session: s, alt: a, name: im.Name, progress: o.Progress}
	var r io.Reader = newUnsuffixed(newStream(im), s.ids)
	if o.Verify {
		w.sums = new(sums)
		r = io.TeeReader(r, w.sums)
	}
	if s.DfuSe() {
		return t.writeMemory(ctx, w, r, im.Size)
	}
	if err := w.explain(s.DownloadFrom(ctx, r, w.step(flash.Writing))); err != nil || !o.Verify {
		return err
	}
	return t.compare(ctx, w)
}

// compare reads back as much as there are sums of.
func (t *Target) compare(ctx context.Context, w *writing) error {
	w.sums.close()
	c := &comparison{name: w.name, want: w.sums, progress: func(n int64) { w.report(flash.Verifying, n) }}
	_, err := w.UploadTo(ctx, c, w.sums.size)
	if err == nil {
		err = c.whole()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", t, err)
	}
	return nil
}

// setting finds the target's setting.
func (t *Target) setting(d *dfu.Device) (dfu.Alt, error) {
	if t.Alt == "" && len(d.Alts) == 1 {
		return d.Alts[0], nil
	}
	var same []string
	for _, a := range d.Alts {
		if a.Name == t.Alt {
			same = append(same, a.String())
		}
	}
	if len(same) > 1 && t.Alt != "" {
		return dfu.Alt{}, fmt.Errorf("%s: there are several settings of this name, %s: say which by its number", t, strings.Join(same, ", "))
	}
	a, err := d.Find(t.Alt)
	if n, numberErr := strconv.ParseUint(t.Alt, 10, 8); err != nil && numberErr == nil {
		return d.Number(uint8(n))
	}
	return a, err
}

// able refuses what the device says that it cannot do.
func (s *session) able(write, verify bool) error {
	f := s.Functional
	if f == (dfu.Functional{}) && !verify { // it does not tell
		return nil
	}
	at := fmt.Sprintf("DFU device %s on port %s", s.ids[0], s.port)
	switch {
	case write && f != (dfu.Functional{}) && !f.Download:
		return fmt.Errorf("%s takes no downloads (bitCanDnload)", at)
	case verify && !f.Upload && !write:
		return fmt.Errorf("%s gives nothing back (bitCanUpload): what it holds cannot be compared", at)
	case verify && !f.Upload:
		return fmt.Errorf("%s gives nothing back (bitCanUpload): it can be written, but not verified", at)
	case verify && write && !f.Tolerant && !s.DfuSe():
		return fmt.Errorf("%s does not answer any more once it is written (bitManifestationTolerant): it cannot be verified", at)
	}
	return nil
}

// writing is one image on its way.
type writing struct {
	*session
	alt      dfu.Alt
	name     string
	sums     *sums // nil: it is not to be verified
	progress func(flash.Step, int64)
}

func (w *writing) report(step flash.Step, n int64) {
	if w.progress != nil {
		w.progress(step, n)
	}
}

// step makes a count of all bytes one of those since the last time.
func (w *writing) step(step flash.Step) func(int64) {
	last := int64(0)
	return func(n int64) {
		w.report(step, n-last)
		last = n
	}
}

// explain adds to a device's own words what they are likely to mean. A device that has answered to the end and could
// have gone on has failed if it does not: U-Boot's dfu ends if it cannot write the last part, and there is no status
// for that (common/dfu.c). Others leave when they have what they need.
func (w *writing) explain(err error) error {
	if status, ok := errors.AsType[*dfu.StatusError](err); ok && status.State == dfu.Error {
		switch status.Status {
		case dfu.ErrAddress:
			return fmt.Errorf("%w: %s is larger than the setting has room for", err, w.name)
		case dfu.ErrUnknown:
			return fmt.Errorf("%w: %s may be larger than the setting (U-Boot says no more; its console does), or the medium cannot be written", err, w.name)
		}
	}
	if !errors.Is(err, dfu.ErrLeft) {
		return err
	}
	if !w.Functional.Tolerant {
		return nil
	}
	return fmt.Errorf("%w: it should answer, so writing the last part has failed, of which U-Boot tells its console only; or a U-Boot script was sent that changed dfu_alt_info", err)
}

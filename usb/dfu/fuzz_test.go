package dfu_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"snag/usb"
	"snag/usb/dfu"
)

// oracle is a device that answers with what it is given, and stalls when there is nothing left.
type oracle struct {
	usb.Handle
	answers []byte
	desc    *usb.Descriptors
	asked   int
}

func (o *oracle) Device() usb.Device                         { return usb.Device{Port: "1-1", Config: 1} }
func (o *oracle) Descriptors() *usb.Descriptors              { return o.desc }
func (o *oracle) Claim(context.Context, uint8) error         { return nil }
func (o *oracle) SetAlt(_ context.Context, _, _ uint8) error { return nil }
func (o *oracle) Reset(context.Context) error                { return nil }
func (o *oracle) Gone() <-chan struct{}                      { return nil }

func (o *oracle) Control(ctx context.Context, s usb.Setup, data []byte) (int, error) {
	o.asked++
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if len(o.answers) == 0 {
		o.answers = nil
		return 0, usb.ErrStall
	}
	kind := o.answers[0]
	o.answers = o.answers[1:]
	if kind == 0xff {
		return 0, usb.ErrStall
	}
	if !s.ToHost() {
		return len(data), nil
	}
	n := copy(data, o.answers)
	if kind&1 == 0 { // the last answer for ever
		o.answers = o.answers[n:]
	}
	return n, nil
}

// FuzzDownload has a device that answers anything. The client must come to an end, in the time that it has.
func FuzzDownload(f *testing.F) {
	idle, sync, done := "\x00\x00\x00\x00\x00\x02\x00", "\x00\x00\x05\x00\x00\x04\x00", "\x00\x00\x00\x00\x00\x05\x00"
	f.Add([]byte(idle+"\x00"+sync+done+"\x00"+done+idle), uint16(64))
	f.Add([]byte(idle+"\x00"+"\x01\x00\xff\xff\xff\x04\x00"), uint16(0))
	f.Add([]byte(idle+"\x00"+"\x01\x00\x00\x00\x00\x04\x00"), uint16(65535))
	f.Add([]byte("\x00\x03\x00\x00\x00\x0a\x04"+"\x00"+idle), uint16(7))
	f.Fuzz(func(t *testing.T, answers []byte, size uint16) {
		synctest.Test(t, func(t *testing.T) {
			raw := append(append(append(make18(), config1...), 9, 4, 1, 0, 0, 0xfe, 1, 2, 0), functional(size, 7)...)
			desc, err := usb.ParseDescriptors(raw)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			begin := time.Now()
			o := &oracle{answers: answers, desc: desc}
			d, err := dfu.Open(ctx, o)
			if err == nil {
				if a, err := d.Number(0); err != nil || d.Select(ctx, a) != nil {
					t.Error(err)
				}
				progress := 0
				err = d.Download(ctx, file(100), func(n int) { progress = n })
				if progress > 100 || (err == nil || errors.Is(err, dfu.ErrLeft)) && progress != 100 {
					t.Errorf("progress %d, %v", progress, err)
				}
				b, _ := d.Upload(ctx, 1000)
				if len(b) > 1000 {
					t.Errorf("%d bytes", len(b))
				}
			}
			if took := time.Since(begin); took > 10*time.Second || o.asked > 100_000 {
				t.Errorf("%v, %d requests", took, o.asked)
			}
		})
	})
}

package qcom_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/sim/inproc"
	"snag/sim/qcom"
	"snag/sim/virtual"
	"snag/usb"
)

// host is a host that a test writes the steps of. Its errors are the test's.
type host struct {
	t *testing.T
	h usb.Handle
}

// with runs a test against a board that is plugged in.
func with(t *testing.T, cfg qcom.Config, f func(h *host, b *qcom.Board)) qcom.Report {
	t.Helper()
	var report qcom.Report
	synctest.Test(t, func(t *testing.T) {
		b, err := qcom.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		in := inproc.New()
		ended := make(chan error)
		go func() { ended <- b.Run(ctx, in.Port("1-1")) }()
		h := &host{t: t}
		h.open(in)
		f(h, b)
		report = b.Report()
		h.h.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return report
}

func (h *host) open(in *inproc.Host) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	changed, err := in.Watch(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	for range changed {
		all, _ := in.Devices()
		if len(all) == 0 {
			continue
		}
		if h.h, err = in.Open(ctx, all[0]); err == nil {
			err = h.h.Claim(ctx, 0)
		}
		if err != nil {
			h.t.Fatal(err)
		}
		return
	}
	h.t.Fatal("no board")
}

// say sends a packet of words, whose second is the length.
func (h *host) say(command uint32, words ...uint32) {
	b := binary.LittleEndian.AppendUint32(nil, command)
	b = binary.LittleEndian.AppendUint32(b, uint32(8+4*len(words)))
	for _, w := range words {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	h.send(b)
}

func (h *host) send(b []byte) {
	h.t.Helper()
	if _, err := h.h.Out(h.t.Context(), 0x01, b); err != nil {
		h.t.Fatal(err)
	}
}

// hear receives a packet, as words.
func (h *host) hear() []uint32 {
	h.t.Helper()
	b := make([]byte, 4096)
	n, err := h.h.In(h.t.Context(), 0x81, b)
	if err != nil {
		h.t.Fatal(err)
	}
	var words []uint32
	for b := b[:n]; len(b) >= 4; b = b[4:] {
		words = append(words, binary.LittleEndian.Uint32(b))
	}
	return words
}

// want receives a packet that begins with these words, the length left out.
func (h *host) want(words ...uint32) {
	h.t.Helper()
	got := h.hear()
	if got = slices.Delete(got, 1, 2); !slices.Equal(got[:min(len(words), len(got))], words) {
		h.t.Errorf("the board says %#x, want %#x", got, words)
	}
}

func (h *host) hello(mode uint32) { h.say(2, 2, 1, 0, mode, 0, 0, 0, 0, 0, 0) }

// serve gives the board what it asks for until an image ends, and returns the status.
func (h *host) serve(file []byte) uint32 {
	h.t.Helper()
	for {
		p := h.hear()
		at, n := p[3:], 0
		switch p[0] {
		case 3:
			n = int(p[4])
		case 0x12:
			at, n = p[4:], int(p[6])
		case 4:
			return p[3]
		default:
			h.t.Fatalf("%#x", p)
		}
		h.send(file[at[0]:][:n])
		if n%512 == 0 {
			h.send(nil)
		}
	}
}

// A board takes its images and boots.
func TestBoots(t *testing.T) {
	images := qcom.Generate(100_000, 1)
	for _, cfg := range []qcom.Config{{}, {Wide: true}, {Piece: 512}, {Gadget: usb.ID{Vendor: 1, Product: 2}}} {
		r := with(t, cfg, func(h *host, b *qcom.Board) {
			for n, file := range [][]byte{images.XBL, images.MBN} {
				h.want(1, 2, 1, 1024, 0)
				h.hello(0)
				if status := h.serve(file); status != 0 {
					t.Errorf("status %#x", status)
				}
				h.say(5)
				h.want(6, uint32(n))
			}
			<-b.Settled()
		})
		if err := r.Err(); err != nil {
			t.Errorf("%v\n%s", err, r.Effects())
		}
		if cfg.Gadget != (usb.ID{}) && r.Last(qcom.StageGadget) == nil {
			t.Error("no gadget")
		}
	}
}

// What a host does wrong is in the report, and has the consequence that it may have.
func TestHostMistakes(t *testing.T) {
	images := qcom.Generate(1000, 1)
	flipped := bytes.Clone(images.XBL)
	flipped[8200] ^= 1
	for name, tc := range map[string]struct {
		do   func(h *host)
		says string // a violation; empty: none
	}{
		"wrong mode":    {func(h *host) { h.hear(); h.hello(7); h.want(4, 13, 0x18) }, "HELLO_RESP for mode 7"},
		"no dump":       {func(h *host) { h.hear(); h.hello(2); h.want(4, 13, 0x1b) }, ""},
		"too new":       {func(h *host) { h.hear(); h.say(2, 9, 9, 0, 0, 0, 0, 0, 0, 0, 0); h.want(4, 13, 4) }, "HELLO_RESP of version 9"},
		"status":        {func(h *host) { h.hear(); h.say(2, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0); h.want(4, 13, 1) }, "HELLO_RESP with status 1"},
		"short answer":  {func(h *host) { h.hear(); h.say(2, 2, 1, 0, 0); h.want(4, 13, 5) }, "command 0x2 in 24 bytes"},
		"no packet":     {func(h *host) { h.hear(); h.send([]byte("AT\r")); h.want(4, 13, 5) }, "a packet of 3 bytes"},
		"done first":    {func(h *host) { h.hear(); h.say(5); h.want(4, 13, 1) }, "command 0x5, expected one of [0x2]"},
		"short data":    {func(h *host) { h.hear(); h.hello(0); h.hear(); h.send(make([]byte, 63)); h.want(4, 13, 0xb) }, "63 bytes, where 64 were asked for"},
		"too much data": {func(h *host) { h.hear(); h.hello(0); h.hear(); h.send(make([]byte, 65)); h.want(4, 13, 0xb) }, "65 bytes, where 64 were asked for"},
		"text": {func(h *host) {
			h.hear()
			h.hello(0)
			h.hear()
			h.send(bytes.Repeat([]byte{'a'}, 64))
			h.want(4, 13, 0x14)
		}, ""},
		"damaged": {func(h *host) {
			h.hear()
			h.hello(0)
			if s := h.serve(flipped); s != 0x22 {
				h.t.Errorf("status %#x", s)
			}
		}, ""},
		"command mode": {func(h *host) { h.hear(); h.hello(3); h.want(0xb); h.say(0xd, 1); h.want(4, 13, 0x1f) }, ""},
		"reset":        {func(h *host) { h.hear(); h.say(7); h.want(8) }, ""},
		"no DONE":      {func(h *host) { h.hear(); h.hello(0); h.serve(images.XBL); h.hello(0); h.want(4, 13, 1) }, "command 0x2, expected one of [0x5]"},
	} {
		t.Run(name, func(t *testing.T) {
			r := with(t, qcom.Config{}, func(h *host, b *qcom.Board) { tc.do(h) })
			got := fmt.Sprint(r.Violations)
			if !strings.Contains(got, tc.says) || tc.says == "" && len(r.Violations) > 0 {
				t.Errorf("violations %s, want %q", got, tc.says)
			}
			if r.Outcome == virtual.Booted {
				t.Error("it has booted")
			}
		})
	}
}

// The empty packet behind data that fill their last packet is awaited.
func TestEmptyPacket(t *testing.T) {
	images := qcom.Generate(1000, 1)
	r := with(t, qcom.Config{Piece: 512}, func(h *host, b *qcom.Board) {
		h.hear()
		h.hello(0)
		for {
			p := h.hear()
			h.send(images.XBL[p[3]:][:p[4]])
			if p[4] == 512 {
				break
			}
		}
		ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
		defer cancel()
		if _, err := h.h.In(ctx, 0x81, make([]byte, 100)); !errors.Is(err, context.DeadlineExceeded) {
			t.Error("the board goes on without the empty packet")
		}
		h.say(7)
		h.want(8)
	})
	if len(r.Violations) != 1 || !strings.Contains(r.Violations[0].Text, "no empty packet") {
		t.Errorf("%v", r.Violations)
	}
}

func TestConfig(t *testing.T) {
	for _, cfg := range []qcom.Config{
		{Piece: -1}, {Piece: 1 << 30}, {Mode: "nonsense"}, {Never: "rom"}, {Faults: []qcom.Fault{{Kind: "melt", Stage: "rom"}}},
		{Faults: []qcom.Fault{{Kind: qcom.Cut, Stage: "gadget"}}}, {Faults: []qcom.Fault{{Kind: qcom.Cut, Stage: "rom", Command: "jump"}}},
	} {
		if _, err := qcom.New(cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
}

// A host may say anything: the board neither falls over nor keeps what it need not.
func FuzzHost(f *testing.F) {
	images := qcom.Generate(10, 1)
	f.Add([]byte{2, 0, 0, 0, 48, 0, 0, 0, 2, 0, 0, 0, 1}, images.XBL[:200])
	f.Add(append(append([]byte{2, 0, 0, 0, 48, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0}, make([]byte, 32)...), images.XBL[:64]...), images.XBL[64:300])
	f.Fuzz(func(t *testing.T, first, file []byte) {
		synctest.Test(t, func(t *testing.T) {
			b, err := qcom.New(qcom.Config{})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			in := inproc.New()
			ended := make(chan error)
			go func() { ended <- b.Run(ctx, in.Port("1-1")) }()
			h := &host{t: t}
			h.open(in)
			go func() {
				buf := make([]byte, 4096)
				for {
					if _, err := h.h.In(ctx, 0x81, buf); err != nil {
						return
					}
				}
			}()
			for _, b := range [][]byte{first[:min(len(first), 48)], first[min(len(first), 48):], file} {
				h.h.Out(ctx, 0x01, b)
			}
			cancel()
			<-ended
			h.h.Close()
		})
	})
}

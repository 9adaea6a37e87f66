package dfu_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"snag/sim/inproc"
	"snag/sim/usbdev"
	"snag/usb"
	"snag/usb/dfu"
)

// board is a DFU device after the state diagram of DFU 1.1, section A.2, which stalls what does not belong there.
type board struct {
	gadget *usbdev.Gadget
	port   *inproc.Port

	state    dfu.State
	status   dfu.Status
	text     uint8
	got      []byte
	numbers  []uint16
	upload   []byte
	requests []string // other than DNLOAD, GETSTATUS and UPLOAD

	busy     int    // GETSTATUS that a block takes
	poll     uint32 // ms, while it is busy and while it manifests
	manifest int    // GETSTATUS that the manifestation takes
	end      dfu.State
	app      bool          // the end is appIDLE
	fail     int           // the block that fails, from 1 on; 0: none
	refuse   int           // the block that is stalled
	leave    string        // the request after the whole file that it leaves at
	mute     bool          // GETSTATUS is never answered
	alts     map[uint8]int // how often each was selected
	eager    int           // GETSTATUS in dfuDNBUSY, for ever
	blank    []byte        // the functional descriptor on request
	sizes    map[int]int   // of blocks
	rest     uint32        // ms, that it asks for behind a block
	next     time.Time     // when GETSTATUS may come
	paired   bool          // the host can do that
}

// pairing is a handle with ControlPair.
type pairing struct{ usb.Handle }

func (p pairing) ControlPair(ctx context.Context, first, second *usb.ControlTransfer) {
	for _, c := range []*usb.ControlTransfer{first, second} {
		c.N, c.Err = p.Control(ctx, c.Setup, c.Data)
	}
}

func (b *board) Configured(uint8)       {}
func (b *board) Selected(_, alt uint8)  { b.alts[alt]++ }
func (b *board) note(s string)          { b.requests = append(b.requests, s) }
func (b *board) err(s dfu.Status) error { b.state, b.status = dfu.Error, s; return usb.ErrStall }

func (b *board) Control(ctx context.Context, s usb.Setup, data []byte) (int, error) {
	if s.Type == 0x81 && s.Request == usb.ReqGetDescriptor && s.Value == 0x2100 && b.blank != nil {
		return copy(data, b.blank), nil
	}
	if s.Index != 3 {
		return 0, usb.ErrStall
	}
	switch {
	case s.Type == 0x21 && s.Request == 0:
		b.note(fmt.Sprintf("DETACH %d", s.Value))
		go b.port.Detach()
		return 0, nil
	case s.Type == 0x21 && s.Request == 1:
		return b.download(ctx, s.Value, data)
	case s.Type == 0xa1 && s.Request == 2:
		if b.state != dfu.Idle && b.state != dfu.UploadIdle {
			return 0, b.err(0xf)
		}
		n := copy(data, b.upload)
		b.upload = b.upload[n:]
		b.state = dfu.UploadIdle
		if n < len(data) {
			b.state = dfu.Idle
		}
		return n, nil
	case s.Type == 0xa1 && s.Request == 3:
		return b.answer(ctx, data)
	case s.Type == 0x21 && s.Request == 4:
		b.note("CLRSTATUS")
		if b.state != dfu.Error {
			return 0, b.err(0xe)
		}
		b.state, b.status, b.text = dfu.Idle, 0, 0
		return 0, nil
	case s.Type == 0x21 && s.Request == 6:
		b.note("ABORT")
		b.state = dfu.Idle
		return 0, nil
	}
	return 0, b.err(0xf)
}

func (b *board) download(ctx context.Context, number uint16, data []byte) (int, error) {
	b.numbers = append(b.numbers, number)
	b.sizes[len(data)]++
	switch {
	case b.state != dfu.Idle && b.state != dfu.DownloadIdle, b.state == dfu.Idle && len(data) == 0:
		return 0, b.err(0xf)
	case len(b.numbers) == b.refuse:
		return 0, usb.ErrStall
	case len(data) == 0:
		if b.leave == "DNLOAD" {
			return 0, b.away(ctx)
		}
		b.state = dfu.ManifestSync
		return 0, nil
	}
	b.got = append(b.got, data...)
	b.state, b.eager = dfu.DownloadSync, b.busy
	if len(b.numbers) == b.fail {
		b.fail, b.text = -1, 9
	}
	return len(data), nil
}

// away leaves the bus.
func (b *board) away(ctx context.Context) error {
	go b.port.Detach()
	<-ctx.Done()
	return usb.ErrGone
}

func (b *board) answer(ctx context.Context, data []byte) (int, error) {
	if time.Now().Before(b.next) {
		b.note("early GETSTATUS")
	}
	poll := uint32(0)
	switch b.state {
	case dfu.DownloadSync, dfu.DownloadBusy:
		switch {
		case b.fail < 0:
			b.fail, b.state, b.status = 0, dfu.Error, 3
		case b.eager > 0:
			b.eager--
			b.state, poll = dfu.DownloadBusy, b.poll
		default:
			b.state, poll = dfu.DownloadIdle, b.rest
		}
	case dfu.ManifestSync, dfu.Manifest:
		switch {
		case b.leave == "GETSTATUS":
			return 0, b.away(ctx)
		case b.mute:
			<-ctx.Done()
			return 0, ctx.Err()
		case b.manifest > 0:
			b.manifest--
			b.state, poll = dfu.Manifest, b.poll
		default:
			b.state = b.end
		}
	}
	b.next = time.Now().Add(time.Duration(poll) * time.Millisecond)
	return copy(data, []byte{byte(b.status), byte(poll), byte(poll >> 8), byte(poll >> 16), byte(b.state), b.text}), nil
}

// functional is a descriptor with a transfer size.
func functional(size uint16, attributes byte) []byte {
	return []byte{9, 0x21, attributes, 0xff, 0, byte(size), byte(size >> 8), 0x10, 1}
}

// open plugs a board in and opens it. Its settings are 1 and 2 of interface 3.
func open(t *testing.T, b *board, extra []byte) (usb.Handle, *dfu.Device) {
	t.Helper()
	if b.state == 0 {
		b.state = dfu.Idle
	}
	if b.end == 0 && !b.app {
		b.end = dfu.Idle
	}
	b.alts, b.sizes = map[uint8]int{}, map[int]int{}
	b.gadget = usbdev.NewGadget(&usbdev.Descriptors{
		Speed: usbdev.HighSpeed, ID: usb.ID{Vendor: 0x483, Product: 0xdf11},
		Strings: map[uint8]string{7: "@FSBL /0x01/1*1Me", 8: "@virtual /0xF1/1*512Ba", 9: "no such flash"},
		Configs: []usbdev.Config{{Value: 1, Interfaces: []usbdev.Interface{
			{Number: 0, Class: 3, Extra: []byte{9, 0x21, 0x11, 1, 0, 1, 0x22, 30, 0}},
			{Number: 3, Class: 0xff},
			{Number: 3, Alt: 1, Class: 0xfe, SubClass: 1, Protocol: 2, Name: 7},
			{Number: 3, Alt: 2, Class: 0xfe, SubClass: 1, Protocol: 2, Name: 8, Extra: extra},
		}}},
	}, b)
	host := inproc.New()
	b.port = host.Port("1-1")
	if err := b.port.Attach(t.Context(), b.gadget); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	list, err := host.Devices()
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	h, err := host.Open(t.Context(), list[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close(); b.port.Detach() })
	if b.paired {
		h = pairing{h}
	}
	d, err := dfu.Open(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	return h, d
}

func file(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

func TestOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{}
		_, d := open(t, b, functional(1024, 0x0b))
		want := dfu.Functional{Download: true, Upload: true, WillDetach: true, DetachTimeout: 255 * time.Millisecond, TransferSize: 1024, Version: 0x110}
		if d.Functional != want || d.DfuSe() {
			t.Errorf("%+v", d.Functional)
		}
		if s := fmt.Sprint(d.Alts); s != `[1 "@FSBL /0x01/1*1Me" 2 "@virtual /0xF1/1*512Ba"]` {
			t.Error(s)
		}
		a, err := d.Find("@virtual*")
		if n, err2 := d.Number(2); a.Number != 2 || n != a || err != nil || err2 != nil {
			t.Error(a, err, n, err2)
		}
		var missing *dfu.AltError
		if _, err := d.Find("@virtual"); !errors.As(err, &missing) || !strings.Contains(err.Error(), `1 "@FSBL`) {
			t.Error(err)
		}
		if err := d.Select(t.Context(), a); err != nil || b.alts[2] != 1 {
			t.Error(err, b.alts)
		}
		if err := d.Release(t.Context()); err != nil || b.alts[0] != 1 {
			t.Error(err, b.alts)
		}
	})
}

// both runs a test with a host that performs one control transfer after the other, and with one that performs pairs.
func both(t *testing.T, name string, test func(t *testing.T, paired bool)) {
	t.Run(name, func(t *testing.T) { test(t, false) })
	t.Run(name+", in pairs", func(t *testing.T) { test(t, true) })
}

// TestDownload has the sizes at which an end may be lost.
func TestDownload(t *testing.T) {
	for _, tc := range []struct {
		name  string
		offer uint16
		size  int
		block int // the largest that is expected
	}{
		{name: "exact multiple", offer: 1024, size: 4096, block: 1024},
		{name: "one more", offer: 1024, size: 4097, block: 1024},
		{name: "one byte", offer: 4096, size: 1, block: 1},
		{name: "not whole packets", offer: 1000, size: 5000, block: 960},
		{name: "less than a packet", offer: 20, size: 100, block: 20},
		{name: "nothing offered", offer: 0, size: 1000, block: 64},
		{name: "too much offered", offer: 65535, size: 10000, block: 4096},
		{name: "numbers wrap", offer: 1, size: 65536 + 3, block: 1},
	} {
		both(t, tc.name, func(t *testing.T, paired bool) {
			synctest.Test(t, func(t *testing.T) {
				b := &board{paired: paired}
				_, d := open(t, b, functional(tc.offer, 7))
				last, calls := 0, 0
				if err := d.Download(t.Context(), file(tc.size), func(n int) { last, calls = n, calls+1 }); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(b.got, file(tc.size)) || last != tc.size || calls != len(b.numbers)-1 {
					t.Errorf("%d bytes, progress %d in %d calls", len(b.got), last, calls)
				}
				for i, n := range b.numbers {
					if n != uint16(i) {
						t.Fatalf("block %d has number %d", i, n)
					}
				}
				largest := 0
				for n := range b.sizes {
					largest = max(largest, n)
				}
				if largest != tc.block || b.sizes[0] != 1 || len(b.requests) != 0 {
					t.Errorf("blocks %v, requests %v", b.sizes, b.requests)
				}
			})
		})
	}
}

// TestDownloadEnds has what may become of a download.
func TestDownloadEnds(t *testing.T) {
	type is struct {
		left, status bool
		deadline     bool
		text         string // of the error
	}
	for _, tc := range []struct {
		name     string
		board    board
		set      func(*dfu.Device)
		want     is
		requests string
		took     time.Duration
	}{
		{name: "busy", board: board{busy: 3, poll: 20}, took: 4 * 3 * 20 * time.Millisecond},
		{name: "rests behind each block", board: board{rest: 10}, took: 4 * 10 * time.Millisecond},
		{name: "busy and does not say how long", board: board{busy: 110}, took: 4 * 10 * time.Millisecond},
		{name: "slow manifestation", board: board{manifest: 2, poll: 40_000}, took: 80 * time.Second},
		{name: "waits for a reset", board: board{end: dfu.ManifestWaitReset}},
		{name: "goes back to run-time mode", board: board{app: true}},
		{name: "waited for a reset before", board: board{state: dfu.ManifestWaitReset}, want: is{status: true, text: "unplug it and plug it in again"}},
		{name: "leaves at the end", board: board{leave: "DNLOAD"}, want: is{left: true, text: "whole file"}},
		{name: "leaves before the last status", board: board{leave: "GETSTATUS"}, want: is{left: true, text: "gone"}},
		{name: "says nothing", board: board{mute: true}, want: is{left: true, deadline: true}, took: dfu.DefaultManifestTimeout},
		{name: "fails", board: board{fail: 2}, want: is{status: true, text: `block 1, at byte 1024 of 4000: status errWRITE (memory cannot be written), state dfuERROR, the device says "no such flash"`}},
		{name: "refuses", board: board{refuse: 2}, want: is{status: true, text: "refused with a stall, status OK, state dfuDNLOAD-IDLE"}},
		{name: "refuses the file", board: board{refuse: 5}, want: is{status: true, text: "the end of the file: refused with a stall"}},
		{name: "lies while busy", board: board{busy: 1, poll: 0xffffff}, want: is{deadline: true, text: "wants to be left alone for 4h39m37.215s"}},
		{name: "lies while it manifests", board: board{manifest: 1, poll: 0xffffff}, want: is{deadline: true, text: "4h39m37.215s"}},
		{name: "failed before", board: board{state: dfu.Error, status: 0xe}, requests: "CLRSTATUS"},
		{name: "was in a download", board: board{state: dfu.DownloadIdle}, requests: "ABORT"},
		{name: "was in a block", board: board{state: dfu.DownloadSync}, requests: "ABORT"},
		{name: "was in an upload", board: board{state: dfu.UploadIdle}, requests: "ABORT"},
		{name: "run-time mode", board: board{state: dfu.AppDetach}, want: is{status: true, text: "run-time mode"}},
		{name: "FSBL that was upset", board: board{state: dfu.DownloadIdle}, set: func(d *dfu.Device) { d.NoRecovery = true }},
		{name: "FSBL of 2017", board: board{state: dfu.Idle, end: dfu.DownloadSync}, set: func(d *dfu.Device) { d.NoRecovery = true }},
		{name: "never done", board: board{busy: 1 << 30}, want: is{deadline: true}, took: dfu.DefaultBlockTimeout - time.Millisecond},
	} {
		both(t, tc.name, func(t *testing.T, paired bool) {
			synctest.Test(t, func(t *testing.T) {
				b := new(tc.board)
				b.paired = paired
				_, d := open(t, b, functional(1024, 3))
				if tc.set != nil {
					tc.set(d)
				}
				begin := time.Now()
				err := d.Download(t.Context(), file(4000), nil)
				took := time.Since(begin)
				var status *dfu.StatusError
				got := is{left: errors.Is(err, dfu.ErrLeft), status: errors.As(err, &status), deadline: errors.Is(err, context.DeadlineExceeded), text: tc.want.text}
				if got != tc.want || err != nil && !strings.Contains(err.Error(), tc.want.text) || (err != nil) != (tc.want != is{}) {
					t.Errorf("got %+v, %v", got, err)
				}
				if took < tc.took || took > tc.took+tc.took/10 {
					t.Errorf("took %v, expected %v", took, tc.took)
				}
				if s := strings.Join(b.requests, " "); s != tc.requests {
					t.Errorf("requests %s", s)
				}
				if err == nil && !bytes.Equal(b.got, file(4000)) {
					t.Errorf("%d bytes", len(b.got))
				}
			})
		})
	}
}

// TestDownloadFrom has readers that end well and not.
func TestDownloadFrom(t *testing.T) {
	for _, tc := range []struct {
		name     string
		r        io.Reader
		fail     int
		want     error
		status   bool
		numbers  string
		requests string
	}{
		{name: "whole", r: bytes.NewReader(file(4000)), numbers: "[0 1 2 3 4]"},
		{name: "in pieces", r: iotest.OneByteReader(bytes.NewReader(file(4000))), numbers: "[0 1 2 3 4]"},
		{name: "data with the end", r: iotest.DataErrReader(bytes.NewReader(file(4096))), numbers: "[0 1 2 3 4]"},
		{name: "cut", r: io.MultiReader(bytes.NewReader(file(4000)), iotest.ErrReader(io.ErrUnexpectedEOF)), want: io.ErrUnexpectedEOF, numbers: "[0 1 2]", requests: "ABORT"},
		{name: "fails at once", r: iotest.ErrReader(io.ErrClosedPipe), want: io.ErrClosedPipe, numbers: "[]", requests: "ABORT"},
		{name: "device fails", r: bytes.NewReader(file(4000)), fail: 2, status: true, numbers: "[0 1]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &board{fail: tc.fail}
				_, d := open(t, b, functional(1024, 7))
				last := int64(0)
				err := d.DownloadFrom(t.Context(), tc.r, func(n int64) { last = n })
				if _, ok := errors.AsType[*dfu.StatusError](err); ok != tc.status || !ok && !errors.Is(err, tc.want) {
					t.Error(err)
				}
				if s := fmt.Sprint(b.numbers); s != tc.numbers || strings.Join(b.requests, " ") != tc.requests {
					t.Errorf("blocks %s, requests %v", s, b.requests)
				}
				if err == nil && int(last) != len(b.got) {
					t.Errorf("progress %d of %d", last, len(b.got))
				}
			})
		})
	}
}

// TestUploadEnd has a file that is as long as is wanted, or not.
func TestUploadEnd(t *testing.T) {
	for _, tc := range []struct {
		has, limit int
		abort      bool
	}{
		{2500, 2500, false}, {2048, 2048, false}, {2500, 5000, false}, {2500, 2400, false}, {2500, 1024, true}, {5000, 1, true}, {0, 10, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := &board{upload: file(tc.has)}
			_, d := open(t, b, functional(1024, 3))
			var got bytes.Buffer
			n, err := d.UploadTo(t.Context(), &got, int64(tc.limit))
			want := file(tc.has)[:min(tc.has, tc.limit)]
			if err != nil || int(n) != len(want) || !bytes.Equal(got.Bytes(), want) || (len(b.requests) == 1) != tc.abort || b.state != dfu.Idle {
				t.Errorf("%+v: %d bytes, %v, %v, %v", tc, got.Len(), err, b.requests, b.state)
			}
		})
	}
}

// TestUploadTo has a writer that has had enough.
func TestUploadTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{upload: file(10_000)}
		_, d := open(t, b, functional(1024, 7))
		full := errors.New("full")
		got := 0
		n, err := d.UploadTo(t.Context(), writerFunc(func(b []byte) (int, error) {
			if got += len(b); got > 3000 {
				return 0, full
			}
			return len(b), nil
		}), 1<<40)
		if err != full || n != 3072 || strings.Join(b.requests, " ") != "ABORT" || b.state != dfu.Idle {
			t.Error(n, err, b.requests, b.state)
		}
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// TestCancel ends a wait that the device asked for.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{busy: 1, poll: 20_000}
		_, d := open(t, b, functional(1024, 3))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		begin := time.Now()
		if err := d.Download(ctx, file(10), nil); !errors.Is(err, context.Canceled) || time.Since(begin) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

func TestUpload(t *testing.T) {
	for _, tc := range []struct {
		has, limit, want int
		abort            bool
	}{
		{9, 512, 9, false}, {1024, 4096, 1024, false}, {2500, 5000, 2500, false}, {5000, 2500, 2500, true}, {512, 512, 512, true}, {0, 10, 0, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := &board{upload: file(tc.has)}
			_, d := open(t, b, functional(1024, 3))
			got, err := d.Upload(t.Context(), tc.limit)
			if err != nil || !bytes.Equal(got, file(tc.has)[:tc.want]) || (len(b.requests) == 1) != tc.abort || b.state != dfu.Idle {
				t.Errorf("%+v: %d bytes, %v, %v, %v", tc, len(got), err, b.requests, b.state)
			}
		})
	}
}

func TestDetach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{}
		h, d := open(t, b, functional(1024, 3))
		if err := d.Detach(t.Context()); err != nil || strings.Join(b.requests, " ") != "DETACH 1000" {
			t.Error(err, b.requests)
		}
		synctest.Wait()
		select {
		case <-h.Gone():
		default:
			t.Error("not gone")
		}
		if err := d.Abort(t.Context()); !errors.Is(err, usb.ErrGone) {
			t.Error(err)
		}
	})
}

// TestFunctionalOnRequest has a device that tells only when it is asked, and one that does not tell.
func TestFunctionalOnRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, d := open(t, &board{blank: functional(2048, 1)}, nil)
		if d.Functional.TransferSize != 2048 || !d.Functional.Download || d.Functional.Upload {
			t.Errorf("%+v", d.Functional)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		b := &board{}
		_, d := open(t, b, nil)
		if err := d.Download(t.Context(), file(100), nil); err != nil || b.sizes[64] != 1 || (d.Functional != dfu.Functional{}) {
			t.Errorf("%v, %v, %+v", err, b.sizes, d.Functional)
		}
	})
}

// TestDfuSe checks what is sent for addresses.
func TestDfuSe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{}
		f := functional(1024, 0x0b)
		f[7] = 0x1a
		_, d := open(t, b, f)
		if !d.DfuSe() {
			t.Errorf("%+v", d.Functional)
		}
		if err := errors.Join(d.Erase(t.Context(), 0x08000000), d.EraseAll(t.Context()), d.DownloadAt(t.Context(), 0x08000400, file(2000), nil)); err != nil {
			t.Fatal(err)
		}
		want := append([]byte{0x41, 0, 0, 0, 8, 0x41, 0x21, 0, 4, 0, 8}, file(2000)...)
		if !bytes.Equal(b.got, want) || fmt.Sprint(b.numbers) != "[0 0 0 2 3]" {
			t.Errorf("%x, %v", b.got[:16], b.numbers)
		}
		b.numbers, b.upload = nil, file(1500)
		if got, err := d.UploadAt(t.Context(), 0x08000400, 1500); err != nil || !bytes.Equal(got, file(1500)) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if err := d.Leave(t.Context(), 0x08000000); err != nil || b.numbers[len(b.numbers)-1] != 2 {
			t.Error(err, b.numbers)
		}
	})
}

func TestOpenNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := inproc.New()
		port := host.Port("1-1")
		g := usbdev.NewGadget(&usbdev.Descriptors{Configs: []usbdev.Config{{Value: 1, Interfaces: []usbdev.Interface{{Class: 3}}}}}, &board{alts: map[uint8]int{}})
		if err := port.Attach(t.Context(), g); err != nil {
			t.Fatal(err)
		}
		defer port.Detach()
		synctest.Wait()
		list, _ := host.Devices()
		h, err := host.Open(t.Context(), list[0])
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		if _, err := dfu.Open(t.Context(), h); err == nil || !strings.Contains(err.Error(), "no DFU interface") {
			t.Error(err)
		}
	})
}

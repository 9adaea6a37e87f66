package fel_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"snag/usb"
	"snag/usb/fel"
)

// rom is a boot ROM as a handle: what is sent is taken apart, what is asked for is made of memory. It is as simple as
// can be; the board of snag/sim/sunxi is strict.
type rom struct {
	usb.Handle // all other methods
	settings   []usb.Setting
	config     int
	log        []string

	memory  map[uint32]byte
	request []byte   // of the AWUSB transfer that goes on
	command [16]byte // of FEL
	phase   int      // 0: the command, 1: its data, 2: its status
	answers [][]byte // what waits for the host
	sizes   []int    // of the USB transfers with data

	// What goes wrong.
	edit   func(phase int, answer []byte) []byte // of each message to the host
	in     error                                 // instead of the answer to a call
	pieces int                                   // data comes in so many bytes at a time
}

var address = binary.LittleEndian

func newROM() *rom {
	return &rom{config: 1, memory: map[uint32]byte{}, settings: []usb.Setting{
		{Number: 0, Endpoints: []usb.Endpoint{{Address: 0x83, Type: usb.Interrupt, MaxPacket: 8}}},
		{Number: 1, Endpoints: []usb.Endpoint{{Address: 0x02, Type: usb.Bulk, MaxPacket: 512}, {Address: 0x81, Type: usb.Bulk, MaxPacket: 512}}},
	}}
}

func (r *rom) Device() usb.Device { return usb.Device{ID: fel.ROM, Port: "1-2", Config: r.config} }
func (r *rom) Descriptors() *usb.Descriptors {
	return &usb.Descriptors{Configs: []usb.ConfigDescriptor{{Value: 1, Settings: r.settings}}}
}

func (r *rom) Configure(_ context.Context, value uint8) error {
	r.log = append(r.log, fmt.Sprint("configure ", value))
	return nil
}

func (r *rom) Claim(_ context.Context, iface uint8) error {
	r.log = append(r.log, fmt.Sprint("claim ", iface))
	return nil
}

func (r *rom) Out(_ context.Context, ep uint8, data []byte) (int, error) {
	if ep != 0x02 {
		return 0, fmt.Errorf("endpoint %#02x", ep)
	}
	r.take(data)
	return len(data), nil
}

func (r *rom) Stream(_ context.Context, ep uint8, _ time.Duration, transfers iter.Seq[[]byte]) (n int64, err error) {
	for data := range transfers {
		r.take(data)
		n += int64(len(data))
	}
	return n, nil
}

func (r *rom) In(_ context.Context, ep uint8, buf []byte) (int, error) {
	if len(r.answers) == 0 || ep != 0x81 {
		return 0, context.DeadlineExceeded
	}
	if r.in != nil && bytes.HasPrefix(r.answers[0], []byte("\xff\xff")) {
		return 0, r.in
	}
	n := copy(buf, r.answers[0])
	if r.answers[0] = r.answers[0][n:]; len(r.answers[0]) == 0 {
		r.answers = r.answers[1:]
	}
	return n, nil
}

func (r *rom) say(b []byte) {
	if r.edit != nil {
		b = r.edit(r.phase, b)
	}
	if r.pieces > 0 && len(b) > r.pieces {
		for p := range slices.Chunk(b, r.pieces) {
			r.answers = append(r.answers, p)
		}
	} else if b != nil {
		r.answers = append(r.answers, b)
	}
}

// take takes a USB transfer.
func (r *rom) take(data []byte) {
	length := func() int { return int(address.Uint32(r.request[8:])) }
	if r.request == nil {
		if len(data) != 32 || string(data[:4]) != "AWUC" || data[15] != 12 || address.Uint32(data[18:]) != address.Uint32(data[8:]) {
			panic(fmt.Sprintf("a request of % x", data))
		}
		r.request = bytes.Clone(data)
		if data[16] == 0x12 {
			return
		}
		r.say(r.answer(length()))
	} else {
		r.keep(data)
		address.PutUint32(r.request[8:], uint32(length()-len(data)))
		if length() > 0 {
			return
		}
	}
	r.say(append([]byte("AWUS"), make([]byte, 9)...))
	r.request = nil
	code := address.Uint16(r.command[:])
	switch {
	case r.phase == 0 && code == 0x102:
		r.phase = 2
	default:
		r.phase = (r.phase + 1) % 3
	}
}

func (r *rom) keep(data []byte) {
	if r.phase == 0 {
		r.command = [16]byte(data)
		r.log = append(r.log, fmt.Sprintf("%#x %#x %d", address.Uint16(data), address.Uint32(data[4:]), address.Uint32(data[8:])))
		return
	}
	r.sizes = append(r.sizes, len(data))
	at := address.Uint32(r.command[4:])
	for i, c := range data {
		r.memory[at+uint32(i)] = c
	}
	address.PutUint32(r.command[4:], at+uint32(len(data)))
}

func (r *rom) answer(n int) []byte {
	b := make([]byte, n)
	switch {
	case r.phase == 2:
		copy(b, "\xff\xff")
	case address.Uint16(r.command[:]) == 0x001:
		copy(b, "AWUSBFEX\x00\x80\x16\x00\x01\x00\x00\x00\x01\x00\x44\x08\x00\x7e\x00\x00")
	default:
		for i := range b {
			b[i] = r.memory[address.Uint32(r.command[4:])+uint32(i)]
		}
	}
	return b
}

func open(t testing.TB, r *rom) *fel.Device {
	t.Helper()
	d, err := fel.Open(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestCommands(t *testing.T) {
	r := newROM()
	d := open(t, r)
	v, err := d.Version(t.Context())
	if want := (fel.Version{SoC: 0x1680, Firmware: 1, Protocol: 1, Scratch: 0x7e00}); err != nil || v != want {
		t.Errorf("%+v, %v; want %+v", v, err, want)
	}
	data := make([]byte, 150_000)
	for i := range data {
		data[i] = byte(i * 7)
	}
	var told []int
	if err := d.Write(t.Context(), 0x4a000000, data, func(n int) { told = append(told, n) }); err != nil {
		t.Error(err)
	}
	if want := []int{65536, 65536, 18928}; !slices.Equal(r.sizes, want) {
		t.Errorf("data went in pieces of %v, want %v", r.sizes, want)
	}
	if want := []int{0, 65536, 131072}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
	for _, pieces := range []int{0, 512, 1000} {
		r.pieces = pieces
		back := make([]byte, len(data))
		if err := d.Read(t.Context(), 0x4a000000, back); err != nil || !bytes.Equal(back, data) {
			t.Errorf("in pieces of %d: %v", pieces, err)
		}
	}
	r.pieces = 0
	if err := d.Exec(t.Context(), 0x2000); err != nil {
		t.Error(err)
	}
	want := []string{"claim 1", "0x1 0x0 0", "0x101 0x4a000000 150000", "0x103 0x4a000000 150000", "0x103 0x4a000000 150000", "0x103 0x4a000000 150000", "0x102 0x2000 0"}
	if !slices.Equal(r.log, want) {
		t.Errorf("%q, want %q", r.log, want)
	}
}

// Data of whole packets may be ended by an empty one.
func TestEmptyPacket(t *testing.T) {
	r := newROM()
	r.edit = func(phase int, a []byte) []byte {
		if len(a) == 512 {
			r.answers = append(r.answers, a)
			return []byte{}
		}
		return a
	}
	if err := open(t, r).Read(t.Context(), 0x1000, make([]byte, 512)); err != nil {
		t.Error(err)
	}
}

func TestOpen(t *testing.T) {
	r := newROM()
	r.config = 0
	open(t, r)
	if want := []string{"configure 1", "claim 1"}; !slices.Equal(r.log, want) {
		t.Errorf("%q, want %q", r.log, want)
	}
	r.settings = r.settings[:1]
	if _, err := fel.Open(t.Context(), r); !errors.Is(err, fel.ErrNoInterface) {
		t.Error(err)
	}
}

// What is none of FEL's is told with what it should be.
func TestErrors(t *testing.T) {
	change := func(at int, b ...byte) func(int, []byte) []byte {
		return func(_ int, a []byte) []byte {
			if at < len(a) {
				copy(a[at:], b)
			}
			return a
		}
	}
	for _, tc := range []struct {
		name string
		edit func(phase int, answer []byte) []byte
		says string
	}{
		{"another magic", change(0, 'X'), `version: expected "AWUS" and 9 bytes, got 13 bytes: 58 57 55 53`},
		{"refused", change(12, 3), "version: the boot ROM refuses it with status 0x03"},
		{"short", func(_ int, a []byte) []byte { return a[:min(len(a), 7)] }, `expected "AWUS" and 9 bytes, got 7 bytes`},
		{"nothing", func(int, []byte) []byte { return nil }, "version: no answer: "},
		{"no FEL", func(phase int, a []byte) []byte {
			if phase == 1 && len(a) == 32 {
				a[0] = 'B'
			}
			return a
		}, "version: expected AWUSBFEX, got 42 57"},
		{"no mark", func(phase int, a []byte) []byte {
			if phase == 2 && len(a) == 8 {
				a[0] = 0
			}
			return a
		}, "version: expected a status that begins with ff ff, got 00 ff"},
		{"state", func(phase int, a []byte) []byte {
			if phase == 2 && len(a) == 8 {
				a[4] = 5
			}
			return a
		}, "version: the boot ROM refuses it with status 0x05"},
		{"an empty packet", func(phase int, a []byte) []byte {
			if phase == 1 && len(a) == 32 {
				return []byte{}
			}
			return a
		}, "version: expected 32 bytes, got 0 and an empty packet"},
	} {
		r := newROM()
		r.edit = tc.edit
		_, err := open(t, r).Version(t.Context())
		if err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.says)
		}
	}
}

// Only a call whose answer is missing may have been carried out.
func TestStarted(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want bool
	}{{context.DeadlineExceeded, true}, {usb.ErrGone, true}, {usb.ErrProtocol, true}, {usb.ErrStall, false}} {
		r := newROM()
		r.in = tc.err
		if err := open(t, r).Exec(t.Context(), 0x4a000000); !errors.Is(err, tc.err) || fel.Started(err) != tc.want {
			t.Errorf("%v: %t, want %t", err, fel.Started(err), tc.want)
		}
	}
}

// Whatever comes back is taken or refused, in bounded time.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte("AWUS\x00\x00\x00\x00\x00\x00\x00\x00\x00"), uint8(13))
	f.Add([]byte("AWUSBFEX"), uint8(8))
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		r := newROM()
		r.edit = func(_ int, a []byte) []byte {
			n := min(len(b), int(size), len(a))
			a = append(bytes.Clone(b[:n]), a[n:]...)
			b = b[n:]
			return a
		}
		d := open(t, r)
		if v, err := d.Version(t.Context()); err != nil && v != (fel.Version{}) {
			t.Errorf("%+v beside %v", v, err)
		}
	})
}

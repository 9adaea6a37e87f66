package ums

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"snag/sim/inproc"
	"snag/sim/usbdev"
	"snag/sim/virtual"
	"snag/usb"
)

// initiator is a host of the Bulk-Only Transport.
type initiator struct {
	t   *testing.T
	h   usb.Handle
	tag uint32
}

// plug powers a board and opens it. It is for a synctest bubble.
func plug(t *testing.T, cfg Config) (*Board, *initiator) {
	t.Helper()
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	host := inproc.New(inproc.Pair{High: 1, Super: 2})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx, host.Port("1-1")) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	<-b.Settled()
	synctest.Wait()
	devices, err := host.Devices()
	if err != nil || len(devices) != 1 {
		t.Fatalf("%v, %v", devices, err)
	}
	h, err := host.Open(t.Context(), devices[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	if err := h.Claim(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	return b, &initiator{t: t, h: h}
}

// do carries out a command, with data to the host if in is true. It returns how much of data was transferred and the
// status.
func (i *initiator) do(lun byte, in bool, data []byte, cdb ...byte) (n int, status byte, err error) {
	i.tag++
	var b [commandLen]byte
	binary.LittleEndian.PutUint32(b[:], commandSignature)
	binary.LittleEndian.PutUint32(b[4:], i.tag)
	binary.LittleEndian.PutUint32(b[8:], uint32(len(data)))
	if in {
		b[12] = 0x80
	}
	b[13], b[14] = lun, byte(len(cdb))
	copy(b[15:], cdb)
	ctx := i.t.Context()
	if _, err := i.h.Out(ctx, epOut, b[:]); err != nil {
		return 0, 0, err
	}
	switch {
	case len(data) == 0:
	case in:
		n, err = i.h.In(ctx, epIn, data)
	default:
		n, err = i.h.Out(ctx, epOut, data)
	}
	if errors.Is(err, usb.ErrStall) {
		err = i.clear(epIn)
	}
	if err != nil {
		return n, 0, err
	}
	var s [64]byte
	m, err := i.h.In(ctx, epIn, s[:])
	if errors.Is(err, usb.ErrStall) {
		if err := i.clear(epIn); err != nil {
			return n, 0, err
		}
		m, err = i.h.In(ctx, epIn, s[:])
	}
	if err != nil {
		return n, 0, err
	}
	if m != statusLen || binary.LittleEndian.Uint32(s[:]) != statusSignature || binary.LittleEndian.Uint32(s[4:]) != i.tag {
		return n, 0, fmt.Errorf("status % x", s[:m])
	}
	if rest := int(binary.LittleEndian.Uint32(s[8:])); in && s[12] == passed && rest != len(data)-n {
		i.t.Errorf("command % x: residue %d of %d, got %d", cdb, rest, len(data), n)
	}
	return n, s[12], nil
}

func (i *initiator) clear(ep uint8) error {
	_, err := i.h.Control(i.t.Context(), usb.Setup{Type: 2, Request: usb.ReqClearFeature, Index: uint16(ep)}, nil)
	return err
}

// sense asks why a command failed.
func (i *initiator) sense(lun byte) string {
	b := make([]byte, 18)
	n, status, err := i.do(lun, true, b, 3, 0, 0, 0, 18, 0)
	if n != 18 || status != passed || err != nil {
		i.t.Errorf("%d bytes of sense data, status %d, %v", n, status, err)
	}
	return fmt.Sprintf("%x/%02x/%02x", b[2], b[12], b[13])
}

// extent is a command of 10 bytes for some blocks.
func extent(code byte, first uint32, count uint16) []byte {
	b := make([]byte, 10)
	b[0] = code
	binary.BigEndian.PutUint32(b[2:], first)
	binary.BigEndian.PutUint16(b[7:], count)
	return b
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16 + 1)
	}
	return b
}

func clean(t *testing.T, b *Board) {
	t.Helper()
	for _, v := range b.Report().Violations {
		t.Errorf("the host did wrong: %s", v.Text)
	}
}

func TestCommands(t *testing.T) {
	for _, speed := range []usbdev.Speed{usbdev.FullSpeed, usbdev.HighSpeed, usbdev.SuperSpeed} {
		synctest.Test(t, func(t *testing.T) {
			b, i := plug(t, Config{Speed: speed, Units: []Unit{{}, {Size: 3 << 40, BlockSize: 4096, ReadOnly: true, Fixed: true}}})
			ask := func(lun byte, length int, cdb ...byte) []byte {
				t.Helper()
				data := make([]byte, length)
				n, status, err := i.do(lun, true, data, cdb...)
				if err != nil || status != passed {
					t.Errorf("% x: %d bytes, status %d, %v", cdb, n, status, err)
				}
				return data[:n]
			}
			one := make([]byte, 1)
			if _, err := i.h.Control(t.Context(), usb.Setup{Type: 0xa1, Request: reqMaxLUN, Length: 1}, one); err != nil || one[0] != 1 {
				t.Errorf("last LUN %d, %v", one, err)
			}
			ask(0, 0, 0, 0, 0, 0, 0, 0)
			if got := ask(1, 36, 0x12, 0, 0, 0, 36, 0); got[1] != 0 || string(got[8:]) != "Linux   UMS disk 1      ffff" {
				t.Errorf("%q", got)
			}
			if got := ask(0, 512, 0x12, 0, 0, 2, 0, 0); len(got) != 36 || got[1] != 0x80 { // a short answer
				t.Errorf("%q", got)
			}
			if got := ask(0, 8, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0); fmt.Sprintf("%x", got) != "0001ffff00000200" {
				t.Errorf("%x", got)
			}
			if got := ask(1, 32, 0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0); fmt.Sprintf("%x", got[:12]) != "000000002fffffff00001000" {
				t.Errorf("%x", got)
			}
			if got := ask(1, 192, 0x1a, 0, 0x3f, 0, 192, 0); len(got) != 16 || got[2] != 0x80 {
				t.Errorf("%x", got)
			}
			if got := ask(0, 8, 0x5a, 0, 8, 0, 0, 0, 0, 0, 8, 0); got[3] != 0 {
				t.Errorf("%x", got)
			}
			if got := ask(0, 12, 0x23, 0, 0, 0, 0, 0, 0, 0, 12, 0); fmt.Sprintf("%x", got) != "000000080002000002000200" {
				t.Errorf("%x", got)
			}
			data := pattern(200 << 10)
			if n, status, err := i.do(0, false, data, extent(0x2a, 7, 400)...); n != len(data) || status != passed || err != nil {
				t.Errorf("%d bytes, status %d, %v", n, status, err)
			}
			if u := b.Report().Stages[0].Units[0]; u.Written != int64(len(data)) || !u.Unsynced {
				t.Errorf("%+v", u)
			}
			ask(0, 0, 0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0)
			got := ask(0, len(data), 0x88, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 1, 144, 0, 0)
			if !bytes.Equal(got, data) || b.Report().Stages[0].Units[0].Unsynced {
				t.Error("read something else")
			}
			for _, tc := range []struct {
				lun   byte
				in    bool
				n     int
				cdb   []byte
				sense string
			}{
				{0, true, 96, []byte{0x12, 1, 0x80, 0, 96, 0}, "5/24/00"},
				{0, true, 64, []byte{0x77, 0, 0, 0, 0, 0}, "5/20/00"},
				{0, false, 3000, []byte{0x77, 0, 0, 0, 0, 0}, "5/20/00"},
				{1, false, 8192, extent(0x2a, 0, 2), "7/27/00"},
				{0, true, 1024, extent(0x28, 131071, 2), "5/21/00"},
			} {
				if _, status, err := i.do(tc.lun, tc.in, make([]byte, tc.n), tc.cdb...); status != failed || err != nil {
					t.Errorf("% x: status %d, %v", tc.cdb, status, err)
				}
				if got := i.sense(tc.lun); got != tc.sense {
					t.Errorf("% x: %s, want %s", tc.cdb, got, tc.sense)
				}
			}
			if v := b.Report().Violations; len(v) != 2 {
				t.Errorf("%v", v)
			}
			// A unit that is not there says so.
			if _, status, err := i.do(5, false, nil, 0, 0, 0, 0, 0, 0); status != failed || err != nil {
				t.Errorf("status %d, %v", status, err)
			}
			// What removes the medium ends U-Boot's command, unless that is prevented.
			ask(0, 0, 0x1e, 0, 0, 0, 1, 0)
			if _, status, _ := i.do(0, false, nil, 0x1b, 0, 0, 0, 2, 0); status != failed || i.sense(0) != "5/53/02" {
				t.Error("ejected")
			}
			ask(0, 0, 0x1e, 0, 0, 0, 0, 0)
			ask(0, 0, 0x1b, 0, 0, 0, 2, 0)
			time.Sleep(time.Second)
			if r := b.Report(); r.Outcome != virtual.Booted || !r.Stages[0].Units[0].Ejected || r.Stages[0].Units[0].Sum == "" {
				t.Errorf("%+v", r)
			}
		})
	}
}

// Media have faults of their own.
func TestMedia(t *testing.T) {
	data := pattern(64 << 10)
	for _, tc := range []struct {
		name   string
		unit   Unit
		first  uint32
		sense  string // of the write; empty: it passes
		there  func(got []byte) bool
		before uint32 // where it is read again
	}{
		{"good", Unit{}, 100, "", func(got []byte) bool { return bytes.Equal(got, data) }, 100},
		{"bad block", Unit{Bad: []int64{110}}, 100, "3/0c/00", nil, 0},
		{"lost block", Unit{Lost: []int64{110}}, 100, "", func(got []byte) bool {
			want := bytes.Clone(data)
			clear(want[10*512 : 11*512])
			return bytes.Equal(got, want)
		}, 100},
		{"small", Unit{Size: 1 << 20, Real: 1 << 19}, 1000, "", func(got []byte) bool {
			want := bytes.Clone(data)
			clear(want[24*512:])
			return bytes.Equal(got, want)
		}, 1000},
		{"small, wraps", Unit{Size: 1 << 20, Real: 1 << 19, Wrap: true}, 1024, "", func(got []byte) bool { return bytes.Equal(got, data) }, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, i := plug(t, Config{Units: []Unit{tc.unit}})
				_, status, err := i.do(0, false, data, extent(0x2a, tc.first, 128)...)
				if (status == failed) != (tc.sense != "") || err != nil {
					t.Fatalf("status %d, %v", status, err)
				}
				if tc.sense != "" {
					if got := i.sense(0); got != tc.sense {
						t.Errorf("%s, want %s", got, tc.sense)
					}
				} else {
					got := make([]byte, len(data))
					if _, status, err := i.do(0, true, got, extent(0x28, tc.before, 128)...); status != passed || err != nil || !tc.there(got) {
						t.Errorf("status %d, %v", status, err)
					}
				}
				clean(t, b)
			})
		})
	}
}

// A medium may come later, and says so once.
func TestAbsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, i := plug(t, Config{Units: []Unit{{Absent: time.Minute}}})
		ready := func() string {
			_, status, err := i.do(0, false, nil, 0, 0, 0, 0, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			if status == passed {
				return ""
			}
			return i.sense(0)
		}
		if got := ready(); got != "2/3a/00" {
			t.Error(got)
		}
		time.Sleep(time.Minute)
		if got := ready(); got != "6/28/00" {
			t.Error(got)
		}
		if got := ready(); got != "" {
			t.Error(got)
		}
		clean(t, b)
	})
}

func TestFaults(t *testing.T) {
	data := pattern(96 << 10)
	write := extent(0x2a, 0, 192)
	run := func(f string, check func(t *testing.T, b *Board, i *initiator)) {
		t.Run(f, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fault, err := ParseFault(f)
				if err != nil {
					t.Fatal(err)
				}
				b, i := plug(t, Config{Faults: []Fault{fault}})
				check(t, b, i)
				clean(t, b)
			})
		})
	}
	fails := func(t *testing.T, _ *Board, i *initiator) {
		if _, status, err := i.do(0, false, data, write...); status != failed || err != nil || i.sense(0) != "3/0c/00" {
			t.Errorf("status %d, %v", status, err)
		}
		if _, status, err := i.do(0, false, data, write...); status != passed || err != nil {
			t.Errorf("the second time: status %d, %v", status, err)
		}
	}
	run("error:gadget:write", fails)
	run("error:gadget:70001", fails)
	run("phase:gadget:write", func(t *testing.T, _ *Board, i *initiator) {
		if _, status, err := i.do(0, false, data, write...); status != phaseError || err != nil {
			t.Errorf("status %d, %v", status, err)
		}
	})
	run("cut:gadget:write", func(t *testing.T, _ *Board, i *initiator) {
		if _, _, err := i.do(0, false, data, write...); err == nil {
			t.Error("no error")
		}
	})
	run("stall:gadget:write", func(t *testing.T, _ *Board, i *initiator) {
		if _, status, err := i.do(0, false, data, write...); status != passed || err != nil {
			t.Errorf("status %d, %v", status, err)
		}
	})
	run("nak:gadget:write:5s", func(t *testing.T, _ *Board, i *initiator) {
		begun := time.Now()
		if _, status, err := i.do(0, false, data, write...); status != passed || err != nil || time.Since(begun) != 5*time.Second {
			t.Errorf("after %s: status %d, %v", time.Since(begun), status, err)
		}
	})
	run("unplug:gadget:70001", func(t *testing.T, b *Board, i *initiator) {
		if _, _, err := i.do(0, false, data, write...); !errors.Is(err, usb.ErrGone) {
			t.Error(err)
		}
		synctest.Wait()
		got := make([]byte, len(data))
		b.Storage(0).ReadAt(got, 0)
		if r := b.Report(); r.Outcome != virtual.Unplugged || !bytes.Equal(got[:70001], data[:70001]) || !bytes.Equal(got[70001:], make([]byte, len(data)-70001)) {
			t.Errorf("%+v", r)
		}
	})
	run("reset:gadget:70001", func(t *testing.T, b *Board, i *initiator) {
		if _, _, err := i.do(0, false, data, write...); !errors.Is(err, usb.ErrGone) {
			t.Error(err)
		}
		time.Sleep(time.Second)
		if r := b.Report(); r.Outcome != virtual.Running || len(r.Stages) != 2 {
			t.Errorf("%+v", r)
		}
	})
}

// After what is no command nothing goes on until a reset.
func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, i := plug(t, Config{})
		if _, err := i.h.Out(t.Context(), epOut, []byte("nonsense")); err != nil {
			t.Fatal(err)
		}
		if _, err := i.h.In(t.Context(), epIn, make([]byte, 13)); !errors.Is(err, usb.ErrStall) {
			t.Error(err)
		}
		if _, err := i.h.Control(t.Context(), usb.Setup{Type: 0x21, Request: reqReset}, nil); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(i.clear(epIn), i.clear(epOut)); err != nil {
			t.Fatal(err)
		}
		if _, status, err := i.do(0, false, nil, 0, 0, 0, 0, 0, 0); status != passed || err != nil {
			t.Errorf("status %d, %v", status, err)
		}
		if r := b.Report(); len(r.Violations) != 1 || r.Stages[0].Resets != 1 {
			t.Errorf("%+v", r)
		}
	})
}

func TestConfig(t *testing.T) {
	for _, cfg := range []Config{
		{Units: make([]Unit, 9)}, {Units: []Unit{{Size: 1000}}}, {Units: []Unit{{Size: 1 << 20, Real: 1 << 21}}}, {Units: []Unit{{BlockSize: 1000}}},
		{Faults: []Fault{{Kind: "melt", Stage: StageGadget}}}, {Faults: []Fault{{Kind: Error, Stage: StageGadget, Command: "format"}}},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v: no error", cfg)
		}
	}
}

// 13 GiB take no more memory than what is written to them.
func TestMemory(t *testing.T) {
	var m Memory
	data := pattern(100_000)
	for _, at := range []int64{0, 13<<30 - 50_000, 7<<30 + 1} {
		m.WriteAt(data, at)
		m.WriteAt(make([]byte, 1<<20), at+200_000)
		got := make([]byte, len(data)+2)
		m.ReadAt(got[1:], at)
		if !bytes.Equal(got[1:len(data)+1], data) {
			t.Errorf("at %d: something else", at)
		}
	}
	if len(m.chunk) != 6 {
		t.Errorf("%d chunks", len(m.chunk))
	}
	var n Memory
	for _, at := range []int64{7<<30 + 1, 13<<30 - 50_000, 0, 1 << 40} {
		n.WriteAt(data, at)
	}
	if n.Sum() == m.Sum() {
		t.Error("another content has the same sum")
	}
	n.WriteAt(make([]byte, len(data)), 1<<40)
	if n.Sum() != m.Sum() {
		t.Error("the same content has another sum")
	}
}

// FuzzCommand sends commands of all kinds.
func FuzzCommand(f *testing.F) {
	f.Add(byte(0), true, uint16(512), []byte{0x28, 0, 0, 0, 0, 7, 0, 0, 1, 0})
	f.Add(byte(0), false, uint16(1024), []byte{0x8a, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 2, 0, 0})
	f.Add(byte(9), true, uint16(36), []byte{0x12, 0, 0, 0, 36, 0})
	f.Add(byte(0), true, uint16(64), []byte{0xa8, 0, 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff, 0, 0})
	f.Fuzz(func(t *testing.T, lun byte, in bool, n uint16, cdb []byte) {
		if len(cdb) == 0 || len(cdb) > 16 || lun > 15 {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			b, i := plug(t, Config{})
			if _, _, err := i.do(lun, in, make([]byte, n), cdb...); err != nil {
				t.Fatal(err)
			}
			if b.Report().Outcome == virtual.Booted {
				return
			}
			if _, _, err := i.do(0, false, nil, 0, 0, 0, 0, 0, 0); err != nil && cdb[0] != 0x1b {
				t.Fatal(err)
			}
		})
	})
}

package amlogic

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/sim/inproc"
	"snag/sim/virtual"
	"snag/usb"
)

// host sends a board what a test tells it to.
type host struct {
	*testing.T
	usb.Handle
	board *Board
}

const port = usb.Port("1-1")

// plug powers a board and opens it. Everything ends with the test.
func plug(t *testing.T, name string, cfg Config) *host {
	t.Helper()
	var err error
	if cfg.Model, err = FindModel(name); err != nil {
		t.Fatal(err)
	}
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	bus := inproc.New()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx, bus.Port(port)) }()
	h := &host{T: t, board: b}
	t.Cleanup(func() {
		if h.Handle != nil {
			h.Close()
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	devices, err := bus.Devices()
	if err != nil || len(devices) != 1 {
		t.Fatal(devices, err)
	}
	if h.Handle, err = bus.Open(ctx, devices[0]); err != nil {
		t.Fatal(err)
	}
	if err := h.Claim(ctx, 0); err != nil {
		t.Fatal(err)
	}
	return h
}

// request performs one of the vendor's.
func (h *host) request(typ, request uint8, value, index uint16, data []byte) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return h.Control(ctx, usb.Setup{Type: typ, Request: request, Value: value, Index: index, Length: uint16(len(data))}, data)
}

// must fails the test if a request is refused.
func (h *host) must(request uint8, value, index uint16, data []byte) {
	h.Helper()
	if _, err := h.request(0x40, request, value, index, data); err != nil {
		h.Fatalf("request %#02x: %v", request, err)
	}
}

func (h *host) out(b []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := h.Out(ctx, epOut, b)
	return err
}

func (h *host) in() []byte {
	h.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	b := make([]byte, packet)
	n, err := h.In(ctx, epIn, b)
	if err != nil {
		h.Fatal(err)
	}
	return b[:n]
}

func le(words ...uint32) (b []byte) {
	for _, w := range words {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// violations fails the test unless these are what the host did wrong, by the begin of the texts.
func (h *host) violations(want ...string) {
	h.Helper()
	synctest.Wait() // the board looks at what it has taken
	got := h.board.Report().Violations
	for i, v := range got {
		if i >= len(want) || !strings.HasPrefix(v.Text, want[i]) {
			h.Fatalf("violations %v, want %q", got, want)
		}
	}
	if len(got) != len(want) {
		h.Errorf("violations %v, want %q", got, want)
	}
}

// What a ROM does not know, or not there, is refused, and is a mistake of the host's.
func TestRefuses(t *testing.T) {
	for _, tc := range []struct {
		model        string
		cfg          Config
		typ, request uint8
		value, index uint16
		data         []byte
		says         string
	}{
		{model: "s905x", typ: 0x40, request: 0x77, says: "rom: request 40 77, which is not known"},
		{model: "s905x", typ: 0x21, request: reqWrite, data: []byte{1}, says: "rom: request 21 01"},
		{model: "s905x", typ: 0xc0, request: reqWrite, data: []byte{1}, says: "rom: request c0 01"},
		{model: "s905x", typ: 0x40, request: reqIdentify, says: "rom: request 40 20"},
		{model: "s905x", typ: 0x40, request: reqWrite, value: 0xd900, says: "rom: write of 0 bytes"},
		{model: "s905x", typ: 0x40, request: reqWrite, value: 0xd900, data: make([]byte, 65), says: "rom: write of 65 bytes"},
		{model: "s905x", typ: 0x40, request: reqWrite, value: 0x0200, data: make([]byte, 64), says: "rom: write: 64 bytes to 0x02000000: there is no DRAM yet"},
		{model: "s905x", typ: 0x40, request: reqWrite, value: 0xfffa, data: make([]byte, 64), says: "rom: write: 64 bytes to 0xfffa0000: no memory of s905x"},
		{model: "s905x", typ: 0x40, request: reqWrite, value: 0xffff, index: 0xfff0, data: make([]byte, 64), says: "rom: write: 64 bytes to 0xfffffff0: no memory"},
		{model: "s905x", typ: 0xc0, request: reqRead, value: 0xd900, data: make([]byte, 65), says: "rom: read of 65 bytes"},
		{model: "s905x", typ: 0x40, request: reqRun, value: 0xd900, data: le(0xd900c010), says: "rom: run 0xd9000000 with data"},
		{model: "s905x", typ: 0x40, request: reqLarge, value: 64, index: 1, data: le(0xd900c000, 64), says: "rom: large write announced by 8 bytes"},
		{model: "s905x", typ: 0x40, request: reqLarge, value: 64, index: 3, data: le(0xd900c000, 128, 0, 0), says: "rom: large write of 128 bytes announced as 3 blocks of 64"},
		{model: "s905x", typ: 0x40, request: reqLarge, value: 0, index: 1, data: le(0xd900c000, 128, 0, 0), says: "rom: large write of 128 bytes announced as 1 blocks of 0"},
		{model: "s905x", typ: 0x40, request: reqLarge, value: 64, index: 2, data: le(0xd9000000, 128, 0, 0), says: "rom: large write to 0xd9000000: this ROM takes BL2 by simple writes"},
		{model: "s905x", typ: 0x40, request: reqAMLC, value: 0x200, says: "rom: amlc, which is not for this stage"},
		{model: "a311d", typ: 0x40, request: reqAMLC, value: 0x200, says: "rom: amlc, which is not for this stage"},
		{model: "a311d", cfg: Config{Locked: true}, typ: 0x40, request: reqWrite, value: 0xfffa, data: []byte{1}, says: "rom: write, of a ROM that wants a password"},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := plug(t, tc.model, tc.cfg)
			if _, err := h.request(tc.typ, tc.request, tc.value, tc.index, tc.data); !errors.Is(err, usb.ErrStall) {
				t.Errorf("%s: %v", tc.says, err)
			}
			h.violations(tc.says)
		})
	}
}

// A large write may come as Snagboot cuts it: 65535 bytes, then the odd rest.
func TestOddLargeWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := plug(t, "s905d3", Config{})
		data := fillOf(65536)
		for _, part := range []struct{ from, to int }{{0, 65535}, {65535, 65536}} {
			n := part.to - part.from
			h.must(reqLarge, 64, uint16((n+63)/64), le(0xfffa0000+uint32(part.from), uint32(n), 0, 0))
			for off := part.from; off < part.to; off += 64 {
				if err := h.out(data[off:min(off+64, part.to)]); err != nil {
					t.Fatal(err)
				}
			}
		}
		got := make([]byte, 64)
		for _, off := range []int{0, 65535 - 63, 65536 - 64} {
			if _, err := h.request(0xc0, reqRead, 0xfffa, uint16(off), got); err != nil || !bytes.Equal(got, data[off:off+64]) {
				t.Errorf("at %d: % x, %v", off, got, err)
			}
		}
		h.violations()
	})
}

func fillOf(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	return b
}

// A block that is not a transfer of its own, and a request instead of a block, are mistakes.
func TestLargeWriteMistakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := plug(t, "s905x", Config{})
		h.must(reqLarge, 64, 4, le(0xd900c000, 256, 0, 0))
		if err := h.out(fillOf(256)); err != nil {
			t.Fatal(err)
		}
		h.violations("rom: a transfer of 256 bytes in a large write by blocks of 64")
		h.must(reqLarge, 64, 4, le(0xd900c000, 256, 0, 0))
		if err := h.out(fillOf(64)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 8)
		if n, err := h.request(0xc0, reqIdentify, 0, 0, b); n != 8 || err != nil {
			t.Error(n, err)
		}
		h.violations("rom: a transfer of 256 bytes", "rom: a request in the middle of another one's data")
	})
}

// A BL2 takes a piece if its end is right, and refuses it otherwise.
func TestPieces(t *testing.T) {
	file := Generate(G12, 2000, 1)["u-boot-fip"]
	piece := file[0x10000:0x14000]
	good := slices.Clone(piece[:512])
	clear(good[:16])
	copy(good, "AMLS")
	var sum uint32
	for i := 0; i < len(piece); i += 4 {
		sum += binary.LittleEndian.Uint32(piece[i:])
	}
	binary.LittleEndian.PutUint32(good[8:], sum)
	change := func(at int) []byte {
		b := slices.Clone(good)
		b[at] ^= 1
		return b
	}
	for name, tc := range map[string]struct {
		end    []byte
		answer string
		says   []string
	}{
		"right":        {good, "OKAY", nil},
		"magic":        {change(0), "FAIL", []string{"bl2: the end of piece 0, at 0x10000, differs at its byte 0"}},
		"sequence":     {change(4), "FAIL", []string{"bl2: the end of piece 0, at 0x10000, differs at its byte 4"}},
		"sum":          {change(9), "FAIL", []string{"bl2: the end of piece 0, at 0x10000, differs at its byte 9"}},
		"the contents": {change(300), "FAIL", []string{"bl2: the end of piece 0, at 0x10000, differs at its byte 300"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := plug(t, "a311d", Config{})
			h.must(reqLarge, 4096, 16, le(0xfffa0000, 0x10000, 0, 0))
			for off := 0; off < 0x10000; off += 4096 {
				if err := h.out(file[off : off+4096]); err != nil {
					t.Fatal(err)
				}
			}
			h.must(reqRun, 0xfffa, 0, le(0xfffa0010))
			h.must(reqAMLC, 512, 0, nil)
			if ask := h.in(); !bytes.HasPrefix(ask, append([]byte("AMLC"), le(0, 0x4000, 0x10000)...)) || len(ask) != 512 {
				t.Fatalf("asked by % x", ask[:16])
			}
			if err := h.out(append([]byte("OKAY"), make([]byte, 12)...)); err != nil {
				t.Fatal(err)
			}
			h.must(reqData, 0, 0x3fff, nil)
			if err := h.out(piece); err != nil {
				t.Fatal(err)
			}
			if a := h.in(); !bytes.Equal(a, append([]byte("OKAY"), make([]byte, 12)...)) {
				t.Fatalf("answered by % x", a)
			}
			h.must(reqData, 0x10000/512, 511, nil)
			if err := h.out(tc.end); err != nil {
				t.Fatal(err)
			}
			if a := h.in(); string(a[:4]) != tc.answer {
				t.Errorf("%s: answered by % x", name, a)
			}
			h.violations(tc.says...)
		})
	}
}

// What a BL2 cannot use leaves the board stuck, and on the bus.
func TestStuck(t *testing.T) {
	files := Generate(GX, 50_000, 1)
	bl2, fip := files["bl2"], files["u-boot"]
	dram := le(0x3412cdab, 0x200, 0xc0df, 1, 0x00400000, 0x0082c0cc, 0x10000000, 0)
	start := le(0x3412cdab, 0x200, 0xc0e1, 1, 0, 0xc000, 1, 0x0200c000, 0xa4000, 0, 0, 0)
	write := func(h *host, addr uint32, b []byte) {
		for off := 0; off < len(b); off += 64 {
			at := addr + uint32(off)
			h.must(reqWrite, uint16(at>>16), uint16(at), b[off:min(off+64, len(b))])
		}
	}
	run := func(h *host, addr uint32) { h.must(reqRun, uint16(addr>>16), uint16(addr), le(addr|0x10)) }
	damaged := slices.Clone(bl2)
	damaged[5000]++
	other := slices.Clone(fip)
	other[5000]++
	for says, do := range map[string]func(h *host){
		"BL2 at 0xd9000000 does not start: no @AML":      func(h *host) { run(h, 0xd9000000) },
		"BL2 at 0xd9000000 does not start: its SHA-256":  func(h *host) { write(h, 0xd9000000, damaged); run(h, 0xd9000000) },
		"run 0xd9000040: BL2 belongs to 0xd9000000":      func(h *host) { run(h, 0xd9000040) },
		"BL2 finds no parameters at 0xd900c000":          func(h *host) { write(h, 0xd9000000, bl2); run(h, 0xd9000000); run(h, 0xd900c000) },
		"run 0xd9000000: BL2 starts what its parameters": func(h *host) { write(h, 0xd9000000, bl2); run(h, 0xd9000000); run(h, 0xd9000000) },
		"BL2 was to start the FIP before it has set up the DRAM": func(h *host) {
			write(h, 0xd9000000, bl2)
			write(h, 0xd900c000, start)
			run(h, 0xd9000000)
			run(h, 0xd900c000)
		},
		"BL2 was not written again before it was to start the FIP": func(h *host) {
			write(h, 0xd9000000, bl2)
			write(h, 0xd900c000, dram)
			run(h, 0xd9000000)
			run(h, 0xd900c000)
			write(h, 0xd900c000, start)
			run(h, 0xd900c000)
		},
		"BL2 finds no FIP at 0x0200c000: the piece at 0x0": func(h *host) {
			write(h, 0xd9000000, bl2)
			write(h, 0xd900c000, dram)
			run(h, 0xd9000000)
			run(h, 0xd900c000)
			write(h, 0xd9000000, bl2)
			write(h, 0xd900c000, start)
			write(h, 0x0200c000, other)
			run(h, 0xd900c000)
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := plug(t, "s905x", Config{})
			do(h)
			<-h.board.Settled()
			if r := h.board.Report(); r.Outcome != virtual.Stuck || !strings.Contains(r.Error, says) {
				t.Errorf("%s, %s; want %q", r.Outcome, r.Error, says)
			}
			select {
			case <-h.Gone():
				t.Errorf("%s: it left the bus", says)
			default:
			}
		})
	}
}

func TestParseFault(t *testing.T) {
	for _, s := range []string{"stall:rom:write", "nak:bl2:100:2s", "beyond:bl2:amlc"} {
		if _, err := ParseFault(s); err != nil {
			t.Error(err)
		}
	}
	for _, s := range []string{"", "stall:rom", "burn:rom:1", "stall:u-boot:1", "stall:rom:jump"} {
		if _, err := ParseFault(s); err == nil {
			t.Errorf("%q is accepted", s)
		}
	}
}

// FuzzImages reads what a host may have written.
func FuzzImages(f *testing.F) {
	f.Add(Generate(GX, 1, 1)["bl2"][:0x1200])
	f.Add(Generate(GX, 1, 1)["u-boot"][:0x600])
	f.Add(Generate(AXG, 1, 1)["u-boot"][:0x200])
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := imageAML(b); err == nil && len(got) > len(b) {
			t.Errorf("%d bytes of %d", len(got), len(b))
		}
		if got, err := imageFIP(b); err == nil && len(got) > len(b) {
			t.Errorf("%d bytes of %d", len(got), len(b))
		}
		if len(b) >= 16 {
			for _, a := range asksOf(b) {
				if a.Length > maxPiece {
					t.Errorf("asks for %+v", a)
				}
			}
		}
	})
}

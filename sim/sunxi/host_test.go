package sunxi

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/sim/inproc"
	"snag/sim/virtual"
	"snag/usb"
)

// client is a host that sends what a test tells it to.
type client struct {
	t     *testing.T
	board *Board
	h     usb.Handle
}

const testPort = usb.Port("1-1")

// plug powers a board and opens it. Everything ends with the bubble.
func plug(t *testing.T, cfg Config) *client {
	t.Helper()
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c, host := &client{t: t, board: b}, inproc.New()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx, host.Port(testPort)) }()
	t.Cleanup(func() {
		if c.h != nil {
			c.h.Close()
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	devices, err := host.Devices()
	if err != nil || len(devices) != 1 || devices[0].ID != ID {
		t.Fatalf("devices %+v, %v", devices, err)
	}
	if c.h, err = host.Open(ctx, devices[0]); err == nil {
		err = c.h.Claim(ctx, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// round is an AWUSB round, with data or for some.
func (c *client) round(kind byte, data []byte, size int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	m := c.board.cfg.Model
	b := make([]byte, requestSize)
	copy(b, "AWUC")
	binary.LittleEndian.PutUint32(b[8:], uint32(len(data)+size))
	binary.LittleEndian.PutUint32(b[18:], uint32(len(data)+size))
	b[15], b[16] = 12, kind
	_, err := c.h.Out(ctx, m.out, b)
	if err == nil && data != nil {
		_, err = c.h.Out(ctx, m.out, data)
	}
	got := make([]byte, size)
	if err == nil && size > 0 {
		_, err = c.h.In(ctx, m.in, got)
	}
	answer := make([]byte, answerSize)
	if err == nil {
		_, err = c.h.In(ctx, m.in, answer)
	}
	if err == nil && (string(answer[:4]) != "AWUS" || answer[12] != 0) {
		err = fmt.Errorf("AWUS % x", answer)
	}
	return got, err
}

// command is a FEL command, with data or for some.
func (c *client) command(code uint16, addr uint32, data []byte, size int) ([]byte, error) {
	b := make([]byte, commandSize)
	binary.LittleEndian.PutUint16(b, code)
	binary.LittleEndian.PutUint32(b[4:], addr)
	if code != cmdVersion {
		binary.LittleEndian.PutUint32(b[8:], uint32(len(data)+size))
	}
	_, err := c.round(toDevice, b, 0)
	var got []byte
	switch {
	case err != nil:
	case data != nil:
		_, err = c.round(toDevice, data, 0)
	case size > 0:
		got, err = c.round(toHost, nil, size)
	}
	if err != nil {
		return nil, err
	}
	status, err := c.round(toHost, nil, statusSize)
	if err == nil && (status[0]&status[1] != 0xff || status[4] != 0) {
		err = fmt.Errorf("status % x", status)
	}
	return got, err
}

// do is a command that is to succeed.
func (c *client) do(code uint16, addr uint32, data []byte, size int) []byte {
	c.t.Helper()
	got, err := c.command(code, addr, data, size)
	if err != nil {
		c.t.Fatalf("command %#x at %#x: %v; %+v", code, addr, err, c.board.Report())
	}
	return got
}

// run executes code in the scratch area.
func (c *client) run(code ...uint32) {
	c.t.Helper()
	var b []byte
	for _, w := range code {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	at := c.board.cfg.Model.SPL + 0x1000
	c.do(cmdWrite, at, b, 0)
	c.do(cmdExecute, at, nil, 0)
	time.Sleep(time.Second)
}

// Small programs.
const (
	bxLR       = 0xe12fff1e
	loadR0     = 0xe59f0000 // ldr r0, [pc, #...]
	loadR1     = 0xe59f1000
	storeR1    = 0xe5801000 // str r1, [r0]
	interrupts = 0xf1080080 // cpsie i
)

func h3(t *testing.T) Model {
	t.Helper()
	m, err := FindModel("h3")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// SPL is written to its place whole, which is the ROM's, too: the ROM does not live to call it.
func TestBoard(t *testing.T) {
	image := Generate(h3(t), 1000, 1)
	small := generateSPL(make([]byte, 0x1000), "small")
	bad := bytes.Clone(small)
	bad[200] ^= 1
	call := func(c *client) { c.run(0xe58fe00c, 0xe3a03000, 0xe12fff33, 0xe59fe000, bxLR, 0) } // str lr, [pc, #12]; mov r3, #0; blx r3; ldr lr, [pc]
	fel := func(b []byte) []byte { b = bytes.Clone(b); copy(b[8:], fromFEL); return b }
	for _, tc := range []struct {
		name   string
		cfg    Config
		do     func(c *client)
		stuck  string // why the board is
		wrong  string // that the host did
		resets int
	}{
		{name: "version", do: func(c *client) {
			if b := c.do(cmdVersion, 0, nil, versionSize); string(b[:8]) != "AWUSBFEX" || b[9] != 0x80 || b[10] != 0x16 {
				c.t.Errorf("version % x", b)
			}
		}},
		{name: "memory", do: func(c *client) {
			data := bytes.Repeat([]byte{1, 2, 3}, 0x500)
			c.do(cmdWrite, 0x2345, data, 0)
			if b := c.do(cmdRead, 0x2345, nil, len(data)); !bytes.Equal(b, data) {
				c.t.Error("what is read is not what was written")
			}
			c.do(cmdRead, 0xffff0000, nil, 0x8000)
		}},
		{name: "ROM's data", stuck: "what the ROM keeps at 0x7c00 to 0x8000 was overwritten", do: func(c *client) {
			c.command(cmdWrite, 0x7dfe, []byte{1, 2}, 0)
		}},
		{name: "SPL over the ROM", stuck: "what the ROM keeps at 0x1c00", do: func(c *client) { c.command(cmdWrite, 0, image.SPL, 0) }},
		{name: "SPL", stuck: "what the ROM keeps at 0x1c00 to 0x2000 was overwritten", do: func(c *client) { // nobody exchanged anything
			c.do(cmdWrite, 0, fel(small), 0)
			call(c)
		}},
		{name: "SPL with a flipped bit", stuck: "SPL crashes", do: func(c *client) { c.do(cmdWrite, 0, fel(bad), 0); call(c) }},
		{name: "SPL from storage", stuck: "looks for U-Boot in storage", do: func(c *client) { c.do(cmdWrite, 0, small, 0); call(c) }},
		{name: "SPL hangs", cfg: Config{SPLHangs: true}, stuck: "SPL hangs", do: func(c *client) { c.do(cmdWrite, 0, fel(small), 0); call(c) }},
		{name: "DRAM too early", wrong: "DRAM is written at 0x4a000000 before SPL", do: func(c *client) { c.do(cmdWrite, 0x4a000000, []byte{1}, 0) }},
		{name: "U-Boot too early", stuck: "data abort", do: func(c *client) { c.do(cmdExecute, 0x4a000000, nil, 0) }},
		{name: "registers by bytes", wrong: "registers at 0x1c20cb8 are written by bytes", do: func(c *client) { c.do(cmdWrite, 0x01c20cb8, []byte{1, 0, 0, 0}, 0) }},
		{name: "watchdog", resets: 1, do: func(c *client) { c.run(loadR0|8, loadR1|8, storeR1, bxLR, 0x01c20cb8, 1) }},
		{name: "for ever", stuck: "does not return", do: func(c *client) { c.run(0xeafffffe) }},
		{name: "waits", stuck: "interrupt that never comes", do: func(c *client) { c.run(0xe320f003, bxLR) }},
		{name: "interrupts on", stuck: "back in the ROM with the status register", do: func(c *client) { c.run(interrupts, bxLR) }},
		{name: "SMC", stuck: "not fused", do: func(c *client) { c.run(0xe1600070, bxLR) }},
		{name: "SMC where it is due", cfg: Config{Fused: true}, do: func(c *client) {
			before := c.do(cmdRead, 0x40004, nil, 4)
			c.run(0xe1600070, bxLR)
			after := c.do(cmdRead, 0x40004, nil, 4)
			if binary.LittleEndian.Uint32(before) != 0 || binary.LittleEndian.Uint32(after) != nop {
				c.t.Errorf("% x, then % x", before, after)
			}
		}},
		{name: "MMU without a table", stuck: "the MMU is switched on with", do: func(c *client) { c.run(0xee110f10, 0xe3800001, 0xee010f10, bxLR) }},
		{name: "Thumb", stuck: "not A32 code", do: func(c *client) { c.do(cmdExecute, 0x1001, nil, 0) }},
		{name: "RISC-V", cfg: Config{RISCV: true}, stuck: "RISC-V", do: func(c *client) { c.do(cmdExecute, 0x1000, nil, 0) }},
		{name: "unknown command", wrong: "command 0x0042", do: func(c *client) { c.command(0x42, 0, nil, 0) }},
		{name: "no AWUC", wrong: "where AWUC was due", do: func(c *client) { c.h.Out(context.Background(), c.board.cfg.Model.out, []byte("hello")) }},
		{name: "port reset in a command", do: func(c *client) {
			b := make([]byte, commandSize)
			b[0], b[1], b[8] = 0x03, 0x01, 16
			c.round(toDevice, b, 0) // a read, of which no more comes
			if err := c.h.Reset(context.Background()); err != nil {
				c.t.Error(err)
			}
			c.do(cmdVersion, 0, nil, versionSize)
		}},
		{name: "flipped bit", cfg: Config{Faults: []Fault{{Kind: Flip, Stage: StageROM, At: 3}}}, do: func(c *client) {
			c.do(cmdWrite, 0x2000, make([]byte, 8), 0)
			if b := c.do(cmdRead, 0x2000, nil, 8); !bytes.Equal(b, []byte{0, 0, 0x10, 0, 0, 0, 0, 0}) {
				c.t.Errorf("% x", b)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc.cfg.Model = h3(t)
				c := plug(t, tc.cfg)
				tc.do(c)
				time.Sleep(10 * time.Second)
				r := c.board.Report()
				if tc.stuck == "" && r.Outcome != virtual.Running || tc.stuck != "" && (r.Outcome != virtual.Stuck || !strings.Contains(r.Error, tc.stuck)) {
					t.Errorf("the board is %s: %s, expected %q", r.Outcome, r.Error, tc.stuck)
				}
				if got := fmt.Sprint(r.Violations); !strings.Contains(got, tc.wrong) || tc.wrong == "" && tc.stuck == "" && len(r.Violations) > 0 {
					t.Errorf("the host did %s, expected %q", got, tc.wrong)
				}
				if r.Resets != tc.resets {
					t.Errorf("%d resets", r.Resets)
				}
			})
		})
	}
}

// Code that is written over other code is executed at once, but where the ROM leaves the instruction cache on.
func TestStaleCode(t *testing.T) {
	for name, want := range map[string]uint32{"h3": 2, "v853": 1} {
		synctest.Test(t, func(t *testing.T) {
			m, err := FindModel(name)
			if err != nil {
				t.Fatal(err)
			}
			c := plug(t, Config{Model: m})
			for i := range uint32(2) {
				c.run(0xe3a01001+i, loadR0|4, storeR1, bxLR, m.SPL+0x2000) // mov r1, #1 or #2
			}
			if b := c.do(cmdRead, m.SPL+0x2000, nil, 4); binary.LittleEndian.Uint32(b) != want {
				t.Errorf("%s: % x, expected %d", name, b, want)
			}
		})
	}
}

// Every model is found by all its names, and its map has room for what the ROM keeps.
func TestModels(t *testing.T) {
	for _, name := range Names() {
		if _, err := FindModel(strings.ToUpper(name)); err != nil {
			t.Error(err)
		}
	}
	for _, m := range Models() {
		soc := newSoC(&Config{Model: m}, t.Errorf)
		for _, a := range append(slices.Clone(m.kept), m.scratch(), Area{m.sp - 4, 4}) {
			if soc.at(a.Addr) != inSRAM || soc.at(a.Addr+a.Size-1) != inSRAM {
				t.Errorf("%s: %#x of %d bytes is not in its SRAM", m.Name, a.Addr, a.Size)
			}
		}
	}
}

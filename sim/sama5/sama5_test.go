package sama5

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/sim/inproc"
	"snag/sim/usbdev"
	"snag/sim/virtual"
	"snag/usb"
)

// host is what talks to a board, byte by byte.
type host struct {
	t     *testing.T
	h     usb.Handle
	board *Board
}

// plug plugs a board in and opens it, in a bubble of its own time.
func plug(t *testing.T, cfg Config) *host {
	t.Helper()
	if cfg.Model.Name == "" {
		cfg.Model = models[1]
	}
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	host, in := &host{t: t, board: b}, inproc.New()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx, in.Port("1-1")) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	devices, err := in.Devices()
	if err != nil || len(devices) != 1 {
		t.Fatal(devices, err)
	}
	if host.h, err = in.Open(ctx, devices[0]); err != nil {
		t.Fatal(err)
	}
	for i := range uint8(2) {
		if err := host.h.Claim(ctx, i); err != nil {
			t.Fatal(err)
		}
	}
	return host
}

// say sends something, and returns all that comes within 100 ms.
func (h *host) say(what string) string {
	h.t.Helper()
	send, cancel := context.WithTimeout(h.t.Context(), time.Second)
	defer cancel()
	if _, err := h.h.Out(send, epOut, []byte(what)); err != nil {
		return err.Error()
	}
	var got []byte
	ctx, cancel := context.WithTimeout(h.t.Context(), 100*time.Millisecond)
	defer cancel()
	for {
		buf := make([]byte, 512)
		n, err := h.h.In(ctx, epIn, buf)
		got = append(got, buf[:n]...)
		if err != nil {
			return string(got)
		}
	}
}

func word(v uint32) string { return string(binary.LittleEndian.AppendUint32(nil, v)) }

// The monitor answers as its relatives do, in either mode.
func TestCommands(t *testing.T) {
	for _, speed := range []usbdev.Speed{usbdev.FullSpeed, usbdev.HighSpeed} {
		synctest.Test(t, func(t *testing.T) {
			h := plug(t, Config{Speed: speed})
			for _, c := range []struct{ say, want string }{
				{"#", "\n\r>"},
				{"V#", "\n\r" + Version + "\n\r>"},
				{"wffffee40,#", "\n\r0x8A5C07C2\n\r>"},
				{"O300000,12#", "\n\r>"},
				{"o300000,#", "\n\r0x12\n\r>"},
				{"N#", "\n\r"},
				{"N#", "\n\r"},
				{"#", ""},
				{"AT\rw300000,4#", word(0x12)},
				{"V#", Version + "\n\r"},
				{"W300010,a1b2c3d4#", ""},
				{"w30", ""},
				{"0010,#", word(0xa1b2c3d4)},
				{"h300012,#", "\xb2\xa1"},
				{"H300010,0#w300010,4#", word(0xa1b20000)},
				{"S300020,5#", ""},
				{"he", ""},
				{"llow300020,#", "hell"},
				{"R300020,5#", "hello"},
				{"w0,#", word(0xea000006)},
				{"T#", "\n\r>"},
			} {
				if got := h.say(c.say); got != c.want {
					t.Errorf("%q: %q, want %q", c.say, got, c.want)
				}
			}
			if r := h.board.Report(); len(r.Violations) != 0 {
				t.Error(r.Violations)
			}
		})
	}
}

// An answer that fills its packets is not ended by an empty one.
func TestNoZeroLengthPacket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := plug(t, Config{Speed: usbdev.FullSpeed, Binary: true})
		if _, err := h.h.Out(t.Context(), epOut, []byte("R300000,40#")); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		n, err := h.h.In(ctx, epIn, make([]byte, 128))
		if n != 64 || err == nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}

// What a processor does not survive ends the monitor.
func TestAborts(t *testing.T) {
	for _, tc := range []struct {
		cfg       Config
		say, says string
	}{
		{say: "wfc069000,#", says: "access to 4 bytes at 0xfc069000, where there is nothing"},
		{say: "w300002,#", says: "which is not aligned"},
		{say: "W20000000,1#", says: "access to DRAM at 0x20000000 before it was set up"},
		{say: "S30fffe,4#abcd", says: "access to 4 bytes at 0x30fffe"},
		{say: "Rfffffff0,20#", says: "where there is nothing"},
		{cfg: Config{Model: models[0]}, say: "W220000,1#", says: "which is the L2 cache"},
		{say: "G300000#", says: "is no applet"},
		{say: "G26f00000#", says: "there is no program"},
	} {
		synctest.Test(t, func(t *testing.T) {
			tc.cfg.Binary = true
			h := plug(t, tc.cfg)
			h.say(tc.say)
			r := h.board.Report()
			if r.Outcome != virtual.Stuck || !strings.Contains(r.Error, tc.says) {
				t.Errorf("%q: %s %q, want %q", tc.say, r.Outcome, r.Error, tc.says)
			}
			if got := h.say("V#"); !strings.Contains(got, "deadline exceeded") {
				t.Errorf("%q: afterwards %q", tc.say, got)
			}
		})
	}
}

// load sends a file.
func (h *host) load(address uint32, data []byte) {
	h.t.Helper()
	for at := 0; at < len(data); at += 5000 {
		b := data[at:min(len(data), at+5000)]
		h.say(fmt.Sprintf("S%x,%x#", address+uint32(at), len(b)))
		h.say(string(b))
	}
}

// call calls an applet, and returns its status.
func (h *host) call(words ...uint32) string {
	h.t.Helper()
	for i, v := range words {
		h.say(fmt.Sprintf("W%x,%x#", 0x300004+4*i, v))
	}
	if h.say("G300000#"); h.say("w300004,#") != word(^words[0]) {
		return "did not finish"
	}
	s := h.say("w300008,#")
	return fmt.Sprintf("%#x", binary.LittleEndian.Uint32([]byte(s)))
}

// Applets fail as Microchip's do.
func TestApplets(t *testing.T) {
	files := Generate(models[1], 1000, 1)
	for _, tc := range []struct {
		name     string
		lowlevel []uint32
		extram   []uint32
		want     string
	}{
		{"as it should be", []uint32{0, 0xffffffff, 0, 5, 0, 1, 0}, []uint32{0, 0xffffffff, 0, 5, 0, 1, 0, 2}, "0x0 0x0"},
		{"no console", []uint32{0, 0xffffffff, 0, 5, 0xffffffff, 0xffffffff, 0}, []uint32{0, 0xffffffff, 0, 5, 0, 0xffffffff, 0, 2}, "0x0 0x0"},
		{"unknown console", []uint32{0, 0xffffffff, 0, 5, 7, 1, 0}, nil, "0xf"},
		{"unknown I/O set", []uint32{0, 0xffffffff, 0, 5, 0, 2, 0}, nil, "0xf"},
		{"unknown command", []uint32{0x31, 0xffffffff, 0, 5, 0, 1, 0}, nil, "0xf"},
		{"no clocks", nil, []uint32{0, 0xffffffff, 0, 5, 0, 1, 0, 2}, "0xf"},
		{"another preset", []uint32{0, 0xffffffff, 0, 5, 0, 1, 0}, []uint32{0, 0xffffffff, 0, 5, 0, 1, 0, 1}, "0x0 0xf"},
		{"another mode", []uint32{0, 0xffffffff, 0, 5, 0, 1, 0}, []uint32{0, 0xffffffff, 0, 5, 0, 1, 1, 2}, "0x0 0xf"},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := plug(t, Config{Binary: true})
			var got []string
			for _, c := range []struct {
				file []byte
				args []uint32
			}{{files["lowlevel"], tc.lowlevel}, {files["extram"], tc.extram}} {
				if c.args != nil {
					h.load(0x300000, c.file)
					got = append(got, h.call(c.args...))
				}
			}
			if s := strings.Join(got, " "); s != tc.want {
				t.Errorf("%s: %s, want %s", tc.name, s, tc.want)
			}
			if tc.want != "0x0 0x0" {
				return
			}
			if got := h.say("w20000ffc,#"); got != word(0xffffffff) {
				t.Errorf("the test pattern ends with %x", got)
			}
			h.load(0x26f00000, files["u-boot"])
			h.say("G26f00000#")
			<-h.board.Settled()
			if r := h.board.Report(); r.Err() != nil || r.Last(StageROM).UBoot.Bytes != len(files["u-boot"]) {
				t.Errorf("%s: %v", tc.name, r.Err())
			}
		})
	}
}

func TestWrongUBoot(t *testing.T) {
	for says, data := range map[string][]byte{
		"was linked for 0x20000000":          GenerateUBoot(0x20000000, make([]byte, 100)),
		"does not begin with an instruction": bytes.Repeat([]byte{0x27}, 100),
		"there is no program at 0x26f00000":  GenerateUBoot(0x26f00000, nil)[:60],
	} {
		if err := starts(0x26f00000, data); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
}

func TestFindModel(t *testing.T) {
	if _, err := FindModel("sama5d9"); err == nil {
		t.Error("there is a sama5d9")
	}
	if _, err := New(Config{}); err == nil {
		t.Error("a board without a model")
	}
}

// FuzzMonitor sends a board anything.
func FuzzMonitor(f *testing.F) {
	f.Add([]byte("N#V#w300000,#W300000,1#S300000,4#abcdR300000,10#G300000#"))
	f.Add([]byte("T#O300000,ff#o300000,#h300000,#H300000,1#,,,#S300000,ffffffff#"))
	f.Add([]byte("R0,40#Rffffffff,ffffffff#"))
	f.Fuzz(func(t *testing.T, b []byte) {
		synctest.Test(t, func(t *testing.T) {
			h := plug(t, Config{})
			for len(b) > 0 {
				n := min(len(b), 100)
				h.say(string(b[:n]))
				b = b[n:]
			}
		})
	})
}

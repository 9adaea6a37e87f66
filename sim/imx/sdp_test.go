package imx

import (
	"context"
	"encoding/binary"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"snag/sim/virtual"
)

// TestSDP loads an image into every HID ROM, as it wants the DCD dealt with, by SET_REPORT and by the OUT endpoint.
func TestSDP(t *testing.T) {
	for _, m := range Models() {
		if m.Protocol != SDP || m.Data != 1024 {
			continue
		}
		for _, out := range []bool{false, true} {
			t.Run(m.Name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					cfg := Config{Model: m, SPL: SPLNone, OutEP: out, Gadget: Gadget}
					image := IVTImage{Self: m.DRAM + 0x400, Before: 0x400, DCD: GenerateDCD(20, false), Size: 30_000}.Generate()
					c := plug(t, cfg)
					c.out = out
					addr := c.load(image, !m.Skip)
					if m.Skip {
						c.do(okSkip, encode("skip-dcd", 0, 0, 0, 0, 0), nil)
					}
					c.jump(addr)
					r := c.end()
					violated(t, r)
					s := r.Last(StageROM)
					if r.Outcome != virtual.Booted || len(s.DCDs) != 1 || s.DCDs[0].Writes != 22 || s.DCDs[0].Checks != 1 ||
						len(s.Memory) != 1 || s.Memory[0].Bytes != len(image) || s.Jumps[0].Entry != addr+codeOffset {
						t.Errorf("%s", r.Effects())
					}
					if d := c.open(); d.ID != Gadget {
						t.Errorf("then %s shows up", d.ID)
					}
				})
			})
		}
	}
}

// spoiler is a machine whose firmware overwrites itself as soon as it runs.
type spoiler struct{ Memory }

func (s *spoiler) Jump(ctx context.Context, entry uint32) error {
	return s.WriteMemory(ctx, entry, []byte("it runs"))
}

// TestOverwritten has an image that changes in memory after the jump, before anybody asks what was there.
func TestOverwritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := FindModel("imx6q")
		if err != nil {
			t.Fatal(err)
		}
		image := IVTImage{Self: m.DRAM + 0x400, Before: 0x400, Size: 200_000}.Generate()
		c := plug(t, Config{Model: m, SPL: SPLNone, Machine: new(spoiler)})
		c.jump(c.load(image, false))
		r := c.end()
		violated(t, r)
		want := []Region{{Addr: m.DRAM + 0x400, Bytes: len(image), SHA256: virtual.SHA256(image)}}
		if diff := cmp.Diff(want, r.Last(StageROM).Memory, cmpopts.IgnoreUnexported(Region{})); diff != "" {
			t.Errorf("in memory at the jump (-want +got):\n%s", diff)
		}
	})
}

// TestStrict shows what a ROM refuses, or takes and finds wrong.
func TestStrict(t *testing.T) {
	const at = 0x10000400
	plain := IVTImage{Self: at, Before: 0x400, Size: 5000}
	withDCD := plain
	withDCD.DCD = GenerateDCD(3, false)
	signed := plain
	signed.Signed = true
	file := func(i IVTImage) []byte { return i.Generate() }
	clearDCD := func(b []byte) []byte {
		binary.LittleEndian.PutUint32(b[12:], 0)
		return b
	}
	write := func(c *client, b []byte) {
		c.do(okFile, encode("write-file", at, 0, uint32(len(b)), 0, 0), b)
	}
	for _, tc := range []struct {
		name      string
		cfg       Config
		do        func(c *client)
		violation string
		check     func(t *testing.T, r Report)
	}{
		{name: "the DCD twice", do: func(c *client) { c.jump(c.load(file(withDCD), false)) }, violation: "runs again",
			check: func(t *testing.T, r Report) {
				if d := r.Stages[0].DCDs; len(d) != 2 || d[1].When != "jump" {
					t.Errorf("%+v", d)
				}
			}},
		{name: "the DCD after the file", do: func(c *client) { write(c, file(withDCD)); c.jump(at) }, violation: "at the jump only"},
		{name: "a report that is not padded", do: func(c *client) {
			b := file(plain)
			c.write(1, encode("write-file", at, 0, uint32(len(b)), 0, 0))
			for ; len(b) > 1024; b = b[1024:] {
				c.write(2, b[:1024])
			}
			c.write(2, b)
			if _, status, err := c.answer(); status != okFile || err != nil {
				c.t.Errorf("%v, %v", status, err)
			}
			c.jump(at)
		}, violation: "not padded to 1024", check: func(t *testing.T, r Report) {
			if r.Stages[0].Short != 1 {
				t.Errorf("%d short reports", r.Stages[0].Short)
			}
		}},
		{name: "no IVT", do: func(c *client) { write(c, make([]byte, 2000)); c.do(failIVT, encode("jump", at, 0, 0, 0, 0), nil) }, violation: "no IVT",
			check: func(t *testing.T, r Report) {
				if r.Outcome != virtual.Running {
					t.Error(r.Outcome)
				}
			}},
		{name: "an IVT for elsewhere", do: func(c *client) {
			b := file(plain)
			c.do(okFile, encode("write-file", at+0x1000, 0, uint32(len(b)), 0, 0), b)
			c.do(failIVT, encode("jump", at+0x1000, 0, 0, 0, 0), nil)
		}, violation: "says that it is at 0x10000400"},
		{name: "an entry that nothing was written to", do: func(c *client) {
			write(c, file(plain)[:1024])
			c.do(failAddress, encode("jump", at, 0, 0, 0, 0), nil)
		}, violation: "nothing was written to the entry"},
		{name: "closed, not signed", cfg: Config{Closed: true}, do: func(c *client) {
			write(c, file(plain))
			c.do(failCSF, encode("jump", at, 0, 0, 0, 0), nil)
			c.do(failCSF, encode("error-status", 0, 0, 0, 0, 0), nil)
		}, violation: "not signed and the part is closed"},
		{name: "closed, signed", cfg: Config{Closed: true}, do: func(c *client) { write(c, file(signed)); c.jump(at) }},
		{name: "closed, signed, changed", cfg: Config{Closed: true}, do: func(c *client) {
			signed := withDCD
			signed.Signed = true
			write(c, clearDCD(file(signed)))
			c.do(failSignature, encode("jump", at, 0, 0, 0, 0), nil)
		}, violation: "signature"},
		{name: "a staging address of another SoC", do: func(c *client) {
			b := GenerateDCD(3, false)
			c.do(failStaging, encode("dcd", 0x911000, 0, uint32(len(b)), 0, 0), b)
		}, violation: "staged at 0x911000"},
		{name: "no DCD in a DCD", do: func(c *client) {
			c.do(failDCD, encode("dcd", ocram, 0, 100, 0, 0), make([]byte, 100))
		}, violation: "no DCD"},
		{name: "a large DCD", do: func(c *client) { c.do(failSize, encode("dcd", ocram, 0, maxDCD+1, 0, 0), nil) }, violation: "DCD of 1769 bytes"},
		{name: "a command it does not know", do: func(c *client) {
			c.write(1, encode("skip-dcd", 0, 0, 0, 0, 0))
			if b, err := c.read(); err == nil {
				c.t.Errorf("an answer: % x", b)
			}
		}, violation: "SKIP_DCD_HEADER"},
		{name: "a command within a file", do: func(c *client) {
			c.write(1, encode("write-file", at, 0, 5000, 0, 0))
			c.write(2, make([]byte, 1024))
			c.do(okStatus, encode("error-status", 0, 0, 0, 0, 0), nil)
		}, violation: "report 1 after 1024 of the 5000 bytes"},
		{name: "data without a command", do: func(c *client) { c.write(2, make([]byte, 1024)) }, violation: "report 2 where a command was due"},
		{name: "a large file", do: func(c *client) { write(c, make([]byte, maxFile+4)) }, violation: "WRITE_FILE of 0x200004 bytes"},
		{name: "a file beyond memory", do: func(c *client) {
			c.do(failAddress, encode("write-file", 0xfffffff0, 0, 0x20, 0, 0), nil)
		}, violation: "beyond 4 GiB"},
		{name: "registers", do: func(c *client) {
			c.do(okRegister, encode("write-register", 0x20e0000, 0x20, 4, 0x11223344, 0), nil)
			c.do(okRegister, encode("write-register", 0x20e0004, 0x08, 1, 0x55, 0), nil)
			c.do(word{0x44, 0x33, 0x22, 0x11}, encode("read-register", 0x20e0000, 0x20, 4, 0, 0), nil)
			c.write(1, encode("read-register", 0x20e0000, 0x20, 100, 0, 0))
			if _, status, err := c.answer(); status != (word{0x44, 0x33, 0x22, 0x11}) || err != nil {
				c.t.Errorf("%v, %v", status, err)
			}
			if b, err := c.read(); err != nil || len(b) != 65 || b[0] != 4 {
				c.t.Errorf("the second report of a long answer: % x, %v", b, err)
			}
		}, check: func(t *testing.T, r Report) {
			if !strings.Contains(r.Effects(), "register 0x020e0004 = 0x55, 8 bits, 1 times") {
				t.Error(r.Effects())
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc.cfg.Model = model(t, "imx6q")
				c := plug(t, tc.cfg)
				tc.do(c)
				time.Sleep(time.Second)
				r := c.board.Report()
				if tc.violation == "" {
					violated(t, r)
				} else if len(r.Violations) == 0 || !strings.Contains(r.Violations[0].Text, tc.violation) {
					t.Errorf("violations %v, expected %q", r.Violations, tc.violation)
				}
				if tc.check != nil {
					tc.check(t, r)
				}
			})
		})
	}
}

// TestPlugin runs a plugin, which comes back to the ROM, and the image behind it.
func TestPlugin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := plug(t, Config{Model: model(t, "imx6q")})
		plugin := IVTImage{Self: 0x907400, Size: 1000, Flags: 1}.Generate()
		c.jump(c.load(plugin, true))
		c.jump(c.load(IVTImage{Self: 0x10000400, Size: 5000, Seed: 1}.Generate(), true))
		r := c.end()
		violated(t, r)
		if j := r.Stages[0].Jumps; len(j) != 2 || j[0].Kind != "plugin" || r.Outcome != virtual.Booted {
			t.Errorf("%s", r.Effects())
		}
	})
}

// TestBulk loads images into the ROMs with bulk endpoints. Nothing is started before the next command.
func TestBulk(t *testing.T) {
	for _, name := range []string{"imx51", "imx53"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := model(t, name)
				image := generate(t, Config{Model: m}).First
				self := binary.LittleEndian.Uint32(image[20:])
				pointer := 12
				if m.OldHeader {
					self, pointer = binary.LittleEndian.Uint32(image[12:])-20, 20
				}
				clear(image[pointer : pointer+4])
				c := plug(t, Config{Model: m})
				words := func(command []byte, want ...word) {
					t.Helper()
					if err := c.write(1, command); err != nil {
						t.Fatal(err)
					}
					for _, w := range want {
						if b, err := c.read(); err != nil || word(b) != w {
							t.Fatalf("% x, %v, expected %v", b, err, w)
						}
					}
				}
				status := encode("error-status", 0, 0, 0, 0, 0)
				words(status, habOpen)
				words(encode("write-register", 0x53fa8554, 0x20, 4, 0x300000, 0), habOpen, okRegister)
				words(encode("read-register", 0x53fa8554, 0x20, 4, 0, 0), habOpen, word{0, 0, 0x30, 0})
				words(encode("write-file", self, 0, uint32(len(image)), 0, fileApplication), habOpen)
				if err := c.write(2, image); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				if r := c.board.Report(); r.Outcome != virtual.Running || r.Stages[0].Bytes != len(image) {
					t.Errorf("%+v", r)
				}
				words(status, okFile)
				r := c.end()
				violated(t, r)
				if r.Outcome != virtual.Booted || r.Stages[0].Memory[0].SHA256 != virtual.SHA256(image) {
					t.Error(r.Effects())
				}
			})
		})
	}
}

// TestFaults asks for one fault after the other and looks at what the host sees.
func TestFaults(t *testing.T) {
	const at = 0x10000400
	image := IVTImage{Self: at, Before: 0x400, Size: 5000}.Generate()
	status := encode("error-status", 0, 0, 0, 0, 0)
	for _, tc := range []struct {
		fault string
		cfg   Config
		do    func(t *testing.T, c *client)
	}{
		{"hab:rom:error-status", Config{}, func(t *testing.T, c *client) {
			c.write(1, status)
			if hab, s, err := c.answer(); hab != habBroken || s != okStatus || err != nil {
				t.Errorf("%v %v %v", hab, s, err)
			}
		}},
		{"status:rom:error-status", Config{}, func(t *testing.T, c *client) {
			c.do(word{0x11, 0x22, 0x33, 0x44}, status, nil)
			c.do(okStatus, status, nil)
		}},
		{"cut:rom:error-status", Config{}, func(t *testing.T, c *client) {
			c.write(1, status)
			c.read()
			if b, err := c.read(); len(b) != 2 || err != nil {
				t.Errorf("% x %v", b, err)
			}
		}},
		{"id:rom:error-status", Config{}, func(t *testing.T, c *client) {
			c.write(1, status)
			c.read()
			if b, err := c.read(); len(b) != 65 || b[0] != 7 || err != nil {
				t.Errorf("% x %v", b, err)
			}
		}},
		{"mute:rom:write-file", Config{}, func(t *testing.T, c *client) {
			c.send(encode("write-file", at, 0, 1024, 0, 0), make([]byte, 1024), 1024)
			if hab, _, err := c.answer(); hab != habOpen || err == nil {
				t.Errorf("%v %v", hab, err)
			}
			c.do(okStatus, status, nil)
		}},
		{"stall:rom:2048", Config{}, func(t *testing.T, c *client) {
			c.write(1, encode("write-file", at, 0, 4096, 0, 0))
			c.write(2, make([]byte, 1024))
			if err := c.write(2, make([]byte, 1024)); err != nil {
				t.Error(err)
			}
			synctest.Wait()
			if err := c.write(2, make([]byte, 1024)); err == nil {
				t.Error("no stall")
			}
			c.write(2, make([]byte, 1024))
			c.write(2, make([]byte, 1024))
			if _, err := c.read(); err == nil {
				t.Error("the IN endpoint is not halted")
			}
			if err := c.h.ClearHalt(t.Context(), epIn); err != nil {
				t.Error(err)
			}
			if _, s, err := c.answer(); s != okFile || err != nil {
				t.Errorf("%v %v", s, err)
			}
		}},
		{"stall:rom:2048", Config{OutEP: true}, func(t *testing.T, c *client) {
			c.out = true
			c.write(1, encode("write-file", at, 0, 4096, 0, 0))
			c.write(2, make([]byte, 1024))
			c.write(2, make([]byte, 1024))
			synctest.Wait()
			if err := c.write(2, make([]byte, 1024)); err == nil {
				t.Error("no stall")
			}
			c.h.ClearHalt(t.Context(), epOut)
			c.h.ClearHalt(t.Context(), epIn)
			c.write(2, make([]byte, 1024))
			c.write(2, make([]byte, 1024))
			if _, s, err := c.answer(); s != okFile || err != nil {
				t.Errorf("%v %v", s, err)
			}
		}},
		{"nak:rom:error-status:10s", Config{}, func(t *testing.T, c *client) {
			c.write(1, status)
			begun := time.Now()
			for {
				if _, err := c.read(); err == nil {
					break
				}
			}
			if d := time.Since(begun); d < 9*time.Second || d > 11*time.Second {
				t.Errorf("an answer after %v", d)
			}
		}},
		{"hang:rom:1024", Config{}, func(t *testing.T, c *client) {
			c.send(encode("write-file", at, 0, 4096, 0, 0), make([]byte, 4096), 1024)
			if r := c.end(); r.Outcome != virtual.Stuck {
				t.Error(r.Outcome)
			}
		}},
		{"unplug:rom:1024", Config{}, func(t *testing.T, c *client) {
			c.send(encode("write-file", at, 0, 4096, 0, 0), make([]byte, 4096), 1024)
			<-c.h.Gone()
			if r := c.end(); r.Outcome != virtual.Unplugged {
				t.Error(r.Outcome)
			}
		}},
		{"reset:rom:1024", Config{}, func(t *testing.T, c *client) {
			c.send(encode("write-file", at, 0, 4096, 0, 0), make([]byte, 4096), 1024)
			c.open()
			c.jump(c.load(image, true))
			if r := c.end(); r.Outcome != virtual.Booted || r.Resets != 1 || len(r.Stages) != 2 {
				t.Error(r.Outcome, r.Resets)
			}
		}},
		{"reset:spl:error-status", Config{SPL: SDPV, SPLDelay: 5 * time.Second}, func(t *testing.T, c *client) {
			c.jump(c.load(image, true))
			if d := c.open(); d.ID != SPLID {
				t.Errorf("SPL is %s", d.ID)
			}
			c.write(1, status)
			if d := c.open(); d.ID != c.board.cfg.ROM {
				t.Errorf("after SPL's reset there is %s", d.ID)
			}
			s := c.board.Report().Stages
			if gap := s[1].Plugged.Sub(s[0].Left); gap != 5*time.Second {
				t.Errorf("SPL after %v", gap)
			}
		}},
		{"", Config{SPL: SDPV, SameAddress: true}, func(t *testing.T, c *client) {
			rom := c.h.Device()
			c.jump(c.load(image, true))
			if spl := c.open(); spl.Address != rom.Address || spl.ID == rom.ID {
				t.Errorf("%+v after %+v", spl, rom)
			}
		}},
	} {
		t.Run(tc.fault, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc.cfg.Model = model(t, "imx6q")
				if tc.fault != "" {
					f, err := ParseFault(tc.fault)
					if err != nil {
						t.Fatal(err)
					}
					tc.cfg.Faults = []Fault{f}
				}
				tc.do(t, plug(t, tc.cfg))
			})
		})
	}
	for _, bad := range []string{"", "stall", "stall:rom", "melt:rom:0", "stall:moon:0", "stall:rom:sing", "nak:rom:0:soon", "a:b:c:d:e"} {
		if f, err := ParseFault(bad); err == nil {
			t.Errorf("%q is fault %+v", bad, f)
		}
	}
}

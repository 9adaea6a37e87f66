package imx

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/sim/virtual"
	"snag/usb"
)

// spl brings a board to its SPL.
func spl(t *testing.T, cfg Config) *client {
	t.Helper()
	cfg.Model = model(t, "imx6q")
	c := plug(t, cfg)
	c.jump(c.load(IVTImage{Self: 0x907400, Size: 1000}.Generate(), true))
	c.open()
	return c
}

// TestSPL starts images of every kind from SPLs of every build.
func TestSPL(t *testing.T) {
	const load = 0x17800000
	legacy, fit := GenerateLegacy(load, 5000, 1), GenerateFIT(1, 5000, 0, 300)
	containers := GenerateContainers(0, 1, []ContainerImage{{Size: 5000}})
	shifted := func(b []byte) []byte { return append(make([]byte, 0x2000), b...) }
	for _, tc := range []struct {
		name  string
		cfg   Config
		file  []byte
		addr  uint32
		found string // kind of the jump; empty: SPL panics
		text  string // of the violation
	}{
		{"IVT", Config{SPL: SDPV}, IVTImage{Self: load, Size: 5000}.Generate(), load, "ivt", ""},
		{"FIT", Config{SPL: SDPV}, fit, 0, "fit", ""},
		{"FIT, behind other things", Config{SPL: SDPV}, shifted(fit), 0, "fit", ""},
		{"FIT, cut", Config{SPL: SDPV}, fit[:len(fit)-300], 0, "", "beyond the file"},
		{"no FIT", Config{SPL: SDPV}, shifted(nil), 0, "", "error in search header"},
		{"FIT, by an SPL that does not search", Config{SPL: SDPU}, fit, 0, "fit", ""},
		{"FIT elsewhere, by an SPL that does not search", Config{SPL: SDPU}, shifted(fit), 0, "", "neither IVT nor"},
		{"container", Config{SPL: SDPV, SPLFinds: FindContainer}, shifted(containers), 0, "container", ""},
		{"FIT, by an SPL with containers", Config{SPL: SDPV, SPLFinds: FindContainer}, fit, 0, "", "no container"},
		{"legacy", Config{SPL: SDPV, SPLFinds: FindNothing}, legacy, load - 64, "legacy", ""},
		{"legacy at another address", Config{SPL: SDPV, SPLFinds: FindNothing}, legacy, 0, "", "not moved"},
		{"legacy, by an SPL with FIT", Config{SPL: SDPV}, legacy, load - 64, "", "error in search header"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := spl(t, tc.cfg)
				c.out = true
				c.do(okFile, encode("write-file", tc.addr, 0, uint32(len(tc.file)), 0, 0), tc.file)
				c.jump(tc.addr)
				if tc.found == "" {
					if d := c.open(); d.ID != c.board.cfg.ROM {
						t.Errorf("after SPL's panic there is %s", d.ID)
					}
				} else {
					c.end()
				}
				r := c.board.Report()
				s := r.Last(StageSPL)
				switch {
				case tc.found != "" && (len(s.Jumps) == 0 || s.Jumps[0].Kind != tc.found || r.Outcome != virtual.Booted || len(r.Violations) > 0):
					t.Errorf("%s %v", r.Effects(), r.Violations)
				case tc.found == "" && (len(r.Violations) != 1 || !strings.Contains(r.Violations[0].Text, tc.text) || r.Resets != 1):
					t.Errorf("%d resets, violations %v, expected %q", r.Resets, r.Violations, tc.text)
				}
			})
		})
	}
}

// TestSPLQuirks shows what is particular to U-Boot's gadget.
func TestSPLQuirks(t *testing.T) {
	status := encode("error-status", 0, 0, 0, 0, 0)
	t.Run("deaf to the OUT endpoint after SET_REPORT", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := spl(t, Config{SPL: SDPV})
			c.out = true
			c.do(word{}, status, nil)
			c.out = false
			c.do(word{}, status, nil)
			c.out = true
			c.do(word{}, status, nil) // the transfer that was waited for before
			if err := c.write(1, status); err == nil {
				t.Error("the endpoint takes another")
			}
			c.out = false
			c.do(word{}, status, nil)
		})
	})
	t.Run("no answer to WRITE_REGISTER", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := spl(t, Config{SPL: SDPV})
			c.write(1, encode("write-register", 0x1000, 0x20, 4, 1, 0))
			if b, err := c.read(); err == nil {
				t.Errorf("% x", b)
			}
			c.do(okSkip, encode("skip-dcd", 0, 0, 0, 0, 0), nil)
			violated(t, c.board.Report(), "spl: WRITE_REGISTER, which SPL does not know")
		})
	})
	t.Run("DCD_WRITE goes where the last file ended", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := spl(t, Config{SPL: SDPV})
			c.do(okFile, encode("write-file", 0x20000000, 0, 1024, 0, 0), make([]byte, 1024))
			b := GenerateDCD(3, false)
			c.do(okRegister, encode("dcd", ocram, 0, uint32(len(b)), 0, 0), b)
			c.do(word(b[:4]), encode("read-register", 0x20000400, 0x20, 4, 0, 0), nil)
		})
	})
	t.Run("the whole last report is written", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := spl(t, Config{SPL: SDPV})
			b := slices.Repeat([]byte{0x5a}, 2048)
			c.do(okFile, encode("write-file", 0, 0, 1030, 0, 0), b)
			c.do(word{0x5a, 0x5a, 0x5a, 0x5a}, encode("read-register", c.board.cfg.SPLAddr+2044, 0x20, 4, 0, 0), nil)
			violated(t, c.board.Report())
		})
	})
	t.Run("silent before the report descriptor is read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b, err := New(Config{Model: model(t, "imx6q"), SPL: SDPV})
			if err != nil {
				t.Fatal(err)
			}
			// Without a port, since every host's driver reads the descriptor.
			s := b.session(StageSPL, new(Memory))
			b.board.Begin(StageSPL, s.dev.Descriptors(), s.stage)
			ended := make(chan error, 1)
			go func() { ended <- s.spl(t.Context()) }()
			set := append([]byte{1}, status...)
			s.dev.Control(t.Context(), usb.Setup{Type: 0x21, Request: hidSetReport, Value: 0x0201, Length: 17}, set)
			answer := make(chan []byte, 1)
			go func() {
				buf := make([]byte, 65)
				n, _ := s.dev.In(t.Context(), epIn, buf)
				answer <- buf[:n]
			}()
			time.Sleep(time.Minute)
			if len(answer) > 0 {
				t.Errorf("% x", <-answer)
			}
			s.dev.Control(t.Context(), usb.Setup{Type: 0x81, Request: getDesc, Value: descReport << 8, Length: 255}, make([]byte, 255))
			if b := <-answer; len(b) != 5 || b[0] != 3 {
				t.Errorf("% x", b)
			}
			s.dev.Close()
			<-ended
		})
	})
}

package am335x

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/sim/virtual"
	"snag/usb"
)

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(n), 7))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// run powers a board until it settles, or for an hour of the bubble's time.
func run(t *testing.T, cfg Config, h *host) Report {
	t.Helper()
	if h.spl == nil {
		h.spl, h.uboot = noise(20000), noise(100_001)
	}
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx, h) }()
	select {
	case <-b.Settled():
	case <-time.After(time.Hour):
		t.Error(errNotSettled)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return b.Report()
}

// booted checks that both files arrived and that the host made no mistakes.
func booted(t *testing.T, r Report, h *host) {
	t.Helper()
	if r.Outcome != virtual.Booted {
		t.Errorf("outcome %s: %s", r.Outcome, r.Error)
		for _, s := range r.Stages {
			t.Logf("%s: %s: %d requests by BOOTP, %d by TFTP, %d repeated", s.Name, s.Error, s.BOOTPSent, s.Requests, s.Retries)
		}
		t.Fatal(r.Violations)
	}
	if s := r.Last(StageROM); !s.Complete || !bytes.Equal(s.Data, h.spl) {
		t.Errorf("the ROM received %d bytes, complete %t", len(s.Data), s.Complete)
	}
	if s := r.Last(StageSPL); !s.Complete || !bytes.Equal(s.Data, h.uboot) {
		t.Errorf("SPL received %d bytes, complete %t", len(s.Data), s.Complete)
	}
	if len(r.Violations) > 0 {
		t.Errorf("violations: %v", r.Violations)
	}
}

func TestBoot(t *testing.T) {
	second := []time.Duration{time.Second}
	for _, tc := range []struct {
		name  string
		cfg   Config
		host  *host
		check func(*testing.T, Report)
	}{
		{name: "plain", check: func(t *testing.T, r Report) {
			if s := r.Last(StageSPL); s.BlockSize != 1468 || s.Window != 1 || s.BOOTPSent != 2 || s.BOOTPLost != 0 {
				t.Errorf("%+v", s)
			}
		}},
		{name: "multiple of the block size", host: &host{spl: noise(1024), uboot: noise(1468 * 3)}},
		{name: "plain BOOTP", cfg: Config{BOOTP: true}, check: func(t *testing.T, r Report) {
			if s := r.Last(StageSPL); s.BOOTPSent != 1 {
				t.Errorf("%d requests", s.BOOTPSent)
			}
		}},
		{name: "SPL asks for no options", cfg: Config{NoOptions: true}},
		{name: "host ignores options", host: &host{noOptions: true}, check: func(t *testing.T, r Report) {
			if s := r.Last(StageSPL); s.BlockSize != 512 {
				t.Errorf("blocks of %d", s.BlockSize)
			}
		}},
		{name: "off the bus at once", cfg: Config{JumpDelay: -1}},
		{name: "window", cfg: Config{Window: 8}, host: &host{spl: noise(100), uboot: noise(1468 * 80)}, check: func(t *testing.T, r Report) {
			if s := r.Last(StageSPL); s.Window != 8 || s.Acks != 12 { // the OACK's, one for 8 blocks, and the last
				t.Errorf("window %d, %d ACKs", s.Window, s.Acks)
			}
		}},
		{name: "blocks wrap", cfg: Config{BlockSize: 8}, host: &host{spl: noise(100), uboot: noise(70000 * 8)}},
		{name: "interface up late", cfg: Config{ROMRetries: second}, host: &host{upAfter: 2500 * time.Millisecond}, check: func(t *testing.T, r Report) {
			// Two were replaced in the buffer; the third waits there until the link is up.
			if s := r.Last(StageROM); s.BOOTPBefore != 2 || s.BOOTPSent != 1 || s.BOOTPLost != 0 {
				t.Errorf("%d before, %d sent, %d lost", s.BOOTPBefore, s.BOOTPSent, s.BOOTPLost)
			}
		}},
		{name: "slow SPL, other IDs, gadget", cfg: Config{SPLDelay: 10 * time.Second, SPL: usb.ID{Vendor: 0x525, Product: 0xa4a2}, Gadget: usb.ID{Vendor: 0x451, Product: 0xd022}},
			check: func(t *testing.T, r Report) {
				gap := r.Last(StageSPL).Plugged.Sub(r.Last(StageROM).Left)
				if g := r.Last(StageGadget); gap != 10*time.Second || g == nil || g.ID != "0451:d022" || r.Last(StageSPL).ID != "0525:a4a2" {
					t.Errorf("gap %v, gadget %v", gap, g)
				}
			}},
		{name: "reset in both stages", cfg: Config{Faults: []Fault{{Kind: Reset, Stage: StageROM, At: 5000}, {Kind: Reset, Stage: StageSPL, At: 50000}}}, check: func(t *testing.T, r Report) {
			var names []string
			for _, s := range r.Stages {
				names = append(names, s.Name)
			}
			if want := []string{"rom", "rom", "spl", "rom", "spl"}; !slices.Equal(names, want) || r.Resets != 2 {
				t.Errorf("stages %v, %d resets", names, r.Resets)
			}
			if n := len(r.Stages[0].Data); n < 5000 || n > 5511 {
				t.Errorf("reset after %d bytes", n)
			}
		}},
		{name: "client error", cfg: Config{Faults: []Fault{{Kind: TFTPError, Stage: StageROM, At: 1000}, {Kind: TFTPError, Stage: StageSPL, At: 1000}}}, check: func(t *testing.T, r Report) {
			if r.Last(StageROM).Restarts != 1 || r.Last(StageSPL).Restarts != 1 {
				t.Errorf("restarts %+v", r.Stages)
			}
		}},
		{name: "doubled frames", cfg: Config{DuplicateIn: 0.5}},
		{name: "delay", cfg: Config{DelayIn: 5 * time.Millisecond, DelayOut: 5 * time.Millisecond}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := tc.host
				if h == nil {
					h = &host{}
				}
				r := run(t, tc.cfg, h)
				booted(t, r, h)
				if tc.check != nil {
					tc.check(t, r)
				}
			})
		})
	}
}

// TestLoss boots with 5 % of the frames lost each way.
func TestLoss(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			h := host{}
			cfg := Config{Seed: seed, LossIn: 0.05, LossOut: 0.05, ROMRetries: []time.Duration{time.Second}}
			r := run(t, cfg, &h)
			booted(t, r, &h)
			if r.LostIn == 0 || r.LostOut == 0 {
				t.Errorf("seed %d: %d and %d frames lost", seed, r.LostIn, r.LostOut)
			}
		})
	}
}

func TestNotBooted(t *testing.T) {
	for _, tc := range []struct {
		name      string
		cfg       Config
		host      *host
		outcome   virtual.Outcome
		err       string
		violation string
	}{
		{name: "link window", host: &host{upAfter: 3500 * time.Millisecond}, outcome: virtual.Stuck, err: "did not bring the link up within 3s"},
		{name: "no SPL", cfg: Config{SPLNever: true}, outcome: virtual.Stuck, err: "never shows"},
		{name: "unplugged", cfg: Config{Faults: []Fault{{Kind: Unplug, Stage: StageSPL, At: 3000}}}, outcome: virtual.Unplugged},
		{name: "OFFER for a REQUEST", host: &host{message: 2}, outcome: virtual.Stuck, err: "no address"}, // as a late answer to a DISCOVER
		{name: "NAK for a REQUEST", host: &host{message: 6}, outcome: virtual.Stuck, err: "no address", violation: "message type 6, expected 5"},
		{name: "OACK with another timeout", host: &host{oack: func(o []option) []option {
			for i := range o {
				if o[i].name == "timeout" {
					o[i].value = "3"
				}
			}
			return o
		}}, outcome: virtual.Stuck, err: "OACK", violation: "timeout=3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := tc.host
				if h == nil {
					h = &host{}
				}
				r := run(t, tc.cfg, h)
				if r.Outcome != tc.outcome || !strings.Contains(r.Error, tc.err) {
					t.Errorf("outcome %s: %s", r.Outcome, r.Error)
				}
				if tc.violation != "" && (len(r.Violations) == 0 || !strings.Contains(r.Violations[0].Text, tc.violation)) {
					t.Errorf("violations %v, expected one with %q", r.Violations, tc.violation)
				}
			})
		})
	}
}

// TestViolations checks that the ROM drops what it must and says so. The ROM never gives up, so that
// the board is watched for a time.
func TestViolations(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		host       *host
	}{
		{"source port", "rom: BOOTP reply from port 9067, expected 67", &host{sourcePort: 9067}},
		{"IP options", "rom: IPv4 version and header length 0x46, expected 0x45: no options", &host{edit: func(f []byte) []byte { f[14] = 0x46; return f }}},
		{"header checksum", "rom: IPv4 header checksum wrong", &host{edit: func(f []byte) []byte { f[22]--; return f }}},
		{"UDP checksum", "rom: UDP checksum wrong, port 67 to 68", &host{edit: func(f []byte) []byte { f[40] = 0x12; return f }}},
		{"no address", "rom: BOOTP reply without an address for the client", &host{edit: func(f []byte) []byte { copy(f[42+16:], make([]byte, 4)); return f }}},
		{"too long", "rom: file longer than the 111616 bytes there is room for", &host{spl: noise(MaxSPL + 1), uboot: noise(10)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, err := New(Config{})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				if tc.host.spl == nil {
					tc.host.spl, tc.host.uboot = noise(1000), noise(1000)
				}
				if err := b.Run(ctx, tc.host); err != nil {
					t.Error(err)
				}
				r := b.Report()
				if len(r.Violations) == 0 || r.Violations[0].Text != tc.want {
					t.Errorf("violations %v, expected %q", r.Violations, tc.want)
				}
				if r.Last(StageROM).Complete {
					t.Error("the ROM was content")
				}
			})
		})
	}
}

// TestROMSchedule compares the times of an unanswered ROM's requests with the manual's.
func TestROMSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := New(Config{})
		h := &host{sourcePort: 1, spl: noise(10), uboot: noise(10)}
		ctx, cancel := context.WithTimeout(t.Context(), 145*time.Second)
		defer cancel()
		b.Run(ctx, h)
		// 0, 4, 12, 28, 60; 124 is the end of the round, 144 the next.
		r := b.Report()
		if s := r.Last(StageROM); s.BOOTPSent != 6 || s.BOOTPLost != 6 {
			t.Errorf("%d requests, %d lost in 145 s, expected 6", s.BOOTPSent, s.BOOTPLost)
		}
		if h.seen[0] != "AM335x ROM" {
			t.Errorf("vendor class %q", h.seen[0])
		}
	})
}

func TestROMRequest(t *testing.T) {
	b := romRequest(mac{1, 2, 3, 4, 5, 6}, "AM335x ROM", [81]byte{0xaa})
	if len(b) != 364 || b[7] != 1 || string(b[242:252]) != "AM335x ROM" || b[252] != 61 || b[253] != 81 || b[254] != 0xaa || b[335] != 255 {
		t.Errorf("% x", b)
	}
}

func TestConfigRefused(t *testing.T) {
	for _, c := range []Config{
		{LossIn: 2}, {BlockSize: 4}, {Faults: []Fault{{Kind: Reset, Stage: "kernel", At: 1}}}, {Faults: []Fault{{Kind: "melt", Stage: StageROM, At: 1}}},
		{SPLMAC: []byte{1}}, {ROMRetries: []time.Duration{0}},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}

func TestParseFault(t *testing.T) {
	if f, err := ParseFault("reset:spl:50000"); err != nil || f != (Fault{Kind: Reset, Stage: StageSPL, At: 50000}) {
		t.Errorf("%v, %v", f, err)
	}
	for _, s := range []string{"", "reset", "reset:spl", "reset:spl:-1", "melt:spl:1", "reset:kernel:1"} {
		if _, err := ParseFault(s); err == nil {
			t.Errorf("%q was accepted", s)
		}
	}
}

func FuzzFrame(f *testing.F) {
	d := datagram{src: hostIP, dst: clientIP, srcPort: 67, dstPort: 68, data: pad([]byte{2, 1, 6}, 300)}
	f.Add(encodeUDP(d, 1))
	f.Add(encodeARP(arp{op: arpRequest, sender: hostIP, target: clientIP}))
	f.Fuzz(func(t *testing.T, b []byte) {
		decodeARP(b)
		if d, err := decodeUDP(b); err == nil && len(d.data) > len(b)-minimumIP {
			t.Errorf("%d bytes of data in a frame of %d", len(d.data), len(b))
		}
	})
}

func FuzzReply(f *testing.F) {
	m := mac{1, 2, 3, 4, 5, 6}
	b := bootpRequest(1, m)
	b[0], b[16] = 2, 10
	f.Add(pad(append(b, optMessage, 1, dhcpACK, optServer, 4, 10, 0, 0, 1, optEnd), 300))
	f.Add(pad(append(b, 0, 0, optBootFile, 200), 300))
	f.Fuzz(func(t *testing.T, b []byte) {
		if o, err := decodeReply(b, []uint32{1}, m, bootpFixed); err == nil && !o.address.IsValid() {
			t.Error("accepted without an address")
		}
	})
}

func FuzzTFTP(f *testing.F) {
	f.Add([]byte("\x00\x06blksize\x001468\x00tsize\x00100\x00"))
	f.Add([]byte("\x00\x03\x00\x01data"))
	f.Add(encodeError(1, "none"))
	asked := []option{{"timeout", "5"}, {"tsize", "0"}, {"blksize", "1468"}, {"windowsize", "8"}}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodeTFTP(b)
		if err != nil {
			return
		}
		n, err := negotiate(asked, p.options)
		if err == nil && (n.blockSize < 8 || n.blockSize > 1468 || n.window < 1 || n.window > 8) {
			t.Errorf("negotiated %+v", n)
		}
	})
}

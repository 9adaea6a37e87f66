package imx

import (
	"encoding/binary"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/sim/virtual"
)

// block is the command block before a stream.
func block(length int) []byte {
	b := make([]byte, 31)
	copy(b, "BLTC")
	b[4], b[15] = 1, 2
	binary.LittleEndian.PutUint32(b[8:], uint32(length))
	binary.BigEndian.PutUint32(b[16:], uint32(length))
	return b
}

// push sends a stream until the board refuses more.
func (c *client) push(b []byte) {
	m := c.board.cfg.Model
	c.out = m.OutEP
	if m.CBW {
		if err := c.write(1, block(len(b))); err != nil {
			c.t.Error(err)
		}
	}
	for at := 0; at < len(b); at += m.Data {
		piece := make([]byte, m.Data)
		copy(piece, b[at:])
		if err := c.write(2, piece); err != nil {
			return
		}
	}
}

// TestStreams pushes a generated image into every ROM that takes a stream.
func TestStreams(t *testing.T) {
	for _, m := range Models() {
		if m.Protocol != SDPS {
			continue
		}
		t.Run(m.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := Config{Model: m, StreamPause: 500 * time.Millisecond}
				image := generate(t, cfg).First
				c := plug(t, cfg)
				first := image
				if m.Header == "container" && m.SPL == SDPV {
					size, err := firstStage(m.Header, image)
					if err != nil {
						t.Fatal(err)
					}
					first = image[:size]
				}
				c.push(first)
				if m.SPL == SDPV {
					c.open()
					c.out = true
					rest := image[len(first):]
					c.do(okFile, encode("write-file", 0, 0, uint32(len(rest)), 0, 0), append(rest, make([]byte, -len(rest)&1023)...))
					c.jump(0)
				}
				r := c.end()
				violated(t, r)
				if r.Outcome != virtual.Booted || r.Stages[0].Stream == "" {
					t.Errorf("%s: %s", r.Error, r.Effects())
				}
				if s := r.Last(StageROMAPI); m.SPL == ROMAPI && (s == nil || s.Jumps[0].Found+uint32(r.Stages[0].Bytes)+uint32(s.Bytes)-s.Jumps[0].Found != uint32(len(image))) {
					t.Errorf("the two stages' streams do not make the file of %d bytes: %s", len(image), r.Effects())
				}
			})
		})
	}
}

func TestStreamsRefused(t *testing.T) {
	for _, tc := range []struct {
		name, model string
		do          func(c *client)
		violation   string
		stuck       bool
	}{
		{"no image", "imx8mp", func(c *client) { c.push(make([]byte, 5000)) }, "no IVT", true},
		{"no containers", "imx93", func(c *client) { c.push(make([]byte, 5000)) }, "no container", true},
		{"no boot stream", "imx28", func(c *client) { c.push(make([]byte, 5000)) }, "no boot stream", true},
		{"no command block", "imx28", func(c *client) { c.write(2, make([]byte, 1024)) }, "report 2 before the command block", false},
		{"a command block where none is due", "imx8qxp", func(c *client) { c.write(1, block(100)) }, "report 1 in a stream", false},
		{"another length", "imx28", func(c *client) {
			b := GenerateSB(5000, 1)
			c.write(1, block(len(b)+16))
			for ; len(b) > 0; b = b[min(1024, len(b)):] {
				c.write(2, b[:min(1024, len(b))])
			}
		}, "announced 5008 bytes, the image has 4992", false},
		{"SET_REPORT", "imx93", func(c *client) {
			if err := c.write(2, make([]byte, 1020)); err == nil {
				c.t.Error("it is served")
			}
		}, "", false},
		{"reports of 1024", "imx93", func(c *client) { c.out = true; c.write(2, make([]byte, 1024)) }, "data report of 1024 bytes, expected 1020", true},
		{"no U-Boot", "imx8mp", func(c *client) {
			c.push(append(IVTImage{Self: 0x7e0c00, Size: 5000}.Generate(), make([]byte, 700<<10)...))
		}, "no U-Boot (fit) in the first 640 KiB", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := plug(t, Config{Model: model(t, tc.model)})
				tc.do(c)
				time.Sleep(time.Second)
				r := c.board.Report()
				if tc.violation == "" {
					violated(t, r)
				} else if len(r.Violations) == 0 || !strings.Contains(r.Violations[0].Text, tc.violation) {
					t.Errorf("violations %v, expected %q", r.Violations, tc.violation)
				}
				if tc.stuck != (r.Outcome == virtual.Stuck) {
					t.Errorf("outcome %s: %s", r.Outcome, r.Error)
				}
			})
		})
	}
}

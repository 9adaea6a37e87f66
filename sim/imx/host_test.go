package imx

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	"snag/sim/inproc"
	"snag/usb"
)

// client is a host that sends what a test tells it to.
type client struct {
	t     *testing.T
	host  *inproc.Host
	board *Board
	h     usb.Handle
	out   bool // by the OUT endpoint, not by SET_REPORT
}

const testPort = usb.Port("1-1")

// plug powers a board and opens its first device. Everything ends with the test, or with the bubble.
func plug(t *testing.T, cfg Config) *client {
	t.Helper()
	b, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, host: inproc.New(), board: b}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx, c.host.Port(testPort)) }()
	t.Cleanup(func() {
		if c.h != nil {
			c.h.Close()
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	c.open()
	return c
}

// open waits for another device on the port and opens it.
func (c *client) open() usb.Device {
	c.t.Helper()
	if c.h != nil {
		<-c.h.Gone()
		c.h.Close()
		c.h = nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	changed, err := c.host.Watch(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	for {
		devices, err := c.host.Devices()
		if err != nil {
			c.t.Fatal(err)
		}
		if i := slices.IndexFunc(devices, func(d usb.Device) bool { return d.Port == testPort }); i >= 0 {
			c.h, err = c.host.Open(ctx, devices[i])
			if err == nil {
				err = c.h.Claim(ctx, 0)
			}
			if err == nil {
				return devices[i]
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			c.t.Fatalf("no device on %s: %+v", testPort, c.board.Report())
		}
	}
}

const patience = time.Second

// write sends a report, or, to a bulk ROM, its data.
func (c *client) write(id byte, data []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var err error
	switch {
	case c.board.cfg.Model.Protocol == Bulk && c.h.Device().ID == c.board.cfg.ROM:
		_, err = c.h.Out(ctx, epOut, data)
	case c.out:
		_, err = c.h.Out(ctx, epOut, append([]byte{id}, data...))
	default:
		b := append([]byte{id}, data...)
		_, err = c.h.Control(ctx, usb.Setup{Type: 0x21, Request: hidSetReport, Value: 0x0200 | uint16(id), Length: uint16(len(b))}, b)
	}
	return err
}

// read reads a report, with its ID.
func (c *client) read() ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ep := uint8(epIn)
	if c.board.cfg.Model.Protocol == Bulk {
		ep = epBulkIn
	}
	b := make([]byte, 1025)
	n, err := c.h.In(ctx, ep, b)
	return b[:n], err
}

func encode(name string, addr uint32, width uint8, count, value uint32, file uint8) []byte {
	b := make([]byte, commandSize)
	be := binary.BigEndian
	be.PutUint16(b, commandCodes[name])
	be.PutUint32(b[2:], addr)
	b[6] = width
	be.PutUint32(b[7:], count)
	be.PutUint32(b[11:], value)
	b[15] = file
	return b
}

// send sends a command with data in reports of a size, padded.
func (c *client) send(command, data []byte, size int) error {
	if err := c.write(1, command); err != nil {
		return err
	}
	for piece := range slices.Chunk(data, max(size, 1)) {
		if err := c.write(2, append(slices.Clone(piece), make([]byte, size-len(piece))...)); err != nil {
			return err
		}
	}
	return nil
}

var errShort = errors.New("a report that is too short")

// answer reads reports 3 and 4 and returns their words.
func (c *client) answer() (hab, status word, err error) {
	b, err := c.read()
	if err == nil && (len(b) < 5 || b[0] != 3) {
		err = errShort
	}
	if err != nil {
		return hab, status, err
	}
	copy(hab[:], b[1:])
	b, err = c.read()
	if err == nil && (len(b) < 5 || b[0] != 4) {
		err = errShort
	}
	if err == nil {
		copy(status[:], b[1:])
	}
	return hab, status, err
}

// do sends a command and expects a status word.
func (c *client) do(want word, command, data []byte) {
	c.t.Helper()
	if err := c.send(command, data, 1024); err != nil {
		c.t.Fatalf("command % x: %v; %+v", command, err, c.board.Report())
	}
	if _, got, err := c.answer(); got != want || err != nil {
		c.t.Fatalf("command % x: status %v, %v, expected %v; %+v", command, got, err, want, c.board.Report())
	}
}

// jump sends a jump and expects the security word alone, and the device to leave.
func (c *client) jump(addr uint32) {
	c.t.Helper()
	if err := c.write(1, encode("jump", addr, 0, 0, 0, 0)); err != nil {
		c.t.Fatal(err)
	}
	if b, err := c.read(); err != nil || len(b) != 5 || b[0] != 3 {
		c.t.Fatalf("answer to a jump: % x, %v", b, err)
	}
	if b, err := c.read(); err == nil {
		c.t.Fatalf("a second answer to a jump: % x", b)
	}
}

// load writes an image as uuu does, or, if clear, with the DCD's pointer cleared, and returns its address.
func (c *client) load(image []byte, clear bool) uint32 {
	c.t.Helper()
	le := binary.LittleEndian
	self, dcd := le.Uint32(image[20:]), le.Uint32(image[12:])
	if dcd != 0 {
		b := image[dcd-self:]
		b = b[:binary.BigEndian.Uint16(b[1:])]
		c.do(okRegister, encode("dcd", c.board.cfg.Model.Staging[0], 0, uint32(len(b)), 0, 0), b)
	}
	if clear {
		image = slices.Clone(image)
		le.PutUint32(image[12:], 0)
	}
	c.do(okFile, encode("write-file", self, 0, uint32(len(image)), 0, fileApplication), image)
	return self
}

// end waits until the board has settled.
func (c *client) end() Report {
	c.t.Helper()
	select {
	case <-c.board.Settled():
	case <-time.After(time.Minute):
		c.t.Error("the board does not settle")
	}
	return c.board.Report()
}

func model(t *testing.T, name string) Model {
	t.Helper()
	m, err := FindModel(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func generate(t *testing.T, cfg Config) Images {
	t.Helper()
	images, err := Generate(cfg, 30_000, 1)
	if err != nil {
		t.Fatal(err)
	}
	return images
}

// violated checks the violations.
func violated(t *testing.T, r Report, want ...string) {
	t.Helper()
	var got []string
	for _, v := range r.Violations {
		got = append(got, v.Text)
	}
	if !slices.Equal(got, want) {
		t.Errorf("violations %q, expected %q", got, want)
	}
}

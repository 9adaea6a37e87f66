package fastboot

import (
	"context"

	"snag/sim/usbdev"
	"snag/usb"
)

// The endpoints.
const (
	epOut = 0x01
	epIn  = 0x81
)

// request is how much U-Boot receives at once (f_fastboot.c, EP_BUFFER_SIZE).
const request = 4096

// gadget is a fastboot interface on USB: the carrier of a stage.
type gadget struct {
	*usbdev.Gadget
	violation func(format string, args ...any)
	packet    int
	seen      int // how often the host had selected a configuration when the stage looked
}

func newGadget(b *Board, name string, id usb.ID) *gadget {
	g := &gadget{violation: b.board.Violation, packet: 512}
	switch b.cfg.Speed {
	case usbdev.FullSpeed:
		g.packet = 64
	case usbdev.SuperSpeed:
		g.packet = 1024
	}
	iface := usbdev.Interface{Class: 0xff, SubClass: 0x42, Protocol: 0x03, Endpoints: []usbdev.Endpoint{
		{Address: epIn, Type: usbdev.Bulk, MaxPacket: uint16(g.packet)}, {Address: epOut, Type: usbdev.Bulk, MaxPacket: uint16(g.packet)},
	}}
	if b.cfg.OtherClass {
		iface.SubClass, iface.Protocol = 0xff, 0xff
	}
	d := &usbdev.Descriptors{
		Speed: b.cfg.Speed, ID: id, Manufacturer: "U-Boot", Product: "USB download gadget", Serial: "virtual",
		Configs: []usbdev.Config{{Value: 1, Attributes: 0x40, MaxPower: 1, Interfaces: []usbdev.Interface{iface}}},
	}
	if name == StageROM {
		d.Manufacturer, d.Product = "Intel", "Keem Bay recovery"
	}
	g.Gadget = usbdev.NewGadget(d, (*function)(g))
	return g
}

// function is the class's side of a gadget, which has no requests.
type function gadget

func (*function) Configured(uint8) {}

func (*function) Selected(uint8, uint8) {}

func (*function) Control(context.Context, usbdev.Setup, []byte) (int, error) {
	return 0, usbdev.ErrStall
}

// transfer makes one of a stage's. It ends by errBegun when the host configures the device anew: what was going on is
// over then.
func (g *gadget) transfer(ctx context.Context, f func(context.Context) (int, error)) (int, error) {
	if config, _ := g.Configured(); config != g.seen {
		first := g.seen == 0
		g.seen = config
		if !first {
			return 0, errBegun
		}
	}
	if g.seen > 0 {
		var cancel context.CancelFunc
		ctx, cancel = g.While(ctx, g.seen, errBegun)
		defer cancel()
	}
	n, err := f(ctx)
	if err != nil && context.Cause(ctx) != nil {
		err = context.Cause(ctx)
	}
	return n, err
}

func (g *gadget) command(ctx context.Context) ([]byte, error) {
	buf := make([]byte, request)
	n, err := g.transfer(ctx, func(ctx context.Context) (int, error) { return g.OutPipe(epOut).Read(ctx, buf) })
	if err == nil && n == 0 {
		g.violation("an empty command")
	}
	return buf[:n], err
}

// data receives whole packets, so that what is too much shows. U-Boot's requests are of 4096 bytes, which no host can
// tell from others.
func (g *gadget) data(ctx context.Context, buf []byte, rest int) (int, error) {
	if len(buf) < rest { // whole packets, unless a fault is due there
		n, err := g.transfer(ctx, func(ctx context.Context) (int, error) { return g.OutPipe(epOut).Read(ctx, buf) })
		if err == nil && n == 0 {
			g.violation("an empty packet among the data")
		}
		return n, err
	}
	b := make([]byte, (rest+g.packet-1)/g.packet*g.packet)
	n, err := g.transfer(ctx, func(ctx context.Context) (int, error) { return g.OutPipe(epOut).Read(ctx, b) })
	if err == nil && n == 0 {
		g.violation("an empty packet among the data")
	}
	if n > rest {
		g.violation("%d bytes more than the download was announced with", n-rest)
		n = rest
	}
	return copy(buf, b[:n]), err
}

// answer sends no empty packet behind an answer that fills its last one.
func (g *gadget) answer(ctx context.Context, b []byte) error {
	_, err := g.transfer(ctx, func(ctx context.Context) (int, error) { return g.InPipe(epIn).Write(ctx, b) })
	return err
}

func (g *gadget) halt() {
	g.Halt(epOut)
	g.Halt(epIn)
}

package ums

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"snag/sim/usbdev"
	"snag/sim/virtual"
)

// The endpoints.
const (
	epOut = 0x01
	epIn  = 0x81
)

// Requests of the class (BOT 1.0, sections 3.1 and 3.2).
const (
	reqReset  = 0xff
	reqMaxLUN = 0xfe
)

// The wrappers (BOT 1.0, section 5), little-endian:
//
//	command (31)                                  status (13)
//	off size                                      off size
//	0   4    signature "USBC"                     0   4    signature "USBS"
//	4   4    tag                                  4   4    tag
//	8   4    bytes of data                        8   4    residue
//	12  1    bit 7: to the host                   12  1    0 passed, 1 failed, 2 phase error
//	13  1    LUN
//	14  1    length of the command
//	15  16   command
const (
	commandLen       = 31
	statusLen        = 13
	commandSignature = 0x43425355
	statusSignature  = 0x53425355
)

const (
	passed     = 0
	failed     = 1
	phaseError = 2
)

// device is the gadget.
type device struct {
	*usbdev.Gadget
	b      *Board
	report *Stage
	packet int
	units  []*unit
	begun  time.Time

	received int       // bytes to write, of all units
	fault    FaultKind // of the next status

	mu     sync.Mutex
	cancel context.CancelCauseFunc // ends the command that is being carried out
}

func newDevice(b *Board) *device {
	d := &device{b: b, packet: 512, begun: time.Now(), report: &Stage{Units: make([]UnitReport, len(b.cfg.Units)), Commands: map[string]int{}}}
	switch b.cfg.Speed {
	case usbdev.FullSpeed:
		d.packet = 64
	case usbdev.SuperSpeed:
		d.packet = 1024
	}
	for i := range b.cfg.Units {
		d.units = append(d.units, &unit{Unit: &b.cfg.Units[i], report: &d.report.Units[i]})
	}
	d.Gadget = usbdev.NewGadget(&usbdev.Descriptors{
		Speed: b.cfg.Speed, ID: b.cfg.ID, Manufacturer: "U-Boot", Product: "USB download gadget", Serial: "0123456789abcdef",
		Configs: []usbdev.Config{{Value: 1, Attributes: 0x40, MaxPower: 1, Interfaces: []usbdev.Interface{{
			Class: 0x08, SubClass: 0x06, Protocol: 0x50, Endpoints: []usbdev.Endpoint{
				{Address: epIn, Type: usbdev.Bulk, MaxPacket: uint16(d.packet)}, {Address: epOut, Type: usbdev.Bulk, MaxPacket: uint16(d.packet)},
			},
		}}}},
	}, (*function)(d))
	return d
}

// function is the class's side of the gadget.
type function device

// errBegun is the host's beginning anew.
var errBegun = errors.New("the host reset the transport")

func (f *function) Configured(uint8)      { f.begin() }
func (f *function) Selected(uint8, uint8) { f.begin() }

func (f *function) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cancel != nil {
		f.cancel(errBegun)
	}
}

func (f *function) Control(_ context.Context, s usbdev.Setup, data []byte) (int, error) {
	switch {
	case s.Type == 0x21 && s.Request == reqReset && s.Value == 0 && s.Length == 0:
		f.b.board.Edit(func(*virtual.Report[*Stage]) { f.report.Resets++ })
		f.begin()
		return 0, nil
	case s.Type == 0xa1 && s.Request == reqMaxLUN && s.Value == 0 && len(data) > 0:
		data[0] = byte(len(f.units) - 1)
		return 1, nil
	}
	f.b.board.Violation("request %02x %02x, value %d, length %d", s.Type, s.Request, s.Value, s.Length)
	return 0, usbdev.ErrStall
}

// errEjected ends the stage.
var errEjected = errors.New("ejected")

// serve carries out commands until the stage ends. Ejected is a good end.
func (d *device) serve(ctx context.Context) error {
	for {
		one, cancel := context.WithCancelCause(ctx)
		d.mu.Lock()
		d.cancel = cancel
		d.mu.Unlock()
		err := d.command(one)
		begun := context.Cause(one) == errBegun
		cancel(nil)
		switch {
		case err == errEjected:
			return virtual.Sleep(ctx, 50*time.Millisecond) // the host is to have the status
		case err == nil || begun && ctx.Err() == nil:
		default:
			return err
		}
	}
}

// command carries out one command.
func (d *device) command(ctx context.Context) error {
	var b [512]byte
	n, err := d.OutPipe(epOut).Read(ctx, b[:])
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	if n != commandLen || le.Uint32(b[:]) != commandSignature || b[13] > 15 || b[14] == 0 || b[14] > 16 {
		// BOT 1.0, section 6.6.1: both endpoints are halted until a reset.
		d.b.board.Violation("not a command: %d bytes, % x", n, b[:min(n, commandLen)])
		d.Halt(epIn)
		d.Halt(epOut)
		<-ctx.Done()
		return context.Cause(ctx)
	}
	x := &exchange{device: d, tag: le.Uint32(b[4:]), length: int64(le.Uint32(b[8:])), in: b[12]&0x80 != 0, cdb: b[15 : 15+b[14]]}
	if lun := int(b[13]); lun < len(d.units) {
		x.unit = d.units[lun]
	}
	return x.run(ctx)
}

// due carries out the faults that are due at a command or, if that is empty, at the bytes received.
func (x *exchange) due(ctx context.Context, command string) error {
	for {
		f, err := x.b.board.Due(ctx, command, x.received)
		switch {
		case err != nil || f.Kind == "":
			return err
		case f.Kind == Error:
			x.fail(senseMedium)
		default:
			x.fault = f.Kind
		}
	}
}

// status sends the status.
func (x *exchange) status(ctx context.Context) error {
	var b [statusLen]byte
	le := binary.LittleEndian
	le.PutUint32(b[:], statusSignature)
	le.PutUint32(b[4:], x.tag)
	le.PutUint32(b[8:], uint32(x.length-x.done))
	if x.unit == nil || x.unit.failed {
		b[12] = failed
	}
	fault := x.fault
	x.fault = ""
	out := b[:]
	switch fault {
	case Phase:
		b[12] = phaseError
	case Cut:
		out = b[:5]
	case Stall:
		x.Halt(epIn)
	}
	_, err := x.InPipe(epIn).Write(ctx, out)
	return err
}

// send sends data to the host, of which there may be less than it asked for.
func (x *exchange) send(ctx context.Context, b []byte) error {
	b = b[:min(int64(len(b)), x.length-x.done)]
	if len(b) > 0 && !x.in {
		x.fault = Phase // BOT 1.0, section 6.7: the host is to send, the device too
		return nil
	}
	if len(b) > 0 {
		if _, err := x.InPipe(epIn).Write(ctx, b); err != nil {
			return err
		}
	}
	x.done += int64(len(b))
	return nil
}

// end ends the data: BOT 1.0, section 6.7.2: less to the host than it asked for ends with a short packet or a stall,
// what comes from it is received.
func (x *exchange) end(ctx context.Context) error {
	switch {
	case x.in && x.length > x.done && x.done%int64(x.packet) == 0:
		x.Halt(epIn)
	case !x.in:
		buf := make([]byte, 64<<10)
		for rest := x.length - x.taken; rest > 0; {
			n, err := x.OutPipe(epOut).Read(ctx, buf[:min(rest, int64(len(buf)))])
			if err != nil {
				return err
			}
			rest -= int64(n)
			if n == 0 {
				break
			}
		}
	}
	return nil
}

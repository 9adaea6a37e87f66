package ums

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"time"

	"snag/sim/virtual"
)

// sense is why a command failed: key, additional code, qualifier (SPC-2, section 7.23.2 and table 112).
type sense [3]byte

var (
	senseNone        = sense{}
	senseNoMedium    = sense{0x02, 0x3a, 0x00}
	senseMedium      = sense{0x03, 0x0c, 0x00} // write error
	senseRead        = sense{0x03, 0x11, 0x00} // unrecovered read error
	senseCommand     = sense{0x05, 0x20, 0x00}
	senseField       = sense{0x05, 0x24, 0x00}
	senseRange       = sense{0x05, 0x21, 0x00}
	senseChanged     = sense{0x06, 0x28, 0x00} // not ready to ready
	senseReadOnly    = sense{0x07, 0x27, 0x00}
	senseNotPrevents = sense{0x05, 0x53, 0x02} // removal is prevented
)

// operation is a command that the gadget knows.
type operation struct {
	code   byte
	name   string
	medium bool // it takes one
	run    func(x *exchange, ctx context.Context) error
}

var operations []operation

func init() {
	operations = []operation{
		{0x00, "test unit ready", true, func(*exchange, context.Context) error { return nil }},
		{0x03, "request sense", false, (*exchange).requestSense},
		{0x08, "read 6", true, (*exchange).read},
		{0x0a, "write 6", true, (*exchange).write},
		{0x12, "inquiry", false, (*exchange).inquiry},
		{0x1a, "mode sense 6", true, (*exchange).modeSense},
		{0x1b, "start stop unit", false, (*exchange).startStop},
		{0x1e, "prevent removal", true, func(x *exchange, _ context.Context) error {
			x.unit.prevented = x.cdb[4]&1 != 0
			return nil
		}},
		{0x23, "read format capacities", true, (*exchange).formatCapacities},
		{0x25, "read capacity 10", true, (*exchange).capacity10},
		{0x28, "read 10", true, (*exchange).read},
		{0x2a, "write 10", true, (*exchange).write},
		{0x2f, "verify 10", true, func(*exchange, context.Context) error { return nil }},
		{0x35, "synchronize cache", true, (*exchange).synchronize},
		{0x5a, "mode sense 10", true, (*exchange).modeSense},
		{0x88, "read 16", true, (*exchange).read},
		{0x8a, "write 16", true, (*exchange).write},
		{0x9e, "read capacity 16", true, (*exchange).capacity16},
		{0xa8, "read 12", true, (*exchange).read},
		{0xaa, "write 12", true, (*exchange).write},
	}
}

// commandNames are the names that a fault may have: a word for reads of all lengths, and one for writes.
func commandNames() []string {
	return []string{
		"test unit ready", "request sense", "read", "write", "inquiry", "mode sense", "start stop unit", "prevent removal",
		"read format capacities", "read capacity", "verify", "synchronize cache",
	}
}

// unit is a logical unit, with what it remembers.
type unit struct {
	*Unit
	report    *UnitReport
	sense     sense
	failed    bool // the command
	seen      bool // the medium, by the host
	prevented bool
	stopped   bool
}

// exchange is one command.
type exchange struct {
	*device
	unit   *unit // nil: there is none of that number
	tag    uint32
	length int64 // of data, as the host says
	in     bool
	cdb    []byte
	done   int64 // of data, sent or used
	taken  int64 // of data from the host
}

// fail ends the command with an error, the first that is found.
func (x *exchange) fail(s sense) {
	if !x.unit.failed {
		x.unit.sense, x.unit.failed = s, true
	}
}

func (x *exchange) edit(f func()) { x.b.board.Edit(func(*virtual.Report[*Stage]) { f() }) }

// run carries the command out.
func (x *exchange) run(ctx context.Context) error {
	i := slices.IndexFunc(operations, func(o operation) bool { return o.code == x.cdb[0] })
	name := fmt.Sprintf("%02x", x.cdb[0])
	if i >= 0 {
		name = operations[i].name
	}
	x.edit(func() {
		x.report.Commands[name]++
		if x.report.First.IsZero() {
			x.report.First = time.Now()
		}
	})
	ejected := false
	if u := x.unit; u != nil {
		u.failed = false
		x.cdb = append(slices.Clone(x.cdb), make([]byte, 16)...) // what is missing is 0
		fault := name
		for _, word := range []string{"read capacity", "mode sense", "verify"} {
			if len(name) > len(word) && name[:len(word)] == word {
				fault = word
			}
		}
		switch x.cdb[0] {
		case 0x08, 0x28, 0x88, 0xa8:
			fault = "read"
		case 0x0a, 0x2a, 0x8a, 0xaa:
			fault = "write"
		}
		if err := x.due(ctx, fault); err != nil {
			return err
		}
		switch {
		case u.failed:
		case i < 0:
			x.fail(senseCommand)
		case operations[i].medium && !u.ready(x.begun):
			x.fail(senseNoMedium)
		case operations[i].medium && u.Absent > 0 && !u.seen:
			u.seen = true
			x.fail(senseChanged)
		default:
			if err := operations[i].run(x, ctx); err != nil {
				return err
			}
		}
		ejected = x.cdb[0] == 0x1b && !u.failed && u.report.Ejected
	} else if x.cdb[0] == 0x12 || x.cdb[0] == 0x03 {
		// SPC-2, section 7.3.2: there is nothing that this unit could be.
		if err := x.send(ctx, append([]byte{0x7f, 0, 2, 2, 31}, make([]byte, 31)...)); err != nil {
			return err
		}
	}
	if err := x.end(ctx); err != nil {
		return err
	}
	if err := x.status(ctx); err != nil {
		return err
	}
	if ejected {
		return errEjected
	}
	return nil
}

// ready says whether there is a medium.
func (u *unit) ready(plugged time.Time) bool {
	return !u.stopped && u.Absent >= 0 && time.Since(plugged) >= u.Absent
}

// requestSense answers with fixed-format sense data (SPC-2, section 7.23.2).
func (x *exchange) requestSense(ctx context.Context) error {
	b := make([]byte, 18)
	b[0], b[7] = 0x70, 10
	b[2], b[12], b[13] = x.unit.sense[0], x.unit.sense[1], x.unit.sense[2]
	x.unit.sense = senseNone
	return x.send(ctx, b[:min(len(b), int(x.cdb[4]))])
}

// inquiry answers with the standard data (SPC-2, section 7.3.2); there are no pages of vital product data.
func (x *exchange) inquiry(ctx context.Context) error {
	if x.cdb[1]&3 != 0 || x.cdb[2] != 0 {
		x.fail(senseField)
		return nil
	}
	lun := slices.Index(x.units, x.unit)
	b := make([]byte, 36)
	if !x.unit.Fixed {
		b[1] = 0x80
	}
	b[2], b[3], b[4] = 2, 2, 31 // SCSI-2
	copy(b[8:], fmt.Sprintf("%-8s%-16s%-4s", "Linux", fmt.Sprintf("UMS disk %d", lun), "ffff"))
	return x.send(ctx, b[:min(len(b), int(binary.BigEndian.Uint16(x.cdb[3:])))])
}

// modeSense answers with no page but the header, which has the write protection (SPC-2, section 8.3.3), or the caching
// page of no cache (SBC-2, section 6.3.3).
func (x *exchange) modeSense(ctx context.Context) error {
	long := x.cdb[0] == 0x5a
	page, want := x.cdb[2]&0x3f, int(x.cdb[4])
	header := 4
	if long {
		header, want = 8, int(binary.BigEndian.Uint16(x.cdb[7:]))
	}
	if x.cdb[2]>>6 == 3 || page != 0x08 && page != 0x3f {
		x.fail(senseField)
		return nil
	}
	b := append(make([]byte, header), 0x08, 10)
	b = append(b, make([]byte, 10)...)
	b[header+2] = 0x04 // a write cache: what is not synchronized may be lost
	var protected byte
	if x.unit.ReadOnly {
		protected = 0x80
	}
	if long {
		binary.BigEndian.PutUint16(b, uint16(len(b)-2))
		b[3] = protected
	} else {
		b[0], b[2] = byte(len(b)-1), protected
	}
	return x.send(ctx, b[:min(len(b), want)])
}

// startStop ejects, if that is asked for and not prevented (SBC-2, section 5.18).
func (x *exchange) startStop(context.Context) error {
	eject, start := x.cdb[4]&2 != 0, x.cdb[4]&1 != 0
	switch {
	case start:
		x.unit.stopped = false
	case eject && x.unit.prevented:
		x.fail(senseNotPrevents)
	case eject:
		x.unit.stopped = true
		x.edit(func() { x.unit.report.Ejected = true })
	}
	return nil
}

func (x *exchange) blocks() int64 { return x.unit.Size / x.unit.BlockSize }

func (x *exchange) formatCapacities(ctx context.Context) error {
	b := make([]byte, 12)
	b[3] = 8
	binary.BigEndian.PutUint32(b[4:], uint32(min(x.blocks(), 1<<32-1)))
	binary.BigEndian.PutUint32(b[8:], uint32(x.unit.BlockSize))
	b[8] = 2 // formatted
	return x.send(ctx, b[:min(len(b), int(binary.BigEndian.Uint16(x.cdb[7:])))])
}

func (x *exchange) capacity10(ctx context.Context) error {
	b := make([]byte, 8)
	binary.BigEndian.PutUint32(b, uint32(min(x.blocks()-1, 1<<32-1)))
	binary.BigEndian.PutUint32(b[4:], uint32(x.unit.BlockSize))
	return x.send(ctx, b)
}

func (x *exchange) capacity16(ctx context.Context) error {
	if x.cdb[1]&0x1f != 0x10 {
		x.fail(senseCommand)
		return nil
	}
	b := make([]byte, 32)
	binary.BigEndian.PutUint64(b, uint64(x.blocks()-1))
	binary.BigEndian.PutUint32(b[8:], uint32(x.unit.BlockSize))
	return x.send(ctx, b[:min(len(b), int(binary.BigEndian.Uint32(x.cdb[10:])))])
}

func (x *exchange) synchronize(context.Context) error {
	x.edit(func() { x.unit.report.Unsynced = false })
	return nil
}

// extent reads where a command reads or writes (SBC-2, sections 5.5 to 5.8 and 5.25 to 5.28). It fails the command, and
// returns no length, if that is not on the unit.
func (x *exchange) extent(in bool) (off, n int64) {
	be := binary.BigEndian
	var first, count int64
	switch x.cdb[0] {
	case 0x08, 0x0a:
		first, count = int64(be.Uint32(x.cdb)&0x1fffff), int64(x.cdb[4])
		if count == 0 {
			count = 256
		}
	case 0x28, 0x2a:
		first, count = int64(be.Uint32(x.cdb[2:])), int64(be.Uint16(x.cdb[7:]))
	case 0xa8, 0xaa:
		first, count = int64(be.Uint32(x.cdb[2:])), int64(be.Uint32(x.cdb[6:]))
	default:
		first, count = int64(be.Uint64(x.cdb[2:])), int64(be.Uint32(x.cdb[10:]))
	}
	if first < 0 || first+count > x.blocks() || first+count < first {
		x.b.board.Violation("%d blocks from %d on, of %d", count, first, x.blocks())
		x.fail(senseRange)
		return 0, 0
	}
	off, n = first*x.unit.BlockSize, count*x.unit.BlockSize
	if n != x.length || n > 0 && in != x.in {
		x.b.board.Violation("a command of %d bytes, in a wrapper of %d", n, x.length)
		n = min(n, x.length)
		if in != x.in {
			x.fault, n = Phase, 0
		}
	}
	return off, n
}

// step is how much is read and written at a time: a buffer of U-Boot's (FSG_BUFLEN is twice that).
const step = 64 << 10

// before is how many of n bytes from off on come before one of the blocks.
func (x *exchange) before(off, n int64, blocks []int64) int64 {
	for _, b := range blocks {
		if at := b * x.unit.BlockSize; at >= off && at < off+n {
			n = at - off
		} else if at < off && off < at+x.unit.BlockSize {
			n = 0
		}
	}
	return n
}

func (x *exchange) read(ctx context.Context) error {
	off, n := x.extent(true)
	buf := make([]byte, min(n, step))
	for n > 0 {
		part := x.before(off, min(n, step), x.unit.Bad)
		if part == 0 {
			x.fail(senseRead)
			return nil
		}
		if err := x.unit.at(off, buf[:part], x.unit.Storage.ReadAt); err != nil {
			x.fail(senseRead)
			return nil
		}
		if err := x.send(ctx, buf[:part]); err != nil {
			return err
		}
		x.edit(func() { x.unit.report.Read += part })
		off, n = off+part, n-part
	}
	return nil
}

func (x *exchange) write(ctx context.Context) error {
	if x.unit.ReadOnly {
		x.b.board.Violation("a write to a unit that is write-protected")
		x.fail(senseReadOnly)
		return nil
	}
	off, n := x.extent(false)
	buf := make([]byte, min(n, step))
	for n > 0 && !x.unit.failed {
		most := x.b.board.Before(x.received, int(min(n, step)))
		got, err := x.OutPipe(epOut).Read(ctx, buf[:most])
		x.received, x.taken = x.received+got, x.taken+int64(got)
		part := int64(got)
		if good := x.before(off, part, x.unit.Bad); good < part {
			x.fail(senseMedium)
			part = good
		}
		if err := x.store(off, buf[:part]); err != nil {
			x.fail(senseMedium)
		}
		x.done += part
		x.edit(func() {
			x.unit.report.Written += part
			x.unit.report.Unsynced = true
			x.report.Received()
		})
		if err != nil {
			return err
		}
		if err := x.due(ctx, ""); err != nil {
			return err
		}
		if x.b.cfg.Rate > 0 {
			if err := virtual.Sleep(ctx, time.Duration(got)*time.Second/time.Duration(x.b.cfg.Rate)); err != nil {
				return err
			}
		}
		if got == 0 {
			x.b.board.Violation("an empty packet among the data")
		}
		off, n = off+int64(got), n-int64(got)
	}
	return nil
}

// store writes what is not to be lost.
func (x *exchange) store(off int64, b []byte) error {
	for len(b) > 0 {
		n := x.before(off, int64(len(b)), x.unit.Lost)
		if n == 0 {
			n = min(int64(len(b)), x.unit.BlockSize-off%x.unit.BlockSize)
		} else if err := x.unit.at(off, b[:n], x.unit.Storage.WriteAt); err != nil {
			return err
		}
		b, off = b[n:], off+n
	}
	return nil
}

// at reads or writes where the bytes really are.
func (u *unit) at(off int64, b []byte, do func([]byte, int64) (int, error)) error {
	for len(b) > 0 {
		n := min(int64(len(b)), u.Real-off%u.Real)
		if off < u.Real || u.Wrap {
			m, err := do(b[:n], off%u.Real)
			if err == io.EOF { // a file that is shorter reads as zeros
				clear(b[m:n])
			} else if err != nil {
				return err
			}
		} else {
			clear(b[:n])
		}
		b, off = b[n:], off+n
	}
	return nil
}

package imx

import (
	"context"
	"errors"
	"fmt"

	"snag/sim/virtual"
)

// maxFile is the most that uuu and Snagboot write with one command. What a ROM does with more nobody told.
const maxFile = 0x200000

// sdp is a ROM that speaks SDP over HID. It returns nil when the host has made it jump.
func (s *session) sdp(ctx context.Context) error {
	r := rom{session: s, last: okStatus}
	for {
		in, err := s.next(ctx)
		if err == nil && in.id != 1 {
			s.violation("report %d where a command was due", in.id)
			continue
		}
		for again := true; again && err == nil; {
			again = false
			var done bool
			done, err = r.perform(ctx, in.data)
			if done && err == nil {
				return nil
			}
			if errors.Is(err, errCommand) {
				in, again, err = r.instead, true, nil
			}
		}
		if errors.Is(err, errConfigured) {
			r = rom{session: s, last: okStatus}
		} else if err != nil {
			return err
		}
	}
}

// rom is the state of a ROM between commands.
type rom struct {
	*session
	last    word   // of the last failure, for ERROR_STATUS
	dcdRun  bool   // by DCD_WRITE
	skip    bool   // SKIP_DCD_HEADER was sent
	instead report // what came for errCommand
	app     bool   // bulk: an application was written, to be started by the next command
	appAddr uint32
}

// perform carries out a command of HID's. It returns true when the ROM is left.
func (r *rom) perform(ctx context.Context, b []byte) (bool, error) {
	c, err := parseCommand(b)
	if err != nil {
		r.violation("%v", err) // and no answer
		return false, nil
	}
	if err := r.due(ctx, c.name); err != nil {
		return false, err
	}
	if err := virtual.Sleep(ctx, r.b.cfg.Command); err != nil {
		return false, err
	}
	m := &r.b.cfg.Model
	status := okStatus
	switch c.name {
	case "read-register":
		return false, r.register(ctx, c)
	case "write-register":
		status = r.writeRegister(ctx, c)
	case "error-status":
		status = r.last
	case "write-file":
		if status, err = r.writeFile(ctx, c); err != nil {
			return false, err
		}
	case "dcd":
		if len(m.Staging) == 0 {
			r.violation("DCD_WRITE, which this ROM does not know")
			return false, nil
		}
		if status, err = r.writeDCD(ctx, c); err != nil {
			return false, err
		}
	case "skip-dcd":
		if !m.Skip {
			r.violation("SKIP_DCD_HEADER, which this ROM does not know")
			return false, nil
		}
		r.skip, status = true, okSkip
	case "jump":
		return r.jump(ctx, c)
	}
	r.log(c, status.String())
	return false, r.respond(ctx, r.hab(), r.status(status))
}

// writeRegister writes the low bytes of the command's value, as many as its width has.
func (r *rom) writeRegister(ctx context.Context, c command) word {
	width := int(c.width) / 8
	if width != 1 && width != 2 && width != 4 || c.width%8 != 0 || int(c.count) != width {
		r.violation("WRITE_REGISTER of %d bytes with a width of %d bits", c.count, c.width)
		return failAddress
	}
	if err := writeRegister(ctx, r.machine, c.addr, c.data, width); err != nil {
		r.violation("WRITE_REGISTER: %v", err)
		return failAddress
	}
	return okRegister
}

// fail remembers a failure.
func (r *rom) fail(w word, err error) word {
	r.violation("%v", err)
	r.last = w
	return w
}

// data receives count bytes in data reports and gives each to store.
func (r *rom) data(ctx context.Context, c command, store func(off uint32, b []byte) error) error {
	size := r.b.cfg.Model.Data
	for off := uint32(0); off < c.count; {
		in, err := r.next(ctx)
		if err != nil {
			return err
		}
		if in.id != 2 {
			r.violation("report %d after %d of the %d bytes of %s", in.id, off, c.count, c.name)
			if in.id == 1 {
				r.instead = in
				return errCommand
			}
			continue
		}
		if err := virtual.Sleep(ctx, r.b.cfg.Report); err != nil {
			return err
		}
		b := in.data
		if len(b) > size {
			r.violation("data report of %d bytes, expected %d", len(b), size)
			b = b[:size]
		}
		if len(b) < size {
			r.edit(func(t *Stage) { t.Short++ })
			r.violation("data report that is not padded to %d bytes", size)
		}
		b = b[:min(uint32(len(b)), c.count-off)]
		if err := store(off, b); err != nil {
			return err
		}
		off += uint32(len(b))
	}
	return nil
}

// writeFile receives a file into memory.
func (r *rom) writeFile(ctx context.Context, c command) (word, error) {
	if c.count > maxFile {
		r.violation("WRITE_FILE of %#x bytes, more than %#x", c.count, maxFile)
	}
	if err := inside(c.addr, int(c.count)); err != nil {
		return r.fail(failAddress, fmt.Errorf("WRITE_FILE: %w", err)), nil
	}
	r.spans = merge(r.spans, span{uint64(c.addr), uint64(c.addr) + uint64(c.count)})
	return okFile, r.data(ctx, c, func(off uint32, b []byte) error {
		if err := r.machine.WriteMemory(ctx, c.addr+off, b); err != nil {
			return err
		}
		r.received(len(b))
		return nil
	})
}

// writeDCD receives a DCD and runs it.
func (r *rom) writeDCD(ctx context.Context, c command) (word, error) {
	allowed := false
	for _, a := range r.b.cfg.Model.Staging {
		allowed = allowed || a == c.addr
	}
	if c.count > maxDCD {
		return r.fail(failSize, fmt.Errorf("DCD of %d bytes, more than %d", c.count, maxDCD)), nil
	}
	if c.count == 0 {
		return r.fail(failSize, errors.New("DCD of no bytes")), nil
	}
	all := make([]byte, 0, c.count)
	err := r.data(ctx, c, func(_ uint32, b []byte) error {
		all = append(all, b...)
		return nil
	})
	if err != nil {
		return word{}, err
	}
	if !allowed {
		return r.fail(failStaging, fmt.Errorf("DCD staged at %#x, expected one of %#x", c.addr, r.b.cfg.Model.Staging)), nil
	}
	if err := r.machine.WriteMemory(ctx, c.addr, all); err != nil {
		return r.fail(failStaging, err), nil
	}
	status, err := r.run(ctx, "command", c.addr, all)
	if err != nil {
		return r.fail(status, err), nil
	}
	r.dcdRun = true
	return okRegister, nil
}

// run runs a DCD and records that.
func (r *rom) run(ctx context.Context, when string, addr uint32, b []byte) (word, error) {
	d := DCD{When: when, Addr: addr, Data: b, SHA256: virtual.SHA256(b), Status: "ok"}
	status, err := runDCD(ctx, r.machine, b, &d)
	if err != nil {
		d.Status = err.Error()
	}
	r.edit(func(t *Stage) { t.DCDs = append(t.DCDs, d) })
	return status, err
}

// jump looks at the IVT and leaves the ROM. A plugin comes back to it.
func (r *rom) jump(ctx context.Context, c command) (bool, error) {
	r.log(c, "")
	j, status, err := r.image(ctx, c.addr)
	if err != nil {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		r.fail(status, fmt.Errorf("jump to %#x: %w", c.addr, err))
		j.Status = status.String()
		r.edit(func(t *Stage) { t.Jumps = append(t.Jumps, j) })
		return false, r.respond(ctx, r.hab(), r.status(status))
	}
	if err := r.respond(ctx, r.hab()); err != nil {
		return false, err
	}
	if err := r.execute(ctx, j); err != nil {
		return false, err
	}
	if j.Kind == "plugin" {
		r.edit(func(t *Stage) { t.Jumps = append(t.Jumps, j) })
		r.dcdRun, r.skip = false, false
		return false, nil
	}
	r.left(j)
	return true, nil
}

// image judges the image at an address as HAB and the ROM do before they start it.
func (r *rom) image(ctx context.Context, addr uint32) (Jump, word, error) {
	j := Jump{Addr: addr, Kind: "ivt"}
	var head [ivtSize]byte
	if err := r.machine.ReadMemory(ctx, addr, head[:]); err != nil {
		return j, failIVT, err
	}
	v, err := parseIVT(head[:])
	if err != nil {
		return j, failIVT, err
	}
	j.Found, j.Entry = addr, v.entry
	if v.self != addr {
		return j, failIVT, fmt.Errorf("the IVT says that it is at %#x", v.self)
	}
	boot := []uint32{0, 0, 0}
	for i := range boot {
		if boot[i], err = readRegister(ctx, r.machine, v.bootData+uint32(4*i), 4); err != nil {
			return j, failIVT, err
		}
	}
	if boot[2]&1 != 0 {
		j.Kind = "plugin"
	}
	if v.entry < boot[0] || uint64(v.entry) >= uint64(boot[0])+uint64(boot[1]) {
		return j, failAddress, fmt.Errorf("entry at %#x, boot data: start %#x, length %#x", v.entry, boot[0], boot[1])
	}
	if !r.written(v.entry) {
		return j, failAddress, fmt.Errorf("nothing was written to the entry at %#x", v.entry)
	}
	if r.b.cfg.Closed {
		if status, err := authenticate(ctx, r.machine, addr, v); err != nil {
			return j, status, err
		}
	}
	if v.dcd != 0 && !r.skip {
		status, err := r.secondDCD(ctx, v)
		return j, status, err
	}
	return j, word{}, nil
}

// secondDCD is what a ROM does at the jump with an IVT that has a DCD: it runs it, whether it ran before or not.
// Where memory was set up by it already, that destroys what is in memory; where it was not, the file went to
// memory that did not work yet.
func (r *rom) secondDCD(ctx context.Context, v ivt) (word, error) {
	switch {
	case r.dcdRun:
		r.violation("the DCD ran by DCD_WRITE and runs again at the jump: IVT.dcd was neither cleared nor skipped")
	case v.self >= r.b.cfg.Model.DRAM:
		r.violation("the DCD runs at the jump only, after the file was written to the memory that it sets up")
	}
	var head [4]byte
	if err := r.machine.ReadMemory(ctx, v.dcd, head[:]); err != nil {
		return failDCD, err
	}
	n := int(head[1])<<8 | int(head[2])
	if n > maxDCD {
		return failSize, fmt.Errorf("DCD of %d bytes at %#x", n, v.dcd)
	}
	b := make([]byte, n)
	if err := r.machine.ReadMemory(ctx, v.dcd, b); err != nil {
		return failDCD, err
	}
	return r.run(ctx, "jump", v.dcd, b)
}

// written says whether a file was written to an address.
func (s *session) written(addr uint32) bool {
	for _, sp := range s.spans {
		if sp.start <= uint64(addr) && uint64(addr) < sp.end {
			return true
		}
	}
	return false
}

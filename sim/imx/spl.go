package imx

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"snag/sim/virtual"
)

// spl is U-Boot's SPL as an SDP device, after drivers/usb/gadget/f_sdp.c of U-Boot 2026. What is particular to it:
//
//   - it answers nothing before the host has read the report descriptor (sdp_init);
//   - after the first command by SET_REPORT it does not look at the OUT endpoint again (ep_int_enable);
//   - a file to address 0 goes to CONFIG_SDP_LOADADDR, all bytes of its last report are written;
//   - WRITE_REGISTER is unknown and has no answer;
//   - DCD_WRITE takes data by SET_REPORT only, writes it to where the last file ended, and answers;
//   - the security word is always that of an open part, ERROR_STATUS answers 0;
//   - a jump without an IVT at the address searches, and panics where it finds nothing.
func (s *session) spl(ctx context.Context) error {
	for {
		u := splState{session: s}
		err := u.serve(ctx)
		if !errors.Is(err, errConfigured) {
			return err
		}
		s.unserved.Store(false)
		s.dev.serve()
	}
}

// splState is struct f_sdp.
type splState struct {
	*session
	addr    uint32 // dnl_address
	bytes   uint32 // dnl_bytes: of the last file
	left    uint32 // dnl_bytes_remaining
	file    bool   // data of a file is due; else what comes is a command
	command command
}

func (u *splState) serve(ctx context.Context) error {
	for {
		r, err := u.next(ctx)
		if err != nil {
			return err
		}
		if err := u.fetched(ctx); err != nil {
			return err
		}
		if r.control && r.id == 1 {
			u.unserved.Store(true)
		}
		switch {
		case r.id == 1 && (r.control || !u.file):
			if u.file {
				u.violation("a command after %d of the %d bytes of a file", u.bytes-u.left, u.bytes)
			}
			done, err := u.perform(ctx, r)
			if done || err != nil {
				return err
			}
		case r.id == 2 && (r.control || u.file):
			if !u.file {
				u.violation("a data report that no command announced")
			}
			if err := u.data(ctx, r.data); err != nil {
				return err
			}
		default:
			u.violation("report %d where another was due", r.id)
		}
	}
}

// fetched waits until the host has read the report descriptor, as SPL does before it serves anything.
func (u *splState) fetched(ctx context.Context) error {
	select {
	case <-u.dev.fetched:
		return nil
	default:
	}
	u.violation("a report before the host has read the report descriptor: SPL does not answer until then")
	select {
	case <-u.dev.fetched:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-u.dev.Gone():
		return errors.New("nobody read the report descriptor")
	}
}

// load is a command's address, as SPL takes it.
func (u *splState) load(addr uint32) uint32 {
	if addr == 0 {
		return u.b.cfg.SPLAddr
	}
	return addr
}

func (u *splState) perform(ctx context.Context, r report) (bool, error) {
	c, err := parseCommand(r.data)
	if err != nil {
		u.violation("%v", err)
		return false, nil
	}
	if err := u.due(ctx, c.name); err != nil {
		return false, err
	}
	if err := virtual.Sleep(ctx, u.b.cfg.Command); err != nil {
		return false, err
	}
	u.command = c
	status := word{}
	switch c.name {
	case "read-register":
		return false, u.register(ctx, c)
	case "write-register":
		u.log(c, "")
		u.violation("WRITE_REGISTER, which SPL does not know")
		return false, nil
	case "write-file", "dcd":
		if c.name == "dcd" {
			u.violation("DCD_WRITE, which SPL does not carry out")
			if !r.control {
				u.log(c, "")
				return false, nil // SPL waits for data that it never asks the endpoint for
			}
		} else {
			u.addr, u.bytes = u.load(c.addr), c.count
			if err := inside(u.addr, int(c.count)); err != nil {
				u.violation("WRITE_FILE: %v", err)
				return false, fmt.Errorf("SPL writes where no memory is: %w", err)
			}
			u.spans = merge(u.spans, span{uint64(u.addr), uint64(u.addr) + uint64(c.count)})
		}
		u.left, u.file = c.count, true
		if c.count == 0 {
			u.violation("a file of no bytes: SPL waits for data")
		}
		return false, nil
	case "skip-dcd":
		status = okSkip
	case "jump":
		return u.jump(ctx, c)
	}
	u.log(c, status.String())
	return false, u.respond(ctx, u.hab(), u.status(status))
}

// data takes a data report.
func (u *splState) data(ctx context.Context, b []byte) error {
	if err := virtual.Sleep(ctx, u.b.cfg.Report); err != nil {
		return err
	}
	if err := u.machine.WriteMemory(ctx, u.addr, b); err != nil {
		return fmt.Errorf("SPL writes where no memory is: %w", err)
	}
	u.received(int(min(uint32(len(b)), u.left)))
	u.addr += uint32(len(b))
	u.left -= min(u.left, uint32(len(b)))
	if u.left > 0 || !u.file {
		return nil
	}
	u.file = false
	status := okFile
	if u.command.name == "dcd" {
		status = okRegister
	}
	u.log(u.command, status.String())
	return u.respond(ctx, u.hab(), u.status(status))
}

// jump leaves SPL for what is at the address, or behind it.
func (u *splState) jump(ctx context.Context, c command) (bool, error) {
	u.log(c, "")
	if err := u.respond(ctx, u.hab()); err != nil {
		return false, err
	}
	j, err := u.find(ctx, u.load(c.addr))
	if err != nil {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		u.violation("jump to %#x: %v", u.load(c.addr), err)
		j.Status = err.Error()
		u.edit(func(t *Stage) { t.Jumps = append(t.Jumps, j) })
		return false, virtual.ErrReset // SPL panics, which resets the board
	}
	if err := u.execute(ctx, j); err != nil {
		return false, err
	}
	u.session.left(j)
	return true, nil
}

// find is sdp_handle_in_ep's SDP_STATE_JUMP.
func (u *splState) find(ctx context.Context, addr uint32) (Jump, error) {
	j := Jump{Addr: addr, Kind: "none"}
	var head [ivtSize]byte
	if err := u.machine.ReadMemory(ctx, addr, head[:]); err != nil {
		return j, err
	}
	if head[0] == 0xd1 { // nothing else of the IVT is looked at
		j.Kind, j.Found, j.Entry = "ivt", addr, binary.LittleEndian.Uint32(head[4:])
		if !u.written(j.Entry) {
			return j, fmt.Errorf("IVT whose entry at %#x nothing was written to", j.Entry)
		}
		return j, nil
	}
	b := make([]byte, u.bytes)
	if err := u.machine.ReadMemory(ctx, addr, b); err != nil {
		return j, err
	}
	reach := len(b)
	if u.b.cfg.SPL == SDPU {
		reach = min(reach, 1) // an SPL of before the search (U-Boot 2019) looks at the address alone
	}
	finds := u.b.cfg.SPLFinds
	for i := 0; i < reach && finds != FindNothing; i += 4 {
		var end int
		var err error
		switch {
		case finds == FindFIT && i+4 <= len(b) && binary.BigEndian.Uint32(b[i:]) == fitMagic:
			j.Kind = "fit"
			end, err = fitEnd(b[i:])
		case finds == FindContainer && isContainer(b[i:]):
			j.Kind = "container"
			end, _, _, err = container(b[i:])
		default:
			continue
		}
		j.Found = addr + uint32(i)
		if err == nil && i+end > len(b) {
			err = fmt.Errorf("it reaches %d bytes beyond the file", i+end-len(b))
		}
		if err != nil {
			return j, fmt.Errorf("%s at %#x: %w", j.Kind, j.Found, err)
		}
		return j, nil
	}
	if finds != FindNothing && u.b.cfg.SPL == SDPV {
		return j, fmt.Errorf("error in search header: no %s in the %d bytes behind it", finds, len(b))
	}
	be := binary.BigEndian
	if be.Uint32(head[:]) != legacyMagic {
		return j, fmt.Errorf("neither IVT nor %s nor legacy image but % x", finds, head[:4])
	}
	j.Kind, j.Found, j.Entry = "legacy", addr, be.Uint32(head[20:])
	if load := be.Uint32(head[16:]); load != addr+64 {
		return j, fmt.Errorf("legacy image for %#x, which is not moved from %#x", load, addr+64)
	}
	if !u.written(j.Entry) {
		return j, fmt.Errorf("nothing was written to the entry at %#x", j.Entry)
	}
	return j, nil
}

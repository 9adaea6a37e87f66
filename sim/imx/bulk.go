package imx

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"snag/sim/virtual"
)

// The commands that bulk ROMs know; the host interprets a DCD by itself, and a jump is the file's type.
var bulkCommands = map[string]bool{"read-register": true, "write-register": true, "write-file": true, "error-status": true}

// fileApplication is the type of a file that is to be started.
const fileApplication = 0xaa

// bulk is a ROM that speaks SDP over two bulk endpoints (i.MX51, 53), as imx_usb's imx_sdp.c has it for
// MODE_BULK: commands of 16 bytes and answers of words without report IDs. Every command is answered by the security
// word; a register by its value or okRegister behind that, a file is taken behind that. ERROR_STATUS has one
// word: the security word, or okFile behind a file. An application is started by the next command, whose answer
// still comes.
func (s *session) bulk(ctx context.Context) error {
	r := rom{session: s, last: okStatus}
	file := false // a file was written since the last ERROR_STATUS
	if config, changed := s.dev.Configured(); config == 0 {
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for {
		err := s.due(ctx, "")
		var b [commandSize]byte
		if err == nil {
			err = s.readBulk(ctx, b[:])
		}
		if errors.Is(err, errConfigured) {
			r, file = rom{session: s, last: okStatus}, false
			continue
		}
		if err != nil {
			return err
		}
		s.edit(func(t *Stage) {
			if t.First.IsZero() {
				t.First = time.Now()
			}
		})
		c, err := parseCommand(b[:])
		if err == nil && !bulkCommands[c.name] {
			err = fmt.Errorf("command %s, which this ROM does not know", c.name)
		}
		if err != nil {
			s.violation("%v", err)
			continue
		}
		if err := s.due(ctx, c.name); err != nil {
			return err
		}
		if err := virtual.Sleep(ctx, s.b.cfg.Command); err != nil {
			return err
		}
		start := r.app
		switch c.name {
		case "read-register":
			err = s.register(ctx, c)
		case "write-register":
			status := r.writeRegister(ctx, c)
			s.log(c, status.String())
			err = s.respond(ctx, s.hab(), s.status(status))
		case "error-status":
			w := s.hab()
			if file {
				w = s.status(okFile)
			}
			file = false
			s.log(c, word(w[1:5]).String())
			err = s.respond(ctx, w)
		case "write-file":
			s.log(c, "")
			if err = s.respond(ctx, s.hab()); err == nil {
				err = s.bulkFile(ctx, c)
			}
			file = true
			r.app, r.appAddr = c.file == fileApplication, c.addr
		}
		if err == nil && start {
			if plugin, err := r.start(ctx); err != nil || !plugin {
				return err
			}
			r.app = false
		}
		if err != nil && !errors.Is(err, errConfigured) {
			return err
		}
	}
}

// readBulk fills b from the OUT endpoint.
func (s *session) readBulk(ctx context.Context, b []byte) error {
	ctx, stop, err := s.dev.watch(ctx)
	if err != nil {
		return err
	}
	defer stop()
	for n := 0; n < len(b); {
		m, err := s.dev.OutPipe(epOut).Read(ctx, b[n:])
		if err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		if m == 0 {
			s.violation("a transfer of no bytes")
		} else if n+m < len(b) && len(b) == commandSize {
			s.violation("command of %d bytes, expected %d", m, len(b))
			return s.readBulk(ctx, b)
		}
		n += m
	}
	return nil
}

// bulkFile receives a file into memory, a packet at a time.
func (s *session) bulkFile(ctx context.Context, c command) error {
	if err := inside(c.addr, int(c.count)); err != nil {
		s.violation("WRITE_FILE: %v", err)
		return nil
	}
	s.spans = merge(s.spans, span{uint64(c.addr), uint64(c.addr) + uint64(c.count)})
	buf := make([]byte, s.b.cfg.Model.Data)
	for off := uint32(0); off < c.count; {
		if err := s.due(ctx, ""); err != nil {
			return err
		}
		if err := virtual.Sleep(ctx, s.b.cfg.Report); err != nil {
			return err
		}
		b := buf[:min(uint32(len(buf)), c.count-off)]
		if err := s.readBulk(ctx, b); err != nil {
			return err
		}
		if err := s.machine.WriteMemory(ctx, c.addr+off, b); err != nil {
			return err
		}
		s.received(len(b))
		off += uint32(len(b))
	}
	return nil
}

// start starts the application at the address of the last file. It says whether that was a plugin, which comes
// back.
func (r *rom) start(ctx context.Context) (plugin bool, err error) {
	judge := r.image
	if r.b.cfg.Model.OldHeader {
		judge = r.oldImage
	}
	j, status, err := judge(ctx, r.appAddr)
	if err != nil {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		j.Status = status.String()
		r.edit(func(t *Stage) { t.Jumps = append(t.Jumps, j) })
		return false, fmt.Errorf("the application at %#x does not start: %w", r.appAddr, err)
	}
	if err := r.execute(ctx, j); err != nil {
		return false, err
	}
	if j.Kind == "plugin" {
		r.edit(func(t *Stage) { t.Jumps = append(t.Jumps, j) })
		return true, nil
	}
	r.left(j)
	return false, nil
}

// oldImage judges an image of i.MX51's (flash header v1; imx_usb, imx_sdp.c, struct flash_header_v1),
// little-endian:
//
//	off size
//	0   4    entry
//	4   4    barker 0xb1
//	8   4    CSF
//	12  4    address of the field at 20
//	16  4    super root key
//	20  4    DCD, 0: none
//	24  4    where the image goes
func (r *rom) oldImage(ctx context.Context, addr uint32) (Jump, word, error) {
	j := Jump{Addr: addr, Kind: "v1"}
	var b [28]byte
	if err := r.machine.ReadMemory(ctx, addr, b[:]); err != nil {
		return j, failIVT, err
	}
	le := binary.LittleEndian
	if barker := le.Uint32(b[4:]); barker != 0xb1 {
		return j, failIVT, fmt.Errorf("no flash header (barker b1) but %#x", barker)
	}
	j.Found, j.Entry = addr, le.Uint32(b[:])
	if self := le.Uint32(b[12:]) - 20; self != addr {
		return j, failIVT, fmt.Errorf("the flash header says that it is at %#x", self)
	}
	if !r.written(j.Entry) {
		return j, failAddress, fmt.Errorf("nothing was written to the entry at %#x", j.Entry)
	}
	if le.Uint32(b[20:]) != 0 {
		r.violation("the DCD runs at the start, after the file was written to the memory that it sets up: its address was not cleared")
	}
	return j, word{}, nil
}

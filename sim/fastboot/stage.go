package fastboot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"snag/sim/uboot"
	"snag/sim/virtual"
)

// carrier is what a stage's messages come over.
type carrier interface {
	// command waits for the host's next command.
	command(ctx context.Context) ([]byte, error)
	// data fills buf with the next bytes of a download, or with some of them; rest is how many are to come at all.
	data(ctx context.Context, buf []byte, rest int) (int, error)
	// answer sends an answer, and returns when the host has it.
	answer(ctx context.Context, b []byte) error
	// halt stalls the host's transfers, where there are any.
	halt()
}

// errBegun is the host's beginning anew.
var errBegun = errors.New("the host selected a configuration, or connected, anew")

// maxAnswer is U-Boot's (FASTBOOT_RESPONSE_LEN), maxBuffer bounds what a host may make the model keep.
const (
	maxAnswer = 64
	maxBuffer = 1 << 30
)

// stage is one run of the ROM or of U-Boot's fastboot.
type stage struct {
	b       *Board
	report  *Stage
	carrier carrier

	image    []byte    // the last download
	sum      string    // its SHA-256
	fresh    bool      // it is not in U-Boot's memory yet, since no command has asked for it
	fault    FaultKind // of the next answer
	answered bool      // the command that ends the stage
	end      error     // what the stage does when its answer was sent
}

func newStage(b *Board, c carrier) *stage {
	return &stage{b: b, carrier: c, report: &Stage{Commands: []string{}, Downloads: []Download{}}}
}

func (s *stage) edit(f func(*Stage)) { s.b.edit(func() { f(s.report) }) }

func (s *stage) violation(format string, args ...any) { s.b.board.Violation(format, args...) }

// serve answers commands until the stage ends.
func (s *stage) serve(ctx context.Context) error {
	for {
		err := s.one(ctx)
		switch {
		case err == nil && s.end != nil:
			s.answered = true
			return s.end
		case errors.Is(err, errBegun):
			s.end = nil
		case err != nil:
			return err
		}
	}
}

// one serves one command.
func (s *stage) one(ctx context.Context) error {
	raw, err := s.carrier.command(ctx)
	if err != nil {
		return err
	}
	command := strings.TrimRight(string(raw), "\x00")
	s.edit(func(t *Stage) {
		if len(t.Commands) < 1000 {
			t.Commands = append(t.Commands, command)
		}
	})
	word, arg, _ := strings.Cut(command, ":")
	first, _, _ := strings.Cut(word, " ")
	if err := s.due(ctx, first, 0); err != nil {
		return err
	}
	for begin, text := range s.b.cfg.Refuse {
		if strings.HasPrefix(command, begin) {
			return s.answer(ctx, "FAIL"+text)
		}
	}
	if word == "download" {
		return s.download(ctx, arg)
	}
	if s.report.Name == StageROM {
		return s.answer(ctx, "FAILunknown command")
	}
	return s.uboot(ctx, word, arg)
}

// due carries out the faults that are due at a command or, if that is empty, at the bytes received.
func (s *stage) due(ctx context.Context, command string, n int) error {
	for {
		f, err := s.b.board.Due(ctx, command, n)
		switch {
		case err != nil || f.Kind == "":
			return err
		case f.Kind == Stall:
			s.carrier.halt()
		default:
			s.fault = f.Kind
			if command == "" && f.Kind == Fail { // in the middle of the data
				return s.answer(ctx, "")
			}
		}
	}
}

// answer sends an answer, as the fault that is due wants it.
func (s *stage) answer(ctx context.Context, text string) error {
	b := []byte(text)
	if len(b) > maxAnswer {
		b = b[:maxAnswer]
	}
	fault := s.fault
	s.fault = ""
	if fault != "" && fault != Infos {
		s.end = nil
	}
	switch fault {
	case Fail:
		b = []byte("FAILmade up")
	case Empty:
		b = []byte("FAIL")
	case Cut:
		b = b[:2]
	case Wrong:
		b = append([]byte("WHAT"), b...)
	case Size:
		b = []byte("DATA00000007")
	case Long:
		b = append(b, strings.Repeat("x", 5000)...)
	case Mute:
		return nil
	case Infos:
		for {
			if err := s.carrier.answer(ctx, []byte("INFOstill at it")); err != nil {
				return err
			}
		}
	}
	return s.carrier.answer(ctx, b)
}

// download receives data.
func (s *stage) download(ctx context.Context, arg string) error {
	size64, err := strconv.ParseUint(arg, 16, 32)
	size := int(size64)
	switch {
	case err != nil || len(arg) != 8:
		s.violation("download:%.20s, expected 8 hexadecimal digits", arg)
		return s.answer(ctx, "FAILdownload with no size")
	case size == 0:
		return s.answer(ctx, "FAILExpected nonzero image size")
	case size > s.b.cfg.Buffer || size > maxBuffer || s.b.cfg.Full > 0 && size > s.b.cfg.Full:
		return s.answer(ctx, "FAIL"+arg)
	}
	if s.fault != "" {
		return s.answer(ctx, "DATA"+arg)
	}
	if err := s.answer(ctx, "DATA"+arg); err != nil {
		return err
	}
	image := s.image[:0]
	if cap(image) < size {
		image = make([]byte, 0, size)
	}
	s.image = nil
	index := 0
	s.edit(func(t *Stage) {
		index = len(t.Downloads)
		t.Downloads = append(t.Downloads, Download{Size: size})
	})
	for {
		if err := s.due(ctx, "", len(image)); err != nil {
			return err
		}
		rest := size - len(image)
		if rest == 0 {
			break
		}
		at := len(image)
		n, err := s.carrier.data(ctx, image[at:at+s.b.board.Before(at, min(rest, 256<<10))], rest)
		if err != nil {
			return err
		}
		image = image[:at+n]
		s.edit(func(t *Stage) {
			t.Downloads[index].Bytes = len(image)
			t.Received()
		})
	}
	s.image = image
	if m := s.b.cfg.UBoot; m != nil {
		s.fresh = true
		m.Setenv("filesize", strconv.FormatInt(int64(size), 16))
		if s.b.cfg.NXP != nil {
			m.Setenv("fastboot_bytes", fmt.Sprintf("0x%x", size))
		}
	}
	if !s.b.cfg.Unhashed {
		s.sum = virtual.SHA256(image)
	}
	s.edit(func(t *Stage) { t.Downloads[index].SHA256 = s.sum })
	if err := s.due(ctx, AfterData, 0); err != nil {
		return err
	}
	text := "OKAY"
	if s.report.Name == StageROM {
		if err := checkFIP(image); err != nil {
			s.violation("%v", err)
			text = "FAILinvalid image"
		} else {
			s.end = errStarted
		}
	}
	accepted := s.fault == ""
	if err := s.answer(ctx, text); err != nil {
		return err
	}
	s.edit(func(t *Stage) { t.Downloads[index].Complete = accepted && text == "OKAY" })
	return nil
}

// checkFIP looks at a FIP as a ROM may (TF-A, firmware_image_package.h), little-endian: name aa640001 (4), serial
// number (4), flags (8); then entries of UUID (16), offset (8), size (8), flags (8), until one whose UUID is zero.
func checkFIP(b []byte) error {
	le := binary.LittleEndian
	if len(b) < 16 || le.Uint32(b) != 0xaa640001 || le.Uint32(b[4:]) == 0 {
		return errors.New("the image is no FIP")
	}
	for off := 16; ; off += 40 {
		if off+40 > len(b) {
			return errors.New("the FIP's table has no end")
		}
		if [16]byte(b[off:]) == [16]byte{} {
			return nil
		}
		if start, size := le.Uint64(b[off+16:]), le.Uint64(b[off+24:]); start > uint64(len(b)) || size > uint64(len(b))-start {
			return fmt.Errorf("the FIP's entry at %#x ends behind the FIP", off)
		}
	}
}

// GenerateFIP makes a FIP with one image of about size bytes.
func GenerateFIP(size int, seed byte) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 0xaa640001)
	b = le.AppendUint32(b, 0x12345678)
	b = le.AppendUint64(b, 0)
	const start = 16 + 2*40
	b = append(b, "\x05\xd0\xe1\x89\x53\xdc\x13\x47\x8d\x2b\x50\x0a\x4b\x7a\x3e\x38"...) // BL33
	b = le.AppendUint64(b, start)
	b = le.AppendUint64(b, uint64(size))
	b = le.AppendUint64(b, 0)
	b = append(b, make([]byte, 16)...)
	b = le.AppendUint64(b, uint64(start+size))
	b = append(b, make([]byte, 16)...)
	x := uint32(seed) + 1
	for range size {
		x = x*1664525 + 1013904223
		b = append(b, byte(x>>24))
	}
	return b
}

// uboot answers U-Boot's commands but download.
func (s *stage) uboot(ctx context.Context, word, arg string) error {
	c := &s.b.cfg
	switch {
	case word == "getvar":
		return s.getvar(ctx, arg)
	case word == "flash", word == "erase":
		return s.write(ctx, word, arg)
	case word == "set_active":
		return s.answer(ctx, "OKAY")
	case word == "boot", word == "continue":
		s.end = errStarted
		return s.answer(ctx, "OKAY")
	case word == "reboot", word == "reboot-bootloader", word == "reboot-fastboot", word == "reboot-recovery":
		s.end = virtual.ErrReset
		return s.answer(ctx, "OKAY")
	case word == "UCmd" && !c.NoUUU, word == "oem run" && c.OEMRun:
		err := s.alive(ctx, func() error { return s.command(ctx, arg) })
		switch {
		case s.ends(err):
			return s.end // without an answer
		case ctx.Err() != nil:
			return err
		case err != nil:
			return s.answer(ctx, "FAIL")
		}
		return s.answer(ctx, "OKAY")
	case word == "ACmd" && !c.NoUUU:
		if len(arg) >= 64 {
			return s.answer(ctx, "FAILtoo long command")
		}
		if c.UBoot != nil {
			if err := s.answer(ctx, "OKAY"); err != nil {
				return err
			}
			if s.ends(s.command(ctx, arg)) {
				s.answered = true
				return s.end
			}
			return ctx.Err()
		}
		s.end = errStarted
		if arg == "reset" {
			s.end = virtual.ErrReset
		}
		return s.answer(ctx, "OKAY")
	case word == "oem console" && (c.Console != nil || c.HasConsole):
		lines := c.Console
		if c.HasConsole {
			lines = c.UBoot.Console()
		}
		for _, line := range lines {
			if err := s.carrier.answer(ctx, []byte("INFO"+line[:min(len(line), maxAnswer-4)])); err != nil {
				return err
			}
		}
		if len(lines) == 0 {
			return s.answer(ctx, "FAILEmpty console")
		}
		return s.answer(ctx, "OKAY")
	case word == "oem format" && s.variable("partitions") != "", word == "oem partconf" && arg != "", word == "oem bootbus" && arg != "":
		return s.answer(ctx, "OKAY")
	case word == "UCmd", word == "ACmd", word == "oem run", word == "oem console", word == "oem format", word == "oem partconf", word == "oem bootbus":
		return s.answer(ctx, "FAILUnsupported command")
	}
	return s.answer(ctx, "FAILunrecognized command")
}

// command runs a command line of U-Boot: its own, or "setenv" and what the configuration has.
func (s *stage) command(ctx context.Context, line string) error {
	if m := s.b.cfg.UBoot; m != nil {
		if s.fresh {
			s.fresh = false
			if err := m.Write(s.downloadAddress(), s.image); err != nil {
				return err
			}
		}
		return m.Run(ctx, line)
	}
	if rest, ok := strings.CutPrefix(line, "setenv fastboot."); ok {
		name, value, _ := strings.Cut(rest, " ")
		s.b.edit(func() { s.b.variables[name] = value })
		return nil
	}
	if s.b.cfg.Command != nil && !s.b.cfg.Command(line) {
		return errRefused
	}
	return nil
}

var errRefused = errors.New("the command fails")

// ends notes what a command line of U-Boot did to the stage.
func (s *stage) ends(err error) bool {
	switch {
	case errors.Is(err, uboot.ErrReset):
		s.end = virtual.ErrReset
	case errors.Is(err, uboot.ErrLeave):
		s.end = errStarted
	default:
		return false
	}
	return true
}

// alive does what takes a while, with INFOs meanwhile if the configuration has them.
func (s *stage) alive(ctx context.Context, work func() error) error {
	every := s.b.cfg.Alive
	if every == 0 {
		return work()
	}
	done := make(chan error, 1)
	go func() { done <- work() }()
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-t.C:
			if err := s.carrier.answer(ctx, []byte("INFOstill at it")); err != nil {
				<-done
				return err
			}
		}
	}
}

func (s *stage) variable(name string) (value string) {
	if m := s.b.cfg.UBoot; m != nil {
		if v := m.Getenv("fastboot." + name); v != "" {
			return v
		}
	}
	s.b.edit(func() { value = s.b.variables[name] })
	return value
}

// getvar answers as fb_getvar.c.
func (s *stage) getvar(ctx context.Context, name string) error {
	if name == "all" && !s.b.cfg.Old {
		all := map[string]string{}
		for _, n := range []string{"version", "version-bootloader", "max-download-size", "current-slot"} {
			all[n], _ = s.builtIn(n)
		}
		for n, size := range s.partitions() {
			all["partition-size:"+n] = fmt.Sprintf("0x%016x", size)
		}
		s.b.edit(func() { maps.Copy(all, s.b.variables) })
		for _, n := range slices.Sorted(maps.Keys(all)) {
			if err := s.carrier.answer(ctx, []byte("INFO"+n+": "+all[n])); err != nil {
				return err
			}
		}
		return s.answer(ctx, "OKAY")
	}
	if value := s.variable(name); value != "" {
		return s.answer(ctx, "OKAY"+value)
	}
	value, ok := s.builtIn(name)
	if !ok {
		return s.answer(ctx, "FAIL"+value)
	}
	return s.answer(ctx, "OKAY"+value)
}

// builtIn is a variable of U-Boot's own, or the reason why there is none.
func (s *stage) builtIn(name string) (string, bool) {
	name, partition, _ := strings.Cut(name, ":")
	switch name {
	case "version":
		return "0.4", true
	case "version-bootloader":
		return "U-Boot 2026.10", true
	case "max-download-size", "downloadsize":
		return fmt.Sprintf("0x%08x", s.b.cfg.Buffer), true
	case "current-slot":
		return "a", true
	case "is-userspace":
		return "no", true
	case "has-slot":
		return "no", true
	case "serialno":
		return "Value not set", false
	case "product":
		return "Board not set", false
	case "partition-size", "partition-type":
		size, there := s.partitions()[partition]
		if !there {
			return "invalid partition or device", false
		}
		if name == "partition-type" {
			return "raw", true
		}
		return fmt.Sprintf("0x%016x", size), true
	}
	return "Variable not implemented", false
}

// partitions are the sizes of those that flash knows by name.
func (s *stage) partitions() map[string]int64 {
	out := map[string]int64{}
	switch m := s.b.cfg.UBoot; {
	case m == nil:
		for name, size := range s.b.cfg.Partitions {
			out[name] = int64(size)
		}
	case s.b.cfg.FlashMTD:
		for _, d := range m.MTD {
			for _, p := range d.Parts {
				out[p.Name] = p.Size
			}
		}
	default:
		if d := s.card(); d != nil {
			if t, err := uboot.ReadGPT(d.Areas[0]); err == nil {
				for _, p := range t.Parts {
					out[p.Name] = (p.End - p.First) * uboot.BlockSize
				}
			}
		}
	}
	return out
}

// write flashes or erases a partition.
func (s *stage) write(ctx context.Context, word, name string) error {
	switch {
	case name == "":
		return s.answer(ctx, "FAILpartition not given")
	case word == "flash" && s.image == nil:
		s.violation("flash without a download")
		return s.answer(ctx, "FAILno image downloaded")
	}
	refused := ""
	err := s.alive(ctx, func() error {
		if err := virtual.Sleep(ctx, s.b.cfg.Work); err != nil || s.fault != "" {
			return err
		}
		refused = s.store(word, name)
		return nil
	})
	if err != nil {
		return err
	}
	if refused != "" {
		return s.answer(ctx, "FAIL"+refused)
	}
	if s.fault == "" {
		p := Partition{}
		if word == "flash" {
			p = Partition{Bytes: len(s.image), SHA256: s.sum}
		}
		s.b.edit(func() { s.b.partitions[name] = p })
	}
	return s.answer(ctx, "OKAY")
}

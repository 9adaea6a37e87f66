package sama5

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
)

const (
	pageSize  = 4096
	romSize   = 64 << 10
	maxLoaded = 64 << 20 // of all files, which are kept
)

// machine is the chip's memory, and what runs in it.
type machine struct {
	cfg    *Config
	pages  map[uint32]*[pageSize]byte
	loads  []load // what was loaded, one after the other
	loaded int

	cache  bool // the L2 cache is memory
	clocks bool
	ram    bool // DRAM is there
}

// load is a file, as it came.
type load struct {
	address uint32
	data    []byte
}

func newMachine(cfg *Config) *machine {
	return &machine{cfg: cfg, pages: map[uint32]*[pageSize]byte{}, cache: cfg.Model.cache == 0}
}

// abortError is an access that ends in a data abort, which the ROM does not survive.
type abortError struct{ text string }

func (e *abortError) Error() string { return e.text }

// memory says whether there is memory.
func (m *machine) memory(address uint32, n int) error {
	in := func(start uint32, size int) bool {
		return address >= start && uint64(address)+uint64(n) <= uint64(start)+uint64(size)
	}
	switch c := m.cfg.Model; {
	case in(c.sram, int(c.size)) && !m.cache:
		return &abortError{fmt.Sprintf("access to %#x, which is the L2 cache until SFR_L2CC_HRAMC is 0", address)}
	case in(c.sram, int(c.size)), in(dram, m.cfg.DRAM) && m.ram:
		return nil
	case in(dram, m.cfg.DRAM):
		return &abortError{fmt.Sprintf("access to DRAM at %#x before it was set up", address)}
	}
	return &abortError{fmt.Sprintf("access to %d bytes at %#x, where there is nothing", n, address)}
}

// write stores bytes.
func (m *machine) write(address uint32, data []byte) {
	for len(data) > 0 {
		page := m.pages[address/pageSize]
		if page == nil {
			page = new([pageSize]byte)
			m.pages[address/pageSize] = page
		}
		n := copy(page[address%pageSize:], data)
		address, data = address+uint32(n), data[n:]
	}
}

// bytes are what is in memory.
func (m *machine) bytes(address uint32, n int) []byte {
	b := make([]byte, n)
	for at := 0; at < n; {
		room := b[at:min(n, at+pageSize-int((address+uint32(at))%pageSize))]
		if page := m.pages[(address+uint32(at))/pageSize]; page != nil {
			copy(room, page[(address+uint32(at))%pageSize:])
		}
		at += len(room)
	}
	return b
}

func (m *machine) word(address uint32) uint32 {
	return binary.LittleEndian.Uint32(m.bytes(address, 4))
}

func (m *machine) setWord(address, value uint32) {
	m.write(address, binary.LittleEndian.AppendUint32(nil, value))
}

// read is what the monitor's o, h, w and R read.
func (m *machine) read(address uint32, n int) ([]byte, error) {
	c := m.cfg.Model
	switch {
	case n == 4 && address == c.cidrAt:
		return binary.LittleEndian.AppendUint32(nil, c.cidr), nil
	case n == 4 && address == c.exidAt:
		return binary.LittleEndian.AppendUint32(nil, c.exid), nil
	case uint64(address)+uint64(n) <= romSize:
		b := make([]byte, n)
		if address == 0 {
			copy(b, "\x06\x00\x00\xea") // its vectors
		}
		return b, nil
	}
	if err := m.memory(address, n); err != nil {
		return nil, err
	}
	return m.bytes(address, n), nil
}

// store is what the monitor's O, H and W do. register says that it was no memory.
func (m *machine) store(address uint32, n int, value uint32) (register bool, err error) {
	c := m.cfg.Model
	switch {
	case n == 4 && address == c.remap:
		return true, nil
	case n == 4 && address == c.cache && c.cache != 0:
		m.cache = value == 0
		return true, nil
	}
	if err := m.memory(address, n); err != nil {
		return false, err
	}
	m.write(address, binary.LittleEndian.AppendUint32(nil, value)[:n])
	return false, nil
}

// load stores a part of a file: it goes on with the last one, or begins another.
func (m *machine) load(address uint32, data []byte) error {
	if err := m.memory(address, len(data)); err != nil {
		return err
	}
	m.write(address, data)
	if m.loaded += len(data); m.loaded > maxLoaded {
		return fmt.Errorf("more than %d bytes were loaded", maxLoaded)
	}
	if n := len(m.loads); n > 0 && m.loads[n-1].address+uint32(len(m.loads[n-1].data)) == address {
		m.loads[n-1].data = append(m.loads[n-1].data, data...)
		return nil
	}
	m.loads = append(m.loads, load{address, bytes.Clone(data)})
	return nil
}

// file is what was loaded last to an address; nil if nothing was.
func (m *machine) file(address uint32) []byte {
	for i := len(m.loads) - 1; i >= 0; i-- {
		if m.loads[i].address == address {
			return m.loads[i].data
		}
	}
	return nil
}

// An applet's mailbox, from its address on.
const (
	boxCommand = 0x04
	boxStatus  = 0x08
	boxLink    = 0x0c
	boxTrace   = 0x10
	boxConsole = 0x14
	boxIOSet   = 0x18
	boxMode    = 0x1c
	boxPreset  = 0x20

	entryAt    = 0x84
	firstRunAt = 0x88
	headerSize = 0x8c
)

// Statuses of an applet.
const (
	success = 0x00
	failure = 0x0f
)

// applet finds out which applet was loaded to where applets run. The error says why the processor would be lost there.
func (m *machine) applet(data []byte) (string, error) {
	at := m.cfg.Model.sram
	if len(data) < headerSize || data[3] != 0xea || bytes.Count(data[4:entryAt], []byte{0}) != entryAt-4 {
		return "", fmt.Errorf("what was loaded to %#x is no applet", at)
	}
	if entry := binary.LittleEndian.Uint32(data[entryAt:]); entry < at+headerSize || entry >= at+uint32(len(data)) {
		return "", fmt.Errorf("the applet's entry point is at %#x, it was loaded to %#x", entry, at)
	}
	switch text := string(data); {
	case strings.Contains(text, "Applet 'Low-Level'"):
		return CallLowlevel, nil
	case strings.Contains(text, "Applet 'External RAM'"):
		return CallExtram, nil
	}
	return "", fmt.Errorf("the applet at %#x is another one", at)
}

// run does what an applet does.
func (m *machine) run(name string, data []byte) Applet {
	at := m.cfg.Model.sram
	a := Applet{
		Name: name, File: newFile(at, data), Console: int64(m.word(at + boxConsole)), IOSet: int64(m.word(at + boxIOSet)),
		Trace: m.word(at + boxTrace), Mode: m.word(at + boxMode), Preset: m.word(at + boxPreset), Status: failure,
	}
	if a.Console == 0xffffffff || a.IOSet == 0xffffffff {
		a.Console, a.IOSet = -1, -1
	}
	known := a.Console == -1 || a.Console < int64(len(m.cfg.Model.sets)) && a.IOSet >= 1 && a.IOSet <= int64(m.cfg.Model.sets[a.Console])
	if m.word(at+boxCommand) == 0 && m.word(at+boxLink) == 0 && known {
		switch {
		case name == CallLowlevel:
			m.clocks, a.Status = true, success
		case m.ram:
			a.Status = success
		case a.Mode == 0 && m.clocks && int(a.Preset) == m.cfg.Preset && bytes.Contains(data, fmt.Appendf(nil, "Preset %d (", a.Preset)):
			m.ram, a.Status = true, success
		}
	}
	if m.ram {
		for i := range uint32(testWords) {
			m.setWord(dram+4*i, i&0xff*0x01010101)
		}
	}
	return a
}

// finish has an applet tell what came of it.
func (m *machine) finish(a Applet) {
	at := m.cfg.Model.sram
	if a.Status == success {
		m.write(at+boxLink, make([]byte, 24))
	}
	m.setWord(at+firstRunAt, 0)
	m.setWord(at+boxStatus, a.Status)
	m.setWord(at+boxCommand, ^m.word(at+boxCommand))
}

// starts says why U-Boot would not run at an address.
func starts(address uint32, data []byte) error {
	if len(data) < 64 {
		return fmt.Errorf("there is no program at %#x", address)
	}
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(data[4*i:]) }
	if word(0)>>24 != 0xea && word(0)>>12 != 0xe59ff {
		return fmt.Errorf("the program at %#x does not begin with an instruction", address)
	}
	const loadPC = 0xe59ff014
	if base := word(8) &^ 0x3ff; word(1) == loadPC && word(7) == loadPC && base != address {
		return fmt.Errorf("the program at %#x was linked for %#x", address, base)
	}
	return nil
}

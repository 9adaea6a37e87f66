package dfu

import (
	"fmt"
	"strconv"
	"strings"
)

// Segment is a run of equal pages of a DfuSe device's memory.
type Segment struct {
	Address  uint32
	Pages    int
	PageSize int64
	// What can be done to it.
	Read, Erase, Write bool
}

// Size is the segment's length.
func (s Segment) Size() int64 { return int64(s.Pages) * s.PageSize }

// ParseLayout reads the name of a DfuSe setting, which tells its memory (UM0424, section 4.3.2):
//
//	@Internal Flash  /0x08000000/04*016Kg,01*064Kg,07*128Kg/0x1fff0000/01*016Ka
//
// A run of pages is COUNT*SIZE, a unit (a blank or B: bytes, K, M), and a letter whose lowest bits say that it can be
// read (1), erased (2) and written (4).
func ParseLayout(name string) ([]Segment, error) {
	part := strings.Split(name, "/")
	if !strings.HasPrefix(name, "@") || len(part) < 3 || len(part)%2 == 0 {
		return nil, fmt.Errorf("DfuSe setting %q does not tell its memory", name)
	}
	var all []Segment
	for ; len(part) >= 3; part = part[2:] {
		at, err := strconv.ParseUint(strings.TrimSpace(part[1]), 0, 32)
		if err != nil {
			return nil, fmt.Errorf("DfuSe setting %q: address %q", name, part[1])
		}
		for _, run := range strings.Split(strings.TrimSpace(part[2]), ",") {
			s, ok := parseRun(run)
			if s.Address = uint32(at); !ok || int64(at)+s.Size() > 1<<32 {
				return nil, fmt.Errorf("DfuSe setting %q: pages %q", name, run)
			}
			at += uint64(s.Size())
			all = append(all, s)
		}
	}
	return all, nil
}

func parseRun(run string) (s Segment, ok bool) {
	count, rest, _ := strings.Cut(run, "*")
	i := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if i < 0 || len(rest)-i < 1 || len(rest)-i > 2 {
		return s, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(count), 10, 16)
	size, sizeErr := strconv.ParseUint(rest[:i], 10, 16)
	if err != nil || sizeErr != nil || n == 0 || size == 0 {
		return s, false
	}
	s.Pages, s.PageSize = int(n), int64(size)
	if len(rest)-i == 2 {
		switch rest[i] {
		case ' ', 'B':
		case 'K':
			s.PageSize <<= 10
		case 'M':
			s.PageSize <<= 20
		default:
			return s, false
		}
	}
	letter := rest[len(rest)-1]
	if letter < 'a' || letter > 'g' {
		return s, false
	}
	can := letter - 'a' + 1
	s.Read, s.Erase, s.Write = can&1 != 0, can&2 != 0, can&4 != 0
	return s, true
}

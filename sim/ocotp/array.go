package ocotp

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Array is the fuses of one chip. Its methods may be called at the same time.
type Array struct {
	// Hook, if not nil, is called at each access, and may change its value or make it fail: for chips that lie and
	// supplies that fail. What it makes of a value that is burnt is what gets burnt.
	Hook func(op Op, bank, word int, value *uint32) error

	model model

	mu      sync.Mutex
	fuses   map[Place]uint32
	shadows map[Place]uint32
	sensed  [4]uint32 // READ_FUSE_DATA
	burnt   []Write
}

// Op is an access.
type Op string

// The accesses.
const (
	Sense    Op = "sense"
	Read     Op = "read"
	Prog     Op = "prog"
	Override Op = "override"
)

// Place is where a word is.
type Place struct{ Bank, Word int }

// Write is one burning of a word.
type Write struct {
	Place
	Value uint32
}

// model is what chips differ in.
type model struct {
	names  []string
	banks  int
	words  int // in a bank
	base   uint32
	data   uint32  // READ_FUSE_DATA's offset
	whole  bool    // one for each word of the bank
	macs   []Place // the words of the MAC addresses
	lock   uint    // the bit that keeps them from being burnt; the one above it protects their shadow registers
	shadow uint32  // distance of two banks
}

// models are those of U-Boot's mxc_ocotp.c (FUSE_BANKS).
var models = []model{
	{names: []string{"imx6q", "imx6d", "imx6sx", "imx6ul"}, banks: 16, words: 8, base: 0x021bc000, data: 0x40, macs: []Place{{4, 2}, {4, 3}, {4, 4}}, lock: 8, shadow: 0x80},
	{names: []string{"imx6ull"}, banks: 9, words: 8, base: 0x021bc000, data: 0x40, macs: []Place{{4, 2}, {4, 3}, {4, 4}}, lock: 8, shadow: 0x80},
	{names: []string{"imx6sl"}, banks: 8, words: 8, base: 0x021bc000, data: 0x40, macs: []Place{{4, 2}, {4, 3}, {4, 4}}, lock: 8, shadow: 0x80},
	{names: []string{"imx7d"}, banks: 16, words: 4, base: 0x30350000, data: 0x70, whole: true, macs: []Place{{9, 0}, {9, 1}, {9, 2}}, lock: 14, shadow: 0x40},
	{names: []string{"imx8mm", "imx8mn"}, banks: 64, words: 4, base: 0x30350000, data: 0x40, macs: []Place{{9, 0}, {9, 1}, {9, 2}}, lock: 14, shadow: 0x40},
	{names: []string{"imx8mp"}, banks: 96, words: 4, base: 0x30350000, data: 0x40, macs: []Place{{9, 0}, {9, 1}, {9, 2}}, lock: 14, shadow: 0x40},
}

// Models are the chips that there are.
func Models() []string {
	var all []string
	for _, m := range models {
		all = append(all, m.names...)
	}
	return all
}

// New makes an array in which nothing is burnt, for a chip of [Models].
func New(name string) (*Array, error) {
	i := slices.IndexFunc(models, func(m model) bool { return slices.Contains(m.names, name) })
	if i < 0 {
		return nil, fmt.Errorf("no fuses of %q: there are %s", name, strings.Join(Models(), " "))
	}
	return &Array{model: models[i], fuses: map[Place]uint32{}, shadows: map[Place]uint32{}}, nil
}

// Power is a reset: the shadow registers are loaded.
func (a *Array) Power() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.shadows = maps.Clone(a.fuses)
	a.sensed = [4]uint32{}
}

// What goes wrong.
var (
	errArgument = errors.New("invalid argument")
	errProtect  = errors.New("access protect error")
)

// access is one access.
func (a *Array) access(op Op, bank, word int, value uint32) (uint32, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := Place{bank, word}
	if bank < 0 || bank >= a.model.banks || word < 0 || word >= a.model.words {
		return 0, errArgument
	}
	locked := func(bit uint) bool { return slices.Contains(a.model.macs, at) && a.shadows[Place{0, 0}]>>bit&1 != 0 }
	switch op {
	case Sense:
		value = a.fuses[at]
	case Read:
		value = a.shadows[at]
	case Prog:
		if locked(a.model.lock) {
			return 0, errProtect
		}
	case Override:
		if locked(a.model.lock + 1) {
			return 0, errProtect
		}
	}
	var failed error
	if a.Hook != nil {
		failed = a.Hook(op, bank, word, &value)
	}
	switch op {
	case Sense:
		n := 0
		if a.model.whole {
			for w := range a.model.words {
				a.sensed[w] = a.fuses[Place{bank, w}]
			}
			n = word
		}
		a.sensed[n] = value
	case Prog:
		a.fuses[at] |= value
		a.burnt = append(a.burnt, Write{at, value})
	case Override:
		a.shadows[at] = value
	}
	return value, failed
}

// Burn burns bits of a word, whatever is locked, and loads its shadow register: for chips that were burnt before.
func (a *Array) Burn(bank, word int, value uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at := Place{bank, word}
	a.fuses[at] |= value
	a.shadows[at] = a.fuses[at]
}

// Fuses are the words that are not zero.
func (a *Array) Fuses() map[Place]uint32 {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := maps.Clone(a.fuses)
	maps.DeleteFunc(all, func(_ Place, v uint32) bool { return v == 0 })
	return all
}

// Burnt are the burnings, in their order.
func (a *Array) Burnt() []Write {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.burnt)
}

// Register reads one of the controller's registers; ok is false if the address is none of theirs.
//
//	0x40       READ_FUSE_DATA: what was sensed last (i.MX7: 0x70, 0x80, 0x90, 0xa0, for the words of its bank)
//	0x400      the shadow registers, every 0x10 bytes
func (a *Array) Register(address uint64) (value uint32, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	base := uint64(a.model.base)
	if address < base || address >= base+0x10000 || address%4 != 0 {
		return 0, false
	}
	offset := uint32(address - base)
	if n := offset - a.model.data; n%0x10 == 0 && (n == 0 || a.model.whole && n/0x10 < 4) {
		return a.sensed[n/0x10], true
	}
	bank, rest := int(offset-0x400)/int(a.model.shadow), (offset-0x400)%a.model.shadow
	// i.MX6 has a hole behind bank 5, which nothing of interest is behind.
	if offset < 0x400 || rest%0x10 != 0 || bank >= a.model.banks || a.model.words == 8 && bank > 5 {
		return 0, true
	}
	return a.shadows[Place{bank, int(rest / 0x10)}], true
}

package plan

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// Kind is what a target is reached through, and what names it there.
type Kind string

// The kinds. They are the flags of snag flash, and the keys of a plan's flash and verify.
const (
	ToFastboot Kind = "fastboot" // a partition, as the device knows it
	ToMMC      Kind = "mmc"      // over U-Boot's fastboot: DEVICE[.HARDWARE-PARTITION][:PARTITION]
	ToMTD      Kind = "mtd"      // over U-Boot's fastboot: an MTD device or partition, by the command mtd
	ToSF       Kind = "sf"       // over U-Boot's fastboot: SPI NOR flash BUS:CS, by the command sf
	ToDFU      Kind = "dfu"      // an alternate setting, by its name or number
	ToDisk     Kind = "disk"     // LUN[:PARTITION] of the board's mass storage, or a block device's path
	ToFile     Kind = "file"     // a file, on a disk that is mounted, say
)

// Kinds are all.
var Kinds = []Kind{ToFastboot, ToMMC, ToMTD, ToSF, ToDFU, ToDisk, ToFile}

// Target is where an image goes to.
type Target struct {
	Kind Kind
	Name string // as the user has it

	// What Name says, by Kind.
	Device    int    // mmc: the device; disk: the LUN, -1 for a path
	Hardware  int    // mmc: the hardware partition: 0 is the user area, 1 and 2 are boot0 and boot1
	Partition string // mmc: the partition's name or number; disk: its number; empty: the whole device

	File string // disk: the file to write in the file system that is on it, from its root on; empty: the disk itself

	Offset int64 // bytes, from its begin
	// Address is where the image goes to on a DFU device with DfuSe; 0: to the beginning of the setting.
	Address int64
	// EraseBlock is the size of an MTD device's erase blocks; 0: U-Boot is asked.
	EraseBlock int64
	NOR        bool // mtd: it has no bad blocks, and only what is written is erased
	// Buffer is where U-Boot's fastboot buffer is, for mmc, mtd and sf; 0: U-Boot is asked.
	Buffer uint64
	// BufferSize is how much of the buffer is used at most; 0: all of it.
	BufferSize int64
	Force      bool // write a disk that is not removable, or not the board's
}

var (
	sfName  = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^\d{1,3}(:\d{1,3})?$`) })
	lunName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(\d{1,2})(?::([1-9]\d{0,2}))?$`) })
	mmcName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(\d{1,3})(?:\.(\d{1,2}|boot0|boot1))?(?::(.+))?$`) })
)

// Characters of names.
const (
	lowerCase = "abcdefghijklmnopqrstuvwxyz"
	letters   = lowerCase + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits    = "0123456789"
)

// isUName reports whether a name may stand in a command of U-Boot's shell without meaning more there.
func isUName(name string) bool {
	return name != "" && len(name) <= 64 && strings.Trim(name, letters+digits+"_.+-") == ""
}

// ParseTarget reads what names a target of a kind.
func ParseTarget(kind Kind, name string) (Target, error) {
	t := Target{Kind: kind, Name: name}
	switch kind {
	case ToMMC:
		m := mmcName().FindStringSubmatch(name)
		if m == nil {
			return t, fmt.Errorf("mmc %q: expected DEVICE[.HARDWARE-PARTITION][:PARTITION], for instance 0, 0.boot0, 0:rootfs", name)
		}
		t.Device, _ = strconv.Atoi(m[1])
		switch m[2] {
		case "":
		case "boot0", "boot1":
			t.Hardware = int(m[2][4]-'0') + 1
		default:
			t.Hardware, _ = strconv.Atoi(m[2])
		}
		if t.Hardware > 7 {
			return t, fmt.Errorf("mmc %q: an eMMC has the hardware partitions 0 to 7", name)
		}
		if t.Partition = m[3]; t.Partition != "" && !isUName(t.Partition) {
			return t, fmt.Errorf("mmc %q: a partition's name of letters, digits and _.+- is expected: U-Boot's shell is told it", name)
		}
	case ToMTD:
		if !isUName(name) {
			return t, fmt.Errorf("mtd %q: a name of letters, digits and _.+- is expected (U-Boot's \"mtd list\" has them): U-Boot's shell is told it", name)
		}
	case ToSF:
		if !sfName().MatchString(name) {
			return t, fmt.Errorf("sf %q: expected BUS:CS as in U-Boot's \"sf probe\", usually 0", name)
		}
	case ToFastboot, ToDFU:
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return t, fmt.Errorf("%s %q: expected a name", kind, name)
		}
	case ToDisk:
		t.Device = -1
		if m := lunName().FindStringSubmatch(name); m != nil {
			t.Device, _ = strconv.Atoi(m[1])
			t.Partition = m[2]
		} else if !filepath.IsAbs(name) {
			return t, fmt.Errorf("disk %q: expected a block device (/dev/sdX), or LUN[:PARTITION], the number of a disk of the board's mass storage, usually 0", name)
		}
	case ToFile:
		if name == "" {
			return t, errors.New("file: expected its path")
		}
	default:
		return t, fmt.Errorf("%q: expected one of %s", kind, kindNames())
	}
	return t, nil
}

func kindNames() string {
	var names []string
	for _, k := range Kinds {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

// Check finds what does not go together. The errors begin with the key at fault.
func (t Target) Check() error {
	uboot := t.Kind == ToMMC || t.Kind == ToMTD || t.Kind == ToSF
	switch {
	case t.Offset < 0:
		return fmt.Errorf("offset %d: expected 0 or more", t.Offset)
	case t.Offset > 0 && !uboot:
		return fmt.Errorf("offset: %s targets have none", t.Kind)
	case t.Offset%512 != 0:
		return fmt.Errorf("offset %#x: expected whole blocks of 512 bytes", t.Offset)
	case t.Address != 0 && t.Kind != ToDFU, t.Address < 0 || t.Address > math.MaxUint32:
		return fmt.Errorf("address %#x: only dfu targets have one, of 32 bits", t.Address)
	case (t.EraseBlock != 0 || t.NOR) && t.Kind != ToMTD:
		return fmt.Errorf("erase-block, nor: only mtd targets have them")
	case t.EraseBlock < 0 || t.EraseBlock&(t.EraseBlock-1) != 0:
		return fmt.Errorf("erase-block %#x: expected a power of two", t.EraseBlock)
	case t.EraseBlock > 0 && t.Offset%t.EraseBlock != 0:
		return fmt.Errorf("offset %#x: expected whole erase blocks of %#x bytes", t.Offset, t.EraseBlock)
	case (t.Buffer != 0 || t.BufferSize != 0) && !uboot:
		return fmt.Errorf("buffer: only mmc, mtd and sf targets have it")
	case t.BufferSize < 0:
		return fmt.Errorf("buffer-size %d: expected more than nothing", t.BufferSize)
	case t.Force && t.Kind != ToDisk:
		return fmt.Errorf("force: only disks are refused without it")
	}
	return nil
}

// gadget is what the board must show.
func (t Target) gadget() Gadget {
	switch t.Kind {
	case ToFastboot, ToMMC, ToMTD, ToSF:
		return Fastboot
	case ToDFU:
		return DFU
	case ToDisk:
		if t.Device >= 0 {
			return Disk
		}
	}
	return None
}

func (t Target) String() string {
	s := string(t.Kind) + " " + t.Name
	if t.Kind == ToDisk && t.Device < 0 || t.Kind == ToFile {
		s = t.Name
	}
	if t.File != "" {
		s += ", " + t.File
	}
	if t.Offset > 0 {
		s += fmt.Sprintf(" from %#x on", t.Offset)
	}
	if t.Address > 0 {
		s += fmt.Sprintf(" at %#x", t.Address)
	}
	return s
}

package bcm

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"snag/event"
	"snag/firmware"
	"snag/socs"
)

// The names that the second stage has for what the configuration has slots for.
const (
	nameBoot   = "boot.img"
	nameConfig = "config.txt"
	nameUBoot  = "u-boot.bin"
)

const (
	maxListed   = 64     // names, and things that the board says, that are told of
	maxMessages = 10_000 // of a second stage; some 50 are usual
)

// files are what the second stage may ask for.
type files struct {
	chip     *chip
	archive  *firmware.Bootfiles
	slots    map[string]file // by the second stage's names
	bootcode file

	served, missing []string // that were asked for, each once
}

// file is one of them.
type file struct {
	path string // for people
	data []byte
}

// newFiles takes checked firmware.
func newFiles(c *chip, fw socs.Firmware) (*files, error) {
	archive, err := firmware.ParseBootfiles(fw[slotBootfiles].Data)
	if err != nil {
		return nil, err
	}
	f := &files{chip: c, archive: archive, slots: map[string]file{}}
	for slot, name := range map[string]string{slotBoot: nameBoot, slotConfig: nameConfig, slotUBoot: nameUBoot} {
		img, ok := fw[slot]
		if _, boot := fw[slotBoot]; !ok || slot == slotUBoot && boot { // U-Boot is in boot.img
			continue
		}
		f.slots[name] = file{img.Path, img.Data}
	}
	second, ok := archive.Find(c.dir, c.bootcode)
	if !ok {
		return nil, fmt.Errorf("there is no %s", c.bootcode)
	}
	f.bootcode = file{second.Name, second.Data}
	return f, nil
}

// find finds a file by the second stage's name for it. A name that leads out of where such files are is none.
func (f *files) find(name string) (file, bool) {
	if !filepath.IsLocal(name) || strings.Contains(name, "..") || strings.Contains(name, `\`) {
		return file{}, false
	}
	if s, ok := f.slots[name]; ok {
		return s, true
	}
	b, ok := f.archive.Find(f.chip.dir, name)
	return file{b.Name, b.Data}, ok
}

// note keeps a name that was asked for.
func (f *files) note(name string, found bool) {
	list := &f.missing
	if found {
		list = &f.served
	}
	if !slices.Contains(*list, name) && len(*list) < maxListed {
		*list = append(*list, name)
	}
}

// hint says which file is missing that the second stage cannot do without; empty if none is known.
func (f *files) hint() string {
	for _, name := range f.missing {
		switch {
		case name == "mcb.bin", name == "bootmain", strings.HasPrefix(name, "memsys"):
			return fmt.Sprintf("the board asked for %s, which bootfiles has not: take a bootfiles.bin of the same version as its %s", name, f.chip.bootcode)
		case name == "boot.sig":
			return "the board asked for boot.sig, so it starts nothing unsigned: put boot.sig, made for exactly this boot.img, into bootfiles"
		case name == nameBoot:
			return "the board asked for boot.img: name one as boot"
		case strings.HasPrefix(name, "start"), strings.HasPrefix(name, "kernel"):
			return fmt.Sprintf("the board asked for %s, which bootfiles has not", name)
		}
	}
	return ""
}

// bootcode gives the second stage its files, until it is done.
func (r *recovery) bootcode(ctx context.Context, stage *socs.Stage, p *port) error {
	r.files.served, r.files.missing = nil, nil
	said := 0
	for range maxMessages {
		m, err := p.next(ctx)
		switch {
		case err == nil:
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			return &socs.BoardError{Stage: stageBootcode, Err: fmt.Errorf("the second stage says nothing for %s; %s", idleTime, r.files), Hint: r.hintFor(err)}
		default:
			return fmt.Errorf("the second stage's next message: %w; %s", err, r.files)
		}
		switch {
		case m.command == cmdDone || m.name == "":
			r.thanks(ctx, p)
			return r.ended()
		case m.name[0] == '*':
			if key, value, ok := strings.Cut(m.name[1:], "*"); ok && said < maxListed {
				said++
				if id, ok := factoryUUID(value); ok && key == "FACTORY_UUID" {
					value = id
				}
				r.Board.Emit(stageBootcode, event.Note{Text: fmt.Sprintf("the board says %s: %s", key, value)})
			}
			err = p.length(ctx, 0)
		case m.command == cmdSize:
			f, _ := r.files.find(m.name)
			if err = p.length(ctx, len(f.data)); len(f.data) == 0 { // which the board cannot tell from one that is not there
				r.files.note(m.name, false)
			}
		default:
			err = r.send(ctx, stage, p, m.name)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", m.name, err)
		}
	}
	return fmt.Errorf("%w: the second stage asks without end, %d times by now; %s", errMessage, maxMessages, r.files)
}

// send sends a file.
func (r *recovery) send(ctx context.Context, stage *socs.Stage, p *port, name string) error {
	f, _ := r.files.find(name)
	if len(f.data) == 0 {
		r.files.note(name, false)
		return p.length(ctx, 0)
	}
	t := r.begin(stage, f)
	if err := p.write(ctx, f.data, t.At); err != nil {
		return err
	}
	r.files.note(name, true)
	t.Done()
	return nil
}

// thanks answers "done" with no bytes, as rpiboot does. The board may have left.
func (r *recovery) thanks(ctx context.Context, p *port) {
	short, cancel := context.WithTimeout(ctx, thanksTime)
	defer cancel()
	_ = p.length(short, 0)
}

// ended looks at what the second stage asked for when it is done.
func (r *recovery) ended() error {
	f := r.files
	if len(f.served) == 0 {
		return &socs.BoardError{Stage: stageBootcode, Err: errors.New("the second stage is done and has taken no file"), Hint: "watch the board's LED, or its UART with uart_2ndstage=1 in config.txt"}
	}
	if len(f.missing) > 0 {
		r.Board.Emit(stageBootcode, event.Note{Text: "the board also asked for " + strings.Join(f.missing, ", ") + ", which there is not; boards ask for much that they can do without"})
	}
	for _, name := range []string{nameBoot, nameUBoot} {
		if s, ok := f.slots[name]; ok && !slices.Contains(f.served, name) {
			r.Board.Emit(stageBootcode, event.Warning{Text: fmt.Sprintf("the second stage is done and has not asked for %s (%s): does config.txt say so?", name, s.path)})
		}
	}
	return nil
}

// String says what the second stage has taken, and not got.
func (f *files) String() string {
	list := func(names []string) string {
		if len(names) == 0 {
			return "nothing"
		}
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("it has taken %s, and asked in vain for %s", list(f.served), list(f.missing))
}

// factoryUUID decodes that of a board: words of 32 bits in hexadecimal, the lower half first, each half with three
// characters in the way of C40 (usbboot, decode_duid.c).
func factoryUUID(words string) (string, bool) {
	var id []byte
	for w := range strings.SplitSeq(words, "_") {
		word, err := strconv.ParseUint(w, 16, 32)
		if err != nil {
			return "", false
		}
		for ; word > 0; word >>= 16 {
			half := int(word&0xffff) - 1
			for _, c := range []int{half / 1600, half / 40 % 40, half % 40} {
				switch {
				case half < 0 || c < 4 || c >= 40:
					return "", false
				case c < 14:
					id = append(id, '0'+byte(c-4))
				default:
					id = append(id, 'A'+byte(c-14))
				}
			}
		}
	}
	return string(id), len(id) > 0
}

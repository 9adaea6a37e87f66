package bcm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// The commands of a message.
const (
	cmdSize = 0
	cmdRead = 1
	cmdDone = 2
)

// errDone ends the second stage before its time, by a fault.
var errDone = errors.New("done before its time")

// bootcode is the second stage.
func (d *device) bootcode(ctx context.Context) error {
	kernel, err := d.load(ctx)
	if errors.Is(err, errDone) {
		return errors.New("it said that it is done, by request")
	}
	if err != nil {
		return err
	}
	if d.b.cfg.Metadata {
		for _, s := range []string{"*MAC_ADDR*d8:3a:dd:05:ee:78", "*USER_BOARDREV*c03141", "*FACTORY_UUID*19a519a6_19ab520e_0000212b"} {
			if _, _, err := d.ask(ctx, s); err != nil {
				return err
			}
		}
	}
	if !d.b.cfg.NoDone {
		switch err := d.message(ctx, cmdDone, ""); {
		case err == nil:
			d.thanks(ctx)
		case !errors.Is(err, errDone): // in another way, by request
			return err
		}
	}
	d.b.board.Edit(func(*Report) {
		d.stage.Kernel, d.stage.Complete = kernel, true
		d.stage.Sum(func(sum string) { kernel.SHA256 = sum }, kernel.data)
	})
	return nil
}

// thanks takes the empty length that some hosts send behind "done".
func (d *device) thanks(ctx context.Context) {
	short, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	if n, err := d.length(short, "nothing"); err == nil && n != 0 {
		d.b.board.Violation("a length of %d behind \"done\"", n)
	}
}

// message asks the host something.
func (d *device) message(ctx context.Context, command uint32, name string) error {
	point := map[uint32]string{cmdSize: atSize, cmdRead: atRead, cmdDone: atDone}[command]
	f, err := d.fault(ctx, point)
	if err != nil {
		return err
	}
	m := make([]byte, messageSize)
	binary.LittleEndian.PutUint32(m, command)
	copy(m[4:], name)
	switch f.Kind {
	case Unknown:
		binary.LittleEndian.PutUint32(m, 7)
	case Endless:
		copy(m[4:], strings.Repeat("x", 256))
	case Short:
		m = m[:100]
	case Escape:
		for _, outside := range []string{"../../etc/hostname", "/etc/hostname", `..\etc\hostname`, "a/../../config.txt"} {
			if _, ok, err := d.ask(ctx, outside); err != nil {
				return err
			} else if ok {
				d.b.board.Violation("there is a file %s", outside)
			}
		}
	case Early, Unnamed:
		command = cmdSize
		if f.Kind == Early {
			command = cmdDone
		}
		binary.LittleEndian.PutUint32(m, command)
		clear(m[4:])
		if err := d.give(ctx, m, messageSize, "a message"); err != nil {
			return err
		}
		d.thanks(ctx)
		return errDone
	}
	return d.give(ctx, m, messageSize, "a message")
}

// ask asks for a file.
func (d *device) ask(ctx context.Context, name string) (data []byte, ok bool, err error) {
	if err := d.message(ctx, cmdSize, name); err != nil {
		return nil, false, err
	}
	size, err := d.length(ctx, name)
	if err != nil {
		return nil, false, err
	}
	i := 0
	d.b.board.Edit(func(*Report) {
		i = len(d.stage.Files)
		d.stage.Files = append(d.stage.Files, File{Name: name, Bytes: size, Missing: size == 0})
	})
	if size == 0 {
		return nil, false, nil
	}
	if err := d.message(ctx, cmdRead, name); err != nil {
		return nil, false, err
	}
	n, err := d.length(ctx, name)
	if err != nil {
		return nil, false, err
	}
	if n != size {
		d.b.board.Violation("%s is of %d bytes, then %d are to come", name, size, n)
	}
	if data, err = d.receive(ctx, n, true); err != nil {
		return nil, false, fmt.Errorf("%s: after %d of %d bytes: %w", name, len(data), n, err)
	}
	d.b.board.Edit(func(*Report) { d.stage.file(i, newFile(name, data)) })
	return data, len(data) > 0, nil
}

// must asks for files that it cannot do without, and returns the last.
func (d *device) must(ctx context.Context, names ...string) (data []byte, err error) {
	for _, name := range names {
		var ok bool
		if data, ok, err = d.ask(ctx, name); err != nil {
			return nil, err
		}
		if !ok {
			d.b.board.Stuck("there is no " + name + ": it waits for ever") // on the bus
			<-ctx.Done()
			return nil, ctx.Err()
		}
	}
	return data, nil
}

// may asks for files that it can do without.
func (d *device) may(ctx context.Context, names ...string) (data []byte, err error) {
	for _, name := range names {
		if data, _, err = d.ask(ctx, name); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// load asks for all files, and returns what they start.
func (d *device) load(ctx context.Context) (*File, error) {
	m := &d.b.cfg.Model
	if m.memsys == 0 {
		return d.loadOld(ctx)
	}
	first := []string{"mcb.bin"}
	for n := range m.memsys {
		first = append(first, fmt.Sprintf("memsys%02d.bin", n))
	}
	if _, err := d.must(ctx, first...); err != nil {
		return nil, err
	}
	if _, err := d.may(ctx, m.extra...); err != nil {
		return nil, err
	}
	if _, err := d.must(ctx, "bootmain"); err != nil {
		return nil, err
	}
	config, err := d.may(ctx, "config.txt")
	if err != nil {
		return nil, err
	}
	if setting(config, "boot_ramdisk", "0") != "1" || d.b.cfg.Files {
		if m.Name == "bcm2711" {
			if _, err := d.must(ctx, "start4.elf", "fixup4.dat"); err != nil {
				return nil, err
			}
		}
		return d.kernel(ctx)
	}
	if d.b.cfg.Signed {
		if _, err := d.must(ctx, "boot.sig"); err != nil {
			return nil, err
		}
	}
	image, err := d.must(ctx, "boot.img")
	if err != nil {
		return nil, err
	}
	return d.ramdisk(image)
}

// loadOld is what the second stage of BCM2835 to 2837 and then start.elf ask for.
func (d *device) loadOld(ctx context.Context) (*File, error) {
	if _, err := d.may(ctx, "autoboot.txt", "config.txt", "recovery.elf"); err != nil {
		return nil, err
	}
	if _, err := d.must(ctx, "start.elf"); err != nil {
		return nil, err
	}
	if _, err := d.may(ctx, "fixup.dat", "recovery.elf"); err != nil {
		return nil, err
	}
	return d.kernel(ctx)
}

// kernel asks for the kernel and what belongs to it.
func (d *device) kernel(ctx context.Context) (*File, error) {
	config, err := d.may(ctx, "config.txt")
	if err != nil {
		return nil, err
	}
	if _, err := d.may(ctx, "dt-blob.bin", "bootcfg.txt", d.b.cfg.Model.tree, "cmdline.txt"); err != nil {
		return nil, err
	}
	name := setting(config, "kernel", d.b.cfg.Model.kernel)
	data, err := d.must(ctx, name)
	if err != nil {
		return nil, err
	}
	f := newFile(name, data)
	return &f, nil
}

// ramdisk starts what boot.img has.
func (d *device) ramdisk(image []byte) (*File, error) {
	fail := func(err error) (*File, error) { return nil, fmt.Errorf("boot.img: %w", err) }
	disk, err := openDisk(image)
	if err != nil {
		return fail(err)
	}
	if !disk.alike {
		d.b.board.Violation("boot.img: the copies of the allocation table differ")
	}
	config, err := disk.file("config.txt")
	if err != nil {
		return fail(err)
	}
	if d.b.cfg.Model.Name == "bcm2711" {
		if _, err := disk.file("start4.elf"); err != nil {
			return fail(err)
		}
	}
	name := setting(config, "kernel", d.b.cfg.Model.kernel)
	data, err := disk.file(name)
	if err != nil {
		return fail(err)
	}
	f := newFile(name, data)
	return &f, nil
}

// setting is the last value of a setting in config.txt; filters ([pi4]) do not count.
func setting(config []byte, name, value string) string {
	for line := range strings.Lines(string(config)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && strings.TrimSpace(k) == name {
			value = strings.TrimSpace(v)
		}
	}
	return value
}

//go:build linux

package block

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"snag/flash/image"
	"snag/usb"
)

// Options says which device is meant.
type Options struct {
	// Path is a device's node or a link to it, Port the USB port that it is on. With both the device must be on the
	// port.
	Path string
	Port usb.Port

	LUN       int  // of Port's disks, from 0 on; AnyLUN: the only one there is
	Partition int  // of the disk; 0: the whole disk, or what Path is
	Force     bool // it may be elsewhere than on Port, and on no USB at all; what is in use is not written nevertheless

	// Wait is how long to wait for the device, and for a medium in it. Zero: not at all.
	Wait time.Duration

	System System
}

// AnyLUN is, as [Options].LUN, the disk of a device that has no other.
const AnyLUN = -1

// AbsentError says that the device, or a medium in it, did not come in time.
type AbsentError struct {
	For   string // what was awaited
	After time.Duration
	Found string // what was there instead
	Hint  string
}

func (e *AbsentError) Error() string {
	s := "no " + e.For
	if e.After > 0 {
		s += fmt.Sprintf(" within %s", e.After.Round(time.Second))
	}
	if e.Found != "" {
		s += ": " + e.Found
	}
	return s
}

// AccessError says that the caller may not open a device. It wraps fs.ErrPermission.
type AccessError struct {
	Node string
	Err  error
}

func (e *AccessError) Error() string { return fmt.Sprintf("open %s: %v", e.Node, e.Err) }
func (e *AccessError) Unwrap() error { return e.Err }

// Hint is what the user can do about it.
func (e *AccessError) Hint() string {
	return fmt.Sprintf("run it as root, or be in the group that owns the device (often \"disk\"), or let a udev rule give it to you:\n"+
		`SUBSYSTEM=="block", SUBSYSTEMS=="usb", ENV{ID_USB_DRIVER}=="usb-storage", MODE="0660", GROUP="plugdev", TAG+="uaccess"`+"\n(%s is not yours)", e.Node)
}

const (
	lookInterval = 250 * time.Millisecond // beneath the uevents: a card reader tells of a card only when it is asked
	settleTime   = 300 * time.Millisecond // a device has all its disks so long after the first, and udevd its permissions set
	busyTime     = 3 * time.Second        // so long the kernel may look for partitions, and keep others from the disk
	lockTime     = 15 * time.Second       // and so long udevd into what it holds
)

// Open finds a device, awaits it, and opens it so that nobody else can: whatever Options say, never one that is in use.
// The errors are an *AbsentError, *RefusedError or *AccessError, or ctx's.
func Open(ctx context.Context, o Options) (*Device, error) {
	o.System.defaults()
	var d *Device
	err := o.await(ctx, func(p *part) (err error) {
		d, err = o.open(p)
		return err
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

// await waits for the device that is meant until use has taken it.
func (o *Options) await(ctx context.Context, use func(*part) error) error {
	if o.Path == "" && o.Port == "" {
		return errors.New("neither a device nor a USB port is named")
	}
	events := make(chan struct{}, 1)
	watch, stop := context.WithCancel(ctx)
	defer stop()
	_ = usb.Hotplug(watch, func(usb.Uevent) { // where there is no socket, looking does
		select {
		case events <- struct{}{}:
		default:
		}
	})
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	var seen string
	var since, taken time.Time // when it was first seen, and when it was first seen that somebody has it
	for begun := time.Now(); ; {
		o.System.looks()
		p, err := o.find()
		if err == nil {
			if id := p.number + " " + p.seq; id != seen {
				seen, since = id, time.Now()
			}
			if o.Path == "" && o.LUN == AnyLUN && time.Since(since) < settleTime {
				err = errSettling
			} else {
				err = use(p)
			}
		}
		var absent *AbsentError
		var access *AccessError
		there := time.Since(since)
		busy := func() time.Duration {
			if taken.IsZero() {
				taken = time.Now()
			}
			return time.Since(taken)
		}
		switch {
		case err == nil:
			return nil
		case errors.As(err, &absent):
			if absent.After = time.Since(begun); absent.After >= o.Wait {
				absent.After = o.Wait
				return err
			}
		case errors.Is(err, errSettling), errors.As(err, &access) && there < settleTime, errors.Is(err, unix.EBUSY) && busy() < busyTime,
			errors.Is(err, unix.EWOULDBLOCK) && busy() < lockTime:
		case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EWOULDBLOCK):
			return &RefusedError{Device: o.System.describe(p), Why: "another program has it open for itself", Hint: "find it: fuser -v " + o.System.node(p)}
		default:
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-events:
		case <-ticker.C:
		}
	}
}

// errSettling says that more may come.
var errSettling = errors.New("it may have more disks")

// find finds the device that is meant.
func (o *Options) find() (*part, error) {
	s := &o.System
	if o.Path != "" {
		p, err := s.byPath(o.Path)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENXIO):
			return nil, &AbsentError{For: "device " + o.Path, Hint: "\"lsblk\" shows all"}
		case errors.Is(err, errNoBlockDevice):
			return nil, &RefusedError{Device: o.Path, Why: "it is no block device", Hint: "\"lsblk\" shows all; a file is another target (--file, in a plan file:)"}
		case err != nil:
			return nil, err
		}
		return o.partition(p)
	}
	ports := o.ports()
	disks, err := s.disks(func(p *part) bool {
		for _, port := range ports {
			if p.port == port {
				return o.LUN == AnyLUN || p.lun == o.LUN
			}
		}
		return false
	})
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("disk on USB port %s", o.Port)
	if o.LUN != AnyLUN {
		what += fmt.Sprintf(", LUN %d", o.LUN)
	}
	if len(disks) > 1 {
		var list []string
		for _, p := range disks {
			list = append(list, fmt.Sprintf("LUN %d is %s", p.lun, s.describe(p)))
		}
		return nil, &RefusedError{Device: "the device on USB port " + string(o.Port), Why: "it has several disks: " + strings.Join(list, "; "), Hint: "say which is meant by its LUN"}
	}
	if len(disks) == 0 {
		return nil, &AbsentError{For: what, Found: o.instead(ports), Hint: "is the gadget started (U-Boot: ums 0 mmc 0), and the kernel's usb-storage there?"}
	}
	return o.partition(disks[0])
}

// instead is what is on the port in place of a disk.
func (o *Options) instead(ports []usb.Port) string {
	devices, _ := usb.Sysfs{Sys: o.System.Sys, Dev: o.System.Dev}.Devices()
	for _, d := range devices {
		for _, port := range ports {
			if d.Port != port {
				continue
			}
			for _, i := range d.Interfaces {
				if i.Class == massStorage && i.Driver == "" {
					return fmt.Sprintf("%s is there, a mass storage device, but no driver has taken it (modprobe usb-storage)", d.ID)
				}
				if i.Class == massStorage {
					return fmt.Sprintf("%s is there, a mass storage device, but has no such disk yet", d.ID)
				}
			}
			return fmt.Sprintf("%s is there, which is no mass storage device", d.ID)
		}
	}
	return "nothing is there"
}

// massStorage is the class of the interface (USB Mass Storage Class Specification Overview 1.4, section 1.1).
const massStorage = 0x08

// partition finds the partition of a disk that is meant.
func (o *Options) partition(p *part) (*part, error) {
	if o.Partition == 0 || p.index == o.Partition {
		return p, nil
	}
	if p.index != 0 {
		return nil, &RefusedError{Device: o.System.describe(p), Why: fmt.Sprintf("it is partition %d, not %d", p.index, o.Partition), Hint: "name the disk"}
	}
	if p.size == 0 {
		return p, nil // there will be none without a medium
	}
	for _, q := range o.System.partitions(p.disk) {
		if q.index == o.Partition {
			return q, nil
		}
	}
	return nil, &AbsentError{For: fmt.Sprintf("partition %d on %s", o.Partition, o.System.describe(p)), Hint: "\"lsblk\" shows which there are"}
}

// open opens what was found. The error is unix.EBUSY or unix.EWOULDBLOCK if it is not known who has it.
func (o *Options) open(p *part) (*Device, error) {
	s := &o.System
	if err := o.refuse(p); err != nil {
		return nil, err
	}
	p, err := o.inserted(p)
	if err != nil {
		return nil, err
	}
	node := s.node(p)
	m, err := s.open(node, s.node(&part{name: filepath.Base(p.disk)}))
	switch {
	case errors.Is(err, unix.EBUSY):
		if why := o.refuse(p); why != nil { // it was being taken while it was looked at
			return nil, why
		}
		return nil, err
	case errors.Is(err, fs.ErrPermission):
		return nil, &AccessError{Node: node, Err: err}
	case errors.Is(err, unix.EROFS):
		return nil, &RefusedError{Device: s.describe(p), Why: "it is write-protected"}
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOMEDIUM):
		return nil, &AbsentError{For: "device " + s.describe(p), Found: err.Error()}
	case err != nil:
		return nil, err
	}
	d := &Device{part: *p, system: *s, options: *o, medium: m, Node: node, Size: m.Size()}
	// What the node led to, and what was looked at, are the same if both are so now; and while it is held nobody can
	// take it.
	now, err := s.part(p.dir)
	if err == nil {
		var number string
		if number, err = s.number(node); err == nil && (number != p.number || now.number != p.number || now.seq != p.seq) {
			err = fs.ErrNotExist
		}
	}
	if err != nil {
		m.Close()
		return nil, &AbsentError{For: "device " + s.describe(p), Found: "it left while it was being opened"}
	}
	if err := o.refuse(now); err != nil {
		m.Close()
		return nil, err
	}
	return d, nil
}

// inserted finds out whether there is a medium. A card reader learns of a card, and of its size, when it is opened.
func (o *Options) inserted(p *part) (*part, error) {
	s := &o.System
	if p.size > 0 {
		return p, nil
	}
	if f, err := os.Open(s.node(p)); err == nil {
		f.Close()
	}
	now, err := s.part(p.dir)
	if err != nil || now.size == 0 {
		return nil, &AbsentError{For: "medium in " + s.describe(p), Found: "it says that it is empty", Hint: "put a card in, or select one on the board (U-Boot: mmc dev)"}
	}
	return o.partition(now)
}

// leaveTime is how long the kernel may take to remove a device whose transfers fail already.
const leaveTime = time.Second

// lost says of an error of the medium what has become of the device, if that explains it.
func (d *Device) lost(err error) error {
	here := func() bool {
		now, err := d.system.part(d.part.dir)
		return err == nil && now.seq == d.part.seq && now.number == d.part.number
	}
	switch {
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
	case errors.Is(err, unix.EIO), errors.Is(err, unix.ENOSPC): // Linux 6.12 gives a disk that leaves a size of 0 before it is gone
		for end := time.Now().Add(leaveTime); here(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				return err
			}
		}
	default:
		return err
	}
	why := "the device has left the bus (unplugged, or its gadget was stopped)"
	if d.part.port != "" {
		if again, _ := d.system.disks(func(p *part) bool { return p.port == d.part.port && p.lun == d.part.lun && p.disk != d.part.disk }); len(again) > 0 {
			why = fmt.Sprintf("the device left the bus and came back as %s, which holds a part of the image only", d.system.node(again[0]))
		}
	}
	if at, ok := errors.AsType[*image.RangeError](err); ok {
		return &image.RangeError{Name: at.Name, Off: at.Off, End: at.End, Block: at.Block, Err: fmt.Errorf("%s: %w", why, at.Err)}
	}
	return fmt.Errorf("%s: %w", why, err)
}

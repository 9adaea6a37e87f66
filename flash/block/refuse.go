//go:build linux

package block

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"snag/usb"
)

// RefusedError says why a device is not written. Nothing was written to it.
type RefusedError struct {
	Device string // "/dev/sdb (Linux UMS disk 0, 8.0 GB, on 1-2)"
	Why    string
	Hint   string // what to do about it
}

func (e *RefusedError) Error() string { return e.Device + " is not written: " + e.Why }

// systemMounts are the mount points of what the running system is.
var systemMounts = []string{"/", "/usr", "/boot", "/boot/efi", "/efi", "/etc", "/var", "/nix", "/sysroot"}

// refuse finds a reason not to write a disk or partition. What is in use is not written even if that is forced.
func (o *Options) refuse(p *part) error {
	s := &o.System
	no := func(hint, format string, args ...any) error {
		return &RefusedError{Device: s.describe(p), Why: fmt.Sprintf(format, args...), Hint: hint}
	}
	mounts, err := s.mounts()
	if err != nil {
		return no("mount /proc", "%v", err)
	}
	number := func(m mount) string {
		if !strings.HasPrefix(m.number, "0:") || !strings.HasPrefix(m.source, "/") {
			return m.number
		}
		n, err := s.number(m.source) // btrfs, which numbers itself
		if err != nil {
			return m.number
		}
		return n
	}
	for _, m := range mounts {
		if slices.Contains(systemMounts, m.point) && slices.Contains(s.under(number(m)), p.disk) {
			return no("choose another device: \"lsblk\" shows all", "it is the disk of the running system, whose %s is on it", m.point)
		}
	}
	swaps := s.swaps()
	for _, q := range s.relatives(p) {
		what := "it"
		if q.dir != p.dir {
			what = s.node(q)
		}
		for _, m := range mounts {
			if number(m) == q.number {
				return no("unmount it: umount "+m.point, "%s is mounted on %s", what, m.point)
			}
		}
		if slices.Contains(swaps, q.number) {
			return no("swapoff "+s.node(q), "%s is swap space", what)
		}
		if by := s.holders(q); by != "" {
			return no("take that apart first: vgchange -an, cryptsetup close, dmsetup remove, mdadm --stop or losetup -d", "%s is held by %s", what, by)
		}
	}
	switch {
	case p.readOnly:
		return no("there may be a switch on the card; else: blockdev --setrw "+s.node(p), "it is write-protected")
	case o.Force:
		return nil
	case o.Port != "" && !slices.Contains(o.ports(), p.port):
		return no("check the port, or force it if this is the device that is meant", "it is not on USB port %s%s", o.Port, onPort(p))
	case p.port == "" && !p.removable:
		return no("force it if this is the device that is meant", "it is neither on USB nor removable")
	}
	return nil
}

func onPort(p *part) string {
	if p.port == "" {
		return ", nor on USB at all"
	}
	return ", but on " + string(p.port)
}

// ports are the names of the port: a connector of USB 3 has two.
func (o *Options) ports() []usb.Port {
	peer, err := usb.Sysfs{Sys: o.System.Sys}.Peer(o.Port)
	if err != nil || peer == "" {
		return []usb.Port{o.Port}
	}
	return []usb.Port{o.Port, peer}
}

// relatives are whose use is a use of p: of a disk all its partitions, of a partition its disk.
func (s *System) relatives(p *part) []*part {
	list := []*part{p}
	if p.index == 0 {
		return append(list, s.partitions(p.disk)...)
	}
	if disk, err := s.part(p.disk); err == nil {
		list = append(list, disk)
	}
	return list
}

// holders names what is made of a disk or partition: "dm-0 (luks-home)".
func (s *System) holders(p *part) string {
	entries, _ := os.ReadDir(filepath.Join(p.dir, "holders"))
	var names []string
	for _, e := range entries {
		name := e.Name()
		if volume := attribute(filepath.Join(p.dir, "holders", name), "dm/name"); volume != "" {
			name += " (" + volume + ")"
		}
		names = append(names, name)
	}
	return strings.Join(append(names, s.loops(p)...), ", ")
}

// loops names the loop devices that a disk or partition is behind: those are not among its holders.
func (s *System) loops(p *part) []string {
	var names []string
	files, _ := filepath.Glob(filepath.Join(s.Sys, "block/loop*/loop/backing_file"))
	for _, f := range files {
		behind := attribute(filepath.Dir(f), "backing_file")
		if n, err := s.number(behind); behind != "" && err == nil && n == p.number {
			names = append(names, filepath.Base(filepath.Dir(filepath.Dir(f))))
		}
	}
	return names
}

// describe names a disk or partition as its user would recognise it.
func (s *System) describe(p *part) string {
	var facts []string
	if what := strings.TrimSpace(p.vendor + " " + p.model); what != "" {
		facts = append(facts, what)
	}
	if p.size > 0 {
		facts = append(facts, decimal(p.size))
	}
	if p.port != "" {
		on := "on " + string(p.port)
		if p.lun > 0 {
			on += fmt.Sprintf(", LUN %d", p.lun)
		}
		facts = append(facts, on)
	}
	if len(facts) == 0 {
		return s.node(p)
	}
	return s.node(p) + " (" + strings.Join(facts, ", ") + ")"
}

// decimal is a size as manufacturers print it: "8.0 GB".
func decimal(n int64) string {
	v, units := float64(n), []string{"bytes", "kB", "MB", "GB", "TB"}
	for len(units) > 1 && v >= 1000 {
		v, units = v/1000, units[1:]
	}
	if units[0] == "bytes" {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[0])
}

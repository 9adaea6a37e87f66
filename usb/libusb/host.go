package libusb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/gousb"

	"snag/usb"
)

// Host is the running system's USB. It implements [usb.Host].
type Host struct{}

var (
	_ usb.Host   = Host{}
	_ usb.Peerer = Host{}
	_ usb.Handle = (*Handle)(nil)
)

// Devices implements [usb.Host].
func (Host) Devices() ([]usb.Device, error) { return devices() }

// Peer implements [usb.Peerer]. It knows peers on Linux.
func (Host) Peer(p usb.Port) (usb.Port, error) { return usb.Sysfs{}.Peer(p) }

// Watch implements [usb.Host].
func (Host) Watch(ctx context.Context) (<-chan struct{}, error) {
	seen, err := devices()
	if err != nil {
		return nil, err
	}
	changes := make(chan struct{}, 1)
	changes <- struct{}{}
	go func() {
		defer close(changes)
		for range looks(ctx) {
			now, err := devices()
			if err != nil || slices.EqualFunc(seen, now, same) {
				continue
			}
			seen = now
			select {
			case changes <- struct{}{}:
			default: // the one before was not received yet
			}
		}
	}()
	return changes, nil
}

// same says whether nothing has changed that a list of devices shows.
func same(a, b usb.Device) bool {
	return a.Port == b.Port && a.Address == b.Address && a.Config == b.Config && slices.Equal(a.Interfaces, b.Interfaces)
}

// looks gets a value when it is time to look for devices, at once when the system tells of a change. It is closed when
// ctx ends.
func looks(ctx context.Context) <-chan struct{} {
	events := make(chan struct{}, 1)
	hotplug(ctx, func() {
		select {
		case events <- struct{}{}:
		default:
		}
	})
	now := make(chan struct{})
	go func() {
		defer close(now)
		ticker := time.NewTicker(lookInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-events:
			case <-ticker.C:
			}
			select {
			case now <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return now
}

// Open implements [usb.Host].
func (Host) Open(ctx context.Context, d usb.Device) (usb.Handle, error) {
	fail := func(err error) error {
		return &usb.TransferError{Op: "open", Port: d.Port, ID: d.ID, Endpoint: -1, Err: err}
	}
	if err := ctx.Err(); err != nil {
		return nil, fail(why(ctx))
	}
	if err := accessible(ctx, d); err != nil {
		if isAccess(err) {
			return nil, err
		}
		return nil, fail(err)
	}
	lib, err := start()
	if err != nil {
		return nil, fail(err)
	}
	h, err := open(ctx, lib, d)
	if err != nil {
		lib.Close()
		return nil, fail(cause(err))
	}
	return h, nil
}

// start begins to use libusb.
func start() (lib *gousb.Context, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("libusb does not start: %v", r)
			if code, ok := r.(gousb.Error); ok {
				err = fmt.Errorf("libusb does not start: %w", code)
			}
		}
	}()
	return gousb.NewContext(), nil
}

// find looks at the descriptors of all devices, and opens those that open says. gousb panics at a device that describes
// an interface in two places; then it is of no use for the others either.
func find(lib *gousb.Context, open func(*gousb.DeviceDesc) bool) (opened []*gousb.Device, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("gousb does not bear the descriptors of an attached device: %v", r)
		}
	}()
	return lib.OpenDevices(open)
}

// open opens the device that was listed.
func open(ctx context.Context, lib *gousb.Context, d usb.Device) (*Handle, error) {
	opened, err := find(lib, func(desc *gousb.DeviceDesc) bool {
		return desc.Bus == d.Bus && desc.Address == d.Address && idOf(desc) == d.ID && uint16(desc.Device) == d.Release
	})
	switch {
	case len(opened) > 0: // an error is another device's
	case err == nil, !present(lib, d):
		return nil, usb.ErrGone
	default:
		return nil, err
	}
	dev := opened[0]
	if !present(lib, d) {
		dev.Close()
		return nil, usb.ErrGone
	}
	h, err := newHandle(ctx, lib, dev, d)
	if err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	return h, nil
}

func idOf(desc *gousb.DeviceDesc) usb.ID {
	return usb.ID{Vendor: uint16(desc.Vendor), Product: uint16(desc.Product)}
}

// list is what libusb lists. It opens no device, so there are no strings, and which configuration is active is not
// known: it is taken for the first.
func list(lib *gousb.Context) []usb.Device {
	var all []usb.Device
	// An error is that of a device whose descriptors cannot be read.
	_, _ = find(lib, func(desc *gousb.DeviceDesc) bool {
		if desc.Port == 0 {
			return false // a root hub
		}
		d := usb.Device{
			Port: portOf(desc), ID: idOf(desc), Release: uint16(desc.Device),
			Bus: desc.Bus, Address: desc.Address, Speed: speeds[desc.Speed],
		}
		if len(desc.Configs) > 0 {
			d.Config = slices.Min(slices.Collect(maps.Keys(desc.Configs)))
		}
		for _, i := range desc.Configs[d.Config].Interfaces {
			s := i.AltSettings[0]
			d.Interfaces = append(d.Interfaces, usb.Interface{
				Number: s.Number, Class: uint8(s.Class), SubClass: uint8(s.SubClass), Protocol: uint8(s.Protocol),
			})
		}
		all = append(all, d)
		return false
	})
	slices.SortFunc(all, func(a, b usb.Device) int {
		return cmp.Or(a.Port.Compare(b.Port), cmp.Compare(a.Address, b.Address))
	})
	return all
}

// speeds are in Mbit/s, as sysfs has them.
var speeds = map[gousb.Speed]string{
	gousb.SpeedLow: "1.5", gousb.SpeedFull: "12", gousb.SpeedHigh: "480", gousb.SpeedSuper: "5000",
}

// portOf names a device's port, or after its bus and address what has no name: gousb has DeviceDesc.Path since 1.1.2.
func portOf(desc *gousb.DeviceDesc) usb.Port {
	if path := reflect.ValueOf(desc).Elem().FieldByName("Path"); path.IsValid() {
		if path, ok := path.Interface().([]int); ok && len(path) > 0 {
			var chain []string
			for _, n := range path {
				chain = append(chain, strconv.Itoa(n))
			}
			return usb.Port(fmt.Sprintf("%d-%s", desc.Bus, strings.Join(chain, ".")))
		}
	}
	return usb.Port(fmt.Sprintf("%d-%d", desc.Bus, desc.Address))
}

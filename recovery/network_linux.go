package recovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"snag/event"
	"snag/netsetup"
	"snag/socs"
	"snag/usb"
)

// kernelNet is what the kernel's way needs.
type kernelNet struct {
	ns    *netsetup.Namespace
	found <-chan []netsetup.Interface
	leave func() error              // prepares for snag's own network in the place of this; nil if that is not to be
	stir  atomic.Pointer[time.Time] // when a device came that may be the board's; zero: the kernel has it
}

// closeKernel gives up the namespace, if there is one.
func (b *board) closeKernel() {
	if b.ns == nil {
		return
	}
	if err := b.ns.Close(); err != nil {
		b.opt.Log.Warn("close the network namespace", "err", err)
	}
}

// errNamespace is the end of the board's network namespace while it was needed.
var errNamespace = errors.New("the board's network namespace ended")

// closed says why the sockets of a namespace are; nil if there is none, or err says something else.
func (b *board) closed(err error) error {
	if b.ns == nil || b.user || !errors.Is(err, net.ErrClosed) {
		return nil
	}
	<-b.ns.Done() // the sockets end with the namespace, which tells why
	return fmt.Errorf("%w: %w", errNamespace, b.ns.Err())
}

// openNetwork prepares for stages that are network adapters, whoever drives them.
func (b *board) openNetwork(ctx context.Context) error {
	switch b.opt.Net {
	case NetKernel:
		return b.openKernel(ctx)
	case NetUser:
		b.user = true
		return b.openUSB(ctx)
	}
	var err error
	if os.Geteuid() != 0 {
		err = netsetup.HelperStatus("")
	}
	if err == nil {
		err = b.openKernel(ctx)
	}
	if err == nil {
		if b.opt.NetNS == "" {
			b.leave = func() error { return b.openUSB(ctx) }
			b.watchStir(ctx)
		}
		return nil
	}
	if _, ok := errors.AsType[*netsetup.SetupError](err); !ok || b.opt.NetNS != "" {
		return err
	}
	b.goUser(err.Error())
	return b.openUSB(ctx)
}

// openKernel prepares for stages that are network interfaces of the kernel's.
func (b *board) openKernel(ctx context.Context) error {
	var err error
	if b.port != "" && b.lock == nil {
		if err = b.hold(b.port); err != nil {
			return err
		}
	}
	host := netsetup.Host{NetNS: b.opt.NetNS}
	if b.ns != nil { // since an earlier leg
		return b.watchHost(ctx, host)
	}
	if b.ns, err = netsetup.Open(ctx, netsetup.Options{Log: b.opt.Log, Host: host}); err != nil {
		return err
	}
	go func() {
		select {
		case <-b.ns.Done():
			b.fail(fmt.Errorf("%w: %w", errNamespace, b.ns.Err()))
		case <-ctx.Done():
		}
	}()
	return b.watchHost(ctx, host)
}

// watchHost has the host's interfaces told.
func (b *board) watchHost(ctx context.Context, host netsetup.Host) (err error) {
	b.found, err = host.Watch(ctx)
	if none, ok := errors.AsType[*netsetup.NoNamespaceError](err); ok {
		return &UsageError{Err: fmt.Errorf("--netns: %w", none), Hint: "ip netns list shows those that there are"}
	}
	return err
}

// nextInterface waits for the board's next network interface, and takes it.
func (b *board) nextInterface(ctx context.Context) (*socs.Stage, error) {
	var there []netsetup.Interface
	var again, look <-chan time.Time
	var since time.Time // when the kernel was first seen to leave a board alone
	if b.leave != nil {
		t := time.NewTicker(driverPatience / 2)
		defer t.Stop()
		look = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil, b.noNextInterface(ctx)
		case now := <-look:
			switch {
			case since.IsZero() && now.Sub(*b.stir.Load()) > stirred:
			case !b.leftAlone():
				since = time.Time{}
			case since.IsZero():
				since = now
			case now.Sub(since) >= driverPatience:
				return b.nextDeviceFrom(ctx, "the kernel has no driver for it (rndis_host, cdc_ether), or may not use it")
			}
			continue
		case found, ok := <-b.found:
			if !ok { // with the context that ends this wait too
				b.found = nil
				continue
			}
			there = found
		case <-again:
		}
		again = nil
		i, ok, err := b.choose(there)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		stage, err := b.adopt(ctx, i)
		if err != nil {
			b.letGo()
		}
		if errors.Is(err, netsetup.ErrGone) {
			// If it comes or goes just now, another list will follow; if it was only hard to get, none will.
			b.opt.Log.Info("the interface left while it was being moved", "interface", i.Name, "index", i.Index)
			again = time.After(tryAgain)
			continue
		}
		if errors.Is(err, errAway) {
			b.opt.Log.Info("the time was over while the interface was being moved", "interface", i.Name, "index", i.Index)
			return nil, b.noNextInterface(ctx)
		}
		if refused, ok := errors.AsType[*netsetup.SetupError](err); ok && b.leave != nil && b.leftTo(i.Port) {
			return b.nextDeviceFrom(ctx, refused.Error())
		}
		return stage, err
	}
}

// nextDeviceFrom leaves the kernel's network for the board's next stage and all that follow, and says why.
func (b *board) nextDeviceFrom(ctx context.Context, why string) (*socs.Stage, error) {
	b.goUser(why)
	if err := b.leave(); err != nil {
		return nil, err
	}
	return b.nextDevice(ctx)
}

// driverPatience is how long the kernel's drivers may take for a board that snag could drive itself: they probe it
// within some 10 ms, and SPL waits for its link for 3 s.
const driverPatience = time.Second

// stirred is how long after a device came it is looked whether the kernel leaves it alone, unless it has made a network
// interface of it. To look all the time costs a machine with many boards more than their recoveries.
const stirred = 5 * time.Second

// watchStir notes when a device comes to the board's port, or to any as long as that is unknown. Where no uevent can be
// had, it is looked for what is there at the beginning.
func (b *board) watchStir(ctx context.Context) {
	begun := time.Now()
	b.stir.Store(&begun)
	_ = usb.Hotplug(ctx, func(u usb.Uevent) {
		b.mu.Lock()
		port, peer := b.port, b.peer
		b.mu.Unlock()
		switch p := u.Port(); {
		case p == "" || port != "" && p != port && p != peer:
		case u.Action == "add" && u.DevType == "usb_device":
			now := time.Now()
			b.stir.Store(&now)
		case u.Action == "add" && u.Subsystem == "net" && port != "":
			b.stir.Store(new(time.Time))
		}
	})
}

// leftAlone reports whether a board is there that no driver of the kernel's has taken, and that snag may open.
func (b *board) leftAlone() bool {
	devices, _ := b.devices()
	return slices.ContainsFunc(devices, func(d usb.Device) bool {
		taken := func(i usb.Interface) bool { return i.Driver != "" || i.Net != "" }
		return b.matches(d.Port, d.ID) && !(b.seen && d.Address == b.last.Address) && !slices.ContainsFunc(d.Interfaces, taken) && d.Access() == nil
	})
}

// leftTo reports whether snag may open the device on a port.
func (b *board) leftTo(port usb.Port) bool {
	devices, _ := b.devices()
	return slices.ContainsFunc(devices, func(d usb.Device) bool { return d.Port == port && d.Access() == nil })
}

// noNextInterface explains why no next stage came.
func (b *board) noNextInterface(ctx context.Context) error {
	found := nothingThere
	if d, ok := b.device(); ok {
		found = fmt.Sprintf("there is %s (%s) without a network interface that can be used", d.ID, d.Product)
		if d.Address == b.last.Address {
			found = stillThere
		}
	}
	return b.awayError(ctx, found, "the stage that was sent did not start, or has no USB network gadget (SPL_USB_ETHER): watch its serial console; if it has USB IDs of its own, name the port with --usb-path")
}

// choose picks the board's interface among those that are there. A port that was named or followed decides
// alone, whatever the board calls itself there; else the ID does.
func (b *board) choose(ifaces []netsetup.Interface) (netsetup.Interface, bool, error) {
	var candidates []candidate
	var matching []netsetup.Interface
	for _, i := range ifaces {
		if b.matches(i.Port, i.ID) {
			candidates, matching = append(candidates, candidate{i.Port, i.ID}), append(matching, i)
		}
	}
	n, err := pick(candidates)
	if n < 0 {
		return netsetup.Interface{}, false, err
	}
	return matching[n], true, nil
}

// adopt takes an interface for the board's next stage.
func (b *board) adopt(ctx context.Context, i netsetup.Interface) (*socs.Stage, error) {
	since := time.Now()
	if b.lock == nil {
		if err := b.hold(i.Port); err != nil {
			return nil, err
		}
	}
	link, err := b.ns.Adopt(ctx, i.Index)
	if err != nil {
		return nil, err
	}
	isROM := b.isROM(usb.Device{ID: i.ID})
	b.mu.Lock()
	if b.port == "" {
		b.port = i.Port
		b.chosen <- candidate{i.Port, i.ID}
	}
	b.stageDone = time.Time{}
	b.mu.Unlock()
	b.opt.Log.Info("interface moved", "interface", i.Name, "index", i.Index, "port", i.Port, "id", i.ID,
		"waited", link.Waited, "moved", link.Moved, "up", link.Up, "carrier", link.Carrier)
	seen := event.BoardSeen{ID: i.ID.String(), Device: i.Name}
	if d, ok := b.device(); ok {
		seen.Product = d.Product
		b.last = d
	}
	b.Emit("", seen)
	sockets := b.ns.Link()
	return &socs.Stage{Port: i.Port, ID: i.ID, ROM: isROM, Since: since, Link: &sockets, Gone: link.Gone}, nil
}

// noInterface says of a wait that nothing ended what may explain it.
func (b *board) noInterface(e *NoBoardError) {
	devices, _ := b.opt.USB.Devices()
	for _, d := range devices {
		if b.matches(d.Port, d.ID) {
			e.Found = fmt.Sprintf("%s is on port %s but the kernel made no network interface for it", d.ID, d.Port)
			e.Hint = "load the driver: sudo modprobe rndis_host cdc_ether; `snag doctor` tells more"
		}
	}
}

package recovery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"snag/event"
	"snag/socs"
	"snag/usb"
	"snag/usb/usbnet"
)

// openUSB prepares for stages that are USB devices which snag talks to itself.
func (b *board) openUSB(ctx context.Context) error {
	if b.port != "" && b.lock == nil {
		if err := b.hold(b.port); err != nil {
			return err
		}
	}
	if b.change != nil { // since an earlier leg
		return nil
	}
	var err error
	b.change, err = b.opt.USB.Watch(ctx)
	return err
}

// hold locks a port, and remembers its other name: a stage of another speed is on the controller's other bus.
func (b *board) hold(port usb.Port) error {
	peer := b.peerOf(port)
	b.mu.Lock()
	b.peer = peer
	b.mu.Unlock()
	if b.lock != nil {
		return nil
	}
	var err error
	b.lock, err = lockPort(b.lockName(port, peer))
	return err
}

// letGo unlocks a port whose device has turned out not to be the board, if the board's is not known yet.
func (b *board) letGo() {
	if b.port != "" {
		return
	}
	b.lock.release()
	b.lock = nil
	b.mu.Lock()
	b.peer = ""
	b.mu.Unlock()
}

// peerOf is the name that a port has on its controller's other bus, if it has one.
func (b *board) peerOf(port usb.Port) usb.Port {
	host, ok := b.opt.USB.(usb.Peerer)
	if !ok {
		return ""
	}
	peer, err := host.Peer(port)
	if err != nil {
		b.opt.Log.Info("no companion port", "err", err)
	}
	return peer
}

// lockName is what all call a port: the one of its two names, and its host's if it is none of the machine's.
func (b *board) lockName(port, peer usb.Port) string {
	if peer != "" && peer.Compare(port) < 0 {
		port = peer
	}
	if host, ok := b.opt.USB.(usb.Namer); ok {
		return host.Name() + "/" + string(port)
	}
	return string(port)
}

// here reports whether a device is on the board's port.
func (b *board) here(d usb.Device) bool {
	return d.Port == b.port || b.peer != "" && d.Port == b.peer
}

// nextDevice waits for the board's next enumeration, and opens it.
func (b *board) nextDevice(ctx context.Context) (*socs.Stage, error) {
	var gone <-chan struct{}
	if b.handle != nil {
		gone = b.handle.Gone()
	}
	var again <-chan time.Time
	if b.again || b.user && b.link == nil { // nobody need tell of a change: the device may be there since long
		again = time.After(0)
	}
	var left usb.ID // of what did not stay
	for {
		select {
		case <-ctx.Done():
			return nil, b.noNextDevice(ctx, left)
		case _, ok := <-b.change:
			if !ok { // with the context that ends this wait too
				b.change = nil
				continue
			}
		case <-gone:
			gone = nil
			b.closeLink() // now that there is time
		case <-again:
		}
		again = nil
		d, ok, err := b.chooseDevice()
		if err != nil {
			return nil, err
		}
		if !ok {
			if b.unready {
				again = time.After(tryAgain)
			}
			continue
		}
		stage, err := b.take(ctx, d)
		if err != nil {
			b.letGo()
		}
		if errors.Is(err, usbnet.ErrNoFunction) {
			b.noStages = append(b.noStages, place{d.Bus, d.Address})
			b.opt.Log.Info("the device is no stage", "port", d.Port, "id", d.ID, "address", d.Address, "err", err)
			continue
		}
		if errors.Is(err, usb.ErrGone) {
			left = d.ID
			b.opt.Log.Info("the device left while it was being opened", "port", d.Port, "id", d.ID, "address", d.Address)
			again = time.After(tryAgain)
			continue
		}
		if errors.Is(err, errAway) {
			if access, ok := errors.AsType[*usb.AccessError](err); ok {
				return nil, access // until then it might have been given
			}
			b.opt.Log.Info("the time was over while the device was being opened", "port", d.Port, "id", d.ID, "address", d.Address)
			return nil, b.noNextDevice(ctx, left)
		}
		if err != nil && ctx.Err() == nil && b.port == "" { // the error is of this board
			b.mu.Lock()
			b.port = d.Port
			b.mu.Unlock()
		}
		return stage, err
	}
}

// devices lists what may be the board: what is on its port, once that is known.
func (b *board) devices() ([]usb.Device, error) {
	host, ok := b.opt.USB.(usb.Looker)
	if !ok || b.port == "" {
		return b.opt.USB.Devices()
	}
	var found []usb.Device
	for _, p := range []usb.Port{b.port, b.peer} {
		if p == "" {
			continue
		}
		d, err := host.Device(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found = append(found, d)
	}
	return found, nil
}

// device is what is on the board's port now, if anything is.
func (b *board) device() (usb.Device, bool) {
	devices, _ := b.devices()
	i := slices.IndexFunc(devices, b.here)
	if i < 0 {
		return usb.Device{}, false
	}
	return devices[i], true
}

// chooseDevice picks the board among the devices that are there, if it has enumerated since the stage before. The
// first stage must be known for what it is, since what is sent would mean something else to another device;
// after it whatever comes on the board's port is the next one.
func (b *board) chooseDevice() (usb.Device, bool, error) {
	devices, err := b.devices()
	if err != nil {
		return usb.Device{}, false, err
	}
	var candidates []candidate
	var matching []usb.Device
	b.unready = false
	b.noStages = slices.DeleteFunc(b.noStages, func(p place) bool { // another may be given its number
		return !slices.ContainsFunc(devices, func(d usb.Device) bool { return p == place{d.Bus, d.Address} })
	})
	for _, d := range devices {
		switch {
		case b.byClass() && len(d.Interfaces) == 0: // not configured yet
			b.unready = b.unready || b.here(d)
			continue
		case b.seen:
			if !b.here(d) || !b.fresh(d) && !b.again || b.strict && !b.known(d) || slices.Contains(b.noStages, place{d.Bus, d.Address}) {
				continue
			}
		case b.user:
			if !b.matches(d.Port, d.ID) || slices.Contains(b.noStages, place{d.Bus, d.Address}) {
				continue
			}
		case b.port != "" && !b.here(d), b.opt.ID != (usb.ID{}) && d.ID != b.opt.ID:
			continue
		case !b.known(d):
			if err := b.otherModel(d); err != nil && b.port != "" {
				return usb.Device{}, false, err
			}
			continue
		}
		candidates, matching = append(candidates, candidate{d.Port, d.ID}), append(matching, d)
	}
	n, err := pick(candidates)
	if n < 0 {
		return usb.Device{}, false, err
	}
	return matching[n], true, nil
}

// byClass reports whether the leg's stages are told by the classes of their interfaces.
func (b *board) byClass() bool {
	return slices.ContainsFunc(b.later, func(i socs.Identity) bool { return i.Class != socs.Class{} })
}

// fresh reports whether a device on the board's port is not the stage that was handed out last.
func (b *board) fresh(d usb.Device) bool {
	if d.Bus != b.last.Bus || d.Address != b.last.Address {
		return true
	}
	if b.handle == nil {
		return false
	}
	select {
	case <-b.handle.Gone():
		return true
	default:
		return false
	}
}

// otherModel returns an error if a device is a boot ROM of the family, but of another model.
func (b *board) otherModel(d usb.Device) error {
	f := b.opt.Backend.Family()
	if b.opt.ROM != (usb.ID{}) {
		return nil
	}
	i := slices.IndexFunc(f.ROM, func(i socs.Identity) bool { return i.Is(d) })
	if i < 0 {
		return nil
	}
	return &socs.BoardError{
		Err:  fmt.Errorf("the board on port %s is no %s: its boot ROM shows %s, which is %s", d.Port, b.opt.Model.Name, d.ID, strings.Join(f.ROM[i].Models, " or ")),
		Hint: "name the board's model with --soc, and firmware for it",
	}
}

// take opens a device for the board's next stage.
func (b *board) take(ctx context.Context, d usb.Device) (*socs.Stage, error) {
	since := time.Now()
	if b.lock == nil {
		if err := b.hold(d.Port); err != nil {
			return nil, err
		}
	}
	stage := &socs.Stage{Port: d.Port, ID: d.ID, Device: d, ROM: b.isROM(d), Since: since}
	var handle usb.Handle
	if !b.disk(d) {
		var err error
		if handle, err = b.opt.USB.Open(ctx, d); err != nil {
			return nil, err
		}
		stage.Gone, stage.Device = handle.Gone(), handle.Device()
		if stage.Device.Config == 0 {
			b.Emit("", event.Warning{Text: "the kernel has not configured " + d.Node + ": its log (dmesg) may say why: " +
				"a hub without power of its own may have too little for the board, or the device is not allowed (USBGuard, authorized_default)"})
		}
	}
	var link *userLink
	if b.user {
		var err error
		if link, err = b.openLink(ctx, handle); err != nil {
			return nil, err
		}
		sockets := link.host.Link()
		stage.Link = &sockets
	} else {
		stage.USB = handle
	}
	b.closeHandle()
	b.handle, b.link, b.strict = handle, link, false
	b.mu.Lock()
	if b.port == "" {
		b.port = d.Port
		b.chosen <- candidate{d.Port, d.ID}
	}
	b.last, b.again, b.stageDone = d, false, time.Time{}
	b.mu.Unlock()
	b.opt.Log.Info("device taken", "port", d.Port, "id", d.ID, "release", fmt.Sprintf("%04x", d.Release), "address", d.Address, "opened", handle != nil, "took", time.Since(since))
	b.Emit("", event.BoardSeen{ID: d.ID.String(), Product: d.Product, Device: d.Node})
	return stage, nil
}

// disk reports whether a device is a disk that the kernel is to have.
func (b *board) disk(d usb.Device) bool {
	return slices.Contains(b.opt.Backend.Family().Carriers, socs.Disk) && socs.MassStorage.Of(d)
}

func (b *board) closeHandle() {
	if b.handle == nil {
		return
	}
	b.closeLink()
	if err := b.handle.Close(); err != nil && !errors.Is(err, usb.ErrGone) {
		b.opt.Log.Warn("close the USB device", "err", err)
	}
	b.handle = nil
}

func (b *board) closeLink() {
	if b.link != nil {
		b.link.close()
		b.link = nil
	}
}

// stillThere is what is found on the port of a board that did not go on.
const stillThere = "the device of the stage before is still there"

// noNextDevice explains why no next stage came. left is what came and did not stay, if anything did.
func (b *board) noNextDevice(ctx context.Context, left usb.ID) error {
	found := nothingThere
	if left != (usb.ID{}) {
		found = fmt.Sprintf("%s was there, and left before it could be opened", left)
	}
	if d, ok := b.device(); ok && b.seen && b.strict && !b.known(d) {
		found = fmt.Sprintf("%s (%s) is there, which is none of %s", d.ID, d.Product, idList(b.rom, b.later))
	} else if ok && b.seen && b.fresh(d) {
		found = fmt.Sprintf("%s is there, and could not be opened in time", d.ID)
	} else if ok {
		found = stillThere
	}
	return b.awayError(ctx, found, "the stage that was sent did not start, or has no USB gadget for the next one: watch its serial console")
}

// noDevice says of a wait that nothing ended what may explain it.
func (b *board) noDevice(e *NoBoardError) {
	devices, _ := b.opt.USB.Devices()
	for _, d := range devices {
		if b.user && slices.Contains(b.noStages, place{d.Bus, d.Address}) {
			e.Found = fmt.Sprintf("%s (%s) is on port %s, and has no RNDIS or CDC Ethernet function", d.ID, d.Product, d.Port)
		} else if b.matches(d.Port, d.ID) && (b.user || b.known(d) && (b.opt.ID == usb.ID{} || d.ID == b.opt.ID)) {
			e.Found = fmt.Sprintf("%s (%s) is on port %s, and could not be opened in time", d.ID, d.Product, d.Port)
			flag := "--timeout"
			if b.opt.Wait > 0 {
				flag = "--wait"
			}
			e.Hint = "give it longer with " + flag + ", or reset the board and run snag again"
		} else if b.port != "" && b.here(d) {
			what := "no boot ROM of a " + b.opt.Model.Name
			if b.opt.Model.Name == "" { // a uuu script's
				what = "none of these"
			}
			e.Found = fmt.Sprintf("on port %s is %s (%s), which is %s", d.Port, d.ID, d.Product, what)
		} else if err := b.otherModel(d); err != nil && b.port == "" {
			e.Found = err.Error()
		}
	}
}

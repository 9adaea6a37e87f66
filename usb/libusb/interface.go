package libusb

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/google/gousb"

	"snag/usb"
)

// request performs f, which may take some seconds in the system, when those before it are over. f goes on when ctx
// ends.
func (h *Handle) request(ctx context.Context, op string, ep int, f func() error) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if ctx.Err() != nil {
		return h.failed(op, ep, why(ctx))
	}
	select {
	case <-h.gone:
		return h.failed(op, ep, usb.ErrGone)
	default:
	}
	select {
	case h.interfaces <- struct{}{}:
	case <-ctx.Done():
		return h.failed(op, ep, why(ctx))
	}
	if err := h.busy(); err != nil {
		<-h.interfaces
		return h.failed(op, ep, err)
	}
	done := make(chan error, 1)
	go func() {
		defer h.work.Done()
		err := f()
		<-h.interfaces
		done <- err
	}()
	select {
	case err := <-done:
		return h.failed(op, ep, err)
	case <-ctx.Done():
		return h.failed(op, ep, why(ctx))
	}
}

// takeConfig makes a configuration gousb's current one. SET_CONFIGURATION is sent if it is not the active one.
func (h *Handle) takeConfig(value uint8) error {
	if err := h.dev.SetAutoDetach(false); err != nil {
		return err
	}
	config, err := h.dev.Config(int(value))
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.config, h.value = config, value
	h.mu.Unlock()
	return nil
}

// dropConfig ends the use of the configuration, of which nothing is claimed.
func (h *Handle) dropConfig() error {
	if h.config == nil {
		return nil
	}
	err := h.config.Close()
	h.mu.Lock()
	h.config = nil
	h.mu.Unlock()
	return err
}

// Configure implements [usb.Handle]. gousb cannot select none (0).
func (h *Handle) Configure(ctx context.Context, value uint8) error {
	return h.request(ctx, "configure", -1, func() error {
		active, err := h.dev.ActiveConfigNum()
		if err != nil || active == int(value) && h.config != nil && h.value == value {
			return err
		}
		if n := len(h.claims); n > 0 {
			return fmt.Errorf("%w: %d interfaces are claimed", usb.ErrBusy, n)
		}
		if _, ok := h.dev.Desc.Configs[int(value)]; !ok {
			return fmt.Errorf("the device has no configuration %d", value)
		}
		if err := h.dropConfig(); err != nil {
			return err
		}
		if active != 0 && active != int(value) { // a configuration that drivers hold stays
			if err := h.detachAll(active); err != nil {
				return err
			}
		}
		return h.takeConfig(value)
	})
}

// detachAll detaches the drivers of all interfaces of the active configuration.
func (h *Handle) detachAll(active int) error {
	if err := h.dev.SetAutoDetach(true); err != nil {
		return err
	}
	config, err := h.dev.Config(active)
	if err != nil {
		return err
	}
	return config.Close()
}

// take claims an interface, and selects an alternate setting if set is true. The list of interfaces that gousb looks at
// is made for it: the interface is at the place of its number, and SET_INTERFACE is sent if it has two settings.
func (h *Handle) take(iface, alt uint8, set bool) (*gousb.Interface, error) {
	if h.config == nil {
		return nil, errors.New("the device is not configured")
	}
	setting, ok := settingOf(h.dev.Desc.Configs[int(h.value)], iface, alt)
	if !ok {
		return nil, fmt.Errorf("the active configuration has no interface %d with setting %d", iface, alt)
	}
	all := make([]gousb.InterfaceDesc, int(iface)+1)
	for i := range all {
		all[i].Number = -1
	}
	all[iface] = gousb.InterfaceDesc{Number: int(iface), AltSettings: []gousb.InterfaceSetting{setting}}
	if set {
		all[iface].AltSettings = append(all[iface].AltSettings, gousb.InterfaceSetting{Alternate: -1})
	}
	h.config.Desc.Interfaces = all
	return h.config.Interface(int(iface), int(alt))
}

func settingOf(config gousb.ConfigDesc, iface, alt uint8) (gousb.InterfaceSetting, bool) {
	for _, i := range config.Interfaces {
		for _, s := range i.AltSettings {
			if s.Number == int(iface) && s.Alternate == int(alt) {
				return s, true
			}
		}
	}
	return gousb.InterfaceSetting{}, false
}

// Claim implements [usb.Handle].
func (h *Handle) Claim(ctx context.Context, iface uint8) error {
	return h.request(ctx, "claim", -1, func() error {
		if h.claims[iface] != nil {
			return nil
		}
		if err := h.dev.SetAutoDetach(true); err != nil {
			return err
		}
		intf, err := h.take(iface, 0, false)
		if codeOf(err) == gousb.ErrorNotFound {
			return fmt.Errorf("the active configuration has no interface %d", iface)
		}
		if err == nil {
			h.claimed(iface, 0, intf)
		}
		return err
	})
}

func (h *Handle) claimed(iface, alt uint8, intf *gousb.Interface) {
	h.mu.Lock()
	h.claims[iface] = &claim{alt: alt, intf: intf}
	h.mu.Unlock()
}

var (
	errNotClaimed = errors.New("the interface is not claimed")

	// errCancelled ends transfers of an interface that is released, set to another setting or reset meanwhile.
	errCancelled = errors.New("cancelled by another request")
)

// Release implements [usb.Handle].
func (h *Handle) Release(ctx context.Context, iface uint8) error {
	return h.request(ctx, "release", -1, func() error {
		if h.claims[iface] == nil {
			return errNotClaimed
		}
		if err := h.dev.SetAutoDetach(true); err != nil {
			return err
		}
		h.letGo(iface, errCancelled)
		return nil
	})
}

// letGo ends an interface's transfers and releases it. Its driver gets it back if SetAutoDetach says so.
func (h *Handle) letGo(iface uint8, reason error) {
	h.mu.Lock()
	c := h.claims[iface]
	delete(h.claims, iface)
	flights := slices.Clone(c.flights)
	h.mu.Unlock()
	for _, f := range slices.Backward(flights) { // nothing is to overtake what was before it
		f.cancel(reason)
		<-f.ended
	}
	c.intf.Close()
}

// giveBack releases all interfaces, and only then lets drivers have them: one of them may want several. The first of
// these that libusb attaches may take the others, which are not taken away from it again.
func (h *Handle) giveBack() {
	ifaces := slices.Sorted(maps.Keys(h.claims))
	_ = h.dev.SetAutoDetach(false) // errors are a lost device's
	for _, iface := range ifaces {
		h.letGo(iface, os.ErrClosed)
	}
	for _, iface := range ifaces {
		_ = h.dev.SetAutoDetach(false)
		intf, err := h.take(iface, 0, false)
		if err != nil {
			continue
		}
		_ = h.dev.SetAutoDetach(true)
		intf.Close()
	}
	_ = h.dropConfig()
}

// SetAlt implements [usb.Handle].
func (h *Handle) SetAlt(ctx context.Context, iface, alt uint8) error {
	return h.request(ctx, "set alternate setting", -1, func() error {
		switch {
		case h.claims[iface] == nil:
			return errNotClaimed
		case h.desc.Setting(h.value, iface, alt) == nil:
			return fmt.Errorf("interface %d has no alternate setting %d", iface, alt)
		}
		return h.setAlt(iface, alt)
	})
}

// setAlt selects an alternate setting of a claimed interface. If the device refuses, setting 0 is active.
func (h *Handle) setAlt(iface, alt uint8) error {
	if err := h.dev.SetAutoDetach(false); err != nil {
		return err
	}
	sent := releaseResets && alt == 0 && h.claims[iface].alt != 0
	h.letGo(iface, errCancelled)
	intf, err := h.take(iface, alt, !sent)
	if err != nil {
		alt = 0
		intf, _ = h.take(iface, alt, false)
	}
	if intf != nil {
		h.claimed(iface, alt, intf)
	}
	return err
}

// ClearHalt implements [usb.Handle]. It ends the transfers of the endpoint's interface.
func (h *Handle) ClearHalt(ctx context.Context, ep uint8) error {
	iface, err := h.owner(ep)
	if err != nil {
		return h.failed("clear halt", int(ep), err)
	}
	// The setting ends the halt too (USB 2.0, 9.4.5), in a device that goes by the book. This is for the others.
	if _, err := h.control(ctx, usb.Setup{Type: 2, Request: usb.ReqClearFeature, Index: uint16(ep)}, nil); err != nil {
		return h.failed("clear halt", int(ep), err)
	}
	return h.request(ctx, "clear halt", int(ep), func() error {
		c := h.claims[iface]
		if c == nil {
			return errNotClaimed
		}
		return h.setAlt(iface, c.alt)
	})
}

// owner is the claimed interface that has an endpoint.
func (h *Handle) owner(ep uint8) (uint8, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	iface, _, err := h.find(ep)
	return iface, err
}

// find finds an endpoint among the active settings of the claimed interfaces. h.mu is held.
func (h *Handle) find(ep uint8) (uint8, usb.Endpoint, error) {
	unclaimed := -1
	for _, c := range h.desc.Configs {
		if h.config == nil || c.Value != h.value {
			continue
		}
		for _, s := range c.Settings {
			for _, e := range s.Endpoints {
				if e.Address != ep {
					continue
				}
				switch claim := h.claims[s.Number]; {
				case claim == nil:
					unclaimed = int(s.Number)
				case claim.alt == s.Alt:
					return s.Number, e, nil
				}
			}
		}
	}
	if unclaimed >= 0 {
		return 0, usb.Endpoint{}, fmt.Errorf("interface %d is not claimed", unclaimed)
	}
	return 0, usb.Endpoint{}, fmt.Errorf("no active interface has endpoint %#02x", ep)
}

// Reset implements [usb.Handle]. Claims survive, alternate settings do not: they are 0 afterwards. gousb resets no
// device that has a current configuration: what was claimed is released, and claimed again.
func (h *Handle) Reset(ctx context.Context) error {
	return h.request(ctx, "reset", -1, func() error {
		if err := h.dev.SetAutoDetach(false); err != nil {
			return err
		}
		ifaces := slices.Sorted(maps.Keys(h.claims))
		for _, iface := range ifaces {
			h.letGo(iface, errCancelled)
		}
		had := h.config != nil
		if err := h.dropConfig(); err != nil {
			return err
		}
		err := h.dev.Reset()
		if codeOf(err) == gousb.ErrorNotFound {
			return fmt.Errorf("%w: %w", usb.ErrGone, err)
		}
		if had {
			err = errors.Join(err, h.takeConfig(h.value))
		}
		for _, iface := range ifaces {
			intf, terr := h.take(iface, 0, false)
			if terr == nil {
				h.claimed(iface, 0, intf)
			}
			err = errors.Join(err, terr)
		}
		return err
	})
}

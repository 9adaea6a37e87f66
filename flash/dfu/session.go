package dfu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"snag/usb"
	"snag/usb/dfu"
)

// session is an open device in DFU mode.
type session struct {
	*dfu.Device
	handle usb.Handle
	port   usb.Port
	ids    []usb.ID // the device's, and before it was detached
}

// close leaves the device in its mode. The context may be what ended.
func (s *session) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	s.Release(ctx)
	s.handle.Close()
}

// again is how soon a device is tried again that could not be opened.
const again = time.Second

// open waits for the device on the port, and detaches it if it is in run-time mode.
func (t *Target) open(ctx context.Context) (*session, error) {
	limit := cmp.Or(t.Wait, DefaultWait)
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	changes, err := t.Host.Watch(bounded)
	if err != nil {
		return nil, err
	}
	retry := time.NewTicker(again)
	defer retry.Stop()
	var detached []usb.Device
	seen := errors.New("no USB device")
	for {
		select {
		case _, more := <-changes:
			if !more {
				changes = nil
			}
		case <-retry.C:
		case <-bounded.Done():
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if bounded.Err() != nil {
			return nil, fmt.Errorf("no device in DFU mode on port %s within %v: %w", t.Port, limit, seen)
		}
		d, ok, err := t.find()
		if err != nil {
			return nil, err
		}
		if n := len(detached); !ok || n > 0 && detached[n-1].Address == d.Address {
			continue
		}
		s, err := t.connect(bounded, d)
		if err == nil {
			var appMode bool
			if appMode, err = s.appMode(bounded); err == nil && !appMode {
				for _, d := range detached {
					s.ids = append(s.ids, d.ID)
				}
				return s, nil
			}
			if err == nil {
				detached = append(detached, d)
				seen = fmt.Errorf("USB device %s in run-time mode", d.ID)
				err = s.leaveAppMode(bounded)
			}
			s.close(ctx)
		} else {
			seen = err
		}
		if err != nil && !passing(err) {
			return nil, err
		}
	}
}

// passing says whether an error may be that of a device which is just coming or going.
func passing(err error) bool {
	for _, e := range []error{usb.ErrGone, usb.ErrProtocol, dfu.ErrNoInterface, context.DeadlineExceeded} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// find looks for the device on the port, which has two names if it is one of USB 3.
func (t *Target) find() (usb.Device, bool, error) {
	other := t.Port
	if host, ok := t.Host.(usb.Peerer); ok {
		if peer, err := host.Peer(t.Port); err == nil && peer != "" {
			other = peer
		}
	}
	list, err := t.Host.Devices()
	for _, d := range list {
		if d.Config != 0 && (d.Port == t.Port || d.Port == other) {
			return d, true, err
		}
	}
	return usb.Device{}, false, err
}

func (t *Target) connect(ctx context.Context, d usb.Device) (*session, error) {
	h, err := t.Host.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	dev, err := dfu.Open(ctx, h)
	if err != nil {
		h.Close()
		return nil, err
	}
	dev.BlockTimeout = cmp.Or(t.BlockTimeout, DefaultBlockTimeout)
	dev.ManifestTimeout = cmp.Or(t.ManifestTimeout, DefaultManifestTimeout)
	return &session{Device: dev, handle: h, port: d.Port, ids: []usb.ID{d.ID}}, nil
}

// runTime is the interface's protocol in run-time mode (DFU 1.1, table 4.1).
const runTime = 1

// appMode says whether the device is in run-time mode, by the state it tells: there are devices whose interface says so
// in DFU mode too. Not all answer in run-time mode.
func (s *session) appMode(ctx context.Context) (bool, error) {
	if s.Alts[0].Protocol != runTime {
		return false, nil
	}
	a, err := s.Status(ctx)
	if errors.Is(err, usb.ErrStall) {
		return true, nil
	}
	return a.State == dfu.AppIdle || a.State == dfu.AppDetach, err
}

// leaveAppMode has the device enumerate in DFU mode (DFU 1.1, section 5.1): it leaves the bus by itself, or waits for a
// reset.
func (s *session) leaveAppMode(ctx context.Context) error {
	if err := s.Detach(ctx); err != nil {
		return err
	}
	if !s.Functional.WillDetach {
		return s.Reset(ctx)
	}
	select {
	case <-s.handle.Gone():
	case <-ctx.Done():
	}
	return nil
}

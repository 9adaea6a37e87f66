package usbnet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"snag/usb"
	"snag/usb/rndis"
)

// CDC's requests for encapsulated messages (CDC 1.2, section 6.2).
const (
	sendEncapsulated = 0x00
	getEncapsulated  = 0x01
)

// initialize brings up an RNDIS link.
func (a *Adapter) initialize(ctx context.Context) error {
	m, err := a.request(ctx, "INITIALIZE", rndis.TypeInitialize, func(id uint32) []byte { return rndis.Initialize(id, transfer) })
	if err != nil {
		return err
	}
	limits, err := m.Limits()
	if err != nil {
		return err
	}
	if limits.Medium != 0 {
		return fmt.Errorf("its medium is %d, expected 0 (Ethernet)", limits.Medium)
	}
	if most := uint32(rndis.HeaderSize + maxFrame); limits.MaxTransfer < most {
		a.log.Info("rndis device takes short transfers only", "bytes", limits.MaxTransfer, "wanted", most)
	}
	// A device that names no address, or nonsense, is given one.
	m, err = a.request(ctx, "QUERY of the address", rndis.TypeQuery, func(id uint32) []byte { return rndis.Query(id, rndis.OIDPermanentAddress) })
	if err == nil {
		var v []byte
		if v, err = m.Value(); err == nil && len(v) == 6 && station([6]byte(v)) {
			a.MAC = [6]byte(v)
		}
	}
	if err != nil {
		if ctx.Err() != nil || errors.Is(err, usb.ErrGone) {
			return err
		}
		a.log.Info("rndis device does not tell its address", "err", err)
	}
	_, err = a.request(ctx, "SET of the packet filter", rndis.TypeSet, func(id uint32) []byte { return rndis.SetFilter(id, filter) })
	return err
}

// command sends a control message.
func (a *Adapter) command(ctx context.Context, b []byte) error {
	_, err := a.h.Control(ctx, usb.Setup{Type: recipientIfac, Request: sendEncapsulated, Index: uint16(a.Control), Length: uint16(len(b))}, b)
	return err
}

// maxOther bounds the messages that a device may send in the place of an answer.
const maxOther = 64

// request sends a control message and waits for its completion. What else the device says on the way is passed over,
// but for keep-alives, which are answered.
func (a *Adapter) request(ctx context.Context, what string, typ uint32, message func(id uint32) []byte) (rndis.Message, error) {
	a.control.Lock()
	defer a.control.Unlock()
	a.id++
	id := a.id
	ctx, cancel := context.WithTimeoutCause(ctx, answer, fmt.Errorf("no answer to %s within %v: %w", what, answer, context.DeadlineExceeded))
	defer cancel()
	if err := a.command(ctx, message(id)); err != nil {
		return rndis.Message{}, fmt.Errorf("%s: %w", what, err)
	}
	pause := time.Millisecond
	for others := 0; others < maxOther; {
		m, err := a.next(ctx)
		switch {
		case err == nil && m.Type == typ|rndis.Completion && m.ID == id:
			if m.Status != rndis.StatusSuccess {
				return m, fmt.Errorf("%s: refused with status %#08x", what, m.Status)
			}
			a.answered = time.Now()
			a.heard.Store(a.answered.UnixNano())
			return m, nil
		case errors.Is(err, rndis.ErrNone), errors.Is(err, usb.ErrStall): // not yet
		case err == nil && m.Type == rndis.TypeKeepalive:
			others++
			if err := a.command(ctx, rndis.KeepaliveAnswer(m.ID)); err != nil {
				return m, fmt.Errorf("%s: answering a keep-alive: %w", what, err)
			}
		case ctx.Err() != nil:
			return m, context.Cause(ctx)
		case err != nil && isTransfer(err):
			return m, fmt.Errorf("%s: %w", what, err)
		default:
			if others++; err != nil {
				a.malformed.Add(1)
				a.log.Info("rndis message", "err", err)
			}
		}
		// A device may well say the same until its answer is there.
		a.listen()
		select {
		case <-a.notified:
		case <-time.After(pause):
			pause = min(2*pause, 50*time.Millisecond)
		case <-a.h.Gone():
			return m, fmt.Errorf("%s: %w", what, usb.ErrGone)
		case <-ctx.Done():
			return m, context.Cause(ctx)
		}
	}
	return rndis.Message{}, fmt.Errorf("%s: %d other messages came instead of the answer", what, maxOther)
}

func isTransfer(err error) bool {
	_, ok := errors.AsType[*usb.TransferError](err)
	return ok
}

// next asks for a control message of the device's.
func (a *Adapter) next(ctx context.Context) (rndis.Message, error) {
	buf := make([]byte, rndis.MaxControl)
	n, err := a.h.Control(ctx, usb.Setup{Type: fromIfac, Request: getEncapsulated, Index: uint16(a.Control), Length: uint16(len(buf))}, buf)
	if err != nil {
		return rndis.Message{}, err
	}
	return rndis.Parse(buf[:n])
}

// keepAlive asks a device that says nothing for a sign of life, and takes what it has to say of its own accord. One
// that does not answer is noted, no more: boot ROMs that do know little of RNDIS else.
func (a *Adapter) keepAlive(ctx context.Context) {
	for {
		silent := time.Since(time.Unix(0, a.heard.Load()))
		if silent < alive {
			select {
			case <-a.notified:
				a.unasked(ctx)
			case <-time.After(alive - silent):
			case <-a.h.Gone():
				return
			case <-ctx.Done():
				return
			}
			continue
		}
		_, err := a.request(ctx, "KEEPALIVE", rndis.TypeKeepalive, rndis.Keepalive)
		if err != nil {
			a.log.Info("rndis device is silent", "err", err)
			a.heard.Store(time.Now().UnixNano()) // ask again after the same time
		}
	}
}

// belated is how long after an answer a notification may be that of the answer.
const belated = time.Second

// unasked takes the messages that the device sent of its own accord, if the notification was not that of an answer: a
// keep-alive is answered; what else there is says that the medium comes and goes, which the frames do better.
func (a *Adapter) unasked(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, answer)
	defer cancel()
	a.control.Lock()
	defer a.control.Unlock()
	if time.Since(a.answered) < belated {
		return // what it is not will be asked for with the next request
	}
	for range maxOther { // one notification may be for several, and so may one that comes while they are fetched
		m, err := a.next(ctx)
		if err != nil {
			return
		}
		if m.Type == rndis.TypeKeepalive {
			_ = a.command(ctx, rndis.KeepaliveAnswer(m.ID)) // it will ask again
		}
	}
}

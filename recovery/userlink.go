package recovery

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"snag/event"
	"snag/netboot"
	"snag/netboot/ethernet"
	"snag/socs"
	"snag/usb"
	"snag/usb/usbnet"
)

// Net is who drives a board's network adapter.
type Net string

const (
	// NetAuto is the kernel where setup and namespaces allow it and its drivers take the board, else snag.
	NetAuto Net = ""
	// NetKernel makes network interfaces of it, in a namespace of the board's own (netsetup).
	NetKernel Net = "kernel"
	// NetUser speaks to the USB device: nothing but the right to open it is needed.
	NetUser Net = "user"
)

// ParseNet takes the word for it that a user gives: auto, kernel or user.
func ParseNet(word string) (Net, error) {
	switch net := Net(word); {
	case word == "auto":
		return NetAuto, nil
	case net == NetKernel, net == NetUser:
		return net, nil
	}
	return "", fmt.Errorf("%q: expected auto, kernel or user", word)
}

// goUser leaves the kernel's network for snag's own, and says why.
func (b *board) goUser(why string) {
	b.user = true
	b.Emit("", event.Note{Text: "snag speaks to the board's network adapter itself, without the kernel's network: " + why})
}

// matches reports whether an interface is, or may be, the board's.
func (b *board) matches(port usb.Port, id usb.ID) bool {
	switch {
	case b.port != "":
		return b.here(usb.Device{Port: port})
	case b.opt.ID != (usb.ID{}):
		return id == b.opt.ID
	}
	return b.known(usb.Device{ID: id})
}

// place is one enumeration of a device.
type place struct{ bus, address int }

// userLink is the packet link to a stage whose network adapter snag drives itself.
type userLink struct {
	adapter *usbnet.Adapter
	host    *ethernet.Host
	stop    context.CancelFunc
	ended   chan struct{}
	log     func(msg string, args ...any)
}

// errUserLink is the end of a link whose device is still there.
var errUserLink = errors.New("the USB network adapter does not work any more")

// leaving is how long a device that answers no more may take to be seen as gone.
const leaving = time.Second

// openLink brings the link of a device's network adapter up. The handle is closed if that fails.
func (b *board) openLink(ctx context.Context, h usb.Handle) (*userLink, error) {
	begun := time.Now()
	adapter, err := usbnet.Open(ctx, h, b.opt.Log)
	if err != nil {
		return nil, b.noLink(ctx, h, err)
	}
	u := &userLink{adapter: adapter, ended: make(chan struct{}), log: b.opt.Log.Info}
	u.host = ethernet.New(ethernet.Config{MAC: adapter.MAC, Server: netboot.HostAddress, Client: netboot.BoardAddress, Send: u.send})
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	u.stop = stop
	go func() {
		defer close(u.ended)
		if err := adapter.Run(running, u.host.Input); err != nil {
			u.host.Close(fmt.Errorf("%w: %w", errUserLink, err))
		}
	}()
	b.opt.Log.Info("network adapter taken", "kind", adapter.Kind, "configuration", adapter.Config, "mac", fmt.Sprintf("% x", adapter.MAC), "took", time.Since(begun))
	return u, nil
}

// send sends a frame. One that there is no room for is as lost as one on the wire.
func (u *userLink) send(frame []byte) error {
	if err := u.adapter.Send(frame); errors.Is(err, usbnet.ErrFull) {
		return fmt.Errorf("%w: %w", syscall.ENOBUFS, err)
	} else {
		return err
	}
}

// close takes the link down and gives the adapter back to the kernel's driver.
func (u *userLink) close() {
	u.stop()
	<-u.ended
	u.host.Close(nil)
	u.adapter.Close()
	c := u.host.Counts()
	u.log("frames", "taken", c.Taken, "arp", c.ARP, "other", c.Other, "bad", c.Bad, "fragments", c.Fragment, "full", c.Full)
}

// noLink explains why there is no link, and closes the handle.
func (b *board) noLink(ctx context.Context, h usb.Handle, err error) error {
	defer h.Close()
	switch {
	case errors.Is(err, usbnet.ErrNoFunction), errors.Is(err, usb.ErrGone):
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	t := time.NewTimer(leaving)
	defer t.Stop()
	select {
	case <-h.Gone():
		return fmt.Errorf("%w: %w", usb.ErrGone, err)
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
	}
	hint := "reset the board and run snag again; if the kernel's driver can do better, --net kernel has it try"
	if errors.Is(err, usb.ErrBusy) {
		hint = "another program has the board's network adapter open: end it, and run snag again"
	}
	return &socs.BoardError{Err: fmt.Errorf("the board's network link did not come up: %w", err), Hint: hint}
}

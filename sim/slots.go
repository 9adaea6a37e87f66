package sim

import (
	"context"
	"fmt"
	"net"
	"sync"

	"snag/sim/usbdev"
	"snag/sim/usbip"
	"snag/sim/vhci"
	"snag/usb"
)

// USBIP exports a board over TCP, for a stock usbip client of another machine.
const USBIP Carrier = "usbip"

// slot is a port for one board.
type slot struct {
	usbdev.Port
	name  usb.Port
	where string // what there is to say of it
}

// slots makes ports, of these names, for boards that are USB devices: the kernel's with VHCI and Auto, those of a
// server at an address with USBIP. An empty name is any free port. The server is in running, and ends with ctx.
func slots(ctx context.Context, carrier Carrier, listen string, names []usb.Port, running *sync.WaitGroup) ([]slot, error) {
	var all []slot
	switch carrier {
	case Auto, VHCI:
		if err := vhci.Available(); err != nil {
			return nil, err
		}
		var taken []*vhci.Port
		for _, name := range names {
			p, err := vhci.Open(name, taken...)
			if err != nil {
				return nil, err
			}
			taken = append(taken, p)
			all = append(all, slot{Port: p, name: p.Name()})
		}
	case USBIP:
		var server usbip.Server
		for i, name := range names {
			if name == "" {
				name = usb.Port(fmt.Sprintf("1-%d", i+1))
			}
			p, err := server.NewPort(string(name))
			if err != nil {
				return nil, err
			}
			all = append(all, slot{Port: p, name: name})
		}
		l, err := net.Listen("tcp", listen)
		if err != nil {
			return nil, err
		}
		for i := range all {
			all[i].where = fmt.Sprintf(" of the USB/IP server at %s", l.Addr())
		}
		running.Go(func() { server.Serve(ctx, l) })
	default:
		return nil, fmt.Errorf("carrier %q: a USB board is carried by vhci or usbip", carrier)
	}
	return all, nil
}

package vhci

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"snag/sim/usbip"
)

// importPoll is how often a port and a server are looked at: neither says when it changes.
const importPoll = 20 * time.Millisecond

// Import plugs in what a USB/IP server at a TCP address has at a bus ID, until ctx ends. When the board there
// re-enumerates, the next device comes to the same port, as with a cable, and unlike with the usbip tool. The error
// says why the server cannot be asked any more.
func (p *Port) Import(ctx context.Context, address, busID string) error {
	defer os.WriteFile(dir+"/detach", []byte(strconv.Itoa(p.number)), 0)
	for {
		err := p.importOne(ctx, address, busID)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, usbip.ErrNotThere):
			return fmt.Errorf("port %s: %w", p.name, err)
		}
		for free := false; !free; {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(importPoll):
			}
			status, err := os.ReadFile(statusFile(p.controller))
			if err != nil {
				return fmt.Errorf("virtual USB host controller: %w", err)
			}
			for _, r := range parseStatus(string(status)) {
				free = free || r.number == p.number && r.free
			}
		}
	}
}

// importOne plugs in what is there now.
func (p *Port) importOne(ctx context.Context, address, busID string) error {
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close() // the kernel holds its own reference
	speed, err := usbip.Import(ctx, conn, busID)
	if err != nil {
		return err
	}
	file, err := conn.(*net.TCPConn).File()
	if err != nil {
		return err
	}
	defer file.Close()
	return p.give(ctx, int(file.Fd()), speed)
}

package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"snag/sim/usbdev"
	"snag/sim/vhci"
	"snag/usb"
)

var (
	portsMu    sync.Mutex
	portsTaken []*vhci.Port
	atATime    = make(chan struct{}, 3) // boards; more would keep the peers waiting for longer than they do
)

// plugIn plugs a board in, when those who work on boards have time for it. run is its Run. unplug is called when the
// test ends, and may be called before.
func plugIn(t *testing.T, run func(context.Context, usbdev.Port) error) (port usb.Port, unplug func()) {
	t.Helper()
	atATime <- struct{}{}
	free := sync.OnceFunc(func() { <-atATime })
	t.Cleanup(free) // if it was not plugged in
	port, pull := plugAlone(t, run)
	unplug = func() { pull(); free() }
	t.Cleanup(unplug)
	return port, unplug
}

// plugAlone plugs a board into a port that no other board has, or has just left.
func plugAlone(t *testing.T, run func(context.Context, usbdev.Port) error) (name usb.Port, unplug func()) {
	t.Helper()
	portsMu.Lock()
	port, err := vhci.OpenApart(portsTaken...)
	if err != nil {
		portsMu.Unlock()
		t.Fatal(err)
	}
	portsTaken = append(portsTaken, port)
	portsMu.Unlock()
	soon(t, 30*time.Second, func() error {
		if _, err := os.Stat("/sys/bus/usb/devices/" + string(port.Name())); err == nil {
			return fmt.Errorf("the board before is still on port %s", port.Name())
		}
		return nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, port) }()
	unplug = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("board on %s: %v", port.Name(), err)
		}
		portsMu.Lock()
		portsTaken = slices.DeleteFunc(portsTaken, func(p *vhci.Port) bool { return p == port })
		portsMu.Unlock()
	})
	t.Cleanup(unplug)
	return port.Name(), unplug
}

package fastboot_test

import (
	"context"
	"sync"
	"testing"
	"time"

	sim "snag/sim/fastboot"
	"snag/sim/inproc"
	client "snag/usb/fastboot"
)

// connect brings a board and a client together over USB.
func connect(t *testing.T, cfg sim.Config) (*client.Client, *sim.Board) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	b, err := sim.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	host := inproc.New()
	wg.Go(func() { b.Run(ctx, host.Port("1-1")) })
	patience, over := context.WithTimeout(ctx, 10*time.Second)
	defer over()
	change, err := host.Watch(patience)
	if err != nil {
		t.Fatal(err)
	}
	for range change {
		devices, _ := host.Devices()
		if len(devices) != 1 || devices[0].Config != 1 {
			continue
		}
		h, err := host.Open(patience, devices[0])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		tr, err := client.OpenUSB(ctx, h, false)
		if err != nil {
			t.Fatal(err)
		}
		return client.New(tr), b
	}
	t.Fatal("no device")
	return nil, nil
}

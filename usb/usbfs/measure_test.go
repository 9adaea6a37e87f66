//go:build linux

package usbfs_test

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/usbtest"
	"snag/usb/usbfs"
)

var measure = flag.Bool("measure", false, "run TestMeasure")

// TestMeasure measures in a VM what the number and the length of URBs make of throughput.
func TestMeasure(t *testing.T) {
	if !*measure {
		t.Skip("a measurement: run with -measure -v")
	}
	lab.GoTest(t, ".", "^TestThroughput$", lab.Job{Script: drivers, Timeout: 10 * time.Minute})
}

func TestThroughput(t *testing.T) {
	lab.Inside(t)
	dev := usbtest.NewDevice(usbtest.Options{NoHID: true})
	_, d := plug(t, dev)
	h := open(t, d)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, ep := range []uint8{bulkOut, interruptOut} {
		go func() {
			for buf := make([]byte, 1<<20); ; {
				if _, err := dev.OutPipe(ep).Read(ctx, buf); err != nil {
					return
				}
			}
		}()
	}
	const rounds = 5
	depths := []int{1, 2, 4, 8, 16, 32, 64}
	row := func(name string, ep uint8, chunk int, lengths ...int) {
		data := make([]byte, slices.Max(lengths))
		best := make([]float64, len(depths))
		for range rounds { // what else the machine does meanwhile meets all of them
			for i, depth := range depths {
				usbfs.SetFlight(h, depth, chunk)
				begin := time.Now()
				n, err := h.Stream(ctx, ep, time.Minute, func(yield func([]byte) bool) {
					for _, l := range lengths {
						if !yield(data[:l]) {
							return
						}
					}
				})
				if err != nil {
					t.Fatal(err)
				}
				best[i] = max(best[i], float64(n)/1e6/time.Since(begin).Seconds())
			}
		}
		line := fmt.Sprintf("%-34s", name)
		for _, rate := range best {
			line += fmt.Sprintf(" %7.2f", rate)
		}
		t.Log(line)
	}
	head := fmt.Sprintf("%-34s", "URBs in flight")
	for _, depth := range depths {
		head += fmt.Sprintf(" %7d", depth)
	}
	t.Logf("%s  MB/s, best of %d", head, rounds)
	row("bulk, 600 transfers of 1025", bulkOut, 16<<10, slices.Repeat([]int{1025}, 600)...)
	row("bulk, 256 transfers of 16 KiB", bulkOut, 16<<10, slices.Repeat([]int{16 << 10}, 256)...)
	for _, chunk := range []int{16, 32, 64, 128, 256} {
		row(fmt.Sprintf("bulk, 8 MiB in URBs of %d KiB", chunk), bulkOut, chunk<<10, 8<<20)
	}
	if err := h.SetAlt(ctx, 0, 1); err != nil {
		t.Fatal(err)
	}
	row("interrupt, 600 reports of 1025", interruptOut, 16<<10, slices.Repeat([]int{1025}, 600)...)
}

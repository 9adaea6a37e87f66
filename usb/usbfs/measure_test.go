//go:build linux

package usbfs_test

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"snag/internal/lab"
)

var measure = flag.Bool("measure", false, "run TestMeasure")

// TestMeasure measures in a VM what the number and the length of URBs make of throughput.
func TestMeasure(t *testing.T) {
	if !*measure {
		t.Skip("a measurement: run with -measure -v")
	}
	lab.GoTest(t, ".", "^TestThroughput$", lab.Job{Script: "modprobe -a vhci-hcd usbhid", Timeout: 10 * time.Minute})
}

func TestThroughput(t *testing.T) {
	lab.Inside(t)
	g, _, h := plug(t)
	claim(t, h, 0)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, ep := range []uint8{1, 2} {
		go func() {
			for buf := make([]byte, 1<<20); ; {
				if _, err := g.OutPipe(ep).Read(ctx, buf); err != nil {
					return
				}
			}
		}()
	}
	row := func(name string, ep uint8, chunk int, lengths ...int) {
		data := make([]byte, slices.Max(lengths))
		line := fmt.Sprintf("%-34s", name)
		for _, depth := range []int{1, 2, 4, 8, 16} {
			h.SetFlight(depth, chunk)
			var rates []float64
			for range 3 {
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
				rates = append(rates, float64(n)/1e6/time.Since(begin).Seconds())
			}
			slices.Sort(rates)
			line += fmt.Sprintf(" %7.2f", rates[1])
		}
		t.Log(line)
	}
	t.Logf("%-34s %s   MB/s, median of 3", "URBs in flight", strings.Join([]string{"      1", "      2", "      4", "      8", "     16"}, " "))
	row("interrupt, 600 reports of 1025", 2, 16<<10, slices.Repeat([]int{1025}, 600)...)
	row("bulk, 600 transfers of 1025", 1, 16<<10, slices.Repeat([]int{1025}, 600)...)
	row("bulk, 512 transfers of 16 KiB", 1, 16<<10, slices.Repeat([]int{16 << 10}, 512)...)
	for _, chunk := range []int{16, 32, 64, 128, 256} {
		row(fmt.Sprintf("bulk, 16 MiB in URBs of %d KiB", chunk), 1, chunk<<10, 16<<20)
	}
}

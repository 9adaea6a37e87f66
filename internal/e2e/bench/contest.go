//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"snag/sim/usbdev"
	"snag/sim/vhci"
	"snag/usb"
)

// contest is a virtual board, and those that recover it in turns.
type contest struct {
	name   string
	power  func() (board, error)
	rivals []*rival // snag first
	cold   bool     // the first runs count: they are long
}

// board is a virtual board that is about to be powered.
type board struct {
	run     func(context.Context, usbdev.Port) error
	ready   string                                // what of its interface 0 in sysfs says that the kernel is done with it
	prepare func(context.Context, usb.Port) error // brings it to where it is recovered from; nil: it is there
	verdict func() error                          // what it says of its recovery; nil: nothing
}

// rival is a program in a contest.
type rival struct {
	name    string
	args    []string  // PORT among them is the board's port
	seconds []float64 // of each run
	memory  int       // most that it had at a time, in bytes
	failed  int
}

// usage is what a process took, as "bench -run" writes it.
type usage struct {
	Seconds float64
	User    float64 // seconds of processors
	System  float64 // and in the kernel, without what that does for the board
	Board   float64 // those of this process, which has the board; not from "bench -run"
	Memory  int     // bytes
	Output  string
	Error   string
}

// compete holds contests, whose heading is what, and writes a table.
func compete(ctx context.Context, w io.Writer, what string, contests []*contest, runs int) {
	fmt.Fprintf(w, "\n%s, median of %d interleaved runs (least-most), peak memory in MB\n\n", what, runs)
	fmt.Fprintf(w, "%-30s %-13s %7s %15s %7s %7s %7s\n", "", "", "median", "", "memory", "failed", "snag/it")
	for _, c := range contests {
		for n := range 1 + 3*runs {
			for _, r := range c.rivals {
				if len(r.seconds) == runs {
					continue
				}
				u, err := c.once(ctx, r)
				switch {
				case n == 0 && !c.cold: // for warming up
				case err != nil:
					log.Printf("%s, run %d of %s: %v", c.name, n, r.name, err)
					r.failed++
				default:
					log.Printf("%s, run %d of %s: %.3f s, of the processor %.2f s + %.2f s in the kernel, the board %.2f s; %.1f MB", c.name, n, r.name, u.Seconds, u.User, u.System, u.Board, float64(u.Memory)/1e6)
					r.seconds = append(r.seconds, u.Seconds)
					r.memory = max(r.memory, u.Memory)
				}
			}
		}
		c.print(w)
	}
}

// garbage is how much memory this process may have before it collects what it does not need any more during a run.
const garbage = 1 << 30

// once plugs a board in, and when the kernel and udevd are done with it runs the program.
func (c *contest) once(ctx context.Context, r *rival) (u usage, err error) {
	ctx, cancel := context.WithTimeout(ctx, 4*patience)
	defer cancel()
	port, err := vhci.Open("")
	if err != nil {
		return u, err
	}
	b, err := c.power()
	if err != nil {
		return u, err
	}
	powered, unplug := context.WithCancel(ctx)
	off := make(chan error, 1)
	go func() { off <- b.run(powered, port) }()
	defer func() {
		unplug()
		err = errors.Join(err, <-off)
	}()
	if err := settle(ctx, port.Name(), b.ready); err != nil {
		return u, err
	}
	if b.prepare != nil {
		if err := b.prepare(ctx, port.Name()); err != nil {
			return u, err
		}
	}
	args := slices.Clone(r.args)
	for i := range args {
		if args[i] == "PORT" {
			args[i] = string(port.Name())
		}
	}
	// The board's garbage is collected between the runs, not in some of them: no real board stops for that.
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(garbage))
	// By a process of little memory: a process that is started has what its parent had as its peak.
	cmd := exec.CommandContext(ctx, "bench", append([]string{"-run"}, args...)...)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+os.Getenv("SNAGBOOT")+"/src:"+os.Getenv("SNAGBOOT_TFTPY"), "PYTHONPYCACHEPREFIX=/tmp/pycache")
	cmd.Stderr = os.Stderr
	before := processor()
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &u)
	}
	u.Board = processor() - before
	if err != nil {
		return u, fmt.Errorf("bench -run: %w", err)
	}
	if u.Error != "" {
		return u, fmt.Errorf("%s\n%s", u.Error, tail(bytes.NewBufferString(u.Output)))
	}
	if b.verdict == nil {
		return u, nil
	}
	if err := b.verdict(); err != nil {
		return u, fmt.Errorf("board: %w\n%s", err, tail(bytes.NewBufferString(u.Output)))
	}
	return u, nil
}

// processor is how many seconds of processors this process has had.
func processor() float64 {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()).Seconds()
}

// settle waits until the kernel and udevd are done with the device on a port: there is this file of its interface 0.
func settle(ctx context.Context, port usb.Port, file string) error {
	file = "/sys/bus/usb/devices/" + string(port) + ":1.0/" + file
	for _, err := os.Stat(file); err != nil; _, err = os.Stat(file) {
		if err := pause(ctx); err != nil {
			return err
		}
	}
	if err := exec.CommandContext(ctx, "udevadm", "settle").Run(); err != nil {
		return fmt.Errorf("udevadm settle: %w", err)
	}
	return nil
}

// pause is a turn of waiting.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(10 * time.Millisecond):
		return nil
	}
}

// runOne runs a program and writes what it took.
func runOne(w io.Writer, args []string) error {
	var output bytes.Buffer
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = &output, &output
	begun := time.Now()
	err := cmd.Run()
	u := usage{Seconds: time.Since(begun).Seconds(), Output: output.String()}
	if err != nil {
		u.Error = err.Error()
	}
	if r, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		u.Memory = int(r.Maxrss) << 10
		u.User, u.System = cmd.ProcessState.UserTime().Seconds(), cmd.ProcessState.SystemTime().Seconds()
	}
	return json.NewEncoder(w).Encode(u)
}

func (c *contest) print(w io.Writer) {
	name := c.name
	medians := map[string]float64{}
	for _, r := range c.rivals {
		row := fmt.Sprintf("%-30s %-13s ", name, r.name)
		name = ""
		if len(r.seconds) == 0 {
			fmt.Fprintf(w, "%s%7s %15s %7s %7d\n", row, "-", "", "-", r.failed)
			continue
		}
		s := sorted(slices.Clone(r.seconds))
		medians[r.name] = median(s)
		ratio := ""
		if r.name != "snag" && medians["snag"] > 0 {
			ratio = fmt.Sprintf("%.2f", medians["snag"]/median(s))
		}
		fmt.Fprintf(w, "%s%7.2f %15s %7.1f %7d %7s\n", row, median(s), fmt.Sprintf("(%.2f-%.2f)", s[0], s[len(s)-1]), float64(r.memory)/1e6, r.failed, ratio)
	}
}

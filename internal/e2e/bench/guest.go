//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"snag/firmware"
	"snag/sim/am335x"
	"snag/sim/vhci"
	"snag/sim/virtual"
)

// program is one of those compared.
type program struct {
	name string
	// prepare does what its user does before the board is plugged in.
	prepare func(ctx context.Context) (*session, error)
	runs    []run
	failed  int
}

// session is a program that is prepared.
type session struct {
	start  func() error
	wait   func() error // for a success
	end    func()
	output *bytes.Buffer
}

// run is what the board saw of one recovery.
type run struct {
	total, rom, spl time.Duration // from the plug to the last byte; from a stage's appearance to its link
	board           time.Duration // of the processor, for the board
	lost            int           // BOOTP requests that were taken by the host and not answered
	course          []string      // of each stage, from its appearance on
}

// patience is for one run: more than Snagboot's own limit for the SPL stage.
const patience = time.Minute

// measure runs in the VM. The firmware is in dir.
func measure(ctx context.Context, w io.Writer, dir string, runs int, window, delay time.Duration) error {
	spl, uboot, err := images(dir)
	if err != nil {
		return err
	}
	config := filepath.Join(dir, "board.yaml")
	programs := []*program{{name: "snag", prepare: snag(config, "kernel")}, {name: "snag user", prepare: snag(config, "user")}, {name: "Snagboot"}}
	if os.Getenv("SNAGBOOT") != "" {
		if config, err = withoutHeader(dir); err != nil {
			return err
		}
		if programs[2].prepare, err = snagboot(config); err != nil {
			return err
		}
	}
	for n := range 1 + 3*runs {
		for _, p := range programs {
			if p.prepare == nil || len(p.runs) == runs {
				continue
			}
			r, err := p.once(ctx, spl, uboot, window, delay)
			if n == 0 { // for warming up
				continue
			}
			if err != nil {
				log.Printf("run %d of %s: %v", n, p.name, err)
				p.failed++
				continue
			}
			log.Printf("run %d of %s: %+v", n, p.name, r)
			p.runs = append(p.runs, r)
		}
	}
	print(w, programs, runs, window, delay)
	return nil
}

// images are the bytes that the board is to receive.
func images(dir string) (spl, uboot []byte, err error) {
	if spl, err = os.ReadFile(filepath.Join(dir, "u-boot-spl.bin")); err != nil {
		return nil, nil, err
	}
	uboot, err = os.ReadFile(filepath.Join(dir, "u-boot.img"))
	return spl, uboot, err
}

func print(w io.Writer, programs []*program, runs int, window, delay time.Duration) {
	fmt.Fprintf(w, "From plug to the last byte of U-Boot, seconds on the board's clock, median of %d interleaved runs\n", runs)
	fmt.Fprintf(w, "(ROM's BOOTP retry 1 s; SPL appears 1 s after the ROM's jump and waits %v for its link; frames delayed by %v each way)\n\n", window, delay)
	fmt.Fprintf(w, "%-9s %6s %6s %6s %12s %12s %11s %7s\n", "", "median", "least", "most", "ROM link up", "SPL link up", "BOOTP lost", "failed")
	for _, p := range programs {
		if p.prepare == nil || len(p.runs) == 0 {
			failed := "-"
			if p.prepare != nil {
				failed = fmt.Sprint(p.failed)
			}
			fmt.Fprintf(w, "%-9s %6s %6s %6s %12s %12s %11s %7s\n", p.name, "-", "-", "-", "-", "-", "-", failed)
			continue
		}
		lost := 0
		for _, r := range p.runs {
			lost += r.lost
		}
		total := p.sorted(func(r run) time.Duration { return r.total })
		fmt.Fprintf(w, "%-9s %6.2f %6.2f %6.2f %12.3f %12.3f %11d %7d\n", p.name, median(total), total[0], total[len(total)-1],
			median(p.sorted(func(r run) time.Duration { return r.rom })), median(p.sorted(func(r run) time.Duration { return r.spl })), lost, p.failed)
	}
	whole := func(r run) time.Duration { return r.total }
	for n, p := range programs {
		for _, other := range programs[:n] {
			if len(p.runs) > 0 && len(other.runs) > 0 {
				fmt.Fprintf(w, "\n%s/%s: %.2f", other.name, p.name, median(other.sorted(whole))/median(p.sorted(whole)))
			}
		}
	}
	fmt.Fprintln(w)
}

// sorted returns one value of all runs, in seconds.
func (p *program) sorted(value func(run) time.Duration) []float64 {
	var v []float64
	for _, r := range p.runs {
		v = append(v, value(r).Seconds())
	}
	return sorted(v)
}

func sorted(v []float64) []float64 {
	slices.Sort(v)
	return v
}

// median is that of sorted values.
func median(v []float64) float64 { return (v[len(v)/2] + v[(len(v)-1)/2]) / 2 }

// once waits for an idle machine, prepares the program, plugs a board in and starts the program at that moment.
func (p *program) once(ctx context.Context, spl, uboot []byte, window, delay time.Duration) (run, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := idle(ctx); err != nil {
		return run{}, err
	}
	s, err := p.prepare(ctx)
	if err != nil {
		return run{}, err
	}
	defer s.end()
	port, err := vhci.Open("")
	if err != nil {
		return run{}, err
	}
	board, err := am335x.New(am335x.Config{ROMRetries: []time.Duration{time.Second}, SPLWindow: window, DelayIn: delay, DelayOut: delay})
	if err != nil {
		return run{}, err
	}
	if err := s.start(); err != nil {
		return run{}, err
	}
	// The board's garbage is collected between the runs, not in some of them: no real board stops for that.
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	before := processor()
	powered, unplug := context.WithCancel(ctx)
	off := make(chan error, 1)
	go func() { off <- board.Run(powered, port) }()
	select {
	case <-board.Settled():
	case <-ctx.Done():
	}
	if board.Report().Outcome == virtual.Booted {
		err = s.wait()
	}
	took := time.Duration((processor() - before) * float64(time.Second))
	unplug()
	if e := <-off; e != nil {
		return run{}, fmt.Errorf("board: %w", e)
	}
	rep := board.Report()
	if err != nil {
		return run{}, fmt.Errorf("%w; board: %s %s\n%s", err, rep.Outcome, rep.Error, tail(s.output))
	}
	first, second := rep.Last(am335x.StageROM), rep.Last(am335x.StageSPL)
	if rep.Outcome != virtual.Booted || !bytes.Equal(first.Data, spl) || !bytes.Equal(second.Data, uboot) {
		return run{}, fmt.Errorf("board: %s %s\n%s", rep.Outcome, rep.Error, tail(s.output))
	}
	r := run{board: took, total: second.LastByte.Sub(rep.Plugged), rom: first.LinkUp.Sub(first.Plugged), spl: second.LinkUp.Sub(second.Plugged)}
	for _, st := range rep.Stages {
		r.lost += st.BOOTPLost
	}
	for _, st := range []*am335x.Stage{first, second} {
		at := func(t time.Time) int64 { return t.Sub(st.Plugged).Milliseconds() }
		r.course = append(r.course, fmt.Sprintf("%s: link %d ms, answered %d, first block %d, %d ACKs, last block %d",
			st.Name, at(st.LinkUp), at(st.Answered), at(st.FirstByte), st.Acks, at(st.LastByte)))
	}
	return r, nil
}

// idle waits until the machine is done with the run before, whose interfaces and namespace it takes apart when the
// programs have ended: until there is nothing to do for nine tenths of a quarter of a second.
func idle(ctx context.Context) error {
	if err := exec.CommandContext(ctx, "udevadm", "settle").Run(); err != nil {
		return fmt.Errorf("udevadm settle: %w", err)
	}
	for {
		before, begun, err := idleTime()
		if err != nil {
			return err
		}
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the machine does not become idle: %w", ctx.Err())
		}
		after, ended, err := idleTime()
		if err != nil || after-before > (ended-begun)*9/10 {
			return err
		}
	}
}

// idleTime is how long all processors have been idle, and how long there have been processors, in ticks (proc_stat(5)).
func idleTime() (idle, all int, err error) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	for i, field := range strings.Fields(strings.TrimPrefix(line, "cpu ")) {
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/stat: %w", err)
		}
		if all += n; i == 3 {
			idle = n
		}
	}
	return idle, all, nil
}

// tail is the end of an output.
func tail(b *bytes.Buffer) string {
	lines := strings.SplitAfter(strings.TrimSpace(b.String()), "\n")
	return strings.Join(lines[max(len(lines)-4, 0):], "")
}

// snag returns how snag is used, with the kernel's network or its own.
func snag(config, net string) func(context.Context) (*session, error) {
	return func(ctx context.Context) (*session, error) {
		s := &session{output: new(bytes.Buffer)}
		cmd := exec.CommandContext(ctx, "snag", "recover", "-s", "am3358", "-f", config, "--net", net)
		cmd.Stdout, cmd.Stderr = s.output, s.output
		s.start, s.wait = cmd.Start, cmd.Wait
		s.end = func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		return s, nil
	}
}

// withoutHeader writes a configuration for those who do not remove the header of an MLO.
func withoutHeader(dir string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "u-boot-spl.bin"))
	if err != nil {
		return "", err
	}
	if _, err := firmware.ParseMLO(raw); err == nil {
		return "", fmt.Errorf("u-boot-spl.bin has the header of an MLO")
	}
	file := "/tmp/snagboot.yaml"
	text := fmt.Sprintf("spl:\n  path: %s\nu-boot:\n  path: %s\n", filepath.Join(dir, "u-boot-spl.bin"), filepath.Join(dir, "u-boot.img"))
	return file, os.WriteFile(file, []byte(text), 0o644)
}

// shell stands for sudo, with which Snagboot's script starts its user's shell in the namespace. It says on descriptor
// 3 that the namespace is ready, waits for a line on 4, runs snagrecover as that user, and says how it ended.
const shell = `#!/bin/sh
cd /tmp
echo ready >&3
read go <&4
/usr/bin/setpriv --reuid=labuser --regid=labuser --init-groups \
	/usr/bin/env HOME=/home/labuser PYTHONPATH="$SNAGBOOT/src:$SNAGBOOT_TFTPY" PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=/tmp/pycache \
	/usr/bin/python3 -c 'from snagrecover.cli import cli; cli()' -s am3358 -f "$SNAGBOOT_CONFIG" 3>&- 4<&-
echo $? >&3
`

// snagboot returns how Snagboot is used: its script makes the namespace and the rules and begins to poll, then in the
// script's shell its user starts snagrecover. The script's end deletes the namespace.
func snagboot(config string) (func(context.Context) (*session, error), error) {
	const bin = "/tmp/snagboot-bin"
	if err := os.Mkdir(bin, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(bin, "sudo"), []byte(shell), 0o755); err != nil {
		return nil, err
	}
	// What Debian's "update-alternatives" would have set up.
	if err := os.Symlink("/usr/sbin/xtables-nft-multi", filepath.Join(bin, "iptables")); err != nil {
		return nil, err
	}
	// The script looks for it, and reads nothing of it.
	if err := os.WriteFile("/home/labuser/.bashrc", nil, 0o644); err != nil {
		return nil, err
	}
	src := os.Getenv("SNAGBOOT")
	return func(ctx context.Context) (_ *session, err error) {
		s := &session{output: new(bytes.Buffer)}
		cmd := exec.CommandContext(ctx, "/bin/sh", filepath.Join(src, "src/snagrecover/am335x_usb_setup.sh"))
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "SUDO_USER=labuser", "SNAGBOOT_CONFIG="+config)
		cmd.Stdout, cmd.Stderr = s.output, s.output
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that its poller can be ended with it
		cmd.WaitDelay = time.Second                           // its poller may be in a command that holds the outputs
		said, sayer, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		told, teller, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		cmd.ExtraFiles = []*os.File{sayer, told}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		sayer.Close()
		told.Close()
		_ = said.SetReadDeadline(time.Now().Add(patience))
		ended := false
		lines := bufio.NewReader(said)
		s.start = func() error {
			_, err := fmt.Fprintln(teller, "go")
			return err
		}
		s.wait = func() error {
			l, err := lines.ReadString('\n')
			ended = err == nil
			if l = strings.TrimSpace(l); ended && l != "0" {
				err = fmt.Errorf("snagrecover: exit status %s", l)
			}
			return err
		}
		s.end = func() {
			teller.Close()
			if !ended {
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			}
			_ = cmd.Wait()
			said.Close()
			if !ended {
				_ = exec.Command("ip", "netns", "delete", "snagbootnet").Run()
			}
		}
		if l, err := lines.ReadString('\n'); err != nil || l != "ready\n" {
			s.end()
			return nil, fmt.Errorf("am335x_usb_setup.sh: %q %v\n%s", l, err, s.output)
		}
		return s, nil
	}, nil
}

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
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"snag/sim/imx"
	"snag/sim/vhci"
	"snag/sim/virtual"
)

// contest is an i.MX board with an image, and those that recover it in turns.
type contest struct {
	name   string
	config imx.Config
	image  []byte
	slot   string // of snag's and Snagboot's configuration
	uuu    string // the lines of uuu's script
	short  bool   // imx_usb can, and Snagboot does not take minutes
	rivals []*rival
}

// rival is a program in a contest.
type rival struct {
	name    string
	args    []string
	seconds []float64 // of each run
	memory  int       // most that it had at a time, in bytes
	failed  int
}

// usage is what a process took, as "bench -run" writes it.
type usage struct {
	Seconds float64
	Memory  int // bytes
	Output  string
	Error   string
}

// measureIMX runs in the VM. The image for the i.MX6Q is in file, the one for the i.MX8MP is made, of stream bytes.
func measureIMX(ctx context.Context, w io.Writer, file string, runs, stream int) error {
	contests, err := imxContests(file, stream)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "imx")
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\nSeconds of the whole process that recovers an i.MX, median of %d interleaved runs (least-most), peak memory in MB\n\n", runs)
	fmt.Fprintf(w, "%-30s %-9s %7s %15s %7s %7s %7s\n", "", "", "median", "", "memory", "failed", "snag/it")
	for i, c := range contests {
		if err := c.enter(filepath.Join(dir, fmt.Sprint(i))); err != nil {
			return err
		}
		for n := range 1 + 3*runs {
			for _, r := range c.rivals {
				if len(r.seconds) == runs {
					continue
				}
				u, err := c.once(ctx, r)
				switch {
				case n == 0: // for warming up
				case err != nil:
					log.Printf("%s, run %d of %s: %v", c.name, n, r.name, err)
					r.failed++
				default:
					log.Printf("%s, run %d of %s: %.3f s, %.1f MB", c.name, n, r.name, u.Seconds, float64(u.Memory)/1e6)
					r.seconds = append(r.seconds, u.Seconds)
					r.memory = max(r.memory, u.Memory)
				}
			}
		}
		c.print(w)
	}
	return nil
}

// imxContests are those that the targets are about. The stream has about so many bytes.
func imxContests(file string, stream int) ([]*contest, error) {
	first, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	q := func(name string, out bool) *contest {
		return &contest{name: name, config: imx.Config{OutEP: out}, image: first, slot: "u-boot-with-dcd", uuu: "SDP: boot -f IMAGE\nSDP: done\n", short: true}
	}
	all := []*contest{
		q(fmt.Sprintf("i.MX6Q, %d KB", len(first)/1000), false),
		q("the same, interrupt OUT", true),
		{name: fmt.Sprintf("i.MX8MP, stream of %d MiB", stream>>20), slot: "flash-bin", uuu: "SDPS: boot -f IMAGE\nSDPS: done\n"},
	}
	for i, model := range []string{"imx6q", "imx6q", "imx8mp"} {
		if all[i].config.Model, err = imx.FindModel(model); err != nil {
			return nil, err
		}
	}
	images, err := imx.Generate(all[2].config, stream, 1)
	all[2].image = images.First
	return all, err
}

// enter writes the files of the programs and says how they are called.
func (c *contest) enter(dir string) error {
	image, script := filepath.Join(dir, "image.bin"), filepath.Join(dir, "script.lst")
	model := c.config.Model.Name
	err := os.MkdirAll(dir, 0o755)
	err = errors.Join(err, os.WriteFile(image, c.image, 0o644))
	err = errors.Join(err, os.WriteFile(script, []byte("uuu_version 1.2.39\n"+strings.ReplaceAll(c.uuu, "IMAGE", "image.bin")), 0o644))
	c.rivals = []*rival{
		{name: "snag", args: []string{"snag", "recover", "-s", model, "-F", c.slot + "=" + image}},
		{name: "uuu", args: []string{"uuu", script}},
	}
	if c.short {
		c.rivals = append(c.rivals, &rival{name: "imx_usb", args: []string{"imx_usb", image}})
	}
	if c.short && os.Getenv("SNAGBOOT") != "" {
		entry := fmt.Sprintf("{'%s': {'path': '%s'}}", c.slot, image)
		c.rivals = append(c.rivals, &rival{name: "Snagboot", args: []string{"/usr/bin/python3", "-c", "from snagrecover.cli import cli; cli()", "-s", model, "-F", entry}})
	}
	return err
}

// once plugs a board in, and when the kernel and udevd are done with it runs the program.
func (c *contest) once(ctx context.Context, r *rival) (u usage, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	port, err := vhci.Open("")
	if err != nil {
		return u, err
	}
	board, err := imx.New(c.config)
	if err != nil {
		return u, err
	}
	powered, unplug := context.WithCancel(ctx)
	off := make(chan error, 1)
	go func() { off <- board.Run(powered, port) }()
	defer func() {
		unplug()
		err = errors.Join(err, <-off)
	}()
	driver := "/sys/bus/usb/devices/" + string(port.Name()) + ":1.0/driver"
	for _, err := os.Stat(driver); err != nil; _, err = os.Stat(driver) {
		select {
		case <-ctx.Done():
			return u, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	if err := exec.CommandContext(ctx, "udevadm", "settle").Run(); err != nil {
		return u, fmt.Errorf("udevadm settle: %w", err)
	}
	// By a process of little memory: a process that is started has what its parent had as its peak.
	cmd := exec.CommandContext(ctx, "bench", append([]string{"-run"}, r.args...)...)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+os.Getenv("SNAGBOOT")+"/src:"+os.Getenv("SNAGBOOT_TFTPY"), "PYTHONPYCACHEPREFIX=/tmp/pycache")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &u)
	}
	if err != nil {
		return u, fmt.Errorf("bench -run: %w", err)
	}
	if u.Error != "" {
		return u, fmt.Errorf("%s\n%s", u.Error, tail(bytes.NewBufferString(u.Output)))
	}
	select {
	case <-board.Settled():
	case <-time.After(5 * time.Second):
	}
	if rep := board.Report(); rep.Outcome != virtual.Booted || len(rep.Violations) > 0 {
		return u, fmt.Errorf("board: %s %s %v\n%s", rep.Outcome, rep.Error, rep.Violations, tail(bytes.NewBufferString(u.Output)))
	}
	return u, nil
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
	}
	return json.NewEncoder(w).Encode(u)
}

func (c *contest) print(w io.Writer) {
	name := c.name
	medians := map[string]float64{}
	for _, r := range c.rivals {
		row := fmt.Sprintf("%-30s %-9s ", name, r.name)
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

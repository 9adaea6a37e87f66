//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"snag/sim/imx"
	"snag/sim/virtual"
)

// imxContest is an i.MX board with an image.
type imxContest struct {
	name   string
	config imx.Config
	image  []byte
	slot   string // of snag's and Snagboot's configuration
	uuu    string // the lines of uuu's script
	short  bool   // imx_usb can, and Snagboot does not take minutes
}

// measureIMX runs in the VM. The image for the i.MX6Q is in file, the one for the i.MX8MP is made, of stream bytes.
func measureIMX(ctx context.Context, w io.Writer, file string, runs, stream int) error {
	all, err := imxContests(file, stream)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "imx")
	if err != nil {
		return err
	}
	var contests []*contest
	for i, c := range all {
		rivals, err := c.rivals(filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			return err
		}
		contests = append(contests, &contest{name: c.name, power: c.power, rivals: rivals})
	}
	compete(ctx, w, "Seconds of the whole process that recovers an i.MX", contests, runs)
	return nil
}

// imxContests are those that the targets are about. The stream has about so many bytes.
func imxContests(file string, stream int) ([]*imxContest, error) {
	first, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	q := func(name string, out bool) *imxContest {
		return &imxContest{name: name, config: imx.Config{OutEP: out}, image: first, slot: "u-boot-with-dcd", uuu: "SDP: boot -f IMAGE\nSDP: done\n", short: true}
	}
	all := []*imxContest{
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

// rivals writes the files of the programs and says how they are called.
func (c *imxContest) rivals(dir string) ([]*rival, error) {
	image, script := filepath.Join(dir, "image.bin"), filepath.Join(dir, "script.lst")
	model := c.config.Model.Name
	err := os.MkdirAll(dir, 0o755)
	err = errors.Join(err, os.WriteFile(image, c.image, 0o644))
	err = errors.Join(err, os.WriteFile(script, []byte("uuu_version 1.2.39\n"+strings.ReplaceAll(c.uuu, "IMAGE", "image.bin")), 0o644))
	all := []*rival{
		{name: "snag", args: []string{"snag", "recover", "-s", model, "-F", c.slot + "=" + image}},
		{name: "uuu", args: []string{"uuu", script}},
	}
	if c.short {
		all = append(all, &rival{name: "imx_usb", args: []string{"imx_usb", image}})
	}
	if c.short && os.Getenv("SNAGBOOT") != "" {
		entry := fmt.Sprintf("{'%s': {'path': '%s'}}", c.slot, image)
		all = append(all, &rival{name: "Snagboot", args: []string{"/usr/bin/python3", "-c", "from snagrecover.cli import cli; cli()", "-s", model, "-F", entry}})
	}
	return all, err
}

func (c *imxContest) power() (board, error) {
	b, err := imx.New(c.config)
	if err != nil {
		return board{}, err
	}
	return board{run: b.Run, ready: "driver", verdict: func() error {
		select {
		case <-b.Settled():
		case <-time.After(5 * time.Second):
		}
		if rep := b.Report(); rep.Outcome != virtual.Booted || len(rep.Violations) > 0 {
			return fmt.Errorf("%s %s %v", rep.Outcome, rep.Error, rep.Violations)
		}
		return nil
	}}, nil
}

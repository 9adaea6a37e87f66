package snagflash

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"snag/flash/image"
	"snag/plan"
)

// protocols are those of -P.
var protocols = []string{"fastboot", "fastboot-uboot", "dfu", "ums"}

// Flags are snagflash's.
type Flags struct {
	Protocol    string   // -P
	Commands    []string // -f
	File        string   // -I
	Interactive bool     // -i
	Input       io.Reader
	Prompt      io.Writer // nil: no prompt

	DFU                 []string // -D ALTERNATE:FILE
	Keep, Detach, Reset bool     // --dfu-keep, --dfu-detach, --dfu-reset

	Source, Dest, Device string // -s, -d, -b
	Force                bool   // snag's own
	Verify               bool
}

// Given reports whether there is a flag that -P must be given for.
func (f Flags) Given() bool {
	return f.File != "" || f.Interactive || len(f.DFU) > 0 || f.Keep || f.Detach || f.Reset || f.Source != "" || f.Dest != "" || f.Device != ""
}

// Plan makes a plan of the flags.
func (f Flags) Plan() (*plan.Plan, error) {
	fastboot, dfu, ums := len(f.Commands) > 0 || f.File != "" || f.Interactive, len(f.DFU) > 0 || f.Keep || f.Detach || f.Reset, f.Source != "" || f.Dest != "" || f.Device != ""
	others := map[string]bool{"fastboot": dfu || ums, "fastboot-uboot": dfu || ums, "dfu": fastboot || ums, "ums": fastboot || dfu}
	if other, known := others[f.Protocol]; !known {
		return nil, fmt.Errorf("-P %s: expected one of %s", f.Protocol, strings.Join(protocols, ", "))
	} else if other {
		return nil, fmt.Errorf("-P %s, and flags of another protocol", f.Protocol)
	}
	if f.Force && f.Protocol != "ums" {
		return nil, fmt.Errorf("-P %s, and --force: only disks are refused without it", f.Protocol)
	}
	switch f.Protocol {
	case "dfu":
		return f.dfu()
	case "ums":
		return f.ums()
	}
	return f.fastboot()
}

func (f Flags) fastboot() (*plan.Plan, error) {
	if f.Protocol == "fastboot-uboot" && len(f.Commands) > 0 {
		return nil, errors.New("-f is of -P fastboot: here it is -I FILE or -i, with \"run COMMAND\"")
	}
	p, err := Commands(f.Commands)
	if err != nil {
		return nil, err
	}
	if f.File != "" {
		more, err := Load(f.File)
		if err != nil {
			return nil, err
		}
		p.Name, p.Steps = more.Name, append(p.Steps, more.Steps...)
	}
	if f.Verify {
		if err := verified(p.Steps); err != nil {
			return nil, err
		}
	}
	if f.Interactive {
		p.Steps = append(p.Steps, plan.Step{Action: &plan.Interactive{Next: f.prompt()}})
	}
	if len(p.Steps) == 0 {
		return nil, fmt.Errorf("-P %s: nothing to do: -f COMMAND, -I FILE or -i is missing", f.Protocol)
	}
	return p, nil
}

// verified has all that is flashed read back.
func verified(steps []plan.Step) error {
	for _, s := range steps {
		if c, ok := s.Action.(*plan.Command); ok && strings.HasPrefix(c.Text, "flash:") {
			return fmt.Errorf("--verify: %s: what fastboot's flash has written cannot be read back", c.Text)
		}
		if a, ok := s.Action.(*plan.Flash); ok {
			a.Verify = true
			if err := a.Check(); err != nil {
				return fmt.Errorf("--%w", err)
			}
		}
	}
	return nil
}

// prompt returns what reads the next line that is typed.
func (f Flags) prompt() func(ctx context.Context) ([]plan.Action, error) {
	session := Session{}
	lines := make(chan string)
	end := make(chan error, 1)
	begun := false
	read := func() {
		defer close(lines)
		in := bufio.NewScanner(f.Input)
		for in.Scan() {
			select {
			case lines <- in.Text():
			case <-end:
				return
			}
		}
	}
	return func(ctx context.Context) ([]plan.Action, error) {
		if !begun {
			begun = true
			go read()
		}
		if f.Prompt != nil {
			fmt.Fprint(f.Prompt, "snag flash > ")
		}
		select {
		case <-ctx.Done():
			close(end)
			return nil, context.Cause(ctx)
		case text, ok := <-lines:
			if !ok {
				return nil, io.EOF
			}
			actions, err := session.Line(text)
			if err == nil && f.Verify {
				var steps []plan.Step
				for _, a := range actions {
					steps = append(steps, plan.Step{Action: a})
				}
				err = verified(steps)
			}
			if errors.Is(err, io.EOF) {
				close(end)
				return nil, err
			}
			if err != nil {
				return []plan.Action{&plan.Note{Text: err.Error()}}, nil
			}
			return actions, nil
		}
	}
}

func (f Flags) dfu() (*plan.Plan, error) {
	p := &plan.Plan{}
	for _, d := range f.DFU {
		alt, file, ok := strings.Cut(d, ":")
		if !ok || alt == "" || file == "" {
			return nil, fmt.Errorf("-D %s: expected ALTERNATE:FILE", d)
		}
		to, err := plan.ParseTarget(plan.ToDFU, alt)
		if err != nil {
			return nil, err
		}
		p.Steps = append(p.Steps, plan.Step{Action: &plan.Flash{Source: whole(file), To: to, Verify: f.Verify}})
	}
	switch {
	case f.Reset:
		p.Steps = append(p.Steps, plan.Step{Action: &plan.Reset{}})
	case f.Detach, !f.Keep && len(f.DFU) > 0:
		p.Steps = append(p.Steps, plan.Step{Action: &plan.Reset{How: plan.Detach}})
	}
	if len(p.Steps) == 0 {
		return nil, errors.New("-P dfu: nothing to do: -D ALTERNATE:FILE is missing")
	}
	return p, nil
}

// whole is a file's bytes, whatever they look like, as snagflash sends them by DFU and to files.
func whole(file string) plan.Source {
	return plan.Source{Image: file, Options: image.Options{AsIs: true, NoBmap: true}}
}

func (f Flags) ums() (*plan.Plan, error) {
	a := &plan.Flash{Source: plan.Source{Image: f.Source}, Verify: f.Verify}
	var err error
	switch {
	case f.Source == "" || f.Dest == "" && f.Device == "":
		return nil, errors.New("-P ums: expected --src FILE, and --blockdev DEVICE or --dest FILE")
	case f.Dest != "" && f.Device != "":
		return nil, errors.New("-P ums: --blockdev and --dest: one of them")
	case f.Dest != "":
		dest := f.Dest
		if st, err := os.Stat(dest); err == nil && st.IsDir() {
			dest = filepath.Join(dest, filepath.Base(f.Source))
		}
		a.Source = whole(f.Source)
		a.To, err = plan.ParseTarget(plan.ToFile, dest)
	default:
		a.To, err = plan.ParseTarget(plan.ToDisk, f.Device)
		a.To.Force = f.Force
	}
	return &plan.Plan{Steps: []plan.Step{{Action: a}}}, err
}

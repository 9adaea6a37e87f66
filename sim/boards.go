package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"snag/sim/sandbox"
	"snag/sim/usbdev"
	"snag/sim/virtual"
	"snag/usb"
)

// Options are what the runs of all families have.
type Options struct {
	Carrier Carrier
	Listen  string     // USBIP's address, with its port
	Ports   []usb.Port // one board each; none: one board, at any free port

	// Command is run while the boards are powered. Without a command they stay until the context ends, or with Once
	// until each has settled.
	Command []string
	Once    bool

	JSON bool // the report as one JSON object on one line
}

// board is a virtual board of any family.
type board interface {
	Run(context.Context, usbdev.Port) error
	Settled() <-chan struct{}
}

// powered is a board and its port.
type powered struct {
	slot
	board
	outcome func() virtual.Outcome
	about   string // what there is to say of it
	err     error  // of Run
	plugged <-chan struct{}
}

// announced is a port that closes plugged when its board shows for the first time, or ends.
type announced struct {
	usbdev.Port
	once    sync.Once
	plugged chan struct{}
}

func (p *announced) announce() { p.once.Do(func() { close(p.plugged) }) }

func (p *announced) Attach(ctx context.Context, dev usbdev.Device) error {
	defer p.announce()
	return p.Port.Attach(ctx, dev)
}

// writeImages writes files, by name, into a directory that is made if need be.
func writeImages(dir string, files map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(filepath.Join(dir, name), files[name], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// withSuffix is the files under their names with .bin.
func withSuffix(images map[string][]byte) map[string][]byte {
	files := make(map[string][]byte, len(images))
	for name, data := range images {
		files[name+".bin"] = data
	}
	return files
}

// names are those of the ports.
func (o *Options) names() []usb.Port {
	if len(o.Ports) == 0 {
		return []usb.Port{""}
	}
	return o.Ports
}

// say tells something of a board while it runs.
func (o *Options) say(w io.Writer, b *powered, what string) {
	if !o.JSON {
		fmt.Fprintf(w, "board on port %s%s\n", b.name, what)
	}
}

// power powers the boards, runs the command, in a sandbox if there is one, and calls report when that is over. The
// command's standard input is this process's. The error is a *CommandError if all else went well.
func (o *Options) power(ctx context.Context, box *sandbox.Sandbox, boards []*powered, report func() error, stdout, stderr io.Writer) error {
	boardCtx, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var running sync.WaitGroup
	for _, b := range boards {
		o.say(stdout, b, b.where)
		if b.about != "" {
			o.say(stdout, b, ": "+b.about)
		}
		port := &announced{Port: b.Port, plugged: make(chan struct{})}
		running.Go(func() {
			defer port.announce()
			b.err = b.Run(boardCtx, port)
		})
		b.plugged = port.plugged
	}
	status, err := o.meanwhile(ctx, box, boards, stdout, stderr)
	cut()
	running.Wait()
	for _, b := range boards {
		err = errors.Join(err, b.err)
	}
	if err := errors.Join(err, report()); err != nil {
		return err
	}
	if status != 0 {
		return &CommandError{o.Command[0], status}
	}
	return nil
}

// meanwhile waits for what ends a run: the command, whose status it returns, or that all boards have settled, or the
// context.
func (o *Options) meanwhile(ctx context.Context, box *sandbox.Sandbox, boards []*powered, stdout, stderr io.Writer) (int, error) {
	if len(o.Command) > 0 {
		o.plugIn(ctx, boards)
		return run(ctx, o.Command, box, stdout, stderr)
	}
	for _, b := range boards {
		select {
		case <-b.Settled():
			o.say(stdout, b, ": "+string(b.outcome()))
		case <-ctx.Done():
		}
	}
	if !o.Once {
		<-ctx.Done()
	}
	return 0, nil
}

// plugIn waits until all boards are on the bus, so that the command finds them there, but no longer than a second.
func (o *Options) plugIn(ctx context.Context, boards []*powered) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for _, b := range boards {
		select {
		case <-b.plugged:
		case <-ctx.Done():
		}
	}
}

// usbBoard is a virtual board that is carried as a USB device.
type usbBoard[S virtual.Staged] interface {
	board
	Report() virtual.Report[S]
}

// powerUSB is [Options.power] for boards that are USB devices. add makes one, and says what there is to say of it; what
// it starts is in running, and ends with the context. goal is what the board was to start.
func powerUSB[S virtual.Staged](ctx context.Context, o *Options, soc, goal string, stdout, stderr io.Writer,
	add func(ctx context.Context, running *sync.WaitGroup) (b usbBoard[S], about string, err error)) error {
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	var boards []*powered
	var reports []func() virtual.Report[S]
	for range o.names() {
		b, about, err := add(background, &running)
		if err != nil {
			return err
		}
		outcome := func() virtual.Outcome { return b.Report().Outcome }
		boards, reports = append(boards, &powered{board: b, outcome: outcome, about: about}), append(reports, b.Report)
	}
	all, err := slots(background, o.Carrier, o.Listen, o.names(), &running)
	if err != nil {
		return err
	}
	for i, b := range boards {
		b.slot = all[i]
	}
	return o.power(ctx, nil, boards, func() error {
		var list []reported[S]
		for i, b := range boards {
			list = append(list, reported[S]{b.name, reports[i]()})
		}
		return printUSB(stdout, o.JSON, soc, goal, list)
	}, stdout, stderr)
}

// reported is a board in the JSON report.
type reported[S virtual.Staged] struct {
	Port usb.Port `json:"port"`
	virtual.Report[S]
}

func printUSB[S virtual.Staged](w io.Writer, asJSON bool, soc, goal string, list []reported[S]) error {
	if asJSON {
		return json.NewEncoder(w).Encode(struct {
			Event  string        `json:"event"`
			SoC    string        `json:"soc"`
			Boards []reported[S] `json:"boards"`
		}{"sim", soc, list})
	}
	for _, b := range list {
		fmt.Fprintf(w, "board on port %s: %s\n", b.Port, map[virtual.Outcome]string{
			virtual.Running:   "still on its way",
			virtual.Booted:    goal + " was started",
			virtual.Stuck:     "stuck, " + b.Error,
			virtual.Unplugged: "unplugged before " + goal + " was started",
		}[b.Outcome])
		if b.Resets > 0 {
			fmt.Fprintf(w, "  %d power cycles before what follows\n", b.Resets)
		}
		fmt.Fprint(w, b.Effects())
		for _, v := range b.Violations {
			fmt.Fprintf(w, "  host mistake, %d times: %s\n", v.N, v.Text)
		}
	}
	return nil
}

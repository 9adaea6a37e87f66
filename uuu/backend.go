package uuu

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"snag/event"
	"snag/flash/image"
	"snag/recovery"
	"snag/socs"
	"snag/socs/imx"
	"snag/usb"
	"snag/usb/fastboot"
)

// nextStage is how long the next enumeration may take after the lines of one are done. U-Boot may have its countdown
// before fastboot.
const nextStage = 60 * time.Second

// maxVisits is how often a protocol's lines are begun: a board that is reset comes back to its ROM.
const maxVisits = 3

// Backend runs a script on a board that package recovery follows.
type Backend struct {
	Script *Script
	Getenv func(string) string // what @NAME@ is; nil: nothing
	Shell  bool                // the script may run commands of the host ("sh" and "<")
}

var _ socs.Backend = Backend{}

// Family describes the devices that the script has lines for.
func (b Backend) Family() socs.Family {
	f := socs.Family{
		Name: "uuu", Title: "uuu script " + b.Script.Name, Carriers: []socs.Carrier{socs.USB}, Reenumerate: nextStage,
		BootMode: imx.Backend{}.Family().BootMode,
	}
	for _, d := range b.Script.devices {
		switch {
		case !b.Script.has(d.proto):
		case d.proto.rom():
			f.ROM = append(f.ROM, d.identity())
		default:
			f.Later = append(f.Later, d.identity())
		}
	}
	return f
}

// has tells whether there are lines of a protocol.
func (s *Script) has(p Protocol) bool {
	return slices.ContainsFunc(s.Lines, func(l Line) bool { return l.Proto == p })
}

// ends tells whether a line may end the script.
func (l Line) ends() bool {
	c := l.cmd
	if i, ok := c.(conditional); ok {
		c = i.then
	}
	switch c.(type) {
	case done, output, expand:
		return true
	}
	return false
}

// Check refuses what the script must not do. The firmware is of no account: scripts name their files themselves.
func (b Backend) Check(socs.Model, socs.Firmware) (socs.Firmware, []socs.Finding, error) {
	s := b.Script
	for _, l := range s.Lines {
		c := l.cmd
		if i, ok := c.(conditional); ok {
			c = i.then
		}
		switch c.(type) {
		case shell, output:
			if !b.Shell {
				return nil, nil, &recovery.UsageError{
					Err:  &Error{s.Name, l.N, 1, fmt.Errorf("%s: a command of the host, which is not allowed to scripts by itself", l.Text)},
					Hint: "look at what it runs, and allow it with --allow-shell",
				}
			}
		}
	}
	var findings []socs.Finding
	if !slices.ContainsFunc(s.Lines, Line.ends) {
		findings = append(findings, socs.Finding{Warning: true, Text: fmt.Sprintf("%s has no done: it ends behind its lines for %s", s.Name, s.last())})
	}
	return nil, findings, nil
}

// last is the protocol of the last line.
func (s *Script) last() Protocol { return s.Lines[len(s.Lines)-1].Proto }

// Recover implements socs.Backend.
func (b Backend) Recover(ctx context.Context, job socs.Job) error {
	r := &run{Backend: b, board: job.Board, visits: make(map[Protocol]int), variables: make(map[string]string)}
	end := func() {}
	defer func() { end() }()
	for {
		stage, err := job.Board.Next(ctx)
		end()
		if err != nil {
			return r.nothingMore(ctx, err)
		}
		x := &session{run: r, stage: stage, script: b.Script}
		end = x.close
		over, err := x.serve(ctx)
		if over || err != nil {
			return err
		}
	}
}

// run is a script on its way.
type run struct {
	Backend
	board     socs.Board
	visits    map[Protocol]int
	variables map[string]string // of getvar, in upper case, as their values
	stranger  *usb.Device       // the last enumeration, if the script has no lines for it
}

func (r *run) getenv(name string) string {
	if r.Getenv == nil {
		return ""
	}
	return r.Getenv(name)
}

// nothingMore explains why there is no next stage, if what came last was none.
func (r *run) nothingMore(ctx context.Context, err error) error {
	stuck, ok := errors.AsType[*socs.BoardError](err)
	if r.stranger == nil || !ok || context.Cause(ctx) != nil {
		return err
	}
	return &socs.BoardError{Stage: stuck.Stage,
		Err:  fmt.Errorf("%s has no lines for what is on port %s, %s (%s), and nothing else came", r.Script.Name, r.stranger.Port, r.stranger.ID, r.stranger.Product),
		Hint: "add a CFG line that says which protocol it speaks, or lines for its protocol"}
}

// session is a run of a protocol's lines, on one enumeration.
type session struct {
	*run
	script *Script
	stage  *socs.Stage
	device device
	line   Line // at work

	target *imx.Target
	client *fastboot.Client
	wire   *fastboot.USB // what client talks over
	sent   bool          // a file, of which there was an event
}

func (x *session) emit(body event.Body) {
	if _, ok := body.(event.StageDone); ok {
		x.sent = true
	}
	x.board.Emit(x.device.proto.stage(), body)
}

func (x *session) close() {
	if x.target != nil {
		x.target.Close()
	}
}

// serve runs the lines of the stage's protocol; over tells whether the script has ended.
func (x *session) serve(ctx context.Context) (over bool, err error) {
	s := x.script
	u := x.stage.USB.Device()
	d, ok := s.find(u)
	if !ok || !s.has(d.proto) {
		x.stranger = &u
		what := u.ID.String()
		if ok {
			what = d.String()
		}
		x.board.Emit("", event.Note{Text: fmt.Sprintf("%s has no lines for %s: waiting for what comes next", s.Name, what)})
		return false, nil
	}
	x.stranger, x.device = nil, d
	if x.visits[d.proto]++; x.visits[d.proto] > maxVisits {
		return false, &socs.BoardError{Stage: d.proto.stage(), Err: fmt.Errorf("%s is back after its lines were begun %d times", d, maxVisits),
			Hint: "what was sent does not run on this board: is it for this board and SoC?"}
	}
	begun, n := time.Now(), 0
	for _, l := range s.Lines {
		if l.Proto != d.proto {
			continue
		}
		n++
		x.line = l
		x.emit(event.Note{Text: fmt.Sprintf("line %d: %s", l.N, l.Text)})
		err := l.cmd.run(ctx, x)
		if errors.Is(err, errDone) {
			return true, nil
		}
		if err != nil {
			return false, x.failed(ctx, err)
		}
	}
	if !x.sent { // the engine waits longer for what follows a stage that is done
		x.emit(event.StageDone{Summary: event.StageSummary{Stage: d.proto.stage(), File: fmt.Sprintf("%d lines of %s", n, s.Name), Duration: time.Since(begun)}})
	}
	return d.proto == s.last() && !slices.ContainsFunc(s.Lines, Line.ends), nil
}

// failed says which line failed.
func (x *session) failed(ctx context.Context, err error) error {
	where := fmt.Sprintf("%s:%d: %s", x.script.Name, x.line.N, x.line.Text)
	_, broken := errors.AsType[*image.RangeError](err)
	return recovery.StepError(ctx, x.device.proto.stage(), where, err, broken, x.hint(err))
}

// hint is what may have made a line fail.
func (x *session) hint(err error) string {
	refused, ok := errors.AsType[*fastboot.FailError](err)
	switch {
	case ok && refused.Text == "":
		return "U-Boot gives no reason over fastboot: its serial console does"
	case ok:
		return ""
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("give the line more time: %s[-t MILLISECONDS]", x.line.Proto)
	case errors.Is(err, usb.ErrGone), errors.Is(err, usb.ErrProtocol):
		return "the board left in the middle: check cable and power, and what its serial console says"
	}
	return ""
}

// runText runs a command whose text is known only now.
func (x *session) runText(ctx context.Context, proto Protocol, text string) error {
	line := string(proto) + ": " + text
	l, err := x.script.line(line)
	if err != nil {
		return fmt.Errorf("%q: %w", line, err)
	}
	switch l.cmd.(type) {
	case nil, shell, output, expand:
		return fmt.Errorf("%q: nothing that a command may make of itself", line)
	}
	if _, ok := l.cmd.(conditional); ok {
		return fmt.Errorf("%q: nothing that a command may make of itself", line)
	}
	x.emit(event.Note{Text: strings.TrimSpace(line)})
	return l.cmd.run(ctx, x)
}

// rom is what speaks to a boot ROM, or to SPL.
func (x *session) rom(ctx context.Context) (*imx.Target, error) {
	if x.target != nil {
		return x.target, nil
	}
	model := ""
	if x.device.proto.rom() {
		model = x.device.model()
	}
	t, err := imx.OpenTarget(ctx, emitter{x.board, x}, x.stage, model)
	if err == nil {
		x.target = t
	}
	return t, err
}

// emitter passes on a stage's events.
type emitter struct {
	socs.Board
	x *session
}

func (e emitter) Emit(stage string, body event.Body) {
	if _, ok := body.(event.StageDone); ok {
		e.x.sent = true
	}
	e.Board.Emit(stage, body)
}

// second notes whether SPL is going to come back for U-Boot: @SECOND@, which uuu does not have.
func (x *session) second(more bool) {
	x.variables["SECOND"] = "NO"
	if more {
		x.variables["SECOND"] = "YES"
	}
}

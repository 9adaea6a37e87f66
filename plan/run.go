package plan

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"snag/event"
	"snag/flash"
	"snag/recovery"
	"snag/socs"
	"snag/usb"
)

// DefaultTimeout bounds a run: a large image to slow flash memory takes hours.
const DefaultTimeout = 12 * time.Hour

// Options are how a plan is run.
type Options struct {
	// Port or ID is the board, before what the plan says; neither: the one board that shows what the plan needs first.
	Port usb.Port
	ID   usb.ID
	// Net is where U-Boot's fastboot is on a network, "udp:HOST[:PORT]" or "tcp:HOST[:PORT]". There is no USB then.
	Net string
	// Adapter is who drives the network adapter that a boot ROM shows, as in recovery.Options.
	Adapter recovery.Net

	Timeout  time.Duration // for all of it; DefaultTimeout if zero
	Wait     time.Duration // until the board appears, or a disk; if zero, recovery.DefaultTimeout, 30 s
	Patience time.Duration // the least that U-Boot may be silent over a command
	OnWait   string        // as in recovery.Options

	USB  usb.Host
	Emit event.Sink
	Log  *slog.Logger

	disk time.Duration // until a disk or directory is there: Wait, if it was given

	// open replaces what opens targets, for tests.
	open func(context.Context, *session, Target) (flash.Target, error)
}

// Run checks a plan and runs it. Whatever happens, the last event is a Done or a Failed. recovery.ExitCode and
// recovery.Hint know its errors.
func (p *Plan) Run(ctx context.Context, opt Options) error {
	if len(p.Steps) == 0 {
		return &recovery.UsageError{Err: errors.New("a plan without steps")}
	}
	if opt.Port == "" && opt.ID == (usb.ID{}) {
		opt.Port, opt.ID = p.Port, p.ID
	}
	if opt.Timeout == 0 {
		opt.Timeout = DefaultTimeout
	}
	opt.disk = opt.Wait
	if opt.Wait == 0 {
		opt.disk = diskTime
		opt.Wait = recovery.DefaultTimeout
		if w, ok := p.Steps[0].Action.(*Wait); ok {
			opt.Wait = w.Timeout
		}
	}
	if opt.Emit == nil {
		opt.Emit = func(event.Event) {}
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	h := &here{opt: &opt}
	start := time.Now()
	legs := p.legs(&opt)
	err := p.Check(ctx)
	if err == nil {
		err = legs[0].named(&opt)
	}
	if err == nil && (opt.Net != "" || !slices.ContainsFunc(legs, func(l leg) bool { return l.needsBoard() })) {
		err = p.runHere(ctx, &opt, h, legs)
	} else if err == nil {
		return p.runBoard(ctx, &opt, legs)
	}
	if err == nil {
		h.Emit("", event.Done{Duration: time.Since(start), Stages: h.done})
		return nil
	}
	h.Emit("", event.Failed{Err: err, Hint: recovery.Hint(err), ExitCode: recovery.ExitCode(err), Duration: time.Since(start), Stages: h.done})
	return err
}

// leg is what is done between two recoveries, or a recovery.
type leg struct {
	plan  *Plan
	opt   *Options
	first int // step
	steps []Step
}

// legs cuts the plan.
func (p *Plan) legs(opt *Options) []leg {
	var all []leg
	open := false
	for i, s := range p.Steps {
		_, recovers := s.Action.(*Recover)
		if recovers || !open {
			all = append(all, leg{p, opt, i, nil})
		}
		open = !recovers
		l := &all[len(all)-1]
		l.steps = append(l.steps, s)
	}
	return all
}

// recovers is the leg's recovery; nil if it is none.
func (l leg) recovers() *Recover {
	a, _ := l.steps[0].Action.(*Recover)
	return a
}

// named refuses to take any disk that is there for the board's.
func (l leg) named(opt *Options) error {
	if g, id := first(l.steps); opt.Port != "" || opt.ID != (usb.ID{}) || opt.Net != "" || l.recovers() != nil || g != Disk || id != (usb.ID{}) {
		return nil
	}
	return &recovery.UsageError{Err: errors.New("which board's disk? every USB stick shows what a board's mass storage does"),
		Hint: "name the board with --usb-path (`snag list boards` shows the ports), or the disk itself: --disk /dev/sdX"}
}

func (l leg) needsBoard() bool {
	return l.recovers() != nil || len(identities(l.steps)) > 0 || slices.ContainsFunc(l.steps, func(s Step) bool {
		_, waits := s.Action.(*Wait)
		return waits
	})
}

// runBoard has the engine find and follow the board.
func (p *Plan) runBoard(ctx context.Context, opt *Options, legs []leg) error {
	o := recovery.Options{
		Port: opt.Port, ID: opt.ID, Timeout: opt.Timeout, Wait: opt.Wait, OnWait: opt.OnWait,
		Net: opt.Adapter, USB: opt.USB, Emit: opt.Emit, Log: opt.Log,
	}
	for i, l := range legs {
		next := recovery.Leg{Backend: l}
		if a := l.recovers(); a != nil {
			next = recovery.Leg{Backend: romLeg{a.backend, l}, Model: a.model, Firmware: a.firmware}
		}
		if i == 0 {
			o.Backend, o.Model, o.Firmware = next.Backend, next.Model, next.Firmware
		} else {
			o.Then = append(o.Then, next)
		}
	}
	return recovery.Run(ctx, o)
}

// romLeg is a recovery that is a step of a plan.
type romLeg struct {
	socs.Backend
	leg leg
}

func (b romLeg) Recover(ctx context.Context, job socs.Job) error {
	job.Board.Emit("", event.Note{Text: b.leg.plan.where(b.leg.first)})
	return recovery.StepError(ctx, "", b.leg.plan.where(b.leg.first), b.Backend.Recover(ctx, job), false, "")
}

var _ socs.Backend = leg{}

// Family describes what the leg's steps need of the board.
func (l leg) Family() socs.Family {
	patience := waitTime
	for _, s := range l.steps {
		if w, ok := s.Action.(*Wait); ok {
			patience = max(patience, w.Timeout)
		}
	}
	patience += time.Second // the session's own waits end before
	name := l.plan.Name
	if name == "" {
		name = "flash"
	}
	return socs.Family{
		Name: "plan", Title: name, Carriers: []socs.Carrier{socs.USB, socs.Disk}, Later: identities(l.steps),
		Reenumerate: patience, ComeBack: patience,
		BootMode: "its U-Boot runs \"fastboot usb 0\", \"dfu 0 ...\" or \"ums 0 ...\"",
	}
}

// Check implements socs.Backend. The steps were checked before.
func (l leg) Check(socs.Model, socs.Firmware) (socs.Firmware, []socs.Finding, error) {
	return nil, nil, nil
}

// Recover does the leg's steps.
func (l leg) Recover(ctx context.Context, job socs.Job) error {
	x := &session{leg: l, board: job.Board, later: l.first > 0}
	defer x.close()
	return x.steps(ctx)
}

// runHere runs a plan that needs no board on USB.
func (p *Plan) runHere(ctx context.Context, opt *Options, h *here, legs []leg) error {
	over := fmt.Errorf("%w of %s", errOverall, opt.Timeout)
	if opt.Net != "" {
		over = &socs.BoardError{Err: over, Hint: "give it longer with --timeout; what the board's serial console says may tell why it takes so long"}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, opt.Timeout, over)
	defer cancel()
	for _, l := range legs {
		if l.recovers() != nil {
			return &recovery.UsageError{Err: fmt.Errorf("%s: boot ROMs are not on a network", p.where(l.first))}
		}
		if err := l.Recover(ctx, socs.Job{Board: h}); err != nil {
			if cause := context.Cause(ctx); cause != nil && errors.Is(cause, context.Canceled) {
				return recovery.ErrInterrupted
			}
			return err
		}
	}
	return nil
}

// here is the board of a plan that has none.
type here struct {
	opt  *Options
	mu   sync.Mutex
	done []event.StageSummary
}

// Next implements socs.Board.
func (h *here) Next(context.Context) (*socs.Stage, error) {
	return nil, &recovery.UsageError{Err: errors.New("this needs a board on USB")}
}

// Emit implements socs.Board.
func (h *here) Emit(stage string, body event.Body) {
	h.mu.Lock()
	if d, ok := body.(event.StageDone); ok {
		h.done = append(h.done, d.Summary)
	}
	h.mu.Unlock()
	h.opt.Emit(event.Event{Time: time.Now(), Stage: stage, Body: body})
}

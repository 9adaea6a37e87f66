package virtual

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// FaultKind is what happens at a command or a byte.
type FaultKind string

// The kinds that [Board.Due] carries out. Others are a family's own.
const (
	NAK    FaultKind = "nak"    // the board takes and says nothing for Fault.For, then goes on
	Hang   FaultKind = "hang"   // the same for ever
	Unplug FaultKind = "unplug" // the cable is pulled for good
	Reset  FaultKind = "reset"  // the board is power-cycled and comes back in its ROM
)

// Fault happens once in a stage: at the first Command of that name, if Command is not empty, else when the stage has
// received at least At bytes of files; with At 0 as soon as it waits for the host.
type Fault struct {
	Kind    FaultKind
	Stage   string
	Command string
	At      int
	For     time.Duration // of kinds that take a time; zero: 3 s
	Status  uint8         // of a kind that tells one
}

// Faults are those that a family knows.
type Faults struct {
	Kinds    []FaultKind
	Stages   []string
	Commands []string
	Telling  FaultKind // the kind that has a Status; empty: none
}

// Parse reads KIND:STAGE:BYTES or KIND:STAGE:COMMAND, with a time or a status behind another colon: "stall:rom:4096",
// "nak:spl:jump:2s".
func (v *Faults) Parse(s string) (Fault, error) {
	part := strings.Split(s, ":")
	if len(part) < 3 || len(part) > 4 {
		return Fault{}, fmt.Errorf("fault %q: expected KIND:STAGE:BYTES or KIND:STAGE:COMMAND, for instance reset:rom:4096", s)
	}
	f := Fault{Kind: FaultKind(part[0]), Stage: part[1]}
	if n, err := strconv.ParseUint(part[2], 10, 31); err == nil {
		f.At = int(n)
	} else {
		f.Command = part[2]
	}
	if len(part) == 4 {
		var err error
		if f.Kind == v.Telling {
			var n uint64
			n, err = strconv.ParseUint(part[3], 0, 8)
			f.Status = uint8(n)
		} else {
			f.For, err = time.ParseDuration(part[3])
		}
		if err != nil {
			return f, fmt.Errorf("fault %q: %w", s, err)
		}
	}
	return f, v.Check(f)
}

// Check refuses faults that the family does not know.
func (v *Faults) Check(faults ...Fault) error {
	for _, f := range faults {
		switch {
		case !slices.Contains(v.Kinds, f.Kind):
			return fmt.Errorf("fault %q: expected one of %v", f.Kind, v.Kinds)
		case !slices.Contains(v.Stages, f.Stage):
			return fmt.Errorf("fault %q at stage %q: expected one of %v", f.Kind, f.Stage, v.Stages)
		case f.Command != "" && !slices.Contains(v.Commands, f.Command):
			return fmt.Errorf("fault %q at %q: expected a number of bytes, or one of %v", f.Kind, f.Command, v.Commands)
		}
	}
	return nil
}

// Due carries out the faults that are due in the stage that runs: at a command or, if that is empty, when it has
// received n bytes. It returns the first whose kind is the family's own, and is to be called again after that; a Fault
// without a kind says that there are no more. The error of the others, which are done with, ends the stage.
func (b *Board[S]) Due(ctx context.Context, command string, n int) (Fault, error) {
	for {
		f := b.take(command, n)
		var err error
		switch f.Kind {
		case NAK:
			err = Sleep(ctx, f.For)
		case Hang:
			b.Stuck("hangs by request")
			<-ctx.Done()
			err = ctx.Err()
		case Unplug:
			err = ErrUnplug
		case Reset:
			err = ErrReset
		default:
			return f, nil
		}
		if err != nil {
			return f, err
		}
	}
}

// take uses up the next fault that is due.
func (b *Board[S]) take(command string, n int) Fault {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, f := range b.faults {
		if f.Stage == b.running() && f.Command == command && (command != "" || n >= f.At) {
			b.faults = slices.Delete(b.faults, i, i+1)
			if f.For == 0 {
				f.For = 3 * time.Second
			}
			return f
		}
	}
	return Fault{}
}

// Before is how many of the next most bytes may come, after n, before a fault is due in the stage that runs.
func (b *Board[S]) Before(n, most int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.faults {
		if f.Stage == b.running() && f.Command == "" && f.At > n {
			most = min(most, f.At-n)
		}
	}
	return most
}

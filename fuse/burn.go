package fuse

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"snag/event"
	"snag/socs"
	"snag/usb/fastboot"
)

// stage is what events and errors call U-Boot's fastboot.
const stage = "fastboot"

// job is a plan on its way, on one board.
type job struct {
	plan *Plan
	read *reader
	emit func(event.Body)
}

// boardError is an error of the board's.
func boardError(err error, hint string) error {
	return &socs.BoardError{Stage: stage, Err: err, Hint: hint}
}

// carryOut looks at the fuses, decides, and burns if confirm is not nil and says nothing against it.
func (p *Plan) carryOut(ctx context.Context, u UBoot, emit func(event.Body), confirm func(context.Context) error) error {
	for _, w := range p.Warnings {
		emit(event.Warning{Text: w})
	}
	if err := p.isFor(ctx, u, emit); err != nil {
		return err
	}
	r, err := newReader(ctx, u, p.layout)
	if err != nil {
		return boardError(err, hint(err))
	}
	j := &job{plan: p, read: r, emit: emit}
	states, err := j.look(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(states, ToBurn) {
		emit(event.Note{Text: "all is there already: nothing to burn"})
		return nil
	}
	if confirm == nil {
		for i, w := range p.Words {
			if states[i] == ToBurn {
				emit(event.Note{Text: "would run: " + w.Command()})
			}
		}
		emit(event.Note{Text: "nothing was burnt: that takes --burn"})
		return nil
	}
	if err := confirm(ctx); err != nil {
		return err
	}
	return j.burn(ctx, states)
}

// Command is what has U-Boot burn a word.
func (w Word) Command() string {
	return fmt.Sprintf("fuse prog -y %#x %#x 0x%08x", w.Bank, w.Word, w.Value)
}

// isFor refuses a board whose U-Boot is for another family.
func (p *Plan) isFor(ctx context.Context, u UBoot, emit func(event.Body)) error {
	if err := u.Run(ctx, `setenv fastboot.`+variable+` "${soc}"`, readTime); err != nil {
		return boardError(err, hint(err))
	}
	soc, err := u.GetVar(ctx, variable)
	if _, refused := errors.AsType[*fastboot.FailError](err); err != nil && !refused {
		return boardError(err, hint(err))
	}
	switch {
	case soc == "":
		emit(event.Note{Text: fmt.Sprintf("this U-Boot does not say what SoC it runs on (its variable soc): that it is an %s is taken from the command line", p.SoC)})
	case !strings.HasPrefix(soc, p.layout.env), soc == "mx7ulp": // whose fuses are another controller's
		return boardError(fmt.Errorf("the board is no %s: its U-Boot is for %s (its variable soc), expected %s", p.SoC, soc, p.layout.env), "name the board's SoC with --soc")
	}
	return nil
}

// look reads everything, tells it, and decides. The error is of the board's if anything must not be burnt.
func (j *job) look(ctx context.Context) ([]State, error) {
	words := j.plan.Words
	first, n := words[0].Place, len(words)
	fuses, err := j.sense(ctx, first, n)
	if err != nil {
		return nil, err
	}
	lock, err := j.sense(ctx, lockPlace, 1)
	if err != nil {
		return nil, err
	}
	shadows, err := j.read.shadow(ctx, first, n)
	if err != nil {
		return nil, boardError(err, hint(err))
	}
	var states []State
	var reasons []string
	for i, w := range words {
		s := w.decide(fuses[i], lock[0]&j.plan.layout.lock != 0)
		states = append(states, s)
		j.emit(w.event(fuses[i], s))
		if r := w.refusal(s, fuses[i]); r != "" {
			reasons = append(reasons, r)
		}
	}
	for _, a := range j.plan.layout.addresses(fuses) {
		j.emit(event.Note{Text: fmt.Sprintf("the fuses have MAC address %s", a)})
	}
	if len(reasons) > 0 {
		return nil, boardError(errors.New(strings.Join(reasons, "; ")), "nothing was burnt; fuses never become 0 again, so this board keeps what it has")
	}
	for i, w := range words {
		if extra := shadows[i] &^ fuses[i]; extra != 0 {
			return nil, boardError(fmt.Errorf("%s (%s) is 0x%08x, but its shadow register 0x%08x: it has bits that no fuse has", w.Name, w.Place, fuses[i], shadows[i]),
				"somebody has overridden it (\"fuse override\"), or what U-Boot reads is not to be trusted: reset the board and try again; nothing was burnt")
		}
	}
	return states, nil
}

// sense reads fuses twice, and believes only what comes twice.
func (j *job) sense(ctx context.Context, p Place, n int) ([]uint32, error) {
	first, err := j.read.sense(ctx, p, n)
	if err != nil {
		return nil, boardError(err, hint(err))
	}
	again, err := j.read.sense(ctx, p, n)
	if err != nil {
		return nil, boardError(err, hint(err))
	}
	if !slices.Equal(first, again) {
		return nil, boardError(fmt.Errorf("the fuses from %s on are %08x, and %08x when read again", p, first, again),
			"what this board reads is not to be trusted: look at its supplies and clocks, and at its serial console")
	}
	return first, nil
}

// burn burns the words that are to be burnt, and reads each back before the next one.
func (j *job) burn(ctx context.Context, states []State) error {
	for i, w := range j.plan.Words {
		if states[i] != ToBurn {
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		// What is begun is brought to its end: an answer that nobody waits for leaves the word in doubt.
		whole := context.WithoutCancel(ctx)
		j.emit(event.Note{Text: w.Command()})
		err := j.read.Run(whole, w.Command(), burnTime)
		if refused, ok := errors.AsType[*fastboot.FailError](err); ok {
			return j.refused(whole, w, refused)
		}
		if err != nil {
			return boardError(fmt.Errorf("%w: whether %s (%s) is burnt is not known", err, w.Name, w.Place), again)
		}
		found, err := j.sense(whole, w.Place, 1)
		if err != nil {
			return boardError(fmt.Errorf("%s (%s) was burnt, and not read back: %w", w.Name, w.Place, err), again)
		}
		if found[0] != w.Value {
			j.emit(w.event(found[0], w.decide(found[0], false)))
			return boardError(fmt.Errorf("%s (%s) was burnt with 0x%08x, and is 0x%08x", w.Name, w.Place, w.Value, found[0]),
				"the burning failed (its supply, perhaps), or U-Boot does not say what the fuses are; nothing more was burnt")
		}
		j.emit(w.event(found[0], Burnt))
	}
	return nil
}

// again is what to do where it is not known what was burnt.
const again = "reset the board, start its U-Boot again, and run the same command without --burn: it tells what was burnt, and with --burn goes on from there"

// refused explains why U-Boot did not burn a word.
func (j *job) refused(ctx context.Context, w Word, refused error) error {
	found, err := j.sense(ctx, w.Place, 1)
	if err != nil {
		return boardError(fmt.Errorf("%w; %s (%s) could not be read after that: %w", refused, w.Name, w.Place, err), again)
	}
	j.emit(w.event(found[0], w.decide(found[0], found[0] == 0)))
	return boardError(fmt.Errorf("%w; %s (%s) is 0x%08x", refused, w.Name, w.Place, found[0]),
		"the word is locked or protected, or this U-Boot must not burn fuses: its serial console says which")
}

// hint is what may have kept U-Boot from showing its fuses.
func hint(err error) string {
	refused, ok := errors.AsType[*fastboot.FailError](err)
	switch {
	case errors.Is(err, errNoWay):
		return "it needs CONFIG_CMD_SETEXPR (or CONFIG_CONSOLE_RECORD and CONFIG_FASTBOOT_CMD_OEM_CONSOLE)"
	case errors.Is(err, fastboot.ErrUnsupported):
		return "U-Boot needs CONFIG_FASTBOOT_UUU_SUPPORT or CONFIG_FASTBOOT_OEM_RUN"
	case ok && strings.Contains(refused.Command, "fuse "):
		return "U-Boot needs CONFIG_CMD_FUSE, and may not have these fuses: is --soc right? Its serial console says more"
	case ok:
		return "U-Boot gives no reason over fastboot: its serial console does"
	}
	return "check cable and power, and what the board's serial console says"
}

// addresses are the addresses in the words' values; those that are empty are left out.
func (l *layout) addresses(values []uint32) []net.HardwareAddr {
	be := binary.BigEndian
	var all []net.HardwareAddr
	add := func(a []byte) {
		if slices.ContainsFunc(a, func(b byte) bool { return b != 0 }) {
			all = append(all, a)
		}
	}
	half := func(v uint32) []byte { return be.AppendUint16(nil, uint16(v)) }
	add(be.AppendUint32(half(values[1]), values[0]))
	if len(values) > 2 {
		add(append(be.AppendUint32(nil, values[2]), half(values[1]>>16)...))
	}
	return all
}

package recovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"go.bug.st/serial"

	"snag/event"
	"snag/socs"
	"snag/usb"
)

// comeBack is how long a board that left in the middle of a stage may stay away: a reset takes a
// second or two, a power cycle by hand a few more.
const comeBack = 15 * time.Second

// onWaitGrace is how long the --on-wait command may take to end after the recovery.
const onWaitGrace = time.Second

// board follows one board over its stages. It implements socs.Board.
type board struct {
	opt      Options
	rom      []socs.Identity // of the model
	later    []socs.Identity
	patience time.Duration // for a re-enumeration after a stage is done
	comeBack time.Duration // and in the middle of one

	lock   *portLock
	fail   context.CancelCauseFunc
	aside  sync.WaitGroup // the --on-wait command, and the look-out for rivals
	chosen chan candidate // gets the board, once, if no port was named

	// One of these carries the stages.
	serial serial.Port
	kernelNet
	handle usb.Handle // of the stage that was handed out last, if it was opened
	change <-chan struct{}

	user     bool      // network stages are driven here, not by the kernel
	link     *userLink // then: of the handle
	noStages []place   // then: devices that have no network adapter

	strict  bool // the next stage must be a known one: it is the leg's first
	unready bool // a device on the board's port cannot be judged yet
	again   bool // the leg may be handed what the leg before was, and had no use for

	// The goroutine of Recover writes port, peer, last and seen, and may read them freely. It and others,
	// in Emit, write the rest; all of them are joined when Recover returns.
	mu        sync.Mutex
	port      usb.Port   // the chosen board's; as named by the user until then
	peer      usb.Port   // the port's name on the controller's other bus, if it has one
	last      usb.Device // what was handed out last
	seen      bool       // a board was chosen, or asked on the serial line
	stage     string
	waiting   string // what is awaited just now, in words; empty while a stage is there
	stageDone time.Time
	done      []event.StageSummary
	sending   string // the file at work; empty if none is
	through   event.Progress
	moved     time.Time // when there was any last
}

func newBoard(opt Options) *board {
	b := &board{opt: opt, port: opt.Port, chosen: make(chan candidate, 1)}
	b.identify()
	return b
}

// begin begins another leg of the run.
func (b *board) begin(leg Leg) {
	b.mu.Lock()
	b.opt.Backend, b.opt.Model = leg.Backend, leg.Model
	b.opt.ROM, b.opt.SPL, b.opt.ID = usb.ID{}, usb.ID{}, usb.ID{} // the first leg's
	b.again = b.stageDone.IsZero()
	b.mu.Unlock()
	b.user, b.noStages = false, nil
	b.identify()
	b.strict = len(b.rom) > 0
}

// identify finds out what the leg's stages look like.
func (b *board) identify() {
	opt, f := &b.opt, b.opt.Backend.Family()
	b.patience, b.comeBack = f.Reenumerate, comeBack
	if f.ComeBack > 0 {
		b.comeBack = f.ComeBack
	}
	of := func(all []socs.Identity, named usb.ID) []socs.Identity {
		if named != (usb.ID{}) {
			return []socs.Identity{{ID: named}}
		}
		return slices.DeleteFunc(slices.Clone(all), func(i socs.Identity) bool { return !i.Of(opt.Model) })
	}
	b.rom, b.later = of(f.ROM, opt.ROM), of(f.Later, opt.SPL)
	if opt.ID != (usb.ID{}) && !slices.ContainsFunc(slices.Concat(b.rom, b.later), func(i socs.Identity) bool { return i.ID == opt.ID }) {
		b.rom = append(b.rom, socs.Identity{ID: opt.ID})
	}
}

// network reports whether the board's stages are network adapters, else they are plain USB devices. On a UART it
// does not matter.
func (b *board) network() bool {
	return slices.Contains(b.opt.Backend.Family().Carriers, socs.Network)
}

// interfaces reports whether the stages are network interfaces of the kernel's.
func (b *board) interfaces() bool { return b.network() && !b.user }

// isROM reports whether a device shows what the model's boot ROM does.
func (b *board) isROM(d usb.Device) bool {
	return slices.ContainsFunc(b.rom, func(i socs.Identity) bool { return i.Is(d) })
}

// known reports whether a device shows what one of the model's stages does.
func (b *board) known(d usb.Device) bool {
	return b.isROM(d) || slices.ContainsFunc(b.later, func(i socs.Identity) bool { return i.Is(d) })
}

// name is the board's port or tty, as far as it is known.
func (b *board) name() string {
	if b.opt.UART != "" {
		return b.opt.UART
	}
	return string(b.port)
}

// Emit implements socs.Board.
func (b *board) Emit(stage string, body event.Body) {
	b.mu.Lock()
	if stage != "" {
		b.stage = stage
	}
	switch body := body.(type) {
	case event.StageBegun: // it may follow another on the same device
		b.stageDone = time.Time{}
		b.sending, b.through, b.moved = body.File, event.Progress{Total: body.Bytes}, time.Now()
	case event.Progress:
		if body.Bytes != b.through.Bytes {
			b.moved = time.Now()
		}
		b.through = body
	case event.StageDone:
		b.done = append(b.done, body.Summary)
		b.stageDone, b.sending = time.Now(), ""
	case event.Waiting:
		b.waiting = body.For
	case event.BoardSeen:
		b.seen, b.waiting = true, ""
	}
	e := event.Event{Time: time.Now(), Port: b.name(), SoC: b.opt.Model.Name, Stage: b.stage, Body: body}
	switch body.(type) {
	case event.Waiting, event.BoardSeen, event.Done:
		e.Stage = "" // between the stages
	}
	b.mu.Unlock()
	b.opt.Emit(e)
}

// open prepares everything that a board needs before it is awaited.
func (b *board) open(ctx context.Context) error {
	open := b.openUSB
	if b.opt.UART != "" {
		open = b.openUART
	} else if b.network() {
		open = b.openNetwork
	}
	if err := open(ctx); err != nil {
		return err
	}
	if b.seen { // in an earlier leg
		return nil
	}
	b.Emit("", event.Waiting{For: b.awaited(), Deadline: b.boardPatience()})
	if b.opt.OnWait != "" {
		env := append(os.Environ(), "SNAG_PORT="+b.name(), "SNAG_SOC="+b.opt.Model.Name)
		b.aside.Go(func() { b.runOnWait(ctx, env) })
	}
	return nil
}

func (b *board) close() {
	if b.serial != nil {
		b.serial.Close()
	}
	b.closeHandle()
	b.closeKernel()
	b.aside.Wait()
	b.lock.release()
}

// runOnWait runs the user's command. Its failure ends the recovery: the board will not come. The end of
// the recovery ends the command, with all that it started.
func (b *board) runOnWait(ctx context.Context, env []string) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", b.opt.OnWait)
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr // stdout may carry JSON
	inGroup(cmd)
	cmd.WaitDelay = onWaitGrace
	err := cmd.Run()
	switch {
	case err == nil:
	case ctx.Err() == nil:
		b.fail(fmt.Errorf("--on-wait command %q: %w", b.opt.OnWait, err))
	case cmd.Process != nil:
		killGroup(cmd) // whoever did not heed the SIGTERM
	}
}

// awaited says in words what Next waits for.
func (b *board) awaited() string {
	what := "a boot device"
	if len(b.rom) == 0 { // it is to run something already
		what = "a board"
	}
	switch {
	case b.opt.UART != "":
		return "the boot ROM's pings on " + b.opt.UART
	case b.opt.ID != (usb.ID{}):
		return fmt.Sprintf("USB device %s", b.opt.ID)
	case b.port != "":
		return fmt.Sprintf("%s (%s) on USB port %s", what, idList(b.rom, b.later), b.port)
	}
	return fmt.Sprintf("%s (%s) on any USB port", what, idList(b.rom, b.later))
}

func idList(lists ...[]socs.Identity) string {
	const most = 10
	var s []string
	for _, i := range slices.Concat(lists...) {
		if id := i.String(); !slices.Contains(s, id) {
			s = append(s, id)
		}
	}
	if n := len(s); n > most {
		return fmt.Sprintf("%s and %d others", strings.Join(s[:most-1], ", "), n-most+1)
	}
	return strings.Join(s, ", ")
}

// Next implements socs.Board.
func (b *board) Next(ctx context.Context) (*socs.Stage, error) {
	if b.serial != nil {
		return &socs.Stage{Serial: b.serial, Since: time.Now()}, nil
	}
	patience := b.nextPatience()
	if b.seen {
		b.Emit("", event.Waiting{For: "the next stage on USB port " + string(b.port), Deadline: patience})
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errAway)
	defer cancel()
	if b.interfaces() {
		return b.nextInterface(ctx)
	}
	return b.nextDevice(ctx)
}

// tryAgain is how long Next waits for news after a stage that was there could not be had.
const tryAgain = 100 * time.Millisecond

// errAway is the cause of a context that ended because the next stage did not come in time.
var errAway = errors.New("no next stage")

// nextPatience is how long the next stage may take.
func (b *board) nextPatience() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.seen && b.opt.Wait > 0:
		return b.opt.Wait
	case !b.seen:
		return max(b.opt.Timeout, b.opt.Timeout+time.Second) // the overall timeout decides; a sum may overflow
	case !b.stageDone.IsZero():
		return b.patience
	}
	return b.comeBack
}

// boardPatience is how long the board may take to appear.
func (b *board) boardPatience() time.Duration {
	if b.opt.Wait > 0 {
		return min(b.opt.Wait, b.opt.Timeout)
	}
	return b.opt.Timeout
}

// nothingThere is what is found on the port of a board that has left.
const nothingThere = "nothing enumerated there"

// awayError explains why no next stage came. found is what was there instead, and hint what to do if
// the stage before was complete.
func (b *board) awayError(ctx context.Context, found, hint string) error {
	if !errors.Is(context.Cause(ctx), errAway) {
		return context.Cause(ctx)
	}
	if !b.seen {
		return b.noBoard(nil)
	}
	if b.stageDone.IsZero() {
		why := ""
		if found != nothingThere {
			why = ": " + found
		}
		return &socs.BoardError{Stage: b.stage, Err: fmt.Errorf("the board left port %s and did not come back within %s%s", b.port, b.comeBack, why),
			Hint: "check cable and power, then run snag again"}
	}
	return &socs.BoardError{Stage: b.stage, Err: fmt.Errorf("the next stage did not appear on port %s within %s: %s", b.port, b.patience, found), Hint: hint}
}

// candidate is a device that may be the board.
type candidate struct {
	port usb.Port
	id   usb.ID
}

func (c candidate) String() string { return fmt.Sprintf("%s (%s)", c.port, c.id) }

// pick chooses the one board among candidates, and returns its index; -1 if there is none. Two on one port
// are one board.
func pick(list []candidate) (int, error) {
	var ports []usb.Port
	var names []string
	for _, c := range list {
		if !slices.Contains(ports, c.port) {
			ports = append(ports, c.port)
			names = append(names, c.String())
		}
	}
	if len(ports) > 1 {
		slices.Sort(names)
		slices.SortFunc(ports, usb.Port.Compare)
		return -1, &UsageError{
			Err:  fmt.Errorf("%d boards match: %s", len(ports), strings.Join(names, ", ")),
			Hint: "name one of them: --usb-path " + string(ports[0]),
		}
	}
	return len(ports) - 1, nil
}

// noBoard explains a wait that nothing ended. err is what the backend says of it.
func (b *board) noBoard(err error) error {
	e := &NoBoardError{For: cmp.Or(b.waiting, b.awaited()), After: b.boardPatience()}
	if stuck, ok := errors.AsType[*socs.BoardError](err); ok {
		e.Found, e.Hint = stuck.Err.Error(), stuck.Hint
		return e
	}
	e.Hint = "bring the board into USB boot mode"
	if len(b.rom) == 0 {
		e.Hint = "bring the board that far"
	}
	if how := b.opt.Backend.Family().BootMode; how != "" {
		e.Hint += " (" + how + ")"
	}
	e.Hint += " and run snag again; `snag list boards` shows what is attached, `snag doctor` what is missing on this machine"
	switch {
	case b.opt.UART != "":
	case b.interfaces():
		b.noInterface(e)
	default:
		b.noDevice(e)
	}
	return e
}

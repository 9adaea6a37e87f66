package recovery

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.bug.st/serial"

	"snag/event"
	"snag/netsetup"
	"snag/socs"
	"snag/usb"
)

// comeBack is how long a board that left in the middle of a stage may stay away: a reset takes a
// second or two, a power cycle by hand a few more.
const comeBack = 15 * time.Second

// onWaitGrace is how long the --on-wait command may take to end after the recovery.
const onWaitGrace = time.Second

// defaultBaud is the line rate of the UARTs of all families' ROMs.
const defaultBaud = 115200

// board follows one board over its stages. It implements socs.Board.
type board struct {
	opt      Options
	rom      []usb.ID
	later    []usb.ID
	patience time.Duration // for a re-enumeration after a stage is done

	ns     *netsetup.Namespace
	serial serial.Port
	lock   *portLock
	fail   context.CancelCauseFunc
	found  <-chan []netsetup.Interface
	onWait sync.WaitGroup

	// The goroutine of Recover writes port, address and seen, and may read them freely. It and others,
	// in Emit, write the rest; all of them are joined when Recover returns.
	mu        sync.Mutex
	port      usb.Port // the chosen board's; as named by the user until then
	address   int      // the device number of the last enumeration
	seen      bool     // a board was chosen, or asked on the serial line
	stage     string
	waiting   string // what is awaited just now, in words; empty while a stage is there
	stageDone time.Time
	done      []event.StageSummary
}

func newBoard(opt Options) *board {
	f := opt.Backend.Family()
	b := &board{opt: opt, rom: f.ROM, later: f.Later, patience: f.Reenumerate, port: opt.Port}
	if opt.ROM != (usb.ID{}) {
		b.rom = []usb.ID{opt.ROM}
	}
	if opt.SPL != (usb.ID{}) {
		b.later = []usb.ID{opt.SPL}
	}
	if opt.ID != (usb.ID{}) && !slices.Contains(b.later, opt.ID) && !slices.Contains(b.rom, opt.ID) {
		b.rom = append(slices.Clone(b.rom), opt.ID)
	}
	return b
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
	if d, ok := body.(event.StageDone); ok {
		b.done = append(b.done, d.Summary)
		b.stageDone = time.Now()
	}
	switch body := body.(type) {
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
	if b.opt.UART != "" {
		if err := b.openUART(); err != nil {
			return err
		}
	} else if err := b.openNetwork(ctx); err != nil {
		return err
	}
	b.Emit("", event.Waiting{For: b.awaited(), Deadline: b.opt.Timeout})
	if b.opt.OnWait != "" {
		env := append(os.Environ(), "SNAG_PORT="+b.name(), "SNAG_SOC="+b.opt.Model.Name)
		b.onWait.Go(func() { b.runOnWait(ctx, env) })
	}
	return nil
}

func (b *board) openNetwork(ctx context.Context) error {
	var err error
	if b.port != "" {
		if b.lock, err = lockPort(string(b.port)); err != nil {
			return err
		}
	}
	host := netsetup.Host{NetNS: b.opt.NetNS, Sysfs: b.opt.Sysfs.Sys}
	if b.ns, err = netsetup.Open(ctx, netsetup.Options{Log: b.opt.Log, Host: host}); err != nil {
		return err
	}
	go func() {
		select {
		case <-b.ns.Done():
			b.fail(fmt.Errorf("%w: %w", errNamespace, b.ns.Err()))
		case <-ctx.Done():
		}
	}()
	b.found, err = host.Watch(ctx)
	return err
}

func (b *board) openUART() error {
	tty, err := resolveTTY(b.opt.UART)
	if err != nil {
		return err
	}
	if b.lock, err = lockPort(tty); err != nil {
		return err
	}
	baud := b.opt.Baud
	if baud == 0 {
		baud = defaultBaud
	}
	b.serial, err = serial.Open(tty, &serial.Mode{BaudRate: baud, DataBits: 8})
	if err != nil {
		return ttyError(tty, err)
	}
	return nil
}

func (b *board) close() {
	if b.serial != nil {
		b.serial.Close()
	}
	if b.ns != nil {
		if err := b.ns.Close(); err != nil {
			b.opt.Log.Warn("close the network namespace", "err", err)
		}
	}
	b.onWait.Wait()
	b.lock.release()
}

// runOnWait runs the user's command. Its failure ends the recovery: the board will not come. The end of
// the recovery ends the command, with all that it started.
func (b *board) runOnWait(ctx context.Context, env []string) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", b.opt.OnWait)
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr // stdout may carry JSON
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = onWaitGrace
	err := cmd.Run()
	switch {
	case err == nil:
	case ctx.Err() == nil:
		b.fail(fmt.Errorf("--on-wait command %q: %w", b.opt.OnWait, err))
	case cmd.Process != nil:
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // whoever did not heed the SIGTERM
	}
}

// awaited says in words what Next waits for.
func (b *board) awaited() string {
	switch {
	case b.opt.UART != "":
		return "the boot ROM's pings on " + b.opt.UART
	case b.opt.ID != (usb.ID{}):
		return fmt.Sprintf("USB device %s", b.opt.ID)
	case b.port != "":
		return fmt.Sprintf("a boot device (%s) on USB port %s", idList(b.rom, b.later), b.port)
	}
	return fmt.Sprintf("a boot device (%s) on any USB port", idList(b.rom, b.later))
}

func idList(lists ...[]usb.ID) string {
	var s []string
	for _, id := range slices.Concat(lists...) {
		s = append(s, id.String())
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
	var there []netsetup.Interface
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil, b.awayError(ctx)
		case found, ok := <-b.found:
			if !ok { // with the context that ends this wait too
				b.found = nil
				continue
			}
			there = found
		case <-again:
		}
		again = nil
		i, ok, err := b.choose(there)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		stage, err := b.adopt(ctx, i)
		if errors.Is(err, netsetup.ErrGone) {
			// If it comes or goes just now, another list will follow; if it was only hard to get, none will.
			b.opt.Log.Info("the interface left while it was being moved", "interface", i.Name, "index", i.Index)
			again = time.After(tryAgain)
			continue
		}
		return stage, err
	}
}

// tryAgain is how long Next waits for a new list of interfaces after one of the last list could not be had.
const tryAgain = 100 * time.Millisecond

// errAway is the cause of a context that ended because the next stage did not come in time.
var errAway = errors.New("no next stage")

// nextPatience is how long the next stage may take.
func (b *board) nextPatience() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.seen:
		return b.opt.Timeout + time.Second // the overall timeout decides
	case !b.stageDone.IsZero():
		return b.patience
	}
	return comeBack
}

// awayError explains why no next stage came.
func (b *board) awayError(ctx context.Context) error {
	if !errors.Is(context.Cause(ctx), errAway) {
		return context.Cause(ctx)
	}
	if !b.stageDone.IsZero() {
		found := "nothing enumerated there"
		if d, err := b.opt.Sysfs.Device(b.port); err == nil {
			found = fmt.Sprintf("there is %s (%s) without a network interface that can be used", d.ID, d.Product)
			if d.Address == b.address {
				found = "the device of the stage before is still there"
			}
		}
		return &socs.BoardError{Stage: b.stage, Err: fmt.Errorf("the next stage did not appear on port %s within %s: %s", b.port, b.patience, found),
			Hint: "the stage that was sent did not start, or has no USB network gadget (SPL_USB_ETHER): watch its serial console; if it has USB IDs of its own, name the port with --usb-path"}
	}
	return &socs.BoardError{Stage: b.stage, Err: fmt.Errorf("the board left port %s and did not come back within %s", b.port, comeBack),
		Hint: "check cable and power, then run snag again"}
}

// choose picks the board's interface among those that are there. Two on one port are one board.
func (b *board) choose(ifaces []netsetup.Interface) (netsetup.Interface, bool, error) {
	var chosen netsetup.Interface
	var list []string
	for _, i := range ifaces {
		switch {
		case !b.matches(i):
		case len(list) == 0:
			chosen = i
			list = append(list, fmt.Sprintf("%s (%s)", i.Port, i.ID))
		case i.Port != chosen.Port:
			list = append(list, fmt.Sprintf("%s (%s)", i.Port, i.ID))
		}
	}
	if len(list) > 1 {
		return netsetup.Interface{}, false, &UsageError{
			Err:  fmt.Errorf("%d boards match: %s", len(list), strings.Join(list, ", ")),
			Hint: "name one of them: --usb-path " + string(chosen.Port),
		}
	}
	return chosen, len(list) == 1, nil
}

// matches reports whether i is, or may be, the board. A port that was named or followed decides
// alone, whatever the board calls itself there; else the ID does.
func (b *board) matches(i netsetup.Interface) bool {
	if b.port != "" {
		return i.Port == b.port
	}
	if b.opt.ID != (usb.ID{}) {
		return i.ID == b.opt.ID
	}
	return slices.Contains(b.rom, i.ID) || slices.Contains(b.later, i.ID)
}

// adopt takes an interface for the board's next stage.
func (b *board) adopt(ctx context.Context, i netsetup.Interface) (*socs.Stage, error) {
	since := time.Now()
	if b.lock == nil {
		lock, err := lockPort(string(i.Port))
		if err != nil {
			return nil, err
		}
		b.lock = lock
	}
	link, err := b.ns.Adopt(ctx, i.Index)
	if err != nil {
		return nil, err
	}
	isROM := slices.Contains(b.rom, i.ID)
	b.mu.Lock()
	b.port, b.stageDone = i.Port, time.Time{}
	b.mu.Unlock()
	b.opt.Log.Info("interface moved", "interface", i.Name, "index", i.Index, "port", i.Port, "id", i.ID,
		"waited", link.Waited, "moved", link.Moved, "up", link.Up, "carrier", link.Carrier)
	seen := event.BoardSeen{ID: i.ID.String(), Device: i.Name}
	if d, err := b.opt.Sysfs.Device(i.Port); err == nil {
		seen.Product = d.Product
		b.mu.Lock()
		b.address = d.Address
		b.mu.Unlock()
	}
	b.Emit("", seen)
	sockets := b.ns.Link()
	return &socs.Stage{Port: i.Port, ID: i.ID, ROM: isROM, Since: since, Link: &sockets, Gone: link.Gone}, nil
}

// noBoard explains a wait that nothing ended. err is what the backend says of it.
func (b *board) noBoard(err error) error {
	e := &NoBoardError{For: b.waiting, After: b.opt.Timeout}
	if stuck, ok := errors.AsType[*socs.BoardError](err); ok {
		e.Found, e.Hint = stuck.Err.Error(), stuck.Hint
		return e
	}
	e.Hint = "bring the board into USB boot mode (BeagleBone: hold S2 at power-on, no SD card) and run snag again; `snag list boards` shows what is attached, `snag doctor` what is missing on this machine"
	devices, _ := b.opt.Sysfs.Devices()
	for _, d := range devices {
		if b.matches(netsetup.Interface{Port: d.Port, ID: d.ID}) {
			e.Found = fmt.Sprintf("%s is on port %s but the kernel made no network interface for it", d.ID, d.Port)
			e.Hint = "load the driver: sudo modprobe rndis_host cdc_ether; `snag doctor` tells more"
		}
	}
	return e
}

// resolveTTY follows /dev/serial/by-id and the like to the tty itself.
func resolveTTY(name string) (string, error) {
	tty, err := realPath(name)
	if err != nil {
		return "", ttyError(name, err)
	}
	return tty, nil
}

package plan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"snag/event"
	"snag/flash"
	"snag/flash/block"
	"snag/flash/dfu"
	"snag/recovery"
	"snag/socs"
	"snag/usb"
	"snag/usb/fastboot"
)

const (
	// commandTime is how long U-Boot may be silent over a command if the step does not say.
	commandTime = 20 * time.Second
	// leaveTime is how long a board may take to leave its port when it was told to.
	leaveTime = 15 * time.Second
	// openTime is how long the first exchange with a gadget may take.
	openTime = 20 * time.Second
	// dialAgain is how often a board on a network is called that does not answer.
	dialAgain = 500 * time.Millisecond
)

// session is the work on a leg's steps.
type session struct {
	leg
	board socs.Board
	later bool // a board was there in an earlier leg, or stage

	at     int // the step at work
	stage  *socs.Stage
	client *fastboot.Client
	conn   net.Conn // client's, over a network
}

func (x *session) close() {
	if x.conn != nil {
		x.conn.Close()
		x.conn = nil
	}
	x.client = nil
}

// left forgets what the board showed.
func (x *session) left() {
	x.close()
	x.stage = nil
}

// emit tells something of the stage that the board is in.
func (x *session) emit(body event.Body) { x.board.Emit("", body) }

// steps does them.
func (x *session) steps(ctx context.Context) error {
	for i, s := range x.leg.steps {
		x.at = x.first + i
		if _, note := s.Action.(*Note); !note {
			x.emit(event.Note{Text: x.plan.where(x.at)})
		}
		var err error
		if r, ok := s.Action.(*Reset); !ok || !r.able(x) {
			err = x.need(ctx, s.Action.gadget())
		}
		if err == nil {
			err = s.Action.run(ctx, x)
		}
		if err != nil {
			return x.failed(ctx, err)
		}
	}
	return nil
}

// stageName is what the board shows now.
func (x *session) stageName() string {
	if x.stage != nil {
		for _, g := range []Gadget{Fastboot, DFU, Disk} {
			if g.of(x.stage.Device, x.opt.ID) {
				return g.String()
			}
		}
	}
	if x.client != nil {
		return Fastboot.String()
	}
	return ""
}

// shows reports whether the board shows a gadget now.
func (x *session) shows(g Gadget) bool {
	if x.stage == nil || !g.of(x.stage.Device, x.opt.ID) {
		return false
	}
	select {
	case <-x.stage.Gone: // nil, and never, for a disk
		return false
	default:
		return true
	}
}

// need waits until the board shows a gadget.
func (x *session) need(ctx context.Context, g Gadget) error {
	if g == None || x.opt.Net != "" && g == Fastboot {
		return nil
	}
	return x.await(ctx, waitTime, g.String(), func() bool { return x.shows(g) })
}

// await waits until the board is as it should be. The time is for what comes after it was seen: until then the engine's
// wait counts.
func (x *session) await(ctx context.Context, timeout time.Duration, what string, good func() bool) error {
	if x.later || x.stage != nil {
		over := &socs.BoardError{Stage: x.stageName(), Err: fmt.Errorf("it did not show %s within %s", what, timeout),
			Hint: "watch U-Boot's serial console: is it in its configuration, and started?"}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, over)
		defer cancel()
	}
	for !good() {
		stage, err := x.board.Next(ctx)
		x.close()
		if err != nil {
			return err
		}
		x.stage, x.later = stage, true
		if !good() {
			x.emit(event.Note{Text: fmt.Sprintf("port %s shows %s (%s): waiting for %s", stage.Port, stage.ID, stage.Device.Product, what)})
		}
	}
	return nil
}

func (a *Wait) run(ctx context.Context, x *session) error {
	if x.opt.Net != "" && a.For == Fastboot {
		_, err := x.fastboot(ctx)
		return err
	}
	what := a.For.String()
	if a.ID != (usb.ID{}) {
		what += ", " + a.ID.String()
	}
	return x.await(ctx, a.Timeout, what, func() bool {
		return x.stage != nil && (a.ID == x.stage.ID || a.ID == (usb.ID{})) && (x.shows(a.For) || a.For == None)
	})
}

// fastboot is the client of what the board shows.
func (x *session) fastboot(ctx context.Context) (*fastboot.Client, error) {
	if x.client != nil {
		return x.client, nil
	}
	var transport fastboot.Transport
	if x.opt.Net != "" {
		var err error
		if transport, err = x.dial(ctx); err != nil {
			return nil, err
		}
	} else {
		short, cancel := context.WithTimeout(ctx, openTime)
		defer cancel()
		wire, err := fastboot.OpenUSB(short, x.stage.USB, x.stage.ID == x.opt.ID)
		if err != nil {
			return nil, err
		}
		transport = wire
	}
	x.client = fastboot.New(transport)
	x.client.Info = func(s string) { x.emit(event.Note{Text: s}) }
	x.client.Patience = x.opt.Patience
	return x.client, nil
}

// ParseNet splits where fastboot is on a network: "udp:HOST[:PORT]" or "tcp:HOST[:PORT]", as Android's fastboot has it.
func ParseNet(s string) (network, address string, err error) {
	network, address, ok := strings.Cut(s, ":")
	if !ok || network != "udp" && network != "tcp" || address == "" {
		return "", "", fmt.Errorf("%q: expected udp:HOST[:PORT] or tcp:HOST[:PORT]", s)
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return network, net.JoinHostPort(strings.Trim(address, "[]"), strconv.Itoa(fastboot.Port)), nil
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", "", fmt.Errorf("%q: port %q is not a number from 1 to 65535", s, port)
	}
	return network, address, nil
}

// dial calls a board on a network until it answers.
func (x *session) dial(ctx context.Context) (fastboot.Transport, error) {
	network, address, err := ParseNet(x.opt.Net)
	if err != nil {
		return nil, &recovery.UsageError{Err: err}
	}
	wait := x.opt.Wait
	if x.later {
		wait = waitTime
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	x.emit(event.Waiting{For: "fastboot at " + x.opt.Net, Deadline: wait})
	for {
		t, err := x.call(ctx, network, address)
		if err == nil {
			x.later = true
			return t, nil
		}
		again := time.NewTimer(dialAgain)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return nil, context.Cause(ctx)
			}
			return nil, &recovery.NoBoardError{For: "fastboot at " + x.opt.Net, After: min(wait, x.opt.Timeout), Found: err.Error(),
				Hint: fmt.Sprintf("have U-Boot run \"fastboot %s\", and check that it can be reached: ping", network)}
		}
	}
}

func (x *session) call(ctx context.Context, network, address string) (t fastboot.Transport, err error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if network == "tcp" {
		t, err = fastboot.NewTCP(ctx, conn)
	} else {
		t, err = fastboot.NewUDP(ctx, conn)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	x.conn = conn
	return t, nil
}

func (a *UBoot) run(ctx context.Context, x *session) error {
	c, err := x.fastboot(ctx)
	if err != nil {
		return err
	}
	if !a.Leave {
		return c.Run(ctx, a.Command, cmp.Or(a.Timeout, commandTime))
	}
	if err := c.Start(ctx, a.Command); err != nil {
		return err
	}
	return x.leave(ctx)
}

// silent waits until a board on a network answers no more, that what is said next is not said to one that is just
// leaving. One that is back already will do.
func (x *session) silent(ctx context.Context) error {
	x.left()
	network, address, err := ParseNet(x.opt.Net)
	if err != nil {
		return err
	}
	over := time.Now().Add(leaveTime)
	for err == nil && time.Now().Before(over) {
		short, cancel := context.WithTimeout(ctx, dialAgain)
		_, err = x.call(short, network, address)
		cancel()
		x.close()
	}
	return context.Cause(ctx)
}

// leave waits until the board has left its port.
func (x *session) leave(ctx context.Context) error {
	if x.opt.Net != "" {
		return x.silent(ctx)
	}
	if x.stage != nil && x.stage.Gone != nil {
		t := time.NewTimer(leaveTime)
		defer t.Stop()
		select {
		case <-x.stage.Gone:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.C:
			return &socs.BoardError{Stage: x.stageName(), Err: fmt.Errorf("it took the command, but did not leave within %s", leaveTime),
				Hint: "U-Boot's serial console says what became of the command"}
		}
	}
	x.left()
	return nil
}

// able reports whether what the board shows can be told to.
func (a *Reset) able(x *session) bool {
	switch a.How {
	case "":
		return x.shows(DFU) || x.shows(Fastboot)
	case Detach:
		return x.shows(DFU) || x.shows(Disk) || x.gone()
	}
	return x.shows(Fastboot)
}

// gone reports whether what the board showed has left by itself.
func (x *session) gone() bool {
	return x.stage != nil && !x.shows(None)
}

func (a *Reset) run(ctx context.Context, x *session) error {
	switch {
	case a.How == Detach && x.gone():
		x.left()
		return nil
	case x.shows(DFU):
		t := &dfu.Target{Host: x.opt.USB, Port: x.stage.Port, Alt: "0"}
		if err := t.Detach(ctx, a.How != Detach); err != nil {
			return err
		}
		return x.leave(ctx)
	case x.shows(Disk):
		d, err := block.Open(ctx, block.Options{Port: x.stage.Port, Wait: diskTime})
		if err != nil {
			return err
		}
		defer d.Close()
		if err := d.Eject(); err != nil {
			return err
		}
		x.left()
		return nil
	}
	c, err := x.fastboot(ctx)
	if err != nil {
		return err
	}
	if a.How == Continue {
		err = c.Continue(ctx)
	} else {
		err = c.Reboot(ctx, a.How)
	}
	if err != nil {
		return err
	}
	return x.leave(ctx)
}

func (a *Command) run(ctx context.Context, x *session) error {
	c, err := x.fastboot(ctx)
	if err != nil {
		return err
	}
	// Of the commands with a time of their own, which end the session.
	defer func(least time.Duration) { c.Patience = least }(c.Patience)
	c.Patience = max(c.Patience, a.Timeout)

	word, rest, _ := strings.Cut(a.Text, ":")
	value := ""
	switch word {
	case "flash":
		err = c.Flash(ctx, rest, a.Timeout)
	case "erase":
		err = c.Erase(ctx, rest, a.Timeout)
	case "boot":
		err = c.Boot(ctx)
	case "continue":
		err = c.Continue(ctx)
	case "reboot", "reboot-bootloader", "reboot-fastboot", "reboot-recovery":
		err = c.Reboot(ctx, strings.TrimPrefix(strings.TrimPrefix(word, "reboot"), "-"))
	case "ACmd":
		err = c.Start(ctx, rest)
	default:
		value, err = c.Do(ctx, a.Text, cmp.Or(a.Timeout, commandTime))
	}
	if err != nil {
		return err
	}
	switch word {
	case "ACmd":
		x.left()
	case "boot", "continue", "reboot", "reboot-bootloader", "reboot-fastboot", "reboot-recovery":
		if x.opt.Net != "" {
			return x.silent(ctx)
		}
		x.left()
	case "getvar":
		x.emit(event.Note{Text: rest + ": " + value})
	default:
		if value != "" {
			x.emit(event.Note{Text: value})
		}
	}
	return nil
}

func (a *Download) run(ctx context.Context, x *session) error {
	c, err := x.fastboot(ctx)
	if err != nil {
		return err
	}
	if _, err := c.MaxDownload(ctx); err != nil {
		return err
	}
	f, err := os.Open(a.File)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	m := newMeter(x.board.Emit, Fastboot.String(), a.File, st.Size(), false, flash.Writing)
	last := int64(0)
	err = c.Download(ctx, f, st.Size(), func(n int64) {
		m.add(flash.Writing, n-last)
		last = n
	})
	m.end(err)
	return err
}

// run is never called: the engine's leg recovers.
func (*Recover) run(context.Context, *session) error {
	return errors.New("plan: a recovery within a leg")
}

package am335x

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"snag/sim/usbdev"
	"snag/sim/virtual"
)

// client is the network side of one stage. Its methods belong to one goroutine.
type client struct {
	b     *Board
	cfg   *Config
	link  *usbdev.Link
	mac   mac
	stage *Stage // in the report
	seed  uint64 // of this stage

	address netip.Addr // own, once known
	ident   uint16     // IPv4 identification
	xids    []uint32   // of all DHCP requests so far

	rng     *rand.Rand
	in      chan late // frames from the host, after the faults of that way
	early   *late     // the first of them, which is not due yet
	timer   *time.Timer
	armed   time.Time // when it fires; zero: it does not
	out     chan late // frames to the host that are delayed
	stop    context.CancelFunc
	running sync.WaitGroup
}

// late is a frame that is due at a time, which may be zero: at once.
type late struct {
	at   time.Time
	data []byte
}

// sendTimeout is how long U-Boot waits for the host to take a frame.
const sendTimeout = 3 * time.Second

// errTimeout is the end of a wait.
var errTimeout = errors.New("timeout")

func newClient(b *Board, link *usbdev.Link, m mac, s *Stage, seed uint64) *client {
	return &client{
		b: b, cfg: &b.cfg, link: link, mac: m, stage: s, seed: seed,
		rng:  rand.New(rand.NewPCG(b.cfg.Seed, seed)),
		in:   make(chan late, 256),
		out:  make(chan late, 256),
		stop: func() {},
	}
}

func (c *client) edit(f func(*Stage)) { c.b.board.Edit(func(*virtual.Report[*Stage]) { f(c.stage) }) }

func (c *client) violation(err error) { c.b.board.Violation("%v", err) }

func (c *client) ignore() { c.b.count(func(f *Frames) { f.Ignored++ }) }

// start begins to move frames. close ends it.
func (c *client) start(ctx context.Context) {
	ctx, c.stop = context.WithCancel(ctx)
	// Each way has random numbers of its own, so that a seed means the same losses every time.
	rng := rand.New(rand.NewPCG(c.cfg.Seed, c.seed|1<<32))
	c.timer = time.NewTimer(time.Hour)
	c.timer.Stop()
	c.running.Go(func() { c.receive(ctx, rng) })
	c.running.Go(func() { c.transmit(ctx) })
	c.running.Go(func() { c.watchLink(ctx) })
}

func (c *client) close() {
	c.stop()
	c.timer.Stop()
	c.running.Wait()
}

// receive applies loss and doubling to what the host sends.
func (c *client) receive(ctx context.Context, rng *rand.Rand) {
	for {
		select {
		case f := <-c.link.Frames():
			copies := 1
			if rng.Float64() < c.cfg.LossIn {
				c.b.count(func(f *Frames) { f.LostIn++ })
				copies = 0
			} else if rng.Float64() < c.cfg.DuplicateIn {
				c.b.count(func(f *Frames) { f.Doubled++ })
				copies = 2
			}
			due := late{data: f}
			if c.cfg.DelayIn > 0 {
				due.at = time.Now().Add(c.cfg.DelayIn)
			}
			for range copies {
				select {
				case c.in <- due:
				case <-ctx.Done():
					return
				}
			}
		case <-ctx.Done():
			return
		}
	}
}

// frame waits until a time for a frame that is due.
func (c *client) frame(ctx context.Context, until time.Time) ([]byte, error) {
	for {
		in, wake := c.in, until
		if f := c.early; f != nil {
			if !time.Now().Before(f.at) {
				c.early = nil
				return f.data, nil
			}
			in = nil
			if f.at.Before(wake) {
				wake = f.at
			}
		}
		// A timer that fires too early is set again then: most waits end before.
		if c.armed.IsZero() || wake.Before(c.armed) {
			c.armed = wake
			c.timer.Reset(time.Until(wake))
		}
		select {
		case f := <-in:
			if f.at.IsZero() {
				return f.data, nil
			}
			c.early = &f
		case <-c.timer.C:
			c.armed = time.Time{}
			if !time.Now().Before(until) {
				return nil, errTimeout
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// transmit sends delayed frames when they are due.
func (c *client) transmit(ctx context.Context) {
	for {
		select {
		case f := <-c.out:
			if virtual.Sleep(ctx, time.Until(f.at)) != nil {
				return
			}
			c.put(ctx, f.data, sendTimeout)
		case <-ctx.Done():
			return
		}
	}
}

func (c *client) watchLink(ctx context.Context) {
	for {
		up, changed := c.link.Up()
		if up {
			c.edit(func(s *Stage) { s.LinkUp = time.Now() })
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// put gives the host a frame and waits until it is taken. It reports whether it was.
func (c *client) put(ctx context.Context, data []byte, wait time.Duration) bool {
	return c.link.SendWithin(ctx, data, wait) == nil
}

func (c *client) lose() bool {
	if c.rng.Float64() >= c.cfg.LossOut {
		return false
	}
	c.b.count(func(f *Frames) { f.LostOut++ })
	return true
}

// send sends a frame, subject to loss and delay.
func (c *client) send(ctx context.Context, data []byte) {
	switch {
	case c.lose():
	case c.cfg.DelayOut > 0:
		select {
		case c.out <- late{time.Now().Add(c.cfg.DelayOut), data}:
		default: // a board's buffers are not endless either
		}
	default:
		c.put(ctx, data, sendTimeout)
	}
}

// request broadcasts a BOOTP request and reports whether the host took it within the time.
func (c *client) request(ctx context.Context, payload []byte, wait time.Duration) bool {
	virtual.Sleep(ctx, c.cfg.DelayOut)
	frame := c.udp(broadcastMAC, netip.AddrFrom4([4]byte{255, 255, 255, 255}), clientPort, serverPort, payload)
	taken := c.lose() || c.put(ctx, frame, wait)
	c.edit(func(s *Stage) {
		if !taken {
			if ctx.Err() == nil {
				s.BOOTPBefore++
			}
			return
		}
		if s.BOOTPSent++; s.BOOTPSent == 1 {
			s.FirstBOOTP = time.Now()
		}
	})
	return taken
}

// udp makes a frame from this board.
func (c *client) udp(to mac, dst netip.Addr, srcPort, dstPort uint16, payload []byte) []byte {
	src := c.address
	if !src.IsValid() {
		src = netip.IPv4Unspecified()
	}
	c.ident++
	return encodeUDP(datagram{srcMAC: c.mac, dstMAC: to, src: src, dst: dst, srcPort: srcPort, dstPort: dstPort, data: payload}, c.ident)
}

// next waits until a time for a datagram or an ARP reply that is meant for the board. It answers ARP
// requests for the board's address on the way. Exactly one of the first two results is valid.
func (c *client) next(ctx context.Context, until time.Time) (*datagram, *arp, error) {
	for {
		f, err := c.frame(ctx, until)
		if err != nil {
			return nil, nil, err
		}
		if a, ok := decodeARP(f); ok {
			if a.op == arpReply && a.targetMAC == c.mac {
				return nil, &a, nil
			}
			if a.op == arpRequest && c.address.IsValid() && a.target == c.address {
				c.send(ctx, encodeARP(arp{op: arpReply, etherDst: a.senderMAC, senderMAC: c.mac, sender: c.address,
					targetMAC: a.senderMAC, target: a.sender}))
				continue
			}
			c.ignore()
			continue
		}
		d, err := decodeUDP(f)
		switch {
		case errors.Is(err, errNotForUs), d.dstMAC != c.mac && d.dstMAC != broadcastMAC:
			c.ignore()
		case err != nil:
			c.violation(err)
		case c.address.IsValid() && d.dst != c.address && d.dst != netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			c.ignore()
		default:
			return &d, nil, nil
		}
	}
}

// due returns the error of a fault that is due after n bytes. virtual.ErrReset and virtual.ErrUnplug end the stage.
func (c *client) due(ctx context.Context, n int) error {
	f, err := c.b.board.Due(ctx, "", n)
	switch f.Kind {
	case LoseACK:
		return errLose
	case TFTPError:
		return errTold
	}
	return err
}

// errLose is an ACK that is to be lost, as a fault.
var errLose = errors.New("the client's ACK was lost")

// errTold is a transfer that the client ended with a TFTP ERROR, as a fault.
var errTold = errors.New("the client sent a TFTP error")

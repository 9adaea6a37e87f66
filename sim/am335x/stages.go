package am335x

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"snag/sim/virtual"
)

// reply is an acceptable BOOTP reply and the MAC that sent it.
type reply struct {
	offer
	from mac
}

// awaitReply waits for a reply to one of the requests. Unacceptable ones are recorded and dropped.
// ack demands option 53 = 5.
func (c *client) awaitReply(ctx context.Context, xids []uint32, minimum int, ack bool, until time.Time) (reply, error) {
	for {
		d, _, err := c.next(ctx, until)
		if err != nil {
			return reply{}, err
		}
		if d == nil || d.dstPort != clientPort {
			c.ignore()
			continue
		}
		if d.srcPort != serverPort {
			c.violation(fmt.Errorf("BOOTP reply from port %d, expected 67", d.srcPort))
			continue
		}
		o, err := decodeReply(d.data, xids, c.mac, minimum)
		if err != nil && c.late(d.data, xids) {
			c.ignore()
			continue
		}
		if err != nil {
			c.violation(err)
			continue
		}
		if ack && o.message == dhcpOffer {
			c.ignore() // a second answer to the DISCOVER
			continue
		}
		if ack && o.message != dhcpACK {
			c.violation(fmt.Errorf("DHCP REQUEST answered with message type %d, expected 5 (ACK)", o.message))
			continue
		}
		return reply{o, d.srcMAC}, nil
	}
}

// late says whether a reply is to a request of this client's that is no longer the one it waits for: a
// slow host answers the first request after the second has been sent.
func (c *client) late(reply []byte, xids []uint32) bool {
	if len(reply) < bootpFixed {
		return false
	}
	xid := binary.BigEndian.Uint32(reply[4:])
	return slices.Contains(c.xids, xid) && !slices.Contains(xids, xid)
}

// bind takes the address and notes what the reply gave.
func (c *client) bind(r reply) {
	c.address = r.address
	c.edit(func(s *Stage) {
		s.Answered = time.Now()
		s.Address, s.File = r.address.String(), r.file
		if r.tftp.IsValid() {
			s.Server = r.tftp.String()
		}
		s.BOOTPLost-- // counted when it was sent
	})
}

// sent counts a request as lost until it is answered.
func (c *client) sent() { c.edit(func(s *Stage) { s.BOOTPLost++ }) }

// restart notes that the client begins again.
func (c *client) restart(err error) {
	c.address = netip.Addr{}
	c.edit(func(s *Stage) { s.Restarts++; s.Error = err.Error() })
}

// fatal says whether an error ends a stage, whatever its client would do.
func fatal(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, virtual.ErrReset) || errors.Is(err, virtual.ErrUnplug)
}

// rom is the boot ROM: BOOTP, ARP, TFTP in steps of 512 bytes, until the image is there. It never
// gives up: after its retries it pauses, as if it had tried other boot devices, and comes round.
func (c *client) rom(ctx context.Context) error {
	var asicID [81]byte
	for i := range asicID {
		asicID[i] = byte(c.rng.Uint32())
	}
	payload := romRequest(c.mac, c.cfg.ROMVendorClass, asicID)
	if err := c.due(ctx, 0); err != nil && err != errTold && err != errLose {
		return err
	}
	for {
		for _, wait := range c.cfg.ROMRetries {
			if !c.request(ctx, payload, wait) {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				continue
			}
			c.sent()
			r, err := c.awaitReply(ctx, []uint32{1}, bootpMinimum, false, time.Now().Add(wait))
			if err == nil && !r.tftp.IsValid() {
				err = errors.New("BOOTP reply without a TFTP server (siaddr)")
				c.violation(err)
			}
			if err == nil {
				c.bind(r)
				if err = c.romFetch(ctx, r); err == nil {
					return nil
				}
				if !fatal(ctx, err) {
					c.restart(err)
				}
			}
			if fatal(ctx, err) {
				return err
			}
		}
		if err := virtual.Sleep(ctx, c.cfg.ROMPause); err != nil {
			return err
		}
	}
}

// The ROM's TFTP.
const (
	romPort    = 1234
	romTries   = 5
	romTimeout = time.Second
)

func (c *client) romFetch(ctx context.Context, r reply) error {
	deadline := time.Now().Add(c.cfg.ROMDeadline)
	hop := r.tftp
	if r.router.IsValid() && r.mask.IsValid() && !sameNet(r.address, r.tftp, r.mask) {
		hop = r.router
	}
	server, err := c.resolve(ctx, hop)
	if err != nil {
		return err
	}
	return c.fetch(ctx, transfer{
		server: r.tftp, peer: server, file: r.file, port: romPort,
		firstTimeout: romTimeout, firstTries: romTries,
		deadline: deadline, limit: MaxSPL,
	})
}

func sameNet(a, b, mask netip.Addr) bool {
	x, y, m := a.As4(), b.As4(), mask.As4()
	for i := range m {
		if x[i]&m[i] != y[i]&m[i] {
			return false
		}
	}
	return true
}

// resolve asks for an address's MAC by ARP.
func (c *client) resolve(ctx context.Context, target netip.Addr) (mac, error) {
	for range romTries {
		c.send(ctx, encodeARP(arp{op: arpRequest, etherDst: broadcastMAC, senderMAC: c.mac, sender: c.address, target: target}))
		until := time.Now().Add(romTimeout)
		for {
			_, a, err := c.next(ctx, until)
			if errors.Is(err, errTimeout) {
				break
			}
			if err != nil {
				return mac{}, err
			}
			if a != nil && a.sender == target {
				return a.senderMAC, nil
			}
		}
	}
	return mac{}, fmt.Errorf("no answer to ARP for %v", target)
}

// SPL's DHCP and TFTP times.
const (
	dhcpFirst      = 250 * time.Millisecond
	dhcpLongest    = time.Minute
	dhcpAckTimeout = 5 * time.Second
	splTimeout     = 5 * time.Second
	splTries       = 20
	rememberedIDs  = 4
)

// spl is U-Boot SPL: wait for the link, DHCP or BOOTP, TFTP.
func (c *client) spl(ctx context.Context) error {
	if err := c.due(ctx, 0); err != nil && err != errTold && err != errLose {
		return err
	}
	if err := c.awaitLink(ctx); err != nil {
		return err
	}
	giveUp := time.Now().Add(c.cfg.SPLGiveUp)
	for {
		r, err := c.dhcp(ctx, giveUp)
		if err != nil {
			return err
		}
		if !r.tftp.IsValid() {
			r.tftp = r.server
		}
		if !r.tftp.IsValid() {
			return errors.New("the reply names no TFTP server")
		}
		c.bind(r)
		if address, file, ok := strings.Cut(r.file, ":"); ok { // U-Boot, net/net.c, net_parse_bootfile
			if server, err := netip.ParseAddr(address); err != nil || server != r.tftp {
				return fmt.Errorf("the reply's file name %q names a TFTP server that is not there", r.file)
			}
			r.file = file
		}
		err = c.fetch(ctx, transfer{
			server: r.tftp, peer: r.from, file: r.file, port: uint16(1024 + c.rng.IntN(3072)), options: c.splOptions(),
			firstTimeout: splTimeout, firstTries: splTries, timeout: splTimeout, tries: splTries,
		})
		var refused *tftpError
		if err == nil || fatal(ctx, err) || errors.Is(err, errBadOACK) ||
			errors.As(err, &refused) && (refused.code == errNotFound || refused.code == errAccess) {
			return err
		}
		c.restart(err)
		giveUp = time.Now().Add(c.cfg.SPLGiveUp)
	}
}

func (c *client) splOptions() []option {
	if c.cfg.NoOptions {
		return nil
	}
	o := []option{{"timeout", "5"}, {"tsize", "0"}, {"blksize", strconv.Itoa(c.cfg.BlockSize)}}
	if c.cfg.Window > 1 {
		o = append(o, option{"windowsize", strconv.Itoa(c.cfg.Window)})
	}
	return o
}

// awaitLink waits for the host to bring the link up, as long as SPL does.
func (c *client) awaitLink(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.SPLWindow, errTimeout)
	defer cancel()
	for {
		up, changed := c.link.Up()
		if up {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if context.Cause(ctx) == errTimeout {
				return fmt.Errorf("the host did not bring the link up within %v", c.cfg.SPLWindow)
			}
			return ctx.Err()
		}
	}
}

// dhcp gets an address by DHCP or, if the SPL is such a one, by plain BOOTP.
func (c *client) dhcp(ctx context.Context, giveUp time.Time) (reply, error) {
	var xids []uint32
	for wait := dhcpFirst; time.Now().Before(giveUp); wait = min(2*wait, dhcpLongest) {
		xid := c.rng.Uint32()
		xids, c.xids = append(xids, xid), append(c.xids, xid)
		xids = xids[max(0, len(xids)-rememberedIDs):]
		payload, minimum := splDHCP(xid, c.mac, c.cfg.SPLVendorClass, dhcpDiscover, netip.Addr{}, netip.Addr{}), bootpFixed
		if c.cfg.BOOTP {
			payload, minimum = splBOOTP(xid, c.mac, c.cfg.SPLVendorClass), bootpMinimum
		}
		if !c.request(ctx, payload, min(sendTimeout, time.Until(giveUp))) {
			if ctx.Err() != nil {
				return reply{}, ctx.Err()
			}
			continue
		}
		c.sent()
		jitter := time.Duration((0.9 + 0.2*c.rng.Float64()) * float64(wait))
		r, err := c.awaitReply(ctx, xids, minimum, false, time.Now().Add(min(jitter, time.Until(giveUp))))
		if err == nil && !c.cfg.BOOTP {
			c.edit(func(s *Stage) { s.BOOTPLost-- })
			r, err = c.confirm(ctx, xid, r)
		}
		if err == nil {
			return r, nil
		}
		if !errors.Is(err, errTimeout) {
			return reply{}, err
		}
	}
	return reply{}, fmt.Errorf("no address within %v", c.cfg.SPLGiveUp)
}

// confirm sends the REQUEST for an offer and waits for the ACK.
func (c *client) confirm(ctx context.Context, xid uint32, r reply) (reply, error) {
	payload := splDHCP(xid, c.mac, c.cfg.SPLVendorClass, dhcpRequest, r.address, r.server)
	if !c.request(ctx, payload, sendTimeout) {
		return reply{}, errTimeout
	}
	c.sent()
	return c.awaitReply(ctx, []uint32{xid}, bootpFixed, true, time.Now().Add(dhcpAckTimeout))
}

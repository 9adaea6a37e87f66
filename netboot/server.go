package netboot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"snag/event"
)

// File is what a board is served.
type File struct {
	Stage string // the stage that events name
	Name  string // the name offered in the BOOTP reply, at most 127 bytes; the board may ask for another
	Data  []byte // not changed while served
}

// Client is what is known of who asks. It is zero for a TFTP request that no BOOTP request came before: from a
// board that kept its address.
type Client struct {
	MAC         net.HardwareAddr // the chaddr field
	VendorClass string           // option 60, as sent: any bytes; empty if it has none
	DHCP        bool             // DISCOVER or REQUEST, not plain BOOTP
}

// Config is what a server needs besides its link.
type Config struct {
	// Pick decides what a client gets; nil ignores it. It is not called concurrently.
	Pick func(Client) *File

	// Emit receives Progress (at most ten a second, and the last), Warning and Note. May be nil.
	Emit func(stage string, body event.Body)

	// Log receives what is of use for finding faults only. May be nil.
	Log *slog.Logger
}

// Result is how far a server got.
type Result struct {
	File  *File // the file that the last transfer was of; nil if there was none
	Bytes int64 // of it that the board acknowledged, in the last transfer
	Acked bool  // the board acknowledged the last block; else it vanished after that was sent

	BOOTPRequests int // BOOTP and DHCP requests that were answered
	Blocks        int // DATA packets sent, repeated ones included
	Retransmits   int // timeouts and reported gaps that made blocks or an OACK be sent again
	Restarts      int // transfers begun after the first
	Ignored       int // datagrams that were not for us or of no sense
	SendErrors    int // packets lost to a passing error of the interface

	FirstRequest time.Time // the first request answered, BOOTP or TFTP
	FirstByte    time.Time // the last transfer's begin
	LastByte     time.Time // when its last byte was acknowledged, or sent last
}

// Serve answers BOOTP, DHCP and TFTP on a link until one file was fetched whole. That includes a last block
// that was sent and not acknowledged by a client that then fell silent or whose link ended: a ROM leaves right after
// its last ACK. It returns an error, and how far it got, if ctx ends (the error wraps its cause) or the link fails. The
// sockets stay open; their deadlines are Serve's while it runs, and cleared when it returns.
func Serve(ctx context.Context, link Link, cfg Config) (Result, error) {
	if !link.Server.Addr().Is4() || !link.Client.Is4() {
		return Result{}, fmt.Errorf("netboot: server %v and client %v must be IPv4 addresses", link.Server, link.Client)
	}
	s := &server{link: link, cfg: cfg, log: cfg.Log, tftp: newConn(link.TFTP)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancelCause(ctx)
	s.stop = stop

	// Whatever ends ctx unblocks both sockets, once.
	unblocked := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(unblocked)
		_ = link.BOOTP.SetDeadline(time.Unix(1, 0))
		_ = link.TFTP.SetDeadline(time.Unix(1, 0))
	})
	var bootp sync.WaitGroup
	bootp.Go(func() { stop(s.serveBOOTP(ctx)) })
	stop(s.serveTFTP(ctx))
	bootp.Wait()
	<-unblocked
	_ = link.BOOTP.SetDeadline(time.Time{})
	_ = link.TFTP.SetDeadline(time.Time{})

	if !s.done && s.t != nil && s.t.allSent() {
		s.finish(false, time.Now())
	}
	if s.done {
		return s.res, nil
	}
	return s.res, fmt.Errorf("netboot: %s: %w", s.reached(), context.Cause(ctx))
}

// errServed ends the servers when a file was fetched whole.
var errServed = errors.New("file served")

// server is one call of Serve. The BOOTP and the TFTP loop share it.
type server struct {
	link Link
	cfg  Config
	log  *slog.Logger
	tftp *conn
	stop context.CancelCauseFunc

	mu      sync.Mutex // guards what follows; res and t also when both loops are over
	offered *File      // what the last BOOTP request was answered with
	file    *File      // what t sends
	t       *transfer
	peer    netip.AddrPort // who t sends to
	asked   string         // the request that began t
	begun   time.Time
	plain   bool      // the client refused an OACK, or does not know of any: it gets none any more
	unheard int       // how often it repeated its request in the place of an answer to one
	armed   time.Time // the TFTP socket's deadline, which is never later than the transfer's
	done    bool
	res     Result
	emitted time.Time // the last Progress
	said    [kinds]int
}

func (s *server) serveBOOTP(ctx context.Context) error {
	if err := s.link.BOOTP.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("BOOTP socket: %w", err)
	}
	buf := make([]byte, 2048)
	for bad := 0; ctx.Err() == nil; {
		n, _, err := s.link.BOOTP.ReadFrom(buf)
		if err != nil {
			if bad++; ctx.Err() == nil && !tolerable(err, bad) {
				return fmt.Errorf("reading the BOOTP socket: %w", err)
			}
			continue
		}
		bad = 0
		reply := s.bootp(buf[:n], time.Now())
		if reply == nil {
			continue
		}
		_, err = s.link.BOOTP.WriteTo(reply, &net.UDPAddr{IP: net.IPv4bcast, Port: 68})
		if err != nil && ctx.Err() == nil {
			if !transient(err) {
				return fmt.Errorf("sending a BOOTP reply: %w", err)
			}
			s.mu.Lock()
			s.lost(err)
			s.mu.Unlock()
		}
	}
	return context.Cause(ctx)
}

// tolerable reports whether reading may go on after an error, the n-th in a row.
func tolerable(err error, n int) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || transient(err) && n < 100
}

// bootp takes a datagram from the BOOTP port and returns the reply, or nil.
func (s *server) bootp(b []byte, now time.Time) []byte {
	r, err := parseRequest(b)
	if err == nil {
		err = r.forServer(s.link.Server.Addr())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.ignore("BOOTP", err.Error())
		return nil
	}
	client := r.client()
	f := s.cfg.Pick(client)
	if f == nil {
		s.ignore("BOOTP", "request of another kind of client", "mac", client.MAC, "class", quote(client.VendorClass))
		return nil
	}
	if s.t != nil && s.file.Stage != f.Stage && s.t.allSent() {
		// The client is at its next stage, so it has all of this one. It will ask again.
		s.finish(false, now)
		s.stop(errServed)
		return nil
	}
	if s.t != nil {
		s.t.pause()
	}
	s.offered = f
	s.res.BOOTPRequests++
	s.firstRequest(now)
	s.debug(kindRequest, "BOOTP request answered", "mac", client.MAC, "class", quote(client.VendorClass),
		"dhcp", client.DHCP, "xid", r.msg.TransactionID, "file", f.Name)
	return r.reply(s.link.Server, s.link.Client, f.Name)
}

func (s *server) firstRequest(now time.Time) {
	if s.res.FirstRequest.IsZero() {
		s.res.FirstRequest = now
	}
}

func (s *server) serveTFTP(ctx context.Context) error {
	buf := make([]byte, 2048)
	now := time.Now()
	s.armed = expired
	if h, ok := s.link.TFTP.(Handler); ok {
		h.Handle(func(b []byte, from netip.AddrPort) { s.handle(ctx, b, from) })
		defer h.Handle(nil)
	}
	for bad := 0; ; {
		if err := s.tick(now); err != nil {
			return err
		}
		// Only now: whoever ended ctx before may have set the deadline before.
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, from, err := s.tftp.read(buf)
		now = time.Now()
		switch {
		case err == nil:
			bad = 0
			if err := s.packet(buf[:n], from, now); err != nil {
				return err
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			s.mu.Lock()
			s.armed = expired
			s.mu.Unlock()
		default:
			if bad++; ctx.Err() == nil && !tolerable(err, bad) {
				return fmt.Errorf("reading the TFTP socket: %w", err)
			}
		}
	}
}

// tick does what is due, and has the socket's deadline be when to come again.
func (s *server) tick(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.t != nil {
		step := s.t.tick(now)
		if step == stepSend {
			s.res.Retransmits++
		}
		if err := s.do(step, now); err != nil {
			return err
		}
	}
	return s.arm()
}

// expired is a deadline that has passed.
var expired = time.Unix(1, 0)

// arm moves the socket's deadline if it has passed, or is later than the transfer's. To move it with every packet would
// cost more than a needless wake-up now and then. s.mu is held.
func (s *server) arm() error {
	var due time.Time // zero if only a packet can bring something
	if s.t != nil {
		due = s.t.due
	}
	// A deadline that is too early wakes the reader for nothing, which costs a Handler's packets more than to move it, and
	// a system's socket less.
	_, handler := s.link.TFTP.(Handler)
	if handler && !due.Equal(s.armed) || s.armed.Equal(expired) || !due.IsZero() && (s.armed.IsZero() || due.Before(s.armed)) {
		if err := s.link.TFTP.SetReadDeadline(due); err != nil {
			return fmt.Errorf("TFTP socket: %w", err)
		}
		s.armed = due
	}
	return nil
}

// handle takes a datagram from the TFTP port whose reader waits for the deadline meanwhile.
func (s *server) handle(ctx context.Context, b []byte, from netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	err := s.take(b, from, time.Now())
	if err == nil {
		err = s.arm()
	}
	if err != nil {
		s.stop(err)
	}
	if ctx.Err() != nil { // the deadline that unblocks the reader may have been there before arm's
		_ = s.link.TFTP.SetReadDeadline(expired)
	}
}

// packet takes a datagram that was read from the TFTP port.
func (s *server) packet(b []byte, from netip.AddrPort, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.take(b, from, now)
}

// take takes a datagram from the TFTP port. s.mu is held.
func (s *server) take(b []byte, from netip.AddrPort, now time.Time) error {
	if len(b) < dataHeader || !from.IsValid() {
		s.ignore("TFTP", "datagram of no sense")
		return nil
	}
	mine := s.t != nil && from == s.peer
	switch op := binary.BigEndian.Uint16(b); {
	case op == opACK && mine:
		step := s.t.ack(binary.BigEndian.Uint16(b[2:]), now)
		if step == stepSend && !s.t.clean {
			s.res.Retransmits++
		}
		return s.do(step, now)
	case op == opRRQ:
		return s.read(b, from, now)
	case op == opWRQ:
		s.ignore("TFTP", "write request")
		return s.send(errorPacket(codeAccess, "this server is read-only"), from)
	case op == opERROR && mine:
		s.warn(s.file, kindError, "the board ended the transfer of %s after %d of %d bytes: %s",
			s.file.Name, s.t.ackedBytes(), len(s.t.data), errorText(b))
		s.plain = s.plain || binary.BigEndian.Uint16(b[2:]) == codeOptions && s.t.acked < 0
		s.t = nil
	default:
		s.ignore("TFTP", "packet outside of a transfer")
	}
	return nil
}

// read takes an RRQ, and begins a transfer.
func (s *server) read(b []byte, from netip.AddrPort, now time.Time) error {
	r, err := parseReadRequest(b)
	if err != nil {
		s.ignore("TFTP", err.Error())
		return s.send(errorPacket(codeIllegal, err.Error()), from)
	}
	if s.t != nil && s.peer == from && s.t.lively(now) && now.Sub(s.begun) < settle && s.asked == string(b) {
		s.ignore("TFTP", "duplicate of the request")
		return nil
	}
	f := s.offered
	if f == nil {
		f = s.cfg.Pick(Client{})
	}
	if f == nil {
		// No error packet: it would end a board that may yet come to ask by BOOTP.
		s.ignore("TFTP", "request for a file that nothing was offered for", "name", quote(r.name))
		return nil
	}
	if r.mode != "octet" {
		s.warn(f, kindMode, "the board asked for %s in mode %s; only octet is served", quote(r.name), quote(r.mode))
		return s.send(errorPacket(codeUndefined, "only mode octet is served"), from)
	}
	if r.name != f.Name && s.say(kindName, 1) {
		s.emit(f, event.Warning{Text: fmt.Sprintf("the board asks for %s instead of %s; it gets %s all the same",
			quote(r.name), f.Name, f.Name)})
	}
	s.plain = s.plain || s.deaf(b, now)
	if s.plain {
		r = readRequest{}
	}
	if most := s.link.Largest - dataHeader; s.link.Largest > 0 && r.blksize > most {
		r.blksize = most
	}
	if s.t != nil || !s.res.FirstByte.IsZero() {
		s.res.Restarts++
		if s.t != nil && s.t.started() {
			s.warn(s.file, kindRestart, "the board began the transfer of %s again after %d of %d bytes",
				f.Name, s.t.ackedBytes(), len(s.t.data))
		}
	}
	s.t, s.peer, s.file, s.asked, s.begun = newTransfer(f.Data, &r), from, f, string(b), now
	s.res.File, s.res.Bytes, s.res.FirstByte = f, 0, now
	s.firstRequest(now)
	s.debug(kindRequest, "TFTP request", "peer", from, "name", quote(r.name), "blksize", s.t.blksize, "windowsize", s.t.window)
	return s.do(s.t.begin(now), now)
}

// deaf is told of each RRQ, and reports whether the client is one that knows of no OACK though it seems to ask for
// options: boot ROMs are known to append bytes. It repeats its request, and a server may always answer without options
// (RFC 2347).
func (s *server) deaf(b []byte, now time.Time) bool {
	const most = 2
	if s.t == nil || s.t.acked >= 0 || s.asked != string(b) {
		s.unheard = 0
	} else if now.Sub(s.begun) >= settle { // else it may be a duplicate on its way
		s.unheard++
	}
	return s.unheard >= most
}

// do does what a transfer wants. It returns errServed when the file was fetched whole.
func (s *server) do(step step, now time.Time) error {
	switch step {
	case stepSend:
		s.res.Blocks += s.t.sent - max(s.t.next-1, 0)
		err := s.tftp.writeFlight(s.t, s.peer)
		s.progress(now, false) // only now: the board waits
		return s.sent(err)
	case stepDone, stepUnacked:
		s.finish(step == stepDone, now)
		return errServed
	case stepGiveUp:
		s.warn(s.file, kindSilence, "the board fell silent after %d of %d bytes of %s; waiting for it to begin again",
			s.t.ackedBytes(), len(s.t.data), s.file.Name)
		s.t = nil
	}
	return nil
}

// finish ends the transfer as a success.
func (s *server) finish(acked bool, now time.Time) {
	s.done = true
	s.res.Acked = acked
	s.res.LastByte = now
	if !acked {
		s.res.LastByte = s.t.sentAt
		left := len(s.t.data) - s.t.ackedBytes()
		text := fmt.Sprintf("the board left, or fell silent, with the last %d bytes of %s sent and not acknowledged: taken for received", left, s.file.Name)
		if left > s.t.blksize {
			s.emit(s.file, event.Warning{Text: text + "; if it was unplugged, they were not"})
		} else { // a ROM's last ACK is easily lost
			s.emit(s.file, event.Note{Text: text})
		}
	}
	s.t.acked = s.t.last
	s.progress(now, true)
	s.t = nil
}

func (s *server) send(b []byte, to netip.AddrPort) error {
	return s.sent(s.tftp.write(b, to))
}

// sent judges the outcome of sending. The deadline is that of ctx: the loop looks at it next.
func (s *server) sent(err error) error {
	switch {
	case err == nil || errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	case transient(err):
		s.lost(err)
		return nil
	default:
		return fmt.Errorf("sending to the board: %w", err)
	}
}

// progress reports the bytes acknowledged if there are more, ten times a second or when it is the last.
func (s *server) progress(now time.Time, last bool) {
	before := s.res.Bytes
	s.res.Bytes = int64(s.t.ackedBytes())
	if !last && (s.res.Bytes == before || now.Sub(s.emitted) < 100*time.Millisecond) {
		return
	}
	s.emitted = now
	p := event.Progress{Bytes: s.res.Bytes, Total: int64(len(s.t.data))}
	if d := now.Sub(s.res.FirstByte).Seconds(); d > 0 {
		p.Rate = float64(p.Bytes) / d
	}
	s.emit(s.file, p)
}

func (s *server) emit(f *File, body event.Body) {
	if s.cfg.Emit != nil {
		stage := ""
		if f != nil {
			stage = f.Stage
		}
		s.cfg.Emit(stage, body)
	}
}

// reached says in words how far the board came.
func (s *server) reached() string {
	var b strings.Builder
	switch r := &s.res; {
	case s.t != nil:
		fmt.Fprintf(&b, "transfer of %s ended at %d of %d bytes", s.file.Name, s.t.ackedBytes(), len(s.t.data))
	case r.File != nil:
		fmt.Fprintf(&b, "the board ended the transfer of %s and did not begin again", r.File.Name)
	case r.BOOTPRequests > 0:
		fmt.Fprintf(&b, "%d BOOTP requests answered, but no TFTP request came", r.BOOTPRequests)
	default:
		b.WriteString("no BOOTP request came")
	}
	if s.res.Ignored > 0 {
		fmt.Fprintf(&b, " (%d datagrams ignored)", s.res.Ignored)
	}
	return b.String()
}

package fastboot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"snag/usb"
)

// Transport carries messages to a device and back, in order. Its methods are called by one goroutine at a time.
type Transport interface {
	// Send sends one message: a command.
	Send(ctx context.Context, message []byte) error

	// Receive receives one message that is not empty, and returns its length. A message that is longer than buf is an
	// error.
	Receive(ctx context.Context, buf []byte) (int, error)

	// Stream sends the data of a download, piece by piece, and returns how many bytes the device took. All pieces but
	// the last are as long as the first. idle bounds the time in which the device takes nothing.
	Stream(ctx context.Context, idle time.Duration, pieces iter.Seq[[]byte]) (int64, error)
}

// How long answers may take. The AOSP host waits 30 s, Snagboot 60, uuu 2 s for variables and 10 for the rest.
const (
	answerTime = 5 * time.Second
	dataIdle   = 5 * time.Second
	dataTime   = 10 * time.Second // for the status behind the data
	flashTime  = time.Minute      // and what the data take, at flashRate: NAND and NOR are erased first; over UDP U-Boot says every 30 s that it is at work
	flashRate  = 1_000_000        // bytes per second
	failTime   = time.Second      // for a FAIL that may explain why data were not taken
)

// EraseTime is how long a device may be silent while it erases.
const EraseTime = 10 * time.Minute

// WriteTime is how long a device may be silent while it writes so many bytes.
func WriteTime(n int64) time.Duration { return flashTime + time.Duration(n)*time.Second/flashRate }

// maxInfos bounds the texts that come before the end of a command, and overall the time of the command, in multiples of
// the time for one answer: each text gives the device that time anew.
const (
	maxInfos = 10_000
	overall  = 10
)

// mostDownload is the largest download that the command has digits for.
const mostDownload = 0xffffffff

// piece is how many bytes of a download are handed to the transport at once: a multiple of every packet size. AOSP's
// host and Snagboot write as much.
const piece = 256 << 10

// Client drives one device. Its methods are not to be called at the same time.
type Client struct {
	// Info is told of the texts that the device sends before a command ends, without control characters. May be nil.
	Info func(string)
	// Patience is the least time that the device may be silent over a command, whatever the command's own.
	Patience time.Duration
	// Most, if it is not zero, is the largest download that is wanted, though the device may take larger ones.
	Most int64
	// Limit is the largest download that the device takes, if it is known; Download refuses larger ones. MaxDownload
	// sets it.
	Limit int64

	transport  Transport
	buf        []byte
	downloaded int64  // size of the last download
	run        string // what runs U-Boot's commands: "UCmd:" or "oem run:"; empty: not known yet
	broken     error  // what put the client out of step
}

// New makes a client.
func New(t Transport) *Client { return &Client{transport: t, buf: make([]byte, maxReply)} }

// Do sends a command and returns the value that its OKAY has. patience bounds the time until the device says something
// (0: 5 s). The error may be a *FailError, a *ReplyError, or the transport's.
func (c *Client) Do(ctx context.Context, command string, patience time.Duration) (string, error) {
	ctx, cancel, err := c.begin(ctx, command, &patience)
	if err != nil {
		return "", err
	}
	defer cancel()
	r, err := c.finish(ctx, command, patience, okay)
	return r.text, err
}

// begin sends a command. The context that it returns bounds the whole command.
func (c *Client) begin(ctx context.Context, command string, patience *time.Duration) (context.Context, context.CancelFunc, error) {
	switch {
	case c.broken != nil:
		return nil, nil, fmt.Errorf("%s: not sent, since an earlier command went wrong: %w", command, c.broken)
	case command == "" || len(command) > maxCommand:
		return nil, nil, fmt.Errorf("fastboot command of %d bytes, expected 1 to %d", len(command), maxCommand)
	case len(command) > maxNetCommand && isUDP(c.transport):
		return nil, nil, fmt.Errorf("%.40s...: a command of %d bytes: over UDP there may be %d", command, len(command), maxNetCommand)
	case strings.ContainsFunc(command, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return nil, nil, fmt.Errorf("fastboot command %q: it has control characters", command)
	}
	if *patience <= 0 {
		*patience = answerTime
	}
	*patience = max(*patience, c.Patience)
	ctx, cancel := context.WithTimeout(ctx, overall**patience)
	short, done := context.WithTimeout(ctx, *patience)
	defer done()
	if err := c.transport.Send(short, []byte(command)); err != nil {
		cancel()
		return nil, nil, c.fault(fmt.Errorf("%s: %w", command, err))
	}
	return ctx, cancel, nil
}

func isUDP(t Transport) bool {
	_, ok := t.(*UDP)
	return ok
}

// Err is what put the client out of step with its device, so that nothing more can be sent; nil if it is in step.
func (c *Client) Err() error { return c.broken }

// fault puts the client out of step.
func (c *Client) fault(err error) error {
	c.broken = err
	return err
}

// finish receives answers until the one that ends a command, or the data phase's beginning, which is to be of status
// want.
func (c *Client) finish(ctx context.Context, command string, patience time.Duration, want string) (reply, error) {
	for range maxInfos {
		r, raw, err := c.receive(ctx, command, patience)
		if err != nil {
			return reply{}, err
		}
		switch r.status {
		case info, text:
			if c.Info != nil && r.text != "" {
				c.Info(r.text)
			}
		case fail:
			return reply{}, &FailError{command, r.text}
		case want:
			return r, nil
		default:
			return reply{}, c.fault(replyError(command, want+" or FAIL", raw))
		}
	}
	return reply{}, c.fault(fmt.Errorf("%s: more than %d texts, and no end of the command", command, maxInfos))
}

// receive receives one answer.
func (c *Client) receive(ctx context.Context, command string, patience time.Duration) (reply, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	n, err := c.transport.Receive(ctx, c.buf)
	if wrong, ok := errors.AsType[*ReplyError](err); ok {
		return reply{}, nil, c.fault(&ReplyError{command, wrong.Expected, wrong.Reply})
	}
	if err != nil {
		return reply{}, nil, c.fault(fmt.Errorf("%s: no answer: %w", command, err))
	}
	r, err := parseReply(c.buf[:n])
	if err != nil {
		return reply{}, nil, c.fault(replyError(command, "INFO, TEXT, OKAY, FAIL or DATA", c.buf[:n]))
	}
	return r, c.buf[:n], nil
}

// GetVar returns a variable. U-Boot looks for an environment variable "fastboot.NAME" first.
func (c *Client) GetVar(ctx context.Context, name string) (string, error) {
	return c.Do(ctx, "getvar:"+name, 0)
}

// Variable is one of a device's.
type Variable struct{ Name, Value string }

// GetVars lists the device's variables. U-Boot has had this since 2024. A text without a colon is a variable's name
// alone.
func (c *Client) GetVars(ctx context.Context) ([]Variable, error) {
	var all []Variable
	show := c.Info
	defer func() { c.Info = show }()
	c.Info = func(s string) {
		// Names may have colons ("partition-size:boot: 0x1000"), values seldom.
		name, value, ok := cutLast(s, ": ")
		if !ok {
			name, value, _ = cutLast(s, ":")
		}
		all = append(all, Variable{strings.TrimSpace(name), strings.TrimSpace(value)})
	}
	_, err := c.Do(ctx, "getvar:all", 0)
	return all, err
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// MaxDownload asks for the largest download, and has Download obey it from then on. A device that does not say so, or
// nothing that is a size, is not asked for anything else: 0.
func (c *Client) MaxDownload(ctx context.Context) (int64, error) {
	for _, name := range []string{"max-download-size", "downloadsize"} {
		value, err := c.GetVar(ctx, name)
		var refused *FailError
		if errors.As(err, &refused) || err == nil && value == "" {
			continue
		}
		if err != nil {
			return 0, err
		}
		n, err := ParseSize(value)
		if errors.Is(err, strconv.ErrRange) || n > mostDownload { // as a buffer without end
			n, err = mostDownload, nil
		}
		if err == nil {
			c.Limit = n
			break
		}
		if c.Info != nil {
			c.Info(fmt.Sprintf("its %s is no size: %v", name, err))
		}
	}
	if c.Most > 0 && (c.Limit == 0 || c.Limit > c.Most) {
		c.Limit = c.Most
	}
	return c.Limit, nil
}

// BlockSize is the device's variable logical-block-size, 0 if it does not tell a sensible one.
func (c *Client) BlockSize(ctx context.Context) (int64, error) {
	text, err := c.GetVar(ctx, "logical-block-size")
	if _, refused := errors.AsType[*FailError](err); refused {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := ParseSize(text)
	if err != nil || n < 512 || n > 4096 || n&(n-1) != 0 {
		return 0, nil
	}
	return n, nil
}

// Download sends size bytes to the device's buffer; progress, which may be nil, is told how many are on their way, and
// of all of them only when the device has them. It is a *SizeError if the device takes less. A reader that ends early
// is filled up with zeros, since there is no other way out of a download, and its error returned.
func (c *Client) Download(ctx context.Context, r io.Reader, size int64, progress func(int64)) error {
	return c.download(ctx, size, &source{r: r, size: size, progress: progress})
}

// DownloadBytes is Download of what is in memory.
func (c *Client) DownloadBytes(ctx context.Context, b []byte) error {
	return c.download(ctx, int64(len(b)), &source{whole: b, size: int64(len(b))})
}

func (c *Client) download(ctx context.Context, size int64, src *source) error {
	switch {
	case size <= 0 || size > mostDownload:
		return fmt.Errorf("download of %d bytes, expected 1 to %d", size, int64(mostDownload))
	case c.Limit > 0 && size > c.Limit:
		return &SizeError{Size: size, Limit: c.Limit}
	}
	command := fmt.Sprintf("download:%08x", size)
	patience := answerTime
	sent, cancel, err := c.begin(ctx, command, &patience)
	if err != nil {
		return err
	}
	defer cancel()
	c.downloaded = 0
	reply, err := c.finish(sent, command, patience, data)
	if err != nil {
		var refused *FailError
		if errors.As(err, &refused) && isNumber(refused.Text) { // U-Boot, drivers/fastboot/fb_command.c, download()
			return &SizeError{Size: size, Err: err}
		}
		return err
	}
	if reply.size != size {
		return c.fault(&ReplyError{Command: command, Expected: fmt.Sprintf("DATA%08x", size), Reply: fmt.Appendf(nil, "DATA%08x", reply.size)})
	}
	n, err := c.transport.Stream(ctx, dataIdle, src.pieces(ctx))
	if err != nil {
		err = fmt.Errorf("%s: after %d bytes of data: %w", command, n, err)
		return c.fault(c.because(ctx, command, err))
	}
	if n != size {
		return c.fault(fmt.Errorf("%s: the transport took %d bytes of data", command, n))
	}
	if src.progress != nil && src.err == nil {
		src.progress(size)
	}
	ended, cancel := context.WithTimeout(ctx, overall*dataTime)
	defer cancel()
	if _, err := c.finish(ended, command, dataTime, okay); err != nil {
		return err
	}
	if src.err != nil {
		return fmt.Errorf("download of %d bytes: after %d: %w", size, src.read, src.err)
	}
	c.downloaded = size
	return nil
}

func isNumber(s string) bool {
	_, err := ParseSize(s)
	return err == nil
}

// because looks for a FAIL of the device that may explain why it takes no more data.
func (c *Client) because(ctx context.Context, command string, err error) error {
	if ctx.Err() != nil || leaving(err) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, failTime)
	defer cancel()
	_, why := c.finish(ctx, command, failTime, okay)
	var refused *FailError
	if errors.As(why, &refused) {
		return fmt.Errorf("%w (%w)", refused, err)
	}
	return err
}

// source cuts a reader into pieces.
type source struct {
	r        io.Reader
	whole    []byte // instead of r
	size     int64
	progress func(int64)
	read     int64 // bytes that came from r
	err      error // r's
}

func (s *source) pieces(ctx context.Context) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		if s.whole != nil {
			for b := range slices.Chunk(s.whole, piece) {
				if ctx.Err() != nil || !yield(b) {
					return
				}
			}
			return
		}
		buf := make([]byte, min(piece, s.size))
		for off := int64(0); off < s.size; {
			b := buf[:min(int64(len(buf)), s.size-off)]
			if s.err == nil {
				n, err := io.ReadFull(s.r, b)
				s.read += int64(n)
				if err == io.EOF {
					err = io.ErrUnexpectedEOF
				}
				s.err = err
				clear(b[n:])
			} else {
				clear(b)
			}
			if ctx.Err() != nil || !yield(b) {
				return
			}
			off += int64(len(b))
			if s.progress != nil && s.err == nil && off < s.size {
				s.progress(off)
			}
		}
	}
}

// Flash writes the last download to a partition or, in U-Boot, to one of the names that its documentation lists.
// patience is for the device's silence meanwhile (0: what the download's size lets expect).
func (c *Client) Flash(ctx context.Context, partition string, patience time.Duration) error {
	if patience <= 0 {
		patience = WriteTime(c.downloaded)
	}
	_, err := c.Do(ctx, "flash:"+partition, patience)
	return err
}

// Erase erases a partition. patience is for the device's silence meanwhile (0: 10 minutes).
func (c *Client) Erase(ctx context.Context, partition string, patience time.Duration) error {
	if patience <= 0 {
		patience = EraseTime
	}
	_, err := c.Do(ctx, "erase:"+partition, patience)
	return err
}

// SetActive makes a slot ("a", "b") the one to boot from. U-Boot accepts it and does nothing.
func (c *Client) SetActive(ctx context.Context, slot string) error {
	_, err := c.Do(ctx, "set_active:"+slot, 0)
	return err
}

// Boot boots the last download.
func (c *Client) Boot(ctx context.Context) error { return c.leave(ctx, "boot") }

// Continue has the device go on with its normal boot.
func (c *Client) Continue(ctx context.Context) error { return c.leave(ctx, "continue") }

// Reboot resets the device. target is empty, "bootloader", "fastboot" or "recovery".
func (c *Client) Reboot(ctx context.Context, target string) error {
	if target != "" {
		target = "-" + target
	}
	return c.leave(ctx, "reboot"+target)
}

// leave sends a command that ends the session. The device may be gone before it answers.
func (c *Client) leave(ctx context.Context, command string) error {
	patience := answerTime
	sent, cancel, err := c.begin(ctx, command, &patience)
	if err != nil {
		return err
	}
	defer cancel()
	_, err = c.finish(sent, command, patience, okay)
	if err != nil && ctx.Err() == nil && leaving(err) {
		err = nil
	}
	if err == nil {
		c.broken = fmt.Errorf("the device left fastboot by %s", command)
	}
	return err
}

// leaving reports whether a transport's error is what a device's end looks like.
func leaving(err error) bool {
	for _, gone := range []error{usb.ErrGone, usb.ErrProtocol, io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNREFUSED} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}

package image

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"snag/flash/sparse"
)

// Open opens the image that name leads to: a file, a device, a FIFO, "-" for standard input, or an http or https URL.
// Its block map is read and checked, no byte of the image is. When ctx ends, reading does, with its cause.
func Open(ctx context.Context, name string, o Options) (*Image, error) {
	in, err := o.open(ctx, name)
	if err != nil {
		return nil, err
	}
	im, err := o.image(ctx, name, in)
	if err != nil {
		in.Close()
		return nil, err
	}
	return im, nil
}

// New reads an image from r, which need not be seekable. The name is for messages, and for no block map but o.Bmap's.
func New(ctx context.Context, name string, r io.Reader, o Options) (*Image, error) {
	in := &input{Reader: r, size: -1, pipe: true}
	if o.Bmap == "" {
		o.NoBmap = true
	}
	return o.image(ctx, name, in)
}

// input is an image as it is stored.
type input struct {
	io.Reader
	io.Closer          // nil if there is nothing to close
	file      *os.File // if it can be read anywhere
	device    bool     // and may be larger than its image
	size      int64    // -1: unknown
	pipe      bool
}

func (in *input) Close() error {
	if in.Closer != nil {
		return in.Closer.Close()
	}
	return nil
}

// open opens a file or URL.
func (o *Options) open(ctx context.Context, name string) (*input, error) {
	switch {
	case name == "-":
		return &input{Reader: os.Stdin, size: -1, pipe: true}, nil
	case IsURL(name):
		return o.get(ctx, name)
	}
	// A FIFO is open once somebody writes to it.
	type opened struct {
		f   *os.File
		err error
	}
	c := make(chan opened, 1)
	go func() {
		f, err := os.Open(name)
		c <- opened{f, err}
	}()
	var f *os.File
	select {
	case got := <-c:
		if got.err != nil {
			return nil, got.err
		}
		f = got.f
	case <-ctx.Done():
		return nil, fmt.Errorf("opening %s: %w", name, context.Cause(ctx))
	}
	in := &input{Reader: f, Closer: f, size: -1}
	st, err := f.Stat()
	switch {
	case err != nil:
	case st.IsDir():
		err = fmt.Errorf("%s is a directory", name)
	case st.Mode().IsRegular():
		in.file, in.size = f, st.Size()
	case st.Mode()&(fs.ModeDevice|fs.ModeCharDevice) == fs.ModeDevice:
		in.file, in.device = f, true
		if in.size, err = f.Seek(0, io.SeekEnd); err == nil {
			_, err = f.Seek(0, io.SeekStart)
		}
	default:
		in.pipe = true
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return in, nil
}

// IsURL reports whether [Open] takes a name for that of a file on an HTTP server.
func IsURL(name string) bool {
	return strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://")
}

// statusError is an answer of a server that is not the file.
type statusError struct {
	url    string
	status int
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s: the server answers %d %s", e.url, e.status, http.StatusText(e.status))
}

func (e *statusError) Is(target error) bool {
	// 403 is what object stores answer if there is no such object and its place may not be listed.
	return target == fs.ErrNotExist && (e.status == http.StatusNotFound || e.status == http.StatusGone || e.status == http.StatusForbidden)
}

// silence is how long a server may send nothing.
const silence = time.Minute

func (o *Options) get(ctx context.Context, name string) (*input, error) {
	shown := name
	if u, err := url.Parse(name); err == nil {
		shown = u.Redacted()
	}
	client := o.Client
	if client == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.DisableCompression = true // what is compressed is the image's, not the connection's
		transport.ResponseHeaderTimeout = silence
		transport.DisableKeepAlives = true // it is used once
		client = &http.Client{Transport: transport}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, name, nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp, err := client.Do(req)
	if err == nil && resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		err = &statusError{shown, resp.StatusCode}
	} else if failed, ok := errors.AsType[*url.Error](err); ok { // which names where the last redirection led to
		err = fmt.Errorf("%s: %w", shown, failed.Err)
		if failed.Err == io.EOF {
			err = fmt.Errorf("%s: the server has closed the connection without an answer", shown)
		}
	}
	if err != nil {
		cancel(nil)
		return nil, err
	}
	body := &body{ReadCloser: resp.Body, cancel: cancel, ctx: ctx}
	body.timer = time.AfterFunc(silence, func() { cancel(fmt.Errorf("%s: the server has sent nothing for %v", shown, silence)) })
	return &input{Reader: body, Closer: body, size: resp.ContentLength}, nil
}

// body is a server's answer, which must not fall silent.
type body struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

func (b *body) Read(p []byte) (int, error) {
	b.timer.Reset(silence)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop() // nobody reading is no silence
	if err != nil && b.ctx.Err() != nil {
		err = context.Cause(b.ctx)
	}
	return n, err
}

func (b *body) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.ReadCloser.Close()
}

// counter counts the bytes read.
type counter struct {
	r io.Reader
	n atomic.Int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// image finds out what in is, and reads its block map.
func (o *Options) image(ctx context.Context, name string, in *input) (*Image, error) {
	im := &Image{Name: name, Format: "raw", Size: -1, BlockSize: 1, in: in, pipe: in.pipe, length: PieceSize}
	if u, err := url.Parse(name); IsURL(name) && err == nil {
		im.Name = u.Redacted()
	}
	err := o.detect(im, in)
	if err != nil {
		err = fmt.Errorf("%s: %w", im.Name, err)
	} else if o.NoBmap && o.Keyring != "" {
		err = fmt.Errorf("%s: without a block map no signature can be checked", im.Name)
	} else if !o.NoBmap {
		err = o.findMap(ctx, im, name, in)
	}
	if err != nil {
		im.release()
		return nil, err
	}
	if im.zstd != nil && im.vouched() {
		im.zstd.trust.Store(true)
	}
	im.ctx, im.cancel = context.WithCancelCause(ctx)
	return im, nil
}

// detect finds out what in is by its first bytes.
func (o *Options) detect(im *Image, in *input) error {
	head, rest, err := peek(in.Reader)
	if err != nil {
		return err
	}
	if IsURL(im.Name) && !o.AsIs && webPage(head) {
		return errors.New("the server sends a web page, not an image: is a login needed?")
	}
	if c := identify(head); o.AsIs {
	} else if c != nil && c.open == nil {
		return c.refuse()
	} else if c != nil {
		count := &counter{r: rest}
		z, closer, err := c.open(bufio.NewReaderSize(count, 1<<18))
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, noEOF(err))
		}
		im.closer = closer
		im.zstd, _ = z.(*zstdReader)
		im.Compression, in.size, in.file = c.name, -1, nil
		if head, rest, err = peek(&decompressed{r: z, in: count, name: c.name}); err != nil {
			return err
		}
		if inner := identify(head); inner != nil {
			return fmt.Errorf("a %s file within %s: unpack it first", inner.name, c.name)
		}
	} else if err := checkName(im.Name); err != nil {
		return err
	}
	if err := virtualDisk(head); err != nil && !o.AsIs {
		return err
	}
	if bytes.HasPrefix(head, []byte(sparse.Magic)) && !o.AsIs {
		if in.file != nil {
			if _, err := in.file.Seek(0, io.SeekStart); err != nil {
				return err
			}
			rest = in.file
		} else {
			rest = bufio.NewReaderSize(rest, 1<<16)
		}
		r, err := sparse.NewReader(rest)
		if err != nil {
			return err
		}
		if r.Size() == 0 {
			return errors.New("the image is empty: a sparse image of no blocks")
		}
		im.Format, im.Size, im.BlockSize = "Android sparse", r.Size(), r.BlockSize
		im.src = &sparseSource{r: r, tail: rest}
		return nil
	}
	im.Size = in.size
	if in.file != nil {
		im.src = &fileSource{f: in.file, size: in.size}
	} else {
		im.src = &streamSource{r: rest, size: in.size}
	}
	if im.Size == 0 || len(head) == 0 {
		return errors.New("the image is empty")
	}
	return nil
}

// webPage reports whether a file begins as HTML does.
func webPage(head []byte) bool {
	text := bytes.ToLower(bytes.TrimSpace(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf"))))
	return bytes.HasPrefix(text, []byte("<!doctype html")) || bytes.HasPrefix(text, []byte("<html"))
}

// peek returns the first bytes of r, and a reader of all of them.
func peek(r io.Reader) ([]byte, io.Reader, error) {
	head := make([]byte, headSize)
	n, err := io.ReadFull(r, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, nil, err
	}
	return head[:n], &peeked{head[:n], r}, nil
}

// peeked is a reader of which the first bytes are known.
type peeked struct {
	head []byte
	r    io.Reader
}

func (p *peeked) Read(b []byte) (int, error) {
	if len(p.head) == 0 {
		return p.r.Read(b)
	}
	n := copy(b, p.head)
	p.head = p.head[n:]
	return n, nil
}

func (p *peeked) run() (v byte, n int64) {
	if r, ok := p.r.(runner); ok && len(p.head) == 0 {
		return r.run()
	}
	return 0, 0
}

func (p *peeked) skip(n int64) { p.r.(runner).skip(n) }

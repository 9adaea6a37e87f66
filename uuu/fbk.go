package uuu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"snag/usb/fastboot"
)

// The commands of a Linux kernel made for flashing, whose "uuc" speaks fastboot's messages with words of its own
// (libuuu/fastboot.cpp):
//
//	UCmd:TEXT   a shell runs it, then OKAY or FAIL
//	ACmd:TEXT   a shell begins to run it, OKAY
//	Sync        waits for the last ACmd
//	WOpen:PATH  opens a file for writing, "-": the input of the last ACmd; FAIL "DIR" for a directory
//	donwload:%08X  (sic) DATA, as many bytes, OKAY; FAIL "EPIPE": who read them has ended
//	ROpen:PATH  opens a file for reading; OKAY and its length in hexadecimal, 0: until there is no more
//	upload      DATA and as many bytes to the host, OKAY
//	Close

// shellTime is how long a shell's command may take if the line does not say: uuu waits without end.
const shellTime = 10 * time.Minute

// copyPiece is what goes at a time.
const copyPiece = 16 << 10

// kernelCommand parses FBK's commands; ok is false if there is none of that name.
func (s *Script) kernelCommand(name string, w word, text string) (command, bool, error) {
	rest := tail(text, w)
	switch name {
	case "ucmd", "acmd":
		if rest == "" {
			return nil, true, w.errorf("%s: expected a command of the board's shell", w.text)
		}
		if name == "ucmd" {
			return plain{"UCmd:" + rest, shellTime}, true, nil
		}
		return plain{"ACmd:" + rest, commandTime}, true, nil
	case "sync":
		return plain{"Sync", shellTime}, true, nil
	case "ucp":
		o, err := parseOptions(w, text, nil)
		if err == nil {
			err = o.words(2, 2, "a source and a destination")
		}
		if err != nil {
			return nil, true, err
		}
		from, fromBoard := remote(o.rest[0].text)
		to, toBoard := remote(o.rest[1].text)
		if fromBoard == toBoard {
			return nil, true, o.rest[0].errorf("ucp: expected one path of the board's, which begins with T:")
		}
		if fromBoard {
			return receive{from, s.files.path(to)}, true, nil
		}
		return send{from, to}, true, s.files.check(o.rest[0])
	}
	return nil, false, nil
}

// remote tells whether a path is the board's.
func remote(p string) (string, bool) {
	if len(p) > 2 && (p[0] == 'T' || p[0] == 't') && p[1] == ':' {
		return p[2:], true
	}
	return p, false
}

// send is "ucp FILE T:PATH".
type send struct{ file, to string }

func (c send) sends(s *Script) []string {
	return []string{"WOpen:" + c.to, fmt.Sprintf("for each %d bytes of %s: donwload:", copyPiece, c.file), "Close"}
}

func (c send) run(ctx context.Context, x *session) error {
	if _, err := x.open(ctx); err != nil {
		return err
	}
	f, err := x.script.files.open(c.file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = x.do(ctx, "WOpen:"+c.to, commandTime)
	if refused, ok := errors.AsType[*fastboot.FailError](err); ok && refused.Text == "DIR" {
		_, err = x.do(ctx, "WOpen:"+path.Join(c.to, path.Base(filepath.ToSlash(c.file))), commandTime)
	}
	if err != nil {
		return err
	}
	t := x.begin(c.file, max(f.size, 0))
	buf := make([]byte, copyPiece)
	for sent := int64(0); ; {
		n, err := io.ReadFull(f, buf)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return fmt.Errorf("%s: %w", c.file, err)
		}
		if n == 0 {
			break
		}
		if err := x.sendPiece(ctx, buf[:n]); err != nil {
			if refused, ok := errors.AsType[*fastboot.FailError](err); ok && refused.Text == "EPIPE" {
				return fmt.Errorf("after %d bytes: the board's command that reads %s has ended", sent, c.to)
			}
			return err
		}
		sent += int64(n)
		t.Total = max(f.size, sent)
		t.At(sent)
	}
	if _, err := x.do(ctx, "Close", shellTime); err != nil {
		return err
	}
	t.Done()
	return nil
}

// exchange sends a command and takes answers, up to one of a status.
func (x *session) exchange(ctx context.Context, command string, status string) (string, error) {
	if command != "" {
		if err := x.wire.Send(ctx, []byte(command)); err != nil {
			return "", err
		}
	}
	buf := make([]byte, 4096)
	const most = 1000 // texts
	for range most {
		n, err := x.wire.Receive(ctx, buf)
		if err != nil {
			return "", fmt.Errorf("no answer: %w", err)
		}
		text := string(buf[4:max(n, 4)])
		switch got := string(buf[:min(n, 4)]); got {
		case status:
			return text, nil
		case "FAIL":
			return "", fastboot.Fail(command, text)
		case "INFO", "TEXT":
		default:
			return "", fmt.Errorf("expected %s or FAIL, got %.32q", status, buf[:n])
		}
	}
	return "", fmt.Errorf("more than %d texts", most)
}

// sendPiece sends a piece of a file.
func (x *session) sendPiece(ctx context.Context, b []byte) error {
	ctx, cancel := context.WithTimeout(ctx, x.patience(shellTime))
	defer cancel()
	command := fmt.Sprintf("donwload:%08X", len(b))
	size, err := x.exchange(ctx, command, "DATA")
	if err != nil {
		return err
	}
	if n, err := strconv.ParseUint(size, 16, 32); err != nil || n != uint64(len(b)) {
		return fmt.Errorf("%s: expected DATA%08X, got DATA%.32q", command, len(b), size)
	}
	one := iter.Seq[[]byte](func(yield func([]byte) bool) { yield(b) })
	if _, err := x.wire.Stream(ctx, x.patience(shellTime), one); err != nil {
		return err
	}
	_, err = x.exchange(ctx, "", "OKAY")
	return err
}

// receive is "ucp T:PATH FILE".
type receive struct{ from, file string }

func (c receive) sends(*Script) []string {
	return []string{"ROpen:" + c.from, "upload, until all is there", "Close"}
}

func (c receive) run(ctx context.Context, x *session) (err error) {
	if _, err := x.open(ctx); err != nil {
		return err
	}
	answer, err := x.do(ctx, "ROpen:"+c.from, commandTime)
	if err != nil {
		return err
	}
	total, _ := strconv.ParseInt(strings.TrimSpace(answer), 16, 63)
	name := c.file
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		name = filepath.Join(name, path.Base(c.from))
	}
	out, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	t := x.begin(c.from, total)
	for got := int64(0); total == 0 || got < total; {
		b, err := x.receivePiece(ctx)
		if err != nil {
			return err
		}
		if len(b) == 0 {
			break
		}
		if _, err := out.Write(b); err != nil {
			return err
		}
		got += int64(len(b))
		t.Total = max(total, got)
		t.At(got)
	}
	if t.Total < total {
		return fmt.Errorf("%s: %d of its %d bytes came", c.from, t.Total, total)
	}
	if _, err := x.do(ctx, "Close", commandTime); err != nil {
		return err
	}
	t.Done()
	return nil
}

// receivePiece asks for the next piece of a file.
func (x *session) receivePiece(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, x.patience(shellTime))
	defer cancel()
	text, err := x.exchange(ctx, "upload", "DATA")
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(text, 16, 32)
	const most = 16 << 20
	if err != nil || n > most {
		return nil, fmt.Errorf("upload: expected DATA and a length of at most %#x, got %.32q", most, text)
	}
	b := make([]byte, 0, n)
	for buf := make([]byte, n+1024); uint64(len(b)) < n; {
		got, err := x.wire.Receive(ctx, buf)
		if err != nil {
			return nil, err
		}
		b = append(b, buf[:got]...)
	}
	if uint64(len(b)) > n {
		return nil, fmt.Errorf("upload: %d bytes, expected %d", len(b), n)
	}
	_, err = x.exchange(ctx, "", "OKAY")
	return b, err
}

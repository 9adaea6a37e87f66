package fastboot

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxReply bounds an answer. The AOSP document allows 256 bytes, older ones and U-Boot 64.
const maxReply = 4096

// maxCommand bounds a command (AOSP). U-Boot's USB gadget takes one byte less, its UDP server 64, its TCP server about 66.
const maxCommand = 4095

// The statuses.
const (
	info = "INFO"
	text = "TEXT"
	okay = "OKAY"
	fail = "FAIL"
	data = "DATA"
)

// reply is one answer.
type reply struct {
	status string
	text   string // without control characters
	size   int64  // of DATA
}

// errReply says that an answer is none of the protocol.
var errReply = errors.New("no fastboot answer")

func parseReply(b []byte) (reply, error) {
	if len(b) < 4 || len(b) > maxReply {
		return reply{}, errReply
	}
	r := reply{status: string(b[:4])}
	switch rest := b[4:]; r.status {
	case info, text, okay, fail:
		r.text = printable(rest)
	case data:
		digits := bytes.TrimRight(rest, "\x00")
		n, err := strconv.ParseUint(string(digits), 16, 32)
		if err != nil || len(digits) != 8 {
			return reply{}, errReply
		}
		r.size = int64(n)
	default:
		return reply{}, errReply
	}
	return r, nil
}

// isStatus reports whether a packet begins an answer.
func isStatus(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	switch string(b[:4]) {
	case info, text, okay, fail, data:
		return true
	}
	return false
}

// printable drops from a device's text what would not show, or act on a terminal.
func printable(b []byte) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n':
			return ' '
		case r == utf8.RuneError || !unicode.IsPrint(r):
			return -1
		}
		return r
	}, string(b)))
}

// ErrUnsupported is what a FAIL means that says that the device does not know the command, or was built without it.
var ErrUnsupported = errors.New("the device does not have this command")

// FailError is a device's FAIL.
type FailError struct {
	Command string
	Text    string // the reason, without control characters; may be empty
}

// Fail makes a FailError of a device's text as it came.
func Fail(command, text string) *FailError { return &FailError{command, printable([]byte(text))} }

func (e *FailError) Error() string {
	if e.Text == "" {
		return fmt.Sprintf("%s: the device answers FAIL, without a reason", e.Command)
	}
	return fmt.Sprintf("%s: the device answers FAIL: %s", e.Command, e.Text)
}

// Is makes FAILs of commands that are not there ErrUnsupported. U-Boot says "unrecognized command" to unknown
// commands and "Unsupported command" to those that were left out of the build.
func (e *FailError) Is(target error) bool {
	if target != ErrUnsupported {
		return false
	}
	t := strings.ToLower(e.Text)
	for _, s := range []string{"unrecognized command", "unsupported command", "unknown command"} {
		if strings.Contains(t, s) {
			return true
		}
	}
	return false
}

// ReplyError is an answer that the protocol does not have, or not there.
type ReplyError struct {
	Command  string
	Expected string
	Reply    []byte // the first bytes of it
}

func (e *ReplyError) Error() string {
	s := fmt.Sprintf("%s: expected %s, got ", e.Command, e.Expected)
	if len(e.Reply) == 0 {
		return s + "nothing"
	}
	s += fmt.Sprintf("% x", e.Reply)
	if p := printable(e.Reply); p != "" {
		s += fmt.Sprintf(" (%q)", p)
	}
	return s
}

// replyError keeps the first bytes of an answer.
func replyError(command, expected string, b []byte) *ReplyError {
	return &ReplyError{Command: command, Expected: expected, Reply: bytes.Clone(b[:min(len(b), 32)])}
}

// tooLong is the error for a message that begins with b and does not fit into n bytes.
func tooLong(b []byte, n int) *ReplyError {
	return replyError("receive", fmt.Sprintf("a message of %d bytes at most", n), b)
}

// SizeError says that a download is larger than the device's buffer.
type SizeError struct {
	Size  int64
	Limit int64 // what the device takes; 0: it did not say
	Err   error // the device's FAIL; nil: it was not asked
}

func (e *SizeError) Error() string {
	if e.Limit == 0 {
		return fmt.Sprintf("download of %d bytes: larger than the device's buffer: %v", e.Size, e.Err)
	}
	return fmt.Sprintf("download of %d bytes: the device takes %d at most (max-download-size)", e.Size, e.Limit)
}

func (e *SizeError) Unwrap() error { return e.Err }

// ParseSize reads a size as devices write it: "0x" and hexadecimal digits, or decimal ones (AOSP's host reads
// max-download-size so); digits with letters among them can only be hexadecimal.
func ParseSize(s string) (int64, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	base := 10
	if rest, ok := strings.CutPrefix(s, "0x"); ok {
		s, base = rest, 16
	} else if strings.ContainsAny(s, "abcdef") {
		base = 16
	}
	n, err := strconv.ParseUint(s, base, 63)
	if err != nil {
		return 0, fmt.Errorf("size %.40q: %w", s, errors.Unwrap(err))
	}
	return int64(n), nil
}

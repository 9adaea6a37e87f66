package xmodem

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// scripted is a line whose other end answers writes from a script. It is made for bubbles of
// testing/synctest: a Read with nothing to return sleeps.
type scripted struct {
	// answer returns what comes back for the n-th write (from 0), and when.
	answer func(n int, b []byte) (time.Duration, string)

	mu      sync.Mutex
	in      []byte
	timeout time.Duration
	writes  [][]byte
}

func (p *scripted) SetReadTimeout(d time.Duration) error { p.timeout = d; return nil }

func (p *scripted) ResetInputBuffer() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.in = nil
	return nil
}

func (p *scripted) Read(b []byte) (int, error) {
	for deadline := time.Now().Add(p.timeout); ; time.Sleep(10 * time.Millisecond) {
		p.mu.Lock()
		n := copy(b, p.in)
		p.in = p.in[n:]
		p.mu.Unlock()
		if n > 0 || !time.Now().Before(deadline) {
			return n, nil
		}
	}
}

func (p *scripted) Write(b []byte) (int, error) {
	after, s := p.answer(len(p.writes), b)
	p.writes = append(p.writes, bytes.Clone(b))
	time.AfterFunc(after, func() { p.arrive(s) })
	return len(b), nil
}

func (p *scripted) arrive(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.in = append(p.in, s...)
}

// script answers each write with the next of answers, 50 ms later; the last one goes on for ever.
func script(answers ...string) *scripted {
	return &scripted{answer: func(n int, _ []byte) (time.Duration, string) {
		return 50 * time.Millisecond, answers[min(n, len(answers)-1)]
	}}
}

// sent names what was written: "1/128" a block, "EOT", "CAN".
func sent(p *scripted) string {
	var out []string
	for _, w := range p.writes {
		switch {
		case len(w) == 1 && w[0] == eot:
			out = append(out, "EOT")
		case w[0] == can:
			out = append(out, "CAN")
		case len(w) == 3+128+2:
			out = append(out, string('0'+w[1]))
		case len(w) == 3+1024+2:
			out = append(out, string('0'+w[1])+"k")
		default:
			out = append(out, "?")
		}
	}
	return strings.Join(out, " ")
}

func TestXMODEM(t *testing.T) {
	const A, N, X = "\x06", "\x15", "\x18"
	for _, tt := range []struct {
		name    string
		size    int
		block   int
		answers []string
		want    string // what was sent
		err     string // a part of the error
		retries int
	}{
		{"short blocks", 300, 128, []string{A}, "1 2 3 EOT", "", 0},
		{"long blocks, short rest", 2048 + 128, 1024, []string{A}, "1k 2k 3 EOT", "", 0},
		{"long blocks, long rest", 1024 + 129, 1024, []string{A}, "1k 2k EOT", "", 0},
		{"refused once", 200, 128, []string{A, N, A}, "1 2 2 EOT", "", 1},
		{"first EOT refused", 100, 128, []string{A, N, A}, "1 EOT EOT", "", 0},
		{"U-Boot refuses with C", 200, 128, []string{A, "C", A}, "1 2 2 EOT", "", 1},
		{"stale ping before the first answer", 100, 128, []string{"CC" + A, A}, "1 EOT", "", 0},
		{"answer lost", 100, 128, []string{"", A}, "1 1 EOT", "", 1},
		{"noise around the answers", 200, 128, []string{"zz\x00" + A, "hello" + A, "\xff" + A}, "1 2 EOT", "", 0},
		{"one CAN is noise", 200, 128, []string{X + "." + X + A, A}, "1 2 EOT", "", 0},
		{"cancelled", 200, 128, []string{A, X + X}, "1 2", "cancelled the transfer", 0},
		{"cancelled at the end", 100, 128, []string{A, X + X}, "1 EOT", "cancelled the transfer", 0},
		{"refused for ever", 200, 128, []string{A, N}, "1 2 2 2 2 2 2 2 2 2 2 CAN", "block 2, sent 10 times: expected ACK, got NAK (128 of 200 bytes", 9},
		{"silent", 100, 128, []string{""}, "1 1 1 1 1 1 1 1 1 1 CAN", "got nothing", 9},
		{"silent at the end", 100, 128, []string{A, ""}, "1 EOT EOT EOT EOT EOT EOT EOT EOT EOT EOT CAN", "end of file sent 10 times", 8},
		{"ACK of EOT lost, next stage pings", 100, 128, []string{A, "", "CCC"}, "1 EOT EOT", "", 0},
		{"nothing to send", 0, 128, []string{A}, "", "empty", 0},
		{"bad block size", 1, 64, []string{A}, "CAN", "block size 64", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := script(tt.answers...)
				s := NewSender(p)
				last := 0
				err := s.SendXMODEM(t.Context(), make([]byte, tt.size), Options{BlockSize: tt.block, Progress: func(n int) { last = n }})
				if got := sent(p); got != tt.want {
					t.Errorf("sent %s, want %s", got, tt.want)
				}
				if s.Retries() != tt.retries {
					t.Errorf("%d retries, want %d", s.Retries(), tt.retries)
				}
				if tt.err == "" && (err != nil || last != tt.size) {
					t.Errorf("error %v, progress %d of %d", err, last, tt.size)
				}
				if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
			})
		})
	}
}

func TestYMODEM(t *testing.T) {
	const A, N = "\x06", "\x15"
	for _, tt := range []struct {
		name    string
		answers []string
		want    string
		err     string
	}{
		{"as Forsberg has it", []string{A + "C", A, A, N, A + "C", A}, "0 1k 2 EOT EOT 0", ""},
		{"U-Boot: no C after the header, two ACKs and a C after EOT", []string{A, A, A, A + A + "C", A}, "0 1k 2 EOT 0", ""},
		{"header refused", []string{N, A + "C", A}, "0 0 1k 2 EOT 0", ""},
		{"no answer to the end of the batch", []string{A + "C", A, A, A, ""}, "0 1k 2 EOT 0 0 0", ""},
		{"U-Boot's messages instead", []string{A + "C", A, A, A, "U-Boot 2026.01 (Board: CCC)"}, "0 1k 2 EOT 0 0 0", ""},
		{"header never taken", []string{N}, "0 0 0 0 0 0 0 0 0 0 CAN", "block 0, sent 10 times"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := script(tt.answers...)
				err := NewSender(p).SendYMODEM(t.Context(), "dir/u-boot.img", make([]byte, 1100), Options{BlockSize: Block1K})
				if got := sent(p); got != tt.want {
					t.Errorf("sent %s, want %s", got, tt.want)
				}
				if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				if got := p.writes[0][3:18]; string(got) != "u-boot.img\x001100" {
					t.Errorf("header %q", got)
				}
			})
		})
	}
}

// A repeated block is acknowledged twice: the second ACK must not count for the next block.
func TestLateAnswerIsNotTheNextBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &scripted{answer: func(n int, b []byte) (time.Duration, string) {
			if n == 0 {
				return answerTimeout + 20*time.Millisecond, "\x06"
			}
			return 50 * time.Millisecond, [...]string{"", "\x06", "\x15", "\x06", "\x06"}[n]
		}}
		if err := NewSender(p).SendXMODEM(t.Context(), make([]byte, 200), Options{BlockSize: 128}); err != nil {
			t.Error(err)
		}
		if got := sent(p); got != "1 1 2 2 EOT" {
			t.Errorf("sent %s", got)
		}
	})
}

func TestBlock(t *testing.T) {
	b := appendBlock(nil, 3, []byte("123456789"), 128, padding)
	if len(b) != 133 || b[0] != soh || b[1] != 3 || b[2] != 0xfc || b[12] != padding || b[130] != padding {
		t.Errorf("block % x", b)
	}
	if crc := crc16([]byte("123456789")); crc != 0x31c3 { // the check value of CRC-16/XMODEM
		t.Errorf("crc %04x", crc)
	}
	if crc16(b[3:]) != 0 {
		t.Error("the CRC over data and CRC is not 0")
	}
}

func TestHeaderNames(t *testing.T) {
	for _, name := range []string{"", "/", "a\x00b", strings.Repeat("x", maxName+1)} {
		if h, err := header(name, 1); err == nil {
			t.Errorf("%q: header %q", name, h)
		}
	}
}

func TestPings(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		ok       bool
		got      string
	}{
		{"three", "CCC", true, ""},
		{"banner first", "U-Boot SPL 2026.01 CPU: AM335X CC\r\nCCC", true, ""},
		{"never three", "CC CC CC", false, `8 bytes, 6 of them 'C', ending in "CC CC CC"`},
		{"nothing", "", false, "nothing"},
		{"wants sums", "\x15\x15\x15", false, `3 bytes, 0 of them 'C', ending in "\x15\x15\x15"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := script("")
				p.arrive("CCC") // stale
				s := NewSender(p)
				for i, c := range tt.in {
					time.AfterFunc(time.Duration(i+1)*time.Second, func() { p.arrive(string(c)) })
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				err := s.AwaitPings(ctx, 3, true)
				if tt.ok {
					if err != nil {
						t.Error(err)
					}
					return
				}
				var silence *SilenceError
				if !errors.As(err, &silence) || !errors.Is(err, context.DeadlineExceeded) || silence.Got() != tt.got {
					t.Errorf("error %v, want %s", err, tt.got)
				}
			})
		})
	}
}

// deaf never takes a write and never has a byte.
type deaf struct{ closed chan struct{} }

func (deaf) SetReadTimeout(time.Duration) error { return nil }
func (deaf) ResetInputBuffer() error            { return nil }
func (deaf) Read([]byte) (int, error)           { time.Sleep(poll); return 0, nil }
func (d deaf) Write([]byte) (int, error)        { <-d.closed; return 0, io.ErrClosedPipe }

func TestWriteThatBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := deaf{make(chan struct{})}
		defer close(d.closed)
		err := NewSender(d).SendXMODEM(t.Context(), []byte{1}, Options{BlockSize: 128})
		if err == nil || !strings.Contains(err.Error(), "133 bytes not taken within 10s") {
			t.Error(err)
		}
	})
}

func TestContextEndsATransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		err := NewSender(script("")).SendXMODEM(ctx, []byte{1}, Options{BlockSize: 128})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if d := time.Since(start); d > 3*time.Second+poll {
			t.Errorf("ended after %v", d)
		}
	})
}

// FuzzReceiver lets the receiver say anything: no transfer may panic or outlast its retries.
func FuzzReceiver(f *testing.F) {
	f.Add([]byte("\x06\x06\x06\x06"), byte(1), true)
	f.Add([]byte("\x06C\x06\x06\x15\x06C\x06"), byte(1), true)
	f.Add([]byte("CCC\x15\x15\x06\x18\x06"), byte(2), false)
	f.Add([]byte("\x18\x18"), byte(1), false)
	f.Add([]byte("banner C C\x06\x06\x06\x06"), byte(20), false)
	f.Add([]byte(""), byte(0), false)
	data := make([]byte, 3000)
	f.Fuzz(func(t *testing.T, in []byte, step byte, y bool) {
		synctest.Test(t, func(t *testing.T) {
			p := &scripted{answer: func(n int, _ []byte) (time.Duration, string) {
				k := min(len(in), int(step))
				a := in[:k]
				in = in[k:]
				return time.Duration(step) * 10 * time.Millisecond, string(a)
			}}
			s := NewSender(p)
			start := time.Now()
			var err error
			if y {
				err = s.SendYMODEM(t.Context(), "f", data, Options{BlockSize: Block1K})
			} else {
				err = s.SendXMODEM(t.Context(), data, Options{BlockSize: Block1K})
			}
			// header, three blocks and EOT, each at most ten times
			if d := time.Since(start); d > 5*maxTries*(answerTimeout+lateAnswer)+time.Minute {
				t.Errorf("took %v", d)
			}
			if err == nil && !y && !bytes.Contains(bytes.Join(p.writes, nil), []byte{eot}) {
				t.Error("done without EOT")
			}
		})
	})
}

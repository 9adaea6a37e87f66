package qemu

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// peer is a stub's other end: it has what QEMU says, takes everything, and ends with it.
type peer struct {
	net.Conn
	says io.Reader
	got  bytes.Buffer
}

func (p *peer) Read(b []byte) (int, error)    { return p.says.Read(b) }
func (p *peer) Write(b []byte) (int, error)   { return p.got.Write(b) }
func (p *peer) SetDeadline(t time.Time) error { return nil }

func TestStub(t *testing.T) {
	read := func(s *stub) error {
		var b [4]byte
		err := s.readMemory(0x10, b[:])
		if err == nil && string(b[:]) != "\x01\x02\x03\x04" {
			t.Errorf("read % x", b)
		}
		return err
	}
	write := func(s *stub) error { return s.writeMemory(0x10, []byte{0xaa}) }
	for _, test := range []struct {
		name  string
		do    func(*stub) error
		says  string
		heard string
		want  string // in the error
	}{
		{"read", read, "+$01020304#8a", "$m10,4#2e+", ""},
		{"asked to repeat", read, "-+$01020304#8a", "$m10,4#2e$m10,4#2e+", ""},
		{"damaged answer", read, "+$01020305#8a$01020304#8a", "$m10,4#2e-+", ""},
		{"sum that is no number", read, "+$01020304#zz$01020304#8a", "$m10,4#2e-+", ""},
		{"always damaged", read, "+" + strings.Repeat("$01020305#8a", 3), "", "wrong sum"},
		{"always refused", read, "---", "", "refuses a packet 3 times"},
		{"too little", read, "+$010203#26", "", `with "010203"`},
		{"no number", read, "+$0102030x#ce", "", `with "0102030x"`},
		{"error", read, "+$E14#aa", "", `reading 4 bytes at 0x10: refused by QEMU's debugger stub with "E14"`},
		{"unknown command", write, "+$#00", "", "writing 1 bytes at 0x10: refused by QEMU's debugger stub, which does not know the command"},
		{"write", write, "+$OK#9a", "$M10,1:aa#07+", ""},
		{"escaped", write, "+$O}k#37", "$M10,1:aa#07+", ""},
		{"abbreviated", read, "+$0* #7a", "", "abbreviated"},
		{"no packet", read, "+OK", "", "begins a packet with 'O'"},
		{"no acknowledgement", read, "$OK#9a", "", "acknowledges with '$'"},
		{"endless", read, "+$" + strings.Repeat("0", 1<<20), "", bufio.ErrBufferFull.Error()},
		{"ends", read, "+$01", "", "EOF"},
		{"ends in the sum", read, "+$01020304#8", "", "EOF"},
		{"registers", (*stub).prepare, "+$m<a/#39+$l>#aa+$OK#9a",
			"$qXfer:features:read:target.xml:0,800#e3+$qXfer:features:read:target.xml:3,800#e6+$Qqemu.PhyMemMode:1#77+", ""},
		{"monitor", func(s *stub) error { return s.monitor("x") }, "+$O6869#2c$OK#9a", "$qRcmd,78#92++", ""},
		{"no registers", (*stub).prepare, "+$E00#a5", "", `description of the processor: refused by QEMU's debugger stub with "E00"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := &peer{says: strings.NewReader(test.says)}
			err := test.do(newStub(p))
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("%v, want %q", err, test.want)
			case test.want == "" && p.got.String() != test.heard:
				t.Errorf("it sent %q, want %q", &p.got, test.heard)
			}
		})
	}
}

// TestSilent shows how long a stub is waited for that answers nothing.
func TestSilent(t *testing.T) {
	for _, test := range []struct {
		name      string
		ctx, want time.Duration
	}{
		{"patience", time.Hour, patience},
		{"context", time.Second, time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				defer theirs.Close()
				go io.Copy(io.Discard, theirs)
				ctx, cancel := context.WithTimeout(t.Context(), test.ctx)
				defer cancel()
				s, began := newStub(ours), time.Now()
				release := s.bound(ctx)
				err := s.command("c")
				release()
				if took := time.Since(began); err == nil || took != test.want {
					t.Errorf("%v after %v", err, took)
				}
			})
		})
	}
}

func FuzzStub(f *testing.F) {
	for _, s := range []string{
		"+$01020304#8a+$OK#9a", "-+$01020305#8a$01020304#8a+$#00", "+$E14#aa", "+$m<a/#39+$l>#aa+$OK#9a", "+$O}k#37", "+$0* #7a", "+$}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, says []byte) {
		s := newStub(&peer{says: bytes.NewReader(says)})
		if s.prepare() != nil {
			s = newStub(&peer{says: bytes.NewReader(says)})
		}
		var b [4]byte
		s.readMemory(0, b[:])
		s.writeMemory(0, b[:])
		s.readRegister(regPC)
		s.monitor("system_reset")
	})
}

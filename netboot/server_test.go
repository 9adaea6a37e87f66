package netboot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"snag/event"
	"snag/netboot/netboottest"
)

// image makes a file that differs in every block.
func image(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(n), 7))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// lab is a server under test and the board's side of its link. It lives in a synctest bubble.
type lab struct {
	*testing.T
	net     *netboottest.Network
	link    Link
	file    *File
	pick    func(Client) *File
	next    atomic.Pointer[File] // what pick returns unless it was replaced
	events  []event.Body
	ctx     context.Context
	cancel  context.CancelCauseFunc
	results chan outcome
}

type outcome struct {
	Result
	err error
}

var serverTFTP = netip.MustParseAddrPort("192.168.0.100:69")

func newLab(t *testing.T, seed uint64, size int, faults netboottest.Faults) *lab {
	l := &lab{T: t, results: make(chan outcome, 1), file: &File{Stage: "rom", Name: "spl.bin", Data: image(size)}}
	l.net = netboottest.New(seed, func(_, _ netip.AddrPort) netboottest.Faults { return faults })
	l.link = Link{
		BOOTP:  l.net.Listen("192.168.0.100:67"),
		TFTP:   l.net.Listen("192.168.0.100:69"),
		Server: testServer, Client: testClient,
	}
	l.next.Store(l.file)
	l.pick = func(Client) *File { return l.next.Load() }
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute) // of the bubble's clock
	t.Cleanup(stop)
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	return l
}

func (l *lab) serve() {
	go func() {
		res, err := Serve(l.ctx, l.link, Config{Pick: l.pick, Emit: func(stage string, b event.Body) {
			if stage != l.file.Stage {
				l.Errorf("event of stage %q: %v", stage, b)
			}
			l.events = append(l.events, b)
		}})
		l.results <- outcome{res, err}
	}()
}

// served waits for the server to end as it should.
func (l *lab) served() Result {
	l.Helper()
	o := <-l.results
	if o.err != nil {
		l.Fatalf("Serve: %v", o.err)
	}
	if o.File != l.file {
		l.Errorf("file %v", o.File)
	}
	if p, ok := l.events[len(l.events)-1].(event.Progress); !ok || p.Bytes != int64(len(l.file.Data)) {
		l.Errorf("last event %#v", l.events[len(l.events)-1])
	}
	return o.Result
}

// warnings are the texts of the warnings emitted.
func (l *lab) warnings() []string {
	var w []string
	for _, e := range l.events {
		if e, ok := e.(event.Warning); ok {
			w = append(w, e.Text)
		}
	}
	return w
}

func (l *lab) fetch(pc net.PacketConn, c netboottest.Client) netboottest.Fetched {
	l.Helper()
	got, err := c.Fetch(l.ctx, pc, serverTFTP, l.file.Name, nil)
	if err != nil {
		l.Fatal(err)
	}
	if !bytes.Equal(got.Data, l.file.Data) {
		l.Fatalf("received %d bytes, not the file's %d", len(got.Data), len(l.file.Data))
	}
	return got
}

// ask sends a BOOTP request until it is answered.
func (l *lab) ask(req []byte) []byte {
	l.Helper()
	pc := l.net.Listen("0.0.0.0:68")
	b := make([]byte, 1500)
	for range 20 {
		if _, err := pc.WriteTo(req, &net.UDPAddr{IP: net.IPv4bcast, Port: 67}); err != nil {
			l.Fatal(err)
		}
		_ = pc.SetReadDeadline(time.Now().Add(time.Second))
		if n, _, err := pc.ReadFrom(b); err == nil {
			return b[:n]
		}
	}
	l.Fatal("no BOOTP reply")
	return nil
}

func TestServe(t *testing.T) {
	for _, tt := range []struct {
		name string
		size int
		c    netboottest.Client
		oack map[string]string
	}{
		{"rom", 109728, netboottest.Client{Passive: true}, nil},
		{"exact multiple", 5120, netboottest.Client{}, nil},
		{"one block", 100, netboottest.Client{}, nil},
		{"empty", 0, netboottest.Client{}, nil},
		{"u-boot", 300000, netboottest.Client{Blksize: 1468, Options: []string{"timeout", "5", "tsize", "0"}},
			map[string]string{"blksize": "1468", "timeout": "5", "tsize": "300000"}},
		{"unknown options only", 3000, netboottest.Client{Options: []string{"x", "y"}}, nil},
		{"window", 300000, netboottest.Client{Blksize: 1468, Window: 16}, map[string]string{"blksize": "1468", "windowsize": "16"}},
		{"window larger than file", 3000, netboottest.Client{Window: 32}, map[string]string{"windowsize": "32"}},
		{"window too large", 300000, netboottest.Client{Window: 65535}, map[string]string{"windowsize": "64"}},
		{"largest block", 200000, netboottest.Client{Blksize: 65464, Window: 8}, map[string]string{"blksize": "65464", "windowsize": "8"}},
		{"wrap", 8 * 70000, netboottest.Client{Blksize: 8}, map[string]string{"blksize": "8"}},
		{"wrap with window", 8 * 140000, netboottest.Client{Blksize: 8, Window: 60}, map[string]string{"blksize": "8", "windowsize": "60"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, 1, tt.size, netboottest.Faults{})
				l.serve()
				l.ask(romRequest())
				got := l.fetch(l.net.Listen("192.168.0.101:1234"), tt.c)
				res := l.served()
				if fmt.Sprint(got.OACK) != fmt.Sprint(tt.oack) {
					t.Errorf("OACK %v, expected %v", got.OACK, tt.oack)
				}
				if !res.Acked || res.Retransmits != 0 || res.BOOTPRequests != 1 || res.Ignored != 0 || got.Repeats != 0 {
					t.Errorf("result %+v, %d repeats", res, got.Repeats)
				}
				if w := l.warnings(); w != nil {
					t.Errorf("warnings %q", w)
				}
			})
		})
	}
}

// TestLossy is the ROM's stage over a bad link: it has 60 s, and only the server repeats. The first boards
// of the next stages, with options and windows, must come through as well.
func TestLossy(t *testing.T) {
	bad := netboottest.Faults{Loss: 0.05, Dup: 0.02, Reorder: 0.02, Delay: 300 * time.Microsecond}
	loss := netboottest.Faults{Loss: 0.05, Delay: 300 * time.Microsecond}
	for _, tt := range []struct {
		name   string
		size   int
		faults netboottest.Faults
		c      netboottest.Client
		within time.Duration
	}{
		{"rom", 109728, loss, netboottest.Client{Passive: true}, 10 * time.Second},
		{"rom, also dup and reorder", 109728, bad, netboottest.Client{Passive: true}, 10 * time.Second},
		{"spl", 700000, bad, netboottest.Client{Blksize: 1468, Timeout: 5 * time.Second}, 20 * time.Second},
		{"window 8", 700000, bad, netboottest.Client{Blksize: 1468, Window: 8, Timeout: 5 * time.Second}, 20 * time.Second},
		{"window 32", 700000, bad, netboottest.Client{Blksize: 1468, Window: 32, Timeout: 5 * time.Second}, 20 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var worst time.Duration
			for seed := range uint64(20) {
				synctest.Test(t, func(t *testing.T) {
					l := newLab(t, seed, tt.size, tt.faults)
					l.serve()
					l.ask(romRequest())
					start := time.Now()
					got := l.fetch(l.net.Listen("192.168.0.101:1234"), tt.c)
					took := time.Since(start)
					worst = max(worst, took)
					if took > tt.within {
						t.Errorf("seed %d: took %v", seed, took)
					}
					res := l.served()
					if got.Packets > 2*res.Blocks || res.Blocks > 3*(tt.size/512) {
						t.Errorf("seed %d: %d packets for %+v", seed, got.Packets, res)
					}
				})
			}
			t.Logf("worst of 20: %v", worst)
		})
	}
}

// TestNoApprentice delays the first block until the client asks twice, and repeats packets: from then on each must be
// answered once (RFC 1123, section 4.2.3.1).
func TestNoApprentice(t *testing.T) {
	for _, window := range []int{0, 8} {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t, 1, 200000, netboottest.Faults{})
			begun := time.Now()
			l.net = netboottest.New(1, func(_, _ netip.AddrPort) netboottest.Faults {
				f := netboottest.Faults{Delay: 2 * time.Millisecond}
				if d := time.Since(begun); d > 20*time.Millisecond && d < 30*time.Millisecond {
					f.Dup = 1
				}
				return f
			})
			l.link.BOOTP, l.link.TFTP = l.net.Listen("192.168.0.100:67"), l.net.Listen("192.168.0.100:69")
			l.serve()
			got := l.fetch(l.net.Listen("192.168.0.101:1234"), netboottest.Client{Window: window})
			res := l.served()
			if got.Repeats < 2 || got.Repeats > 40 {
				t.Errorf("window %d: %d repeats, %+v", window, got.Repeats, res)
			}
		})
	}
}

func TestRestarts(t *testing.T) {
	stop := func(n int) netboottest.Client {
		return netboottest.Client{Stop: func(block int) bool { return block == n }}
	}
	for _, tt := range []struct {
		name    string
		port    string
		bootp   bool
		wait    time.Duration
		warning string
	}{
		{"after BOOTP, same port", ":1234", true, 100 * time.Millisecond, "began the transfer of spl.bin again after 10240 of 109728 bytes"},
		{"without BOOTP, same port", ":1234", false, time.Second, "began the transfer"},
		{"without BOOTP, another port", ":2000", false, 0, "began the transfer"},
		{"after a long time", ":1234", true, 2 * time.Minute, "fell silent"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, 1, 109728, netboottest.Faults{})
				l.serve()
				l.ask(romRequest())
				c := stop(21)
				pc := l.net.Listen("192.168.0.101:1234")
				if _, err := c.Fetch(l.ctx, pc, serverTFTP, "spl.bin", nil); !errors.Is(err, netboottest.ErrStopped) {
					t.Fatal(err)
				}
				_ = pc.Close()
				time.Sleep(tt.wait)
				if tt.bootp {
					l.ask(romRequest())
				}
				got := l.fetch(l.net.Listen("192.168.0.101"+tt.port), netboottest.Client{Passive: true})
				res := l.served()
				if res.Restarts != 1 || !res.Acked || got.Repeats != 0 {
					t.Errorf("result %+v, %d repeats", res, got.Repeats)
				}
				if w := l.warnings(); len(w) != 1 || !strings.Contains(w[0], tt.warning) {
					t.Errorf("warnings %q", w)
				}
			})
		})
	}
}

// TestLateBOOTP repeats a BOOTP request during the transfer, as a duplicate on its way would be: the transfer pauses
// only until the board goes on.
func TestLateBOOTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 1, 109728, netboottest.Faults{Delay: time.Millisecond})
		l.serve()
		l.ask(romRequest())
		got := l.fetch(l.net.Listen("192.168.0.101:1234"), netboottest.Client{Stop: func(n int) bool {
			if n%50 == 0 {
				l.ask(romRequest())
			}
			return false
		}})
		if res := l.served(); res.Restarts != 0 || res.BOOTPRequests != 5 || got.Repeats != 0 {
			t.Errorf("result %+v, %d repeats", res, got.Repeats)
		}
	})
}

func TestLastACKLost(t *testing.T) {
	for _, tt := range []struct {
		name   string
		then   func(l *lab)
		within time.Duration
	}{
		{"link gone", func(l *lab) { time.Sleep(time.Millisecond); l.cancel(errors.New("unplugged")) }, 10 * time.Millisecond},
		{"silence", func(*lab) {}, 5 * time.Second},
		{"next stage asks", func(l *lab) {
			time.Sleep(time.Millisecond)
			l.next.Store(&File{Stage: "spl", Name: "u-boot.img"})
			pc := l.net.Listen("0.0.0.0:68")
			_, _ = pc.WriteTo(oldSPLRequest(), &net.UDPAddr{IP: net.IPv4bcast, Port: 67})
		}, 10 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, 1, 109728, netboottest.Faults{})
				l.serve()
				l.ask(romRequest())
				start := time.Now()
				l.fetch(l.net.Listen("192.168.0.101:1234"), netboottest.Client{Silent: true})
				tt.then(l)
				res := l.served()
				if res.Acked {
					t.Errorf("result %+v", res)
				}
				if took := time.Since(start); took > tt.within {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

func TestCancelled(t *testing.T) {
	for name, begin := range map[string]func(l *lab){
		"no BOOTP request came":                               func(*lab) {},
		"1 BOOTP requests answered, but no TFTP request came": func(l *lab) { l.ask(romRequest()) },
		"transfer of spl.bin ended at 512 of 109728 bytes": func(l *lab) {
			c := netboottest.Client{Stop: func(n int) bool { return n == 2 }}
			_, _ = c.Fetch(l.ctx, l.net.Listen("192.168.0.101:1234"), serverTFTP, "spl.bin", nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, 1, 109728, netboottest.Faults{})
				l.serve()
				begin(l)
				synctest.Wait()
				cause := errors.New("unplugged")
				l.cancel(cause)
				o := <-l.results
				if !errors.Is(o.err, cause) || !strings.Contains(o.err.Error(), name) {
					t.Errorf("error %v", o.err)
				}
				// The sockets are as they were: without a deadline, and open.
				go func() { time.Sleep(time.Hour); _ = l.link.TFTP.SetReadDeadline(time.Unix(1, 0)) }()
				start := time.Now()
				if _, _, err := l.link.TFTP.ReadFrom(make([]byte, 10)); time.Since(start) != time.Hour {
					t.Errorf("reading afterwards: %v after %v", err, time.Since(start))
				}
			})
		})
	}
}

func TestLinkFails(t *testing.T) {
	for _, name := range []string{"BOOTP", "TFTP"} {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t, 1, 1000, netboottest.Faults{})
			l.serve()
			synctest.Wait()
			pc := l.link.BOOTP
			if name == "TFTP" {
				pc = l.link.TFTP
			}
			_ = pc.Close()
			if o := <-l.results; !errors.Is(o.err, net.ErrClosed) || !strings.Contains(o.err.Error(), name) {
				t.Errorf("error %v", o.err)
			}
		})
	}
}

// talk sends one packet to the TFTP port and returns the answers that come at once.
func (l *lab) talk(pc net.PacketConn, packet string) []string {
	l.Helper()
	if _, err := pc.WriteTo([]byte(packet), net.UDPAddrFromAddrPort(serverTFTP)); err != nil {
		l.Fatal(err)
	}
	synctest.Wait()
	var got []string
	b := make([]byte, 2000)
	_ = pc.SetReadDeadline(time.Now().Add(time.Nanosecond))
	for {
		n, _, err := pc.ReadFrom(b)
		if err != nil {
			return got
		}
		got = append(got, string(b[:n]))
	}
}

func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 1, 1000, netboottest.Faults{})
		l.serve()
		pc := l.net.Listen("192.168.0.101:2000")
		for packet, want := range map[string]string{
			"\x00\x02spl.bin\x00octet\x00":    "\x00\x05\x00\x02this server is read-only\x00",
			"\x00\x01spl.bin\x00netascii\x00": "\x00\x05\x00\x00only mode octet is served\x00",
			"\x00\x01spl.bin\x00mail\x00":     "\x00\x05\x00\x00only mode octet is served\x00",
			"\x00\x01spl.bin":                 "\x00\x05\x00\x04malformed request\x00",
			"\x00\x01\x00\x00":                "\x00\x05\x00\x04malformed request\x00",
			"\x00\x03\x00\x01data":            "",
			"\x00\x04\x00\x01":                "",
			"\x00\x05\x00\x01x\x00":           "",
			"\x00\x06x\x00y\x00":              "",
			"\x00\x09what":                    "",
			"\x00":                            "",
		} {
			if got := strings.Join(l.talk(pc, packet), "|"); got != want {
				t.Errorf("%q: answered %q, expected %q", packet, got, want)
			}
		}
		l.cancel(errors.New("end"))
		<-l.results
	})
}

func TestOtherName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 1, 1000, netboottest.Faults{})
		l.serve()
		pc := l.net.Listen("192.168.0.101:2000")
		l.talk(pc, "\x00\x01../../etc/passwd\x1b\x00octet\x00")
		got := l.talk(pc, "\x00\x01../../etc/shadow\x00octet\x00")
		if len(got) != 1 || got[0][:4] != "\x00\x03\x00\x01" || got[0][4:] != string(l.file.Data[:512]) {
			t.Errorf("answers %q", got)
		}
		l.fetch(l.net.Listen("192.168.0.101:2001"), netboottest.Client{})
		l.served()
		if w := l.warnings(); len(w) != 1 || !strings.Contains(w[0], `"../../etc/passwd\x1b" instead of spl.bin`) {
			t.Errorf("warnings %q", w)
		}
	})
}

// TestOptionsRefused is a client that cannot bear an OACK (RFC 2347: error 8): the next time it gets none.
func TestOptionsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 1, 1000, netboottest.Faults{})
		l.serve()
		pc := l.net.Listen("192.168.0.101:2000")
		if got := l.talk(pc, "\x00\x01spl.bin\x00octet\x00blksize\x001468\x00"); len(got) != 1 || got[0] != "\x00\x06blksize\x001468\x00" {
			t.Errorf("answers %q", got)
		}
		l.talk(pc, "\x00\x05\x00\x08no\x00")
		got := l.fetch(pc, netboottest.Client{Blksize: 1468})
		if res := l.served(); got.OACK != nil || res.Restarts != 1 {
			t.Errorf("OACK %v, %+v", got.OACK, res)
		}
		if w := l.warnings(); len(w) != 1 || !strings.Contains(w[0], `TFTP error 8 "no"`) {
			t.Errorf("warnings %q", w)
		}
	})
}

// TestOptionsUnheard is a client that appends what reads as an option and knows no OACK: it repeats its request, five
// times a second apart as the ROM does, and gets the file without options. A client that only lost an OACK gets them.
func TestOptionsUnheard(t *testing.T) {
	const request = "\x00\x01spl.bin\x00octet\x00tsize\x000\x00"
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 1, 1000, netboottest.Faults{})
		l.serve()
		pc := l.net.Listen("192.168.0.101:1234")
		got := ""
		for n := 0; n < 5 && !strings.HasPrefix(got, "\x00\x03"); n++ {
			if n == 1 && got[:2] != "\x00\x06" {
				t.Errorf("the second request was answered %q", got)
			}
			got = ""
			for _, p := range l.talk(pc, request) { // those before were OACKs that are repeated
				got = p
			}
			time.Sleep(time.Second)
		}
		if want := "\x00\x03\x00\x01" + string(l.file.Data[:512]); got != want {
			t.Fatalf("answered %q", got)
		}
		l.talk(pc, "\x00\x04\x00\x01")
		l.talk(pc, "\x00\x04\x00\x02")
		l.served()
	})
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 1, 1000, netboottest.Faults{})
		l.serve()
		pc := l.net.Listen("192.168.0.101:1234")
		for range 5 { // duplicates of one request
			if got := l.talk(pc, request); len(got) != 1 || got[0][:2] != "\x00\x06" {
				t.Errorf("answered %q", got)
			}
		}
		l.cancel(errors.New("end"))
		<-l.results
	})
}

func TestForeign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 1, 1000, netboottest.Faults{})
		l.pick = func(c Client) *File {
			if c.VendorClass == "AM335x ROM" && !c.DHCP && c.MAC.String() == "1c:ba:8c:a8:01:02" {
				return l.file
			}
			return nil
		}
		l.serve()
		pc := l.net.Listen("0.0.0.0:68")
		for _, b := range [][]byte{oldSPLRequest(), dhcpRequest(1), dhcpRequest(8), make([]byte, 300), {1}, nil} {
			_, _ = pc.WriteTo(b, &net.UDPAddr{IP: net.IPv4bcast, Port: 67})
		}
		if got := l.talk(l.net.Listen("192.168.0.101:1000"), "\x00\x01spl.bin\x00octet\x00"); got != nil {
			t.Errorf("answers %q", got)
		}
		if b := l.ask(romRequest()); !bytes.HasPrefix(b[108:], []byte("spl.bin\x00")) {
			t.Errorf("reply %q", b)
		}
		l.fetch(l.net.Listen("192.168.0.101:1234"), netboottest.Client{})
		if res := l.served(); res.Ignored != 7 || res.BOOTPRequests != 1 {
			t.Errorf("result %+v", res)
		}
	})
}

// TestFlood sends hours' worth of nonsense: what is remembered and emitted stays bounded, and the board still served.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, 1, 1000, netboottest.Faults{})
		l.serve()
		pc := l.net.Listen("192.168.0.101:2000")
		for i := range 3000 {
			for _, p := range []string{
				"\x00\x01other\x00octet\x00", "\x00\x04\x00\x01", "\x00\x01other\x00octet\x00",
				"\x00\x05\x00\x00\x00", "\x00\x01x\x00mail\x00", "\x00\x02x\x00octet\x00", "\x00\x01", "junk",
			} {
				l.talk(pc, p)
			}
			_, _ = pc.WriteTo(pad([]byte{1, 1, 6}, i%400), &net.UDPAddr{IP: net.IPv4bcast, Port: 67})
		}
		l.fetch(l.net.Listen("192.168.0.101:1234"), netboottest.Client{})
		l.served()
		if len(l.warnings()) > 100 {
			t.Errorf("%d warnings", len(l.warnings()))
		}
	})
}

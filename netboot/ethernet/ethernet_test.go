package ethernet

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"snag/netboot"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.NewReplacer(" ", "", "\n", "", "\t", "").Replace(s))
	if err != nil {
		panic(err)
	}
	return b
}

var (
	hostMAC  = [6]byte{2, 0, 0, 0, 0, 1}
	boardMAC = [6]byte{0x00, 0x18, 0x31, 0, 0, 1}
	server   = netip.MustParseAddrPort("192.168.0.100:69")
	board    = netip.MustParseAddrPort("192.168.0.101:1234")
)

// wire is a Host and what it sends.
type wire struct {
	*Host
	mu   sync.Mutex
	sent [][]byte
	err  error // of Send
}

func newWire() *wire {
	w := &wire{}
	w.Host = New(Config{MAC: hostMAC, Server: netboot.HostAddress, Client: netboot.BoardAddress, Send: func(f []byte) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.sent = append(w.sent, bytes.Clone(f))
		return w.err
	}})
	return w
}

// request is a BOOTP request's first bytes. The checksums are worked out by hand (RFC 1071).
var request = unhex(`
	ffffffffffff 001831000001 0800
	4500 0020 0001 0000 40 11 7acd 00000000 ffffffff
	0044 0043 000c f84e 01010600`)

func TestARP(t *testing.T) {
	w := newWire()
	w.Input(unhex("ffffffffffff 001831000001 0806 0001 0800 06 04 0001 001831000001 c0a80065 000000000000 c0a80064" + strings.Repeat("00", 18)))
	want := unhex("001831000001 020000000001 0806 0001 0800 06 04 0002 020000000001 c0a80064 001831000001 c0a80065")
	if len(w.sent) != 1 || !bytes.Equal(w.sent[0], want) {
		t.Errorf("got %x\nwant %x", w.sent, want)
	}
	for _, other := range []string{
		"ffffffffffff 001831000001 0806 0001 0800 06 04 0001 001831000001 c0a80065 000000000000 c0a80065", // another address: gratuitous
		"020000000001 001831000001 0806 0001 0800 06 04 0002 001831000001 c0a80065 020000000001 c0a80064", // a reply
		"ffffffffffff 001831000001 0806 0001 0800 06 04 0001 001831000001 c0a80065 0000",                  // cut
		"ffffffffffff 001831000001 0806 0006 0800 06 04 0001 001831000001 c0a80065 000000000000 c0a80064", // another kind of net
		"030000000001 001831000001 0806 0001 0800 06 04 0001 001831000001 c0a80065 000000000000 c0a80064", // to another host
	} {
		w.Input(unhex(other))
	}
	if got, want := w.Counts(), (Counts{ARP: 1, Other: 3, Bad: 2}); len(w.sent) != 1 || got != want {
		t.Errorf("%d frames sent, %+v, want %+v", len(w.sent), got, want)
	}
}

// A handler gets the datagrams in the place of a reader, and may answer them; when it is taken away none is under way.
func TestHandler(t *testing.T) {
	w := newWire()
	link := w.Link()
	frame := appendUDP(nil, hostMAC, boardMAC, board, server, 1, []byte("ack"))
	entered, leave := make(chan string, 1), make(chan struct{})
	link.TFTP.(netboot.Handler).Handle(func(b []byte, from netip.AddrPort) {
		if _, err := link.TFTP.WriteTo(b, net.UDPAddrFromAddrPort(from)); err != nil {
			t.Error(err)
		}
		entered <- string(b)
		<-leave
	})
	go w.Input(frame)
	if s := <-entered; s != "ack" {
		t.Errorf("%q was handled", s)
	}
	taken := make(chan struct{})
	go func() {
		link.TFTP.(netboot.Handler).Handle(nil)
		close(taken)
	}()
	select {
	case <-taken:
		t.Error("the handler was taken away while it ran")
	case <-time.After(20 * time.Millisecond):
	}
	close(leave)
	<-taken
	if len(w.sent) != 1 || !bytes.HasSuffix(w.sent[0], []byte("ack")) {
		t.Errorf("%x sent", w.sent)
	}
	w.Input(frame)
	b := make([]byte, 2048)
	if err := link.TFTP.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, from, err := link.TFTP.ReadFrom(b); err != nil || string(b[:n]) != "ack" || from.String() != board.String() {
		t.Errorf("%q from %v, %v", b[:n], from, err)
	}
	if c := w.Counts(); c.Taken != 2 {
		t.Errorf("%+v", c)
	}
}

func TestSocket(t *testing.T) {
	w := newWire()
	link := w.Link()
	w.Input(append(bytes.Clone(request), 0, 0, 0)) // with padding
	b := make([]byte, 2048)
	n, from, err := link.BOOTP.ReadFrom(b)
	if err != nil || from.String() != "0.0.0.0:68" || !bytes.Equal(b[:n], []byte{1, 1, 6, 0}) {
		t.Fatalf("%x from %v, %v", b[:n], from, err)
	}
	if _, err := link.BOOTP.WriteTo([]byte("re"), &net.UDPAddr{IP: net.IPv4bcast, Port: 68}); err != nil {
		t.Fatal(err)
	}
	if _, err := link.TFTP.WriteTo([]byte("blk"), net.UDPAddrFromAddrPort(board)); err != nil {
		t.Fatal(err)
	}
	type seen struct {
		To       [6]byte
		Src, Dst string
		Data     string
	}
	for i, want := range []seen{
		{broadcastMAC, "192.168.0.100:67", "255.255.255.255:68", "re"},
		{boardMAC, "192.168.0.100:69", "192.168.0.101:1234", "blk"},
	} {
		f := w.sent[i]
		e, err := parseEthernet(f)
		if err != nil || e.src != hostMAC || e.typ != typeIPv4 {
			t.Errorf("frame %x, %v", f, err)
		}
		d, err := parseUDP(e.payload)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, seen{e.dst, d.src.String(), d.dst.String(), string(d.data)}); diff != "" {
			t.Errorf("frame %d (-want +got):\n%s", i, diff)
		}
	}
	if _, err := link.TFTP.WriteTo(make([]byte, maxDatagram+1), net.UDPAddrFromAddrPort(board)); !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("a datagram that is too long: %v", err)
	}
	if _, err := link.TFTP.WriteTo(make([]byte, maxDatagram), net.UDPAddrFromAddrPort(board)); err != nil || len(w.sent[2]) != 1514 {
		t.Errorf("the longest datagram: %v", err)
	}
}

// A frame byte for byte, its checksums worked out by hand.
func TestFrame(t *testing.T) {
	got := appendUDP(nil, boardMAC, hostMAC, server, board, 7, []byte{0, 3, 0, 1, 'x'})
	want := unhex("001831000001 020000000001 0800" +
		"4500 0021 0007 4000 40 11 b8ab c0a80064 c0a80065" +
		"0045 04d2 000d 009f 0003 0001 78")
	if !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
}

// Whatever the length, the sum is that of the 16-bit words (RFC 1071).
func TestSum(t *testing.T) {
	b := make([]byte, 67)
	for i := range b {
		b[i] = byte(251 - 7*i)
	}
	for n := range b {
		words := append(b[:n:n], make([]byte, n%2)...)
		want := uint64(protocolUDP)
		for i := 0; i < len(words); i += 2 {
			want += uint64(be.Uint16(words[i:]))
		}
		if got := sum(protocolUDP, b[:n]); fold(got) != fold(want) {
			t.Errorf("%d bytes: %#x, expected %#x", n, fold(got), fold(want))
		}
	}
}

// A checksum that comes to 0 is sent as all ones.
func TestZeroChecksum(t *testing.T) {
	for v := range 1 << 16 {
		f := appendUDP(nil, boardMAC, hostMAC, server, board, 7, []byte{byte(v >> 8), byte(v)})
		if be.Uint16(f[40:]) == 0 {
			t.Fatalf("checksum 0 for data %04x", v)
		}
		if _, err := parseUDP(f[14:]); err != nil {
			t.Fatalf("data %04x: %v", v, err)
		}
	}
}

// fix makes the IPv4 header's checksum right again.
func fix(f []byte) []byte {
	f[24], f[25] = 0, 0
	header := min(int(f[14]&0xf)*4, len(f)-14)
	be.PutUint16(f[24:], ^fold(sum(0, f[14:14+header])))
	return f
}

func TestDropped(t *testing.T) {
	good := func() []byte { return appendUDP(nil, hostMAC, boardMAC, board, server, 1, []byte{0, 4, 0, 1}) }
	for _, tc := range []struct {
		name string
		f    func(f []byte) []byte
		want Counts
	}{
		{"good", func(f []byte) []byte { return f }, Counts{Taken: 1}},
		{"no checksum", func(f []byte) []byte { f[40], f[41] = 0, 0; return f }, Counts{Taken: 1}},
		{"IP options", func(f []byte) []byte {
			f = append(f[:34:34], append([]byte{1, 1, 1, 1}, f[34:]...)...)
			f[14] = 0x46
			be.PutUint16(f[16:], be.Uint16(f[16:])+4)
			return fix(f)
		}, Counts{Taken: 1}},
		{"broadcast of the net", func(f []byte) []byte {
			return appendUDP(nil, broadcastMAC, boardMAC, board, netip.MustParseAddrPort("192.168.0.255:69"), 1, nil)
		}, Counts{Taken: 1}},
		{"empty", func([]byte) []byte { return nil }, Counts{Bad: 1}},
		{"header cut", func(f []byte) []byte { return f[:13] }, Counts{Bad: 1}},
		{"another host's", func(f []byte) []byte { f[5]++; return f }, Counts{Other: 1}},
		{"from a group", func(f []byte) []byte { f[6] |= 1; return f }, Counts{Taken: 1}}, // a board's own idea of its address
		{"IPv6", func(f []byte) []byte { be.PutUint16(f[12:], 0x86dd); return f }, Counts{Other: 1}},
		{"a tag", func(f []byte) []byte { be.PutUint16(f[12:], 0x8100); return f }, Counts{Other: 1}},
		{"version 6", func(f []byte) []byte { f[14] = 0x65; return fix(f) }, Counts{Bad: 1}},
		{"header of 4 words", func(f []byte) []byte { f[14] = 0x44; return fix(f) }, Counts{Bad: 1}},
		{"header longer than the packet", func(f []byte) []byte { f[14] = 0x4f; return f }, Counts{Bad: 1}},
		{"header checksum", func(f []byte) []byte { f[24]++; return f }, Counts{Bad: 1}},
		{"length beyond the frame", func(f []byte) []byte { f[17]++; return fix(f) }, Counts{Bad: 1}},
		{"length below the header", func(f []byte) []byte { f[17] = 19; return fix(f) }, Counts{Bad: 1}},
		{"first fragment", func(f []byte) []byte { f[20] = 0x20; return fix(f) }, Counts{Fragment: 1}},
		{"later fragment", func(f []byte) []byte { f[20], f[21] = 0, 1; return fix(f) }, Counts{Fragment: 1}},
		{"ICMP", func(f []byte) []byte { f[23] = 1; return fix(f) }, Counts{Other: 1}},
		{"UDP length beyond", func(f []byte) []byte { f[39]++; return f }, Counts{Bad: 1}},
		{"UDP length below", func(f []byte) []byte { f[39] = 7; return f }, Counts{Bad: 1}},
		{"UDP checksum", func(f []byte) []byte { f[41]++; return f }, Counts{Bad: 1}},
		{"UDP data", func(f []byte) []byte { f[43]++; return f }, Counts{Bad: 1}},
		{"another port", func([]byte) []byte {
			return appendUDP(nil, hostMAC, boardMAC, board, netip.MustParseAddrPort("192.168.0.100:6666"), 1, nil)
		}, Counts{Other: 1}},
		{"another address", func([]byte) []byte {
			return appendUDP(nil, hostMAC, boardMAC, board, netip.MustParseAddrPort("192.168.0.99:69"), 1, nil)
		}, Counts{Other: 1}},
		{"from afar", func([]byte) []byte {
			return appendUDP(nil, hostMAC, boardMAC, netip.MustParseAddrPort("8.8.8.8:53"), server, 1, nil)
		}, Counts{Other: 1}},
		{"BOOTP from afar", func([]byte) []byte { // from an address that the board has from elsewhere
			return appendUDP(nil, broadcastMAC, boardMAC, netip.MustParseAddrPort("169.254.7.7:68"), netip.MustParseAddrPort("255.255.255.255:67"), 1, nil)
		}, Counts{Taken: 1}},
		{"BOOTP from a group", func([]byte) []byte {
			return appendUDP(nil, broadcastMAC, boardMAC, netip.MustParseAddrPort("224.0.0.1:68"), netip.MustParseAddrPort("255.255.255.255:67"), 1, nil)
		}, Counts{Other: 1}},
		{"from the host itself", func([]byte) []byte {
			return appendUDP(nil, hostMAC, boardMAC, server, server, 1, nil)
		}, Counts{Other: 1}},
	} {
		w := newWire()
		w.Input(tc.f(good()))
		if got := w.Counts(); got != tc.want {
			t.Errorf("%s: %+v, want %+v", tc.name, got, tc.want)
		}
		if len(w.sent) != 0 {
			t.Errorf("%s: answered with %x", tc.name, w.sent)
		}
	}
}

// A socket that nobody reads keeps what fits.
func TestFlood(t *testing.T) {
	w := newWire()
	f := appendUDP(nil, hostMAC, boardMAC, board, server, 1, make([]byte, maxDatagram))
	for range 10_000 {
		w.Input(f)
	}
	if got, want := w.Counts(), (Counts{Taken: room, Full: 10_000 - room}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if n := testing.AllocsPerRun(100, func() { w.Input(f) }); n > 0 {
		t.Errorf("%v allocations for a datagram that is dropped", n)
	}
}

// TestBothWays has a datagram come while one is sent from the same socket: neither waits for the other for ever.
func TestBothWays(t *testing.T) {
	sending, sent := make(chan struct{}), make(chan struct{})
	h := New(Config{MAC: hostMAC, Server: netboot.HostAddress, Client: netboot.BoardAddress, Send: func([]byte) error {
		close(sending)
		<-sent
		return nil
	}})
	var both sync.WaitGroup
	both.Go(func() { h.bootp.WriteToUDPAddrPort([]byte("reply"), board) })
	<-sending
	both.Go(func() { h.Input(request) })
	counted := make(chan struct{})
	go func() { // as long as it takes Input to come to the socket
		for range 20 {
			h.Counts()
			time.Sleep(time.Millisecond)
		}
		close(counted)
	}()
	select {
	case <-counted:
	case <-time.After(5 * time.Second):
		t.Error("a frame that waits for the socket holds the host up")
	}
	close(sent)
	both.Wait()
	if got, want := h.Counts(), (Counts{Taken: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		c := w.Link().TFTP
		read := func() error {
			_, _, err := c.ReadFrom(make([]byte, 100))
			return err
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		begun := time.Now()
		for range 2 {
			if err := read(); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) != time.Second {
				t.Errorf("after %s: %v", time.Since(begun), err)
			}
		}
		c.SetReadDeadline(time.Time{})
		time.AfterFunc(time.Hour, func() { c.SetDeadline(time.Unix(1, 0)) })
		if err := read(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		c.SetReadDeadline(time.Now().Add(3 * time.Second)) // another in the place of the first
		w.Input(appendUDP(nil, hostMAC, boardMAC, board, server, 1, []byte("x")))
		if err := read(); err != nil {
			t.Error(err)
		}
		why := errors.New("why")
		time.AfterFunc(2*time.Second, func() { w.Close(why) })
		if err := read(); !errors.Is(err, why) {
			t.Error(err)
		}
		if _, err := c.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(board)); !errors.Is(err, why) {
			t.Error(err)
		}
		if err := c.SetReadDeadline(time.Time{}); !errors.Is(err, why) {
			t.Error(err)
		}
		w.Close(nil) // changes nothing
		if err := read(); !errors.Is(err, why) {
			t.Error(err)
		}
	})
}

// Nothing is allocated for a block and its acknowledgement.
func TestAllocations(t *testing.T) {
	h := New(Config{MAC: hostMAC, Server: netboot.HostAddress, Client: netboot.BoardAddress, Send: func([]byte) error { return nil }})
	ack := appendUDP(nil, hostMAC, boardMAC, board, server, 1, []byte{0, 4, 0, 1})
	block, b := make([]byte, maxDatagram), make([]byte, 2048)
	if n := testing.AllocsPerRun(100, func() {
		h.Input(ack)
		h.tftp.ReadFromUDPAddrPort(b)
		h.tftp.WriteToUDPAddrPort(block, board)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkBlock(b *testing.B) {
	h := New(Config{MAC: hostMAC, Server: netboot.HostAddress, Client: netboot.BoardAddress, Send: func([]byte) error { return nil }})
	ack := appendUDP(nil, hostMAC, boardMAC, board, server, 1, []byte{0, 4, 0, 1})
	block, buf := make([]byte, maxDatagram), make([]byte, 2048)
	for b.Loop() {
		h.Input(ack)
		h.tftp.ReadFromUDPAddrPort(buf)
		h.tftp.WriteToUDPAddrPort(block, board)
	}
}

// Whatever comes, what is handed on is from the board and to the host, and what is sent is an ARP reply.
func FuzzInput(f *testing.F) {
	f.Add(request)
	f.Add(appendUDP(nil, hostMAC, boardMAC, board, server, 1, []byte{0, 1}))
	f.Add(unhex("ffffffffffff 001831000001 0806 0001 0800 06 04 0001 001831000001 c0a80065 000000000000 c0a80064"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		w := newWire()
		w.Input(frame)
		c := w.Counts()
		if c.Taken+c.ARP+c.Other+c.Bad+c.Fragment+c.Full != 1 {
			t.Errorf("%+v for one frame", c)
		}
		for _, s := range w.sent {
			if len(s) != etherHeader+arpLength || be.Uint16(s[12:]) != typeARP || [6]byte(s[6:]) != hostMAC {
				t.Errorf("sent %x", s)
			}
		}
		for _, s := range []*socket{w.bootp, w.tftp} {
			select {
			case r := <-s.in:
				if r.n > len(frame)-etherHeader-ipHeader-udpHeader {
					t.Errorf("%d bytes from a frame of %d", r.n, len(frame))
				}
			default:
			}
		}
	})
}

package usbip

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"snag/sim/usbdev"
	"snag/usb"
)

func descriptors() *usbdev.Descriptors {
	return &usbdev.Descriptors{
		Speed: usbdev.HighSpeed, ID: usb.ID{Vendor: 0x1234, Product: 0x5678}, Product: "test",
		Configs: []usbdev.Config{{Value: 1, Interfaces: []usbdev.Interface{{Class: 0xff, Endpoints: []usbdev.Endpoint{
			{Address: 0x81, Type: usbdev.Bulk, MaxPacket: 512}, {Address: 0x02, Type: usbdev.Bulk, MaxPacket: 512}}}}}},
	}
}

type inert struct{}

func (inert) Configured(uint8)      {}
func (inert) Selected(uint8, uint8) {}
func (inert) Control(context.Context, usbdev.Setup, []byte) (int, error) {
	return 0, usbdev.ErrStall
}

// submit encodes a CMD_SUBMIT.
func submit(seq uint32, toHost bool, ep uint8, length int, flags uint32, setup usbdev.Setup, data []byte) []byte {
	b := make([]byte, headerLen)
	binary.BigEndian.PutUint32(b[0:], cmdSubmit)
	binary.BigEndian.PutUint32(b[4:], seq)
	if toHost {
		binary.BigEndian.PutUint32(b[12:], 1)
	}
	binary.BigEndian.PutUint32(b[16:], uint32(ep))
	binary.BigEndian.PutUint32(b[20:], flags)
	binary.BigEndian.PutUint32(b[24:], uint32(length))
	binary.BigEndian.PutUint32(b[32:], 0xffffffff)
	s := setup.Bytes()
	copy(b[40:], s[:])
	return append(b, data...)
}

func unlink(seq, of uint32) []byte {
	b := make([]byte, headerLen)
	binary.BigEndian.PutUint32(b[0:], cmdUnlink)
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[20:], of)
	return b
}

// reply is a RET_SUBMIT or RET_UNLINK.
type reply struct {
	command, seq uint32
	status       int32
	actual       int
	data         []byte
}

func read(t *testing.T, r io.Reader, toHost bool) reply {
	t.Helper()
	var h [headerLen]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		t.Fatalf("no reply: %v", err)
	}
	p := reply{
		command: binary.BigEndian.Uint32(h[0:]), seq: binary.BigEndian.Uint32(h[4:]),
		status: int32(binary.BigEndian.Uint32(h[20:])), actual: int(binary.BigEndian.Uint32(h[24:])),
	}
	if toHost && p.command == retSubmit {
		p.data = make([]byte, p.actual)
		if _, err := io.ReadFull(r, p.data); err != nil {
			t.Fatalf("data of reply %d: %v", p.seq, err)
		}
	}
	return p
}

// sockets are the ends of a connection as the kernel gets one.
func sockets(t *testing.T) (host, device net.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, end := range []*net.Conn{&host, &device} {
		f := os.NewFile(uintptr(fds[i]), "end of a socket pair")
		if *end, err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return host, device
}

func serve(t *testing.T) (net.Conn, *usbdev.Gadget) {
	host, device := sockets(t)
	g := usbdev.NewGadget(descriptors(), inert{})
	done := make(chan error, 1)
	go func() { done <- Serve(t.Context(), device, g) }()
	t.Cleanup(func() {
		host.Close()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Error("Serve does not end with its connection")
		}
	})
	host.SetDeadline(time.Now().Add(5 * time.Second))
	return host, g
}

func TestControl(t *testing.T) {
	c, g := serve(t)
	c.Write(submit(1, true, 0, 64, 0, usbdev.Setup{Type: 0x80, Request: 6, Value: 0x0100, Length: 64}, nil))
	p := read(t, c, true)
	if p.status != 0 || !bytes.Equal(p.data, g.Descriptors().Device()) {
		t.Errorf("device descriptor: %+v", p)
	}
	c.Write(submit(2, true, 0, 64, 0, usbdev.Setup{Type: 0xc0, Request: 1, Length: 64}, nil))
	if p := read(t, c, true); p.seq != 2 || p.status != -int32(syscall.EPIPE) {
		t.Errorf("vendor request: %+v, expected a stall", p)
	}
}

func TestBulk(t *testing.T) {
	c, g := serve(t)
	data := bytes.Repeat([]byte("x"), 1024)
	go func() {
		b := make([]byte, 4096)
		n, _ := g.OutPipe(2).Read(t.Context(), b)
		g.InPipe(0x81).Write(t.Context(), b[:n])
		g.InPipe(0x81).Write(t.Context(), nil)
	}()
	go c.Write(submit(1, false, 2, 1024, flagZeroPacket, usbdev.Setup{}, data))
	if p := read(t, c, false); p.status != 0 || p.actual != 1024 {
		t.Errorf("OUT: %+v", p)
	}
	c.Write(submit(2, true, 1, 4096, 0, usbdev.Setup{}, nil))
	if p := read(t, c, true); p.status != 0 || !bytes.Equal(p.data, data) {
		t.Errorf("IN: %d bytes, status %d", len(p.data), p.status)
	}
}

// TestUnlink cancels pending transfers, one that never was, and one that was answered.
func TestUnlink(t *testing.T) {
	c, g := serve(t)
	c.Write(submit(1, true, 1, 64, 0, usbdev.Setup{}, nil))
	c.Write(submit(2, true, 1, 64, 0, usbdev.Setup{}, nil))
	c.Write(unlink(3, 2))
	if p := read(t, c, false); p.command != retUnlink || p.seq != 3 || p.status != -int32(syscall.ECONNRESET) {
		t.Fatalf("unlink of a queued transfer: %+v", p)
	}
	c.Write(unlink(4, 1))
	if p := read(t, c, false); p.command != retUnlink || p.status != -int32(syscall.ECONNRESET) {
		t.Fatalf("unlink of a running transfer: %+v", p)
	}
	c.Write(unlink(5, 1))
	if p := read(t, c, false); p.command != retUnlink || p.status != 0 {
		t.Fatalf("second unlink: %+v", p)
	}
	c.Write(submit(6, true, 1, 64, 0, usbdev.Setup{}, nil))
	go g.InPipe(0x81).Write(t.Context(), []byte("here"))
	if p := read(t, c, true); p.seq != 6 || string(p.data) != "here" {
		t.Fatalf("after the unlinks: %+v", p)
	}
}

func TestIsochronousRefused(t *testing.T) {
	c, _ := serve(t)
	b := submit(1, true, 1, 64, 0, usbdev.Setup{}, nil)
	binary.BigEndian.PutUint32(b[32:], 2)
	c.Write(append(b, make([]byte, 32)...))
	if p := read(t, c, true); p.status != -int32(syscall.EPIPE) {
		t.Errorf("isochronous transfer: %+v, expected a stall", p)
	}
}

func TestGone(t *testing.T) {
	c, g := serve(t)
	c.Write(submit(1, true, 1, 64, 0, usbdev.Setup{}, nil))
	g.Close()
	if p := read(t, c, true); p.status != -int32(syscall.ESHUTDOWN) {
		t.Errorf("%+v, expected ESHUTDOWN", p)
	}
}

// leaver is a function that is unplugged while it answers.
type leaver struct {
	inert
	unplug func()
}

func (l leaver) Control(_ context.Context, _ usbdev.Setup, data []byte) (int, error) {
	l.unplug()
	time.Sleep(100 * time.Millisecond) // the device has performed it, whenever its answer is written
	return copy(data, "last"), nil
}

// halfOpen is a connection whose reader waits for the peer's end, as a socket's does, and does not see its own.
type halfOpen struct{ net.Conn }

func (halfOpen) CloseWrite() error { return nil }

// TestLastAnswer: the host gets what a device has answered that leaves, and a transfer that waits is not answered.
func TestLastAnswer(t *testing.T) {
	request := append(submit(1, true, 1, 64, 0, usbdev.Setup{}, nil),
		submit(2, true, 0, 64, 0, usbdev.Setup{Type: 0xc0, Request: 1, Length: 64}, nil)...)
	leaving := func(t *testing.T) (host net.Conn, served <-chan error) {
		host, device := net.Pipe()
		ctx, unplug := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- Serve(ctx, halfOpen{device}, usbdev.NewGadget(descriptors(), leaver{unplug: unplug}))
		}()
		if _, err := host.Write(request); err != nil {
			t.Fatal(err)
		}
		return host, done
	}
	synctest.Test(t, func(t *testing.T) {
		host, served := leaving(t)
		if p := read(t, host, true); p.seq != 2 || p.status != 0 || string(p.data) != "last" {
			t.Errorf("last answer: %+v", p)
		}
		host.SetReadDeadline(time.Now().Add(leaveTimeout / 2))
		if rest, err := io.ReadAll(host); !errors.Is(err, os.ErrDeadlineExceeded) || len(rest) > 0 {
			t.Errorf("then: %x, %v", rest, err)
		}
		host.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		_, served := leaving(t)
		if err := <-served; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) > leaveTimeout+time.Second {
			t.Errorf("with a host that reads nothing: %v after %s", err, time.Since(begun))
		}
	})
}

// TestLong has transfers that no socket holds, and a host that is slow to take them.
func TestLong(t *testing.T) {
	c, g := serve(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 4<<20/16)
	told := make(chan struct{}) // the host knows of the first transfer: else the second one's end may come before
	go func() {
		b := make([]byte, len(data))
		g.OutPipe(2).Read(t.Context(), b)
		<-told
		g.InPipe(0x81).Write(t.Context(), b)
	}()
	c.Write(submit(1, true, 1, len(data), 0, usbdev.Setup{}, nil))
	go c.Write(submit(2, false, 2, len(data), 0, usbdev.Setup{}, data))
	if p := read(t, c, false); p.seq != 2 || p.status != 0 || p.actual != len(data) {
		t.Errorf("OUT: %+v", p)
	}
	close(told)
	time.Sleep(20 * time.Millisecond) // until the socket is full
	if p := read(t, c, true); p.seq != 1 || p.status != 0 || !bytes.Equal(p.data, data) {
		t.Errorf("IN: %d bytes, status %d", len(p.data), p.status)
	}
}

// TestLeaveUnread unplugs a device whose answer nobody reads.
func TestLeaveUnread(t *testing.T) {
	t.Parallel()
	host, device := sockets(t)
	defer host.Close()
	g := usbdev.NewGadget(descriptors(), inert{})
	ctx, unplug := context.WithCancel(t.Context())
	defer unplug()
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, device, g) }()
	host.Write(submit(1, true, 1, 4<<20, 0, usbdev.Setup{}, nil))
	if _, err := g.InPipe(0x81).Write(t.Context(), make([]byte, 4<<20)); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	unplug()
	select {
	case err := <-served:
		if took := time.Since(begun); !errors.Is(err, os.ErrDeadlineExceeded) || took < leaveTimeout {
			t.Errorf("%v after %s", err, took)
		}
	case <-time.After(leaveTimeout + 5*time.Second):
		t.Error("Serve waits for a host that reads nothing")
	}
}

// TestUnlinkedWhileQueued unlinks the transfer that runs: those behind it go on.
func TestUnlinkedWhileQueued(t *testing.T) {
	c, g := serve(t)
	for seq := range uint32(3) {
		c.Write(submit(seq+1, true, 1, 64, 0, usbdev.Setup{}, nil))
	}
	c.Write(unlink(4, 1))
	if p := read(t, c, false); p.command != retUnlink || p.seq != 4 || p.status != -int32(syscall.ECONNRESET) {
		t.Fatalf("unlink: %+v", p)
	}
	go func() {
		for _, s := range []string{"two", "three"} {
			g.InPipe(0x81).Write(t.Context(), []byte(s))
		}
	}()
	for i, want := range []string{"two", "three"} {
		if p := read(t, c, true); int(p.seq) != i+2 || p.status != 0 || string(p.data) != want {
			t.Errorf("%+v, expected %q", p, want)
		}
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var s Server
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	p, err := s.NewPort("1-1")
	if err != nil {
		t.Fatal(err)
	}
	g := usbdev.NewGadget(descriptors(), inert{})
	if err := p.Attach(ctx, g); err != nil {
		t.Fatal(err)
	}
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		t.Cleanup(func() { c.Close() })
		return c
	}
	c := dial()
	c.Write(opHeader(opReqDevlist, 0))
	list, _ := io.ReadAll(c)
	if len(list) != 12+deviceRecLen+4 || binary.BigEndian.Uint32(list[8:]) != 1 || !bytes.HasPrefix(list[12+256:], []byte("1-1\x00")) {
		t.Errorf("list: %d bytes: %x", len(list), list)
	}
	c = dial()
	c.Write(append(opHeader(opReqImport, 0), append([]byte("1-1"), make([]byte, 29)...)...))
	rec := make([]byte, 8+deviceRecLen)
	if _, err := io.ReadFull(c, rec); err != nil || rec[7] != 0 {
		t.Fatalf("import: %v, %x", err, rec[:8])
	}
	c.Write(submit(1, true, 0, 18, 0, usbdev.Setup{Type: 0x80, Request: 6, Value: 0x0100, Length: 18}, nil))
	if p := read(t, c, true); len(p.data) != 18 {
		t.Errorf("device descriptor: %+v", p)
	}
	c2 := dial()
	c2.Write(append(opHeader(opReqImport, 0), append([]byte("1-1"), make([]byte, 29)...)...))
	if b, _ := io.ReadAll(c2); len(b) != 8 || b[7] == 0 {
		t.Errorf("second import: %x, expected an error", b)
	}
	if _, err := Import(ctx, dial(), "1-1"); !errors.Is(err, ErrNotThere) {
		t.Errorf("third import: %v, expected %v", err, ErrNotThere)
	}
	p.Detach()
	if _, err := io.ReadAll(c); err != nil {
		t.Errorf("after the detach: %v, expected the end of the connection", err)
	}
	if err := p.Attach(ctx, g); err != nil {
		t.Fatal(err)
	}
	c = dial()
	if speed, err := Import(ctx, c, "1-1"); err != nil || speed != usbdev.HighSpeed {
		t.Errorf("import by our own client: speed %d, %v", speed, err)
	}
	c.Write(submit(1, true, 0, 18, 0, usbdev.Setup{Type: 0x80, Request: 6, Value: 0x0100, Length: 18}, nil))
	if p := read(t, c, true); len(p.data) != 18 {
		t.Errorf("device descriptor: %+v", p)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// A transfer of many bytes is read in steps, to the same bytes.
func TestReadData(t *testing.T) {
	want := make([]byte, 300_000)
	for i := range want {
		want[i] = byte(i * i >> 8)
	}
	got, err := readData(bytes.NewReader(want), len(want))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v, %d bytes", err, len(got))
	}
	if _, err := readData(bytes.NewReader(want), len(want)+1); err == nil {
		t.Error("a byte is missing, and no error")
	}
}

func FuzzRequest(f *testing.F) {
	f.Add(submit(1, true, 0, 18, 0, usbdev.Setup{Type: 0x80, Request: 6, Value: 0x0100, Length: 18}, nil))
	f.Add(submit(1, false, 2, 4, flagZeroPacket, usbdev.Setup{}, []byte("data")))
	f.Add(unlink(2, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := readRequest(bytes.NewReader(b))
		if err != nil {
			return
		}
		if q.length < 0 || q.length > maxTransfer || q.data != nil && len(q.data) != q.length {
			t.Errorf("length %d, %d bytes of data", q.length, len(q.data))
		}
	})
}

func FuzzImport(f *testing.F) {
	f.Add(append(opHeader(opRepImport, 0), make([]byte, deviceRecLen)...))
	f.Add(opHeader(opRepImport, 1))
	f.Add(opHeader(opRepDevlist, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		ours, theirs := net.Pipe()
		defer ours.Close()
		go func() {
			defer theirs.Close()
			io.CopyN(io.Discard, theirs, 8+busIDLen)
			theirs.Write(b)
		}()
		if _, err := Import(t.Context(), ours, "1-1"); err == nil && len(b) < 8+deviceRecLen {
			t.Errorf("imported by %d bytes", len(b))
		}
	})
}

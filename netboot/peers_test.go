package netboot

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"snag/netboot/netboottest"
)

// sockets opens a link on the loopback interface.
func sockets(t *testing.T, detach bool) Link {
	l := Link{Server: testServer, Client: testClient}
	for i, pc := range []*net.PacketConn{&l.BOOTP, &l.TFTP} {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		*pc = c
		if detach && i == 1 {
			if *pc, err = Detach(c); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() { (*pc).Close() })
	}
	return l
}

func TestKernelSockets(t *testing.T) {
	for _, detach := range []bool{false, true} {
		for _, c := range []netboottest.Client{
			{}, {Blksize: 1468}, {Blksize: 1468, Window: 32}, {Blksize: 65464, Window: 2}, {Blksize: 8, Window: 64},
		} {
			t.Run(fmt.Sprintf("detached %v, blksize %d, window %d", detach, c.Blksize, c.Window), func(t *testing.T) {
				if o := fetched(t, sockets(t, detach), c, 500000); o.err != nil || !o.Acked {
					t.Errorf("%+v", o)
				}
			})
		}
	}
}

// fetched has a client fetch a file of so many bytes over loopback, and returns how the server ended.
func fetched(t *testing.T, link Link, c netboottest.Client, size int) outcome {
	t.Helper()
	f := &File{Stage: "rom", Name: "f", Data: image(size)}
	results := make(chan outcome, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go func() {
		res, err := Serve(ctx, link, Config{Pick: func(Client) *File { return f }})
		results <- outcome{res, err}
	}()
	pc, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	got, err := c.Fetch(ctx, pc, link.TFTP.LocalAddr().(*net.UDPAddr).AddrPort(), "f", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Data, f.Data) {
		t.Errorf("received %d bytes, not the file's", len(got.Data))
	}
	return <-results
}

// counting is a socket whose interface may be one that sends no segments.
type counting struct {
	*Socket
	refuse bool
	asked  int
}

func (c *counting) WriteSegments(b []byte, size int, to netip.AddrPort) error {
	c.asked++
	if c.refuse {
		return os.NewSyscallError("sendmsg", syscall.EIO)
	}
	return c.Socket.WriteSegments(b, size, to)
}

// TestSegments: each window is sent at once; or the first that was refused follows one by one, and so does all behind it.
func TestSegments(t *testing.T) {
	for _, refuse := range []bool{false, true} {
		link := sockets(t, true)
		s := &counting{Socket: link.TFTP.(*Socket), refuse: refuse}
		link.TFTP = s
		o := fetched(t, link, netboottest.Client{Blksize: 1468, Window: 8}, 100000)
		if o.err != nil || !o.Acked || (s.asked == 1) != refuse {
			t.Errorf("refused %v: %+v; sent %d windows at once", refuse, o, s.asked)
		}
	}
}

// TestDeafSegments: a deaf client of one block at a time is sent two.
func TestDeafSegments(t *testing.T) {
	s := sockets(t, true).TFTP.(*Socket)
	pc, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	c := newConn(s)
	if err := c.writeFlight(&transfer{data: image(10000), blksize: 1468, window: 1, next: 2, sent: 3}, pc.LocalAddr().(*net.UDPAddr).AddrPort()); err != nil {
		t.Fatal(err)
	}
	_ = pc.SetReadDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 2000)
	for _, want := range []byte{2, 3} {
		if n, _, err := pc.ReadFrom(b); err != nil || n != dataHeader+1468 || b[3] != want {
			t.Errorf("%d bytes, block %d, %v; want block %d", n, b[3], err, want)
		}
	}
}

// TestCancelKernelSocket: a reader that waits in the kernel ends with the context too.
func TestCancelKernelSocket(t *testing.T) {
	for _, detach := range []bool{false, true} {
		link := sockets(t, detach)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		start := time.Now()
		if _, err := Serve(ctx, link, Config{Pick: func(Client) *File { return nil }}); err == nil {
			t.Error("no error")
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("detached %v: ended after %v", detach, took)
		}
	}
}

// TestForeignClients has other people's clients fetch a file.
func TestForeignClients(t *testing.T) {
	for _, tt := range []struct {
		name string
		args func(port, to string) []string
	}{
		{"curl", func(port, to string) []string {
			return []string{"curl", "-sS", "-o", to, "tftp://127.0.0.1:" + port + "/f"}
		}},
		{"curl, 8192", func(port, to string) []string {
			return []string{"curl", "-sS", "--tftp-blksize", "8192", "-o", to, "tftp://127.0.0.1:" + port + "/f"}
		}},
		{"curl without options", func(port, to string) []string {
			return []string{"curl", "-sS", "--tftp-no-options", "-o", to, "tftp://127.0.0.1:" + port + "/f"}
		}},
		{"busybox", func(port, to string) []string {
			return []string{"busybox", "tftp", "-g", "-r", "f", "-l", to, "127.0.0.1", port}
		}},
		{"busybox, 1468", func(port, to string) []string {
			return []string{"busybox", "tftp", "-b", "1468", "-g", "-r", "f", "-l", to, "127.0.0.1", port}
		}},
		{"atftp", func(port, to string) []string {
			return []string{"atftp", "--get", "-r", "f", "-l", to, "127.0.0.1", port}
		}},
		{"atftp, window 16", func(port, to string) []string {
			return []string{"atftp", "--option", "blksize 1428", "--option", "windowsize 16", "--option", "tsize", "--get", "-r", "f", "-l", to, "127.0.0.1", port}
		}},
		{"tftp-hpa", func(port, to string) []string {
			return []string{"tftp", "-m", "binary", "127.0.0.1", port, "-c", "get", "f", to}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			link := sockets(t, false)
			to := filepath.Join(t.TempDir(), "got")
			args := tt.args(fmt.Sprint(link.TFTP.LocalAddr().(*net.UDPAddr).Port), to)
			if _, err := exec.LookPath(args[0]); err != nil {
				t.Skipf("no %s: %v", args[0], err)
			}
			f := &File{Stage: "rom", Name: "f", Data: image(512 * 300)}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			results := make(chan outcome, 1)
			go func() {
				res, err := Serve(ctx, link, Config{Pick: func(Client) *File { return f }})
				results <- outcome{res, err}
			}()
			if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%q: %v: %s", args, err, out)
			}
			got, err := os.ReadFile(to)
			if err != nil || !bytes.Equal(got, f.Data) {
				t.Errorf("received %d bytes, not the file's: %v", len(got), err)
			}
			if o := <-results; o.err != nil || !o.Acked || o.Retransmits > 2 {
				t.Errorf("%+v", o)
			}
		})
	}
}

// FuzzServe plays a board that sends anything, between pauses. The input is records: a byte that says to which port,
// from which port, and how long to wait before; two bytes of length; the datagram.
func FuzzServe(f *testing.F) {
	record := func(head byte, b string) []byte {
		return append(binary.BigEndian.AppendUint16([]byte{head}, uint16(len(b))), b...)
	}
	f.Add(join(record(0, string(romRequest())), record(1, "\x00\x01f\x00octet\x00"), record(1, "\x00\x04\x00\x01"), record(0x11, "\x00\x04\x00\x02")))
	f.Add(join(record(1, "\x00\x01f\x00octet\x00windowsize\x004\x00blksize\x0032\x00"), record(1, "\x00\x04\x00\x00"),
		record(1, "\x00\x04\x00\x02"), record(1, "\x00\x04\x00\x02"), record(0xf1, "\x00\x04\x00\x06"), record(0, string(dhcpRequest(1)))))
	f.Add(join(record(1, "\x00\x01f\x00octet\x00tsize\x000\x00"), record(1, "\x00\x05\x00\x08no\x00"), record(5, "\x00\x01f\x00octet\x00tsize\x000\x00")))
	f.Fuzz(func(t *testing.T, in []byte) {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t, 1, 1024, netboottest.Faults{})
			board := []*netboottest.Sock{l.net.Listen("192.168.0.101:68"), l.net.Listen("192.168.0.101:1234")}
			l.serve()
			for n := 0; len(in) >= 3 && n < 200; n++ {
				head := in[0]
				size := min(int(binary.BigEndian.Uint16(in[1:])), len(in)-3)
				time.Sleep(time.Duration(head>>4) * 20 * time.Millisecond)
				to := serverTFTP
				if head&1 == 0 {
					to = netip.MustParseAddrPort("192.168.0.100:67")
				}
				_, _ = board[head>>2&1].WriteTo(in[3:3+size], net.UDPAddrFromAddrPort(to))
				synctest.Wait()
				in = in[3+size:]
			}
			l.cancel(nil)
			o := <-l.results
			if o.err == nil && (o.File != l.file || o.Acked && o.LastByte.IsZero()) {
				t.Errorf("%+v", o)
			}
			if o.Blocks > 200*70+2000 {
				t.Errorf("%d blocks sent", o.Blocks)
			}
		})
	})
}

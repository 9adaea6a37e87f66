package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"snag/internal/lab"
	"snag/sim/am335x"
)

// TestWithUdevRivals recovers a board beside a DHCP server of the host's, which answers whoever asks, an
// Ethernet card, and a USB network adapter of other IDs whose device asks for an address all the time: no
// one of them is touched, answered or heard by snag, nor is anything of the host's network changed.
func TestWithUdevRivals(t *testing.T) {
	lab.Inside(t)
	setUp(t)
	fw := generateSized(t, 9, 8<<10, 24<<10)

	// The card is one end of a cable whose other end is a namespace of its own, with a client in it.
	must(t, "ip", "netns", "add", "street")
	defer must(t, "ip", "netns", "del", "street")
	must(t, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", "street")
	must(t, "ip", "addr", "add", "10.7.0.1/24", "dev", "eth0")
	must(t, "ip", "link", "set", "eth0", "up")
	must(t, "ip", "-n", "street", "addr", "add", "10.7.0.2/24", "dev", "eth0")
	must(t, "ip", "-n", "street", "link", "set", "eth0", "up")
	must(t, "ip", "-n", "street", "route", "add", "255.255.255.255", "dev", "eth0")

	adapterPort := hostPort(t, 3)
	adapter, _, _ := plugged(t, am335x.Config{ROM: phone, Seed: 77,
		ROMRetries: slices.Repeat([]time.Duration{300 * time.Millisecond}, 1000)}, adapterPort)
	var name string
	soon(t, time.Minute, func() error {
		i, err := onHost(adapterPort)
		if name = i.Name; err == nil && !strings.HasPrefix(name, "enx") {
			err = fmt.Errorf("udev has not renamed it yet: %s", name)
		}
		return err
	})
	must(t, "ip", "addr", "add", "10.8.0.1/24", "dev", name)
	must(t, "ip", "link", "set", name, "up")

	soon(t, 30*time.Second, func() error { // IPv6 looks for duplicates first
		if s := must(t, "ip", "-o", "addr"); strings.Contains(s, "tentative") {
			return errors.New(s)
		}
		return nil
	})
	rival := startRival(t)
	before := hostNetwork(t)
	ctx, stop := context.WithCancel(t.Context())
	street := make(chan map[string]int, 1)
	client := streetSocket(t)
	go func() { street <- askForAddress(ctx, client) }()

	p := start(t, user, "recover", "-s", "am335x", "-f", fw.config)
	board, _, unplug := plugged(t, am335x.Config{Seed: 3}, hostPort(t, 1))
	if code := p.exit(t, 3*time.Minute); code != 0 {
		t.Errorf("exit code %d\n%s", code, p)
	}
	fw.booted(t, board)
	unplug()
	stop()

	answers := <-street
	if len(answers) != 1 || answers["10.7.0.1"] == 0 {
		t.Errorf("the client in the street was answered by %v, expected the rival alone", answers)
	}
	r := adapter.Report()
	if s := r.Last(am335x.StageROM); s.Server != rivalServer || s.BOOTPSent == 0 || len(s.Data) > 0 {
		t.Errorf("the device of the other adapter: server %q, %d requests, %d bytes; expected the rival %s", s.Server, s.BOOTPSent, len(s.Data), rivalServer)
	}
	heard := rival()
	for _, s := range board.Report().Stages {
		if n := heard[s.MAC]; n > 0 {
			t.Errorf("the rival heard %d requests of the board that snag recovered", n)
		}
		if s.Server == rivalServer {
			t.Error("the rival answered the board that snag recovered")
		}
	}
	if heard[r.Stages[0].MAC] == 0 || len(heard) != 2 {
		t.Errorf("the rival heard %v, expected the device of the adapter and the client in the street", heard)
	}
	soon(t, 30*time.Second, func() error {
		after := hostNetwork(t)
		for key, text := range before {
			if after[key] != text {
				return fmt.Errorf("%s has changed\nbefore: %s\nafter: %s", key, text, after[key])
			}
		}
		if len(after) != len(before) {
			return fmt.Errorf("%d things to compare before, %d after", len(before), len(after))
		}
		return nil
	})
}

// hostNetwork is all there is to the host's network, in words.
func hostNetwork(t *testing.T) map[string]string {
	t.Helper()
	now := map[string]string{
		"links":     must(t, "ip", "-o", "link"),
		"addresses": must(t, "ip", "-o", "addr"),
		"routes":    must(t, "ip", "route", "show", "table", "all"),
		"rules":     must(t, "ip", "rule"),
		"named":     must(t, "ip", "netns"),
	}
	if nft, err := exec.LookPath("nft"); err == nil {
		now["nftables"] = must(t, nft, "list", "ruleset")
	}
	filepath.WalkDir("/proc/sys/net", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.HasSuffix(path, "nf_conntrack_count") {
			return nil
		}
		b, err := os.ReadFile(path)
		if err == nil { // some may only be written
			now[path] = string(b)
		}
		return nil
	})
	return now
}

// rivalServer is the TFTP server that the rival names. There is none.
const rivalServer = "10.8.0.99"

// startRival serves BOOTP to whoever asks on the host, until the test ends. The function that is
// returned says who has asked so far, and how often.
func startRival(t *testing.T) func() map[string]int {
	t.Helper()
	conn, err := broadcastSocket(67)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	var mu sync.Mutex
	heard := make(map[string]int)
	go func() {
		buf := make([]byte, 2048)
		oob := make([]byte, 128)
		for {
			n, oobn, _, _, err := conn.ReadMsgUDP(buf, oob)
			if err != nil {
				return
			}
			if n < 240 || buf[0] != 1 {
				continue
			}
			mu.Lock()
			heard[net.HardwareAddr(buf[28:34]).String()]++
			mu.Unlock()
			reply := make([]byte, 300)
			copy(reply, buf[:236])
			reply[0] = 2
			copy(reply[16:], net.IPv4(10, 8, 0, 50).To4())
			copy(reply[20:], net.ParseIP(rivalServer).To4())
			copy(reply[108:], "rival.bin\x00")
			copy(reply[236:], []byte{99, 130, 83, 99, 1, 4, 255, 255, 255, 0, 255})
			// Where the request came in, the answer goes out: IP_PKTINFO, both ways.
			msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
			if err != nil || len(msgs) != 1 {
				continue
			}
			index := int32(binary.NativeEndian.Uint32(msgs[0].Data))
			conn.WriteMsgUDP(reply, unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: index}), &net.UDPAddr{IP: net.IPv4bcast, Port: 68})
		}
	}()
	return func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(heard)
	}
}

// broadcastSocket is a UDP socket that may broadcast and that tells where datagrams came in.
func broadcastSocket(port int) (*net.UDPConn, error) {
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		raw.Control(func(fd uintptr) {
			err = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
				unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1))
		})
		return err
	}}
	conn, err := c.ListenPacket(context.Background(), "udp4", fmt.Sprintf("0.0.0.0:%d", port))
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

// streetSocket is a client's socket at the other end of the cable.
func streetSocket(t *testing.T) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		done <- func() error {
			ns, err := os.Open("/run/netns/street")
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			conn, err = broadcastSocket(68)
			return err
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// askForAddress asks for an address over and over and says who answered how often.
func askForAddress(ctx context.Context, conn *net.UDPConn) map[string]int {
	answers := make(map[string]int)
	request := make([]byte, 300)
	copy(request, []byte{1, 1, 6, 0, 0, 0, 0, 7})
	copy(request[28:], []byte{2, 0, 0, 0, 0, 7})
	copy(request[236:], []byte{99, 130, 83, 99, 60, 10, 'A', 'M', '3', '3', '5', 'x', ' ', 'R', 'O', 'M', 255})
	buf := make([]byte, 2048)
	for ctx.Err() == nil {
		conn.WriteTo(request, &net.UDPAddr{IP: net.IPv4bcast, Port: 67})
		conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		for {
			n, from, err := conn.ReadFromUDP(buf)
			if err != nil {
				break
			}
			if n > 4 && binary.BigEndian.Uint32(buf[4:]) == 7 {
				answers[from.IP.String()]++
			}
		}
	}
	return answers
}

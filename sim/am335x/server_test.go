package am335x

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"snag/sim/usbdev"
	"snag/sim/virtual"
)

// host is a USB port of a host that serves boards with BOOTP and TFTP. It is as simple as can be and
// has faults of its own to ask for.
type host struct {
	spl, uboot []byte
	upAfter    time.Duration // until the interface is up; negative: never
	sourcePort uint16        // of BOOTP replies; zero: 67
	message    byte          // option 53 of replies; zero: 5
	noOptions  bool          // ignore TFTP options
	edit       func(frame []byte) []byte
	oack       func([]option) []option

	mu   sync.Mutex
	stop context.CancelFunc
	seen []string // vendor classes, in the order of requests
}

var (
	hostMAC  = mac{2, 0, 0, 0, 0, 9}
	hostIP   = netip.MustParseAddr("192.168.0.100")
	clientIP = netip.MustParseAddr("192.168.0.101")
)

func (h *host) Attach(_ context.Context, dev usbdev.Device) error {
	ctx, stop := context.WithCancel(context.Background())
	h.mu.Lock()
	h.stop = stop
	h.mu.Unlock()
	n, ok := dev.(interface {
		NetLink() *usbdev.Link
		HostMAC() net.HardwareAddr
	})
	if !ok {
		return nil
	}
	link := n.NetLink()
	frames := make(chan []byte, 256)
	go func() {
		if h.upAfter < 0 {
			return
		}
		if virtual.Sleep(ctx, h.upAfter) == nil {
			link.SetUp(true)
			link.Carry(ctx, func(_ context.Context, f []byte) error {
				frames <- bytes.Clone(f)
				return nil
			})
		}
	}()
	go h.serve(ctx, link, frames)
	return nil
}

func (h *host) Detach() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stop != nil {
		h.stop()
	}
	return nil
}

// session is a TFTP transfer of the host's.
type session struct {
	file        []byte
	size        int // of a block
	window      int
	acked       int // blocks
	peer        mac
	repeat      []byte // OACK, until it is acknowledged
	sent        time.Time
	client, own uint16
}

func (h *host) serve(ctx context.Context, link *usbdev.Link, frames <-chan []byte) {
	var s *session
	port := uint16(40000)
	send := func(d datagram) {
		d.srcMAC, d.src = hostMAC, hostIP
		f := encodeUDP(d, 1)
		if h.edit != nil {
			f = h.edit(f)
		}
		link.Deliver(ctx, f)
	}
	tftp := func(s *session, b []byte) {
		send(datagram{dstMAC: s.peer, dst: clientIP, srcPort: s.own, dstPort: s.client, data: b})
	}
	blocks := func(s *session) {
		s.sent = time.Now()
		if s.repeat != nil {
			tftp(s, s.repeat)
			return
		}
		for i := s.acked; i < s.acked+s.window && i*s.size <= len(s.file); i++ {
			chunk := s.file[i*s.size : min(len(s.file), (i+1)*s.size)]
			tftp(s, append([]byte{0, opDATA, byte((i + 1) >> 8), byte(i + 1)}, chunk...))
		}
	}
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		var f []byte
		select {
		case f = <-frames:
		case <-tick.C:
			if s != nil && time.Since(s.sent) >= time.Second {
				blocks(s)
			}
			continue
		case <-ctx.Done():
			return
		}
		if a, ok := decodeARP(f); ok && a.op == arpRequest && a.target == hostIP {
			link.Deliver(ctx, encodeARP(arp{op: arpReply, etherDst: a.senderMAC, senderMAC: hostMAC, sender: hostIP, targetMAC: a.senderMAC, target: a.sender}))
			continue
		}
		d, err := decodeUDP(f)
		if err != nil {
			continue
		}
		switch {
		case d.dstPort == serverPort && len(d.data) >= bootpOptions:
			s = nil
			class := ""
			for o := d.data[bootpOptions:]; len(o) > 1 && o[0] != optEnd; o = o[2+int(o[1]):] {
				if o[0] == optVendor {
					class = string(o[2 : 2+o[1]])
				}
			}
			h.mu.Lock()
			h.seen = append(h.seen, class)
			h.mu.Unlock()
			r := bytes.Clone(d.data[:bootpOptions])
			r[0] = 2
			copy(r[16:], clientIP.AsSlice())
			copy(r[20:], hostIP.AsSlice())
			name := "u-boot.img"
			if class == "AM335x ROM" {
				name = "spl.bin"
			}
			copy(r[108:], name)
			m := h.message
			if m == 0 {
				m = dhcpACK
			}
			r = pad(append(r, optMessage, 1, m, optServer, 4, 192, 168, 0, 100, optMask, 4, 255, 255, 255, 0, optEnd), bootpMinimum)
			p := h.sourcePort
			if p == 0 {
				p = serverPort
			}
			send(datagram{dstMAC: broadcastMAC, dst: netip.MustParseAddr("255.255.255.255"), srcPort: p, dstPort: clientPort, data: r})
		case d.dstPort == tftpPort:
			fields := strings.Split(string(d.data[2:]), "\x00")
			file := h.uboot
			if fields[0] == "spl.bin" {
				file = h.spl
			}
			if s == nil || s.client != d.srcPort || s.peer != d.srcMAC {
				port++ // not a repeated request, which begins again on the same port
			}
			s = &session{file: file, size: 512, window: 1, client: d.srcPort, own: port, peer: d.srcMAC}
			var answer []option
			for i := 2; i+1 < len(fields)-1 && !h.noOptions; i += 2 {
				v := fields[i+1]
				switch fields[i] {
				case "blksize":
					s.size, _ = strconv.Atoi(v)
				case "windowsize":
					s.window, _ = strconv.Atoi(v)
				case "tsize":
					v = strconv.Itoa(len(file))
				}
				answer = append(answer, option{fields[i], v})
			}
			if h.oack != nil {
				answer = h.oack(answer)
			}
			if len(answer) > 0 {
				s.repeat = []byte{0, opOACK}
				for _, o := range answer {
					s.repeat = append(s.repeat, o.name+"\x00"+o.value+"\x00"...)
				}
			}
			blocks(s)
		case s != nil && d.dstPort == s.own && len(d.data) >= 4 && d.data[1] == opACK:
			ack := int(binary.BigEndian.Uint16(d.data[2:]))
			if s.repeat != nil && ack == 0 {
				s.repeat = nil
				blocks(s)
				continue
			}
			n := s.acked + int(int16(uint16(ack)-uint16(s.acked)))
			if n > s.acked || n == s.acked && s.window > 1 {
				s.acked = n
				if s.acked*s.size > len(s.file) {
					s = nil
					continue
				}
				blocks(s)
			}
		case s != nil && d.dstPort == s.own && len(d.data) >= 4 && d.data[1] == opERROR:
			s = nil
		}
	}
}

var errNotSettled = errors.New("the board did not settle")

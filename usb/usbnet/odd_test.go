package usbnet_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"snag/sim/usbdev"
	"snag/usb"
	"snag/usb/rndis"
	"snag/usb/usbnet"
)

// odd is an adapter whose descriptors and answers are the test's. What it receives it sends back.
type odd struct {
	*usbdev.Gadget
	mu      sync.Mutex
	command func(b []byte)                 // takes a control message
	get     func(data []byte) (int, error) // answers GET_ENCAPSULATED_RESPONSE
	back    func(transfer []byte) [][]byte // what becomes of a transfer; nil: itself
}

func newOdd(speed usbdev.Speed, configs ...usbdev.Config) *odd {
	d := &odd{}
	var ready [][]byte
	answer := obedient(nil)
	d.command = func(b []byte) {
		if a := answer(b); a != nil {
			ready = append(ready, a)
		}
	}
	d.get = func(data []byte) (int, error) {
		if len(ready) == 0 {
			return 0, usbdev.ErrStall
		}
		b := ready[0]
		ready = ready[1:]
		return copy(data, b), nil
	}
	d.Gadget = usbdev.NewGadget(&usbdev.Descriptors{Speed: speed, ID: usb.ID{Vendor: 0x1d50, Product: 0x60c7}, Configs: configs}, oddFunction{d})
	return d
}

type oddFunction struct{ d *odd }

func (oddFunction) Configured(uint8)      {}
func (oddFunction) Selected(uint8, uint8) {}
func (f oddFunction) Control(_ context.Context, s usbdev.Setup, data []byte) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	switch {
	case s.Type == 0x21 && s.Request == 0:
		f.d.command(bytes.Clone(data))
		return len(data), nil
	case s.Type == 0xa1 && s.Request == 1:
		return f.d.get(data)
	}
	return 0, usbdev.ErrStall
}

// echo sends back what comes, until the context ends.
func (d *odd) echo(ctx context.Context, in, out uint8) {
	buf := make([]byte, 4096)
	for {
		n, err := d.OutPipe(out).Read(ctx, buf)
		if err != nil {
			return
		}
		all := [][]byte{buf[:n]}
		if d.back != nil {
			all = d.back(buf[:n])
		}
		for _, b := range all {
			if _, err := d.InPipe(in).Write(ctx, b); err != nil {
				return
			}
			if len(b) > 0 && len(b)%512 == 0 && d.back != nil {
				if _, err := d.InPipe(in).Write(ctx, nil); err != nil { // a zero-length packet
					return
				}
			}
		}
	}
}

// function makes the descriptors of an adapter from its numbers.
func function(value, control, data uint8, class [3]uint8, notify, in, out uint8, packet uint16, union []byte) usbdev.Config {
	c := usbdev.Config{Value: value, Attributes: 0x40}
	c.Interfaces = []usbdev.Interface{
		{Number: control, Class: class[0], SubClass: class[1], Protocol: class[2], Extra: union},
		{Number: data, Class: 0x0a, Endpoints: []usbdev.Endpoint{{Address: out, Type: usbdev.Bulk, MaxPacket: packet}, {Address: in, Type: usbdev.Bulk, MaxPacket: packet}}},
	}
	if notify != 0 {
		c.Interfaces[0].Endpoints = []usbdev.Endpoint{{Address: notify, Type: usbdev.Interrupt, MaxPacket: 8, Interval: 4}}
	}
	return c
}

// Descriptors of all kinds: what they say is what is spoken.
func TestOddDescriptors(t *testing.T) {
	modem, wireless, misc, ecm := [3]uint8{2, 2, 0xff}, [3]uint8{0xe0, 1, 3}, [3]uint8{0xef, 4, 1}, [3]uint8{2, 6, 0}
	// behind puts a function behind an interface that has nothing to do with it, and the association (USB 2.0 ECN) in
	// between.
	behind := func(c usbdev.Config) usbdev.Config {
		first := usbdev.Interface{Number: 0, Class: 0xff, Extra: []byte{8, 11, c.Interfaces[0].Number, 2, 0xe0, 1, 3, 0}}
		c.Interfaces = append([]usbdev.Interface{first}, c.Interfaces...)
		return c
	}
	serial := func(c usbdev.Config) usbdev.Config { // an ACM port besides, before it
		c.Interfaces = append([]usbdev.Interface{
			{Number: 0, Class: 2, SubClass: 2, Protocol: 1, Extra: []byte{5, 0x24, 6, 0, 1}},
			{Number: 1, Class: 0x0a, Endpoints: []usbdev.Endpoint{{Address: 0x87, Type: usbdev.Bulk, MaxPacket: 512}, {Address: 7, Type: usbdev.Bulk, MaxPacket: 512}}},
		}, c.Interfaces...)
		return c
	}
	for _, tc := range []struct {
		name    string
		speed   usbdev.Speed
		configs []usbdev.Config
		kind    usbnet.Kind
		config  uint8
		in, out uint8
	}{
		{"wireless controller", usbdev.HighSpeed, []usbdev.Config{function(1, 0, 1, wireless, 0x81, 0x8f, 0x0e, 512, nil)}, usbnet.RNDIS, 1, 0x8f, 0x0e},
		{"ActiveSync", usbdev.HighSpeed, []usbdev.Config{function(1, 0, 1, misc, 0x83, 0x82, 0x02, 512, nil)}, usbnet.RNDIS, 1, 0x82, 2},
		{"full speed, 8", usbdev.FullSpeed, []usbdev.Config{function(1, 0, 1, modem, 0x84, 0x85, 0x06, 8, nil)}, usbnet.RNDIS, 1, 0x85, 6},
		{"full speed, 16", usbdev.FullSpeed, []usbdev.Config{function(1, 0, 1, modem, 0x84, 0x85, 0x06, 16, nil)}, usbnet.RNDIS, 1, 0x85, 6},
		{"full speed, 32", usbdev.FullSpeed, []usbdev.Config{function(1, 0, 1, ecm, 0x84, 0x85, 0x06, 32, nil)}, usbnet.ECM, 1, 0x85, 6},
		{"no notifications", usbdev.HighSpeed, []usbdev.Config{function(1, 0, 1, modem, 0, 0x81, 0x01, 512, nil)}, usbnet.RNDIS, 1, 0x81, 1},
		{"ECM active, RNDIS besides", usbdev.HighSpeed, []usbdev.Config{function(1, 0, 1, ecm, 0x82, 0x81, 0x01, 512, nil), function(2, 0, 1, modem, 0x82, 0x83, 0x03, 512, nil)}, usbnet.ECM, 1, 0x81, 1},
		{"RNDIS active, ECM besides", usbdev.HighSpeed, []usbdev.Config{function(2, 0, 1, modem, 0x82, 0x83, 0x03, 512, nil), function(1, 0, 1, ecm, 0x82, 0x81, 0x01, 512, nil)}, usbnet.RNDIS, 2, 0x83, 3},
		{"behind an association", usbdev.HighSpeed, []usbdev.Config{behind(function(3, 4, 9, wireless, 0x82, 0x83, 0x03, 512, []byte{5, 0x24, 6, 4, 9}))}, usbnet.RNDIS, 3, 0x83, 3},
		{"behind a serial port", usbdev.HighSpeed, []usbdev.Config{serial(function(1, 2, 3, modem, 0x82, 0x83, 0x03, 512, nil))}, usbnet.RNDIS, 1, 0x83, 3},
		{"union of an interface that is none", usbdev.HighSpeed, []usbdev.Config{function(1, 0, 1, modem, 0x82, 0x83, 0x03, 512, []byte{5, 0x24, 6, 0, 200})}, usbnet.RNDIS, 1, 0x83, 3},
		{"union of itself", usbdev.HighSpeed, []usbdev.Config{function(1, 0, 1, modem, 0x82, 0x83, 0x03, 512, []byte{5, 0x24, 6, 0, 0})}, usbnet.RNDIS, 1, 0x83, 3},
		{"union that is cut", usbdev.HighSpeed, []usbdev.Config{function(1, 0, 1, modem, 0x82, 0x83, 0x03, 512, []byte{3, 0x24, 6})}, usbnet.RNDIS, 1, 0x83, 3},
		{"endpoints of one number", usbdev.HighSpeed, []usbdev.Config{function(1, 0, 1, modem, 0x83, 0x82, 0x02, 512, nil)}, usbnet.RNDIS, 1, 0x82, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dev := newOdd(tc.speed, tc.configs...)
				_, h := plug(t, dev)
				a, err := usbnet.Open(t.Context(), h, nil)
				if err != nil {
					t.Fatal(err)
				}
				if a.Kind != tc.kind || a.Config != tc.config || a.In.Address != tc.in || a.Out.Address != tc.out {
					t.Errorf("%+v", a.Function)
				}
				got := make(chan []byte, 1)
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go dev.echo(ctx, tc.in, tc.out)
				go func() { ended <- a.Run(ctx, func(f []byte) { got <- bytes.Clone(f) }) }()
				for n := 14; n <= 1514; n++ { // every length, so every remainder
					frame := bytes.Repeat([]byte{byte(n)}, n)
					if err := a.Send(frame); err != nil {
						t.Fatal(err)
					}
					select {
					case f := <-got:
						if !bytes.HasPrefix(f, frame) || len(f) > n+1 {
							t.Fatalf("%d bytes sent, %d came back", n, len(f))
						}
					case <-time.After(time.Second):
						t.Fatalf("%d bytes did not come back", n)
					}
				}
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
				a.Close()
			})
		})
	}
}

// A device may take its time with an answer, whatever it says until then.
func TestOddAnswers(t *testing.T) {
	const late = 700 * time.Millisecond
	type device struct {
		*odd
		asked time.Time // when the last command came
		last  []byte    // and its answer
		old   []byte    // that of the one before
		given bool
	}
	ready := func(d *device) bool { return time.Since(d.asked) >= late }
	for _, tc := range []struct {
		name  string
		until func(d *device, data []byte) (int, error) // before the answer is there
	}{
		{"nothing", func(*device, []byte) (int, error) { return 0, nil }},
		{"a zero", func(_ *device, data []byte) (int, error) { return copy(data, []byte{0}), nil }},
		{"a stall", func(*device, []byte) (int, error) { return 0, usbdev.ErrStall }},
		{"zeros", func(_ *device, data []byte) (int, error) { return copy(data, make([]byte, len(data))), nil }},
		{"a message of zeros", func(_ *device, data []byte) (int, error) { return copy(data, make([]byte, 16)), nil }},
		{"its last answer", func(d *device, data []byte) (int, error) { return copy(data, d.old), nil }},
		{"that the medium is there", func(_ *device, data []byte) (int, error) {
			return copy(data, words(rndis.TypeIndicate, 20, 0x4001000b, 0, 0)), nil
		}},
		{"another's ID", func(d *device, data []byte) (int, error) {
			b := bytes.Clone(d.last)
			binary.LittleEndian.PutUint32(b[8:], 0x1000)
			return copy(data, b), nil
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &device{odd: newOdd(usbdev.HighSpeed, function(1, 0, 1, [3]uint8{2, 2, 0xff}, 0x82, 0x81, 1, 512, nil))}
				answer := obedient(nil)
				d.command = func(b []byte) {
					if a := answer(b); a != nil {
						d.asked, d.old, d.last, d.given = time.Now(), d.last, a, false
					}
				}
				d.get = func(data []byte) (int, error) {
					if !ready(d) || d.given {
						return tc.until(d, data)
					}
					d.given = true
					return copy(data, d.last), nil
				}
				_, h := plug(t, d)
				begun := time.Now()
				a, err := usbnet.Open(t.Context(), h, nil)
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begun); took > 3*late+time.Second {
					t.Errorf("it took %s", took)
				}
				if !bytes.Equal(a.MAC[:], hostMAC) {
					t.Errorf("MAC % x", a.MAC)
				}
				a.Close()
			})
		})
	}
}

// A notification that fills its endpoint's packet, as Linux's gadget sends them, is one.
func TestOddNotifications(t *testing.T) {
	for _, tc := range []struct {
		name  string
		note  []byte
		other []byte // that is to be fetched before the keep-alive
	}{
		{name: "a whole packet", note: words(1, 0)},
		{name: "nonsense", note: []byte{0xff}},
		{name: "one for two messages", note: words(1, 0), other: words(rndis.TypeIndicate, 20, 0x4001000b, 0, 0)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newOdd(usbdev.HighSpeed, function(1, 0, 1, [3]uint8{2, 2, 0xff}, 0x82, 0x81, 1, 512, nil))
				command, get := d.command, d.get
				var queue [][]byte
				var answered bool
				d.command = func(b []byte) {
					if bytes.Equal(b, rndis.KeepaliveAnswer(77)) {
						answered = true
					}
					command(b)
				}
				d.get = func(data []byte) (int, error) {
					if len(queue) == 0 {
						return get(data)
					}
					n := copy(data, queue[0])
					queue = queue[1:]
					return n, nil
				}
				_, h := plug(t, d)
				a, err := usbnet.Open(t.Context(), h, nil)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- a.Run(ctx, func([]byte) {}) }()
				var talking sync.WaitGroup
				talking.Go(func() { // so that it is not asked for a sign of life
					for ctx.Err() == nil {
						_, _ = d.InPipe(0x81).Write(ctx, rndis.AppendPacket(nil, make([]byte, 60)))
						time.Sleep(10 * time.Millisecond)
					}
				})
				defer talking.Wait()
				defer cancel()
				time.Sleep(2 * time.Second)
				d.mu.Lock()
				if tc.other != nil {
					queue = append(queue, tc.other)
				}
				queue = append(queue, rndis.Keepalive(77))
				d.mu.Unlock()
				if _, err := d.InPipe(0x82).Write(t.Context(), tc.note); err != nil {
					t.Fatal(err)
				}
				time.Sleep(4 * time.Second) // a device waits for 5 s
				d.mu.Lock()
				if !answered {
					t.Error("the keep-alive was not answered")
				}
				d.mu.Unlock()
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
				a.Close()
			})
		})
	}
}

// A transfer of several messages, with padding between and behind them, is as many frames.
func TestOddTransfers(t *testing.T) {
	message := func(frame []byte, align, extra int) []byte {
		b := rndis.AppendPacket(nil, frame)
		if extra > 0 { // per-packet information in front of the frame
			b = append(b[:rndis.HeaderSize:rndis.HeaderSize], append(make([]byte, extra), frame...)...)
			binary.LittleEndian.PutUint32(b[8:], uint32(rndis.HeaderSize-8+extra))
		}
		for align > 1 && len(b)%align != 0 {
			b = append(b, 0xa5)
		}
		binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
		return b
	}
	for _, tc := range []struct {
		name                 string
		lengths              []int
		align, extra, behind int
	}{
		{"three", []int{60, 14, 1514}, 1, 0, 0},
		{"aligned to 3", []int{61, 62, 63}, 3, 0, 0},
		{"aligned to 64, padded", []int{60, 342, 60}, 64, 0, 43},
		{"padded with more than a header", []int{60, 342}, 8, 0, 100},
		{"information in front", []int{60, 800}, 1, 16, 0},
		{"a multiple of the packet", []int{512 - 44, 1024 - 44, 512 - 44}, 1, 0, 0},
		{"whole of what there is room for", []int{1024 - 44, 1024 - 44}, 1, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newOdd(usbdev.HighSpeed, function(1, 0, 1, [3]uint8{0xe0, 1, 3}, 0x82, 0x81, 1, 512, nil))
				d.back = func([]byte) [][]byte {
					var b []byte
					for i, n := range tc.lengths {
						b = append(b, message(bytes.Repeat([]byte{byte(i + 1)}, n), tc.align, tc.extra)...)
					}
					return [][]byte{append(b, make([]byte, tc.behind)...)}
				}
				_, h := plug(t, d)
				a, err := usbnet.Open(t.Context(), h, nil)
				if err != nil {
					t.Fatal(err)
				}
				got := make(chan string, 100)
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go d.echo(ctx, 0x81, 1)
				go func() { ended <- a.Run(ctx, func(f []byte) { got <- fmt.Sprintf("%d of %d", len(f), f[0]) }) }()
				for range 3 {
					if err := a.Send(make([]byte, 60)); err != nil {
						t.Fatal(err)
					}
					for i, n := range tc.lengths {
						select {
						case f := <-got:
							if want := fmt.Sprintf("%d of %d", n, i+1); f != want {
								t.Errorf("frame %s, want %s", f, want)
							}
						case <-time.After(time.Second):
							t.Fatalf("frame %d did not come", i+1)
						}
					}
				}
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
				a.Close()
			})
		})
	}
}

// What a device says of its limits changes nothing for frames that a board takes one at a time.
func TestOddLimits(t *testing.T) {
	for _, tc := range []struct{ packets, bytes, align uint32 }{{0, 0, 0}, {1, 64, 7}, {255, 0xffffffff, 31}, {0xffffffff, 1, 0xffffffff}} {
		t.Run(fmt.Sprint(tc), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newHostile(obedient(func(typ uint32, b []byte) []byte {
					if typ == rndis.TypeInitialize {
						binary.LittleEndian.PutUint32(b[32:], tc.packets)
						binary.LittleEndian.PutUint32(b[36:], tc.bytes)
						binary.LittleEndian.PutUint32(b[40:], tc.align)
					}
					return b
				}))
				a, ended, cancel := run(t, d, func([]byte) {})
				if err := a.Send(make([]byte, 1514)); err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 4096)
				if n, err := d.OutPipe(2).Read(t.Context(), buf); err != nil || n != 1514+44 {
					t.Errorf("%d bytes, %v", n, err)
				}
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
				a.Close()
			})
		})
	}
}

// noNames is a device that answers requests for its strings in some way of its own.
type noNames struct {
	*usbdev.Ethernet
	names func(ctx context.Context, data []byte) (int, error)
}

func (d noNames) Control(ctx context.Context, s usbdev.Setup, data []byte) (int, error) {
	const descString = 3
	if s.Type == 0x80 && s.Request == usb.ReqGetDescriptor && s.Value>>8 == descString {
		return d.names(ctx, data)
	}
	return d.Ethernet.Control(ctx, s, data)
}

// An ECM device that does not tell the host's address is given one, as an RNDIS device is.
func TestOddNames(t *testing.T) {
	for _, tc := range []struct {
		name  string
		names func(ctx context.Context, data []byte) (int, error)
	}{
		{"stall", func(context.Context, []byte) (int, error) { return 0, usbdev.ErrStall }},
		{"nothing", func(context.Context, []byte) (int, error) { return 0, nil }},
		{"nonsense", func(_ context.Context, data []byte) (int, error) { return copy(data, "\xff\x03\x00"), nil }},
		{"a group's", func(_ context.Context, data []byte) (int, error) {
			return copy(data, "\x1a\x030\x001\x000\x000\x005\x00E\x000\x000\x000\x000\x000\x001\x00"), nil
		}},
		{"no answer", func(ctx context.Context, _ []byte) (int, error) { <-ctx.Done(); return 0, ctx.Err() }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dev := ethernet(false, usbdev.ECMConfig(1, 0x82, 0x81, 1, 512))
				answers := make(chan struct{})
				_, h := plug(t, noNames{dev, func(ctx context.Context, data []byte) (int, error) {
					select {
					case <-answers: // the enumeration is over
						return tc.names(ctx, data)
					default:
						return 0, usbdev.ErrStall
					}
				}})
				close(answers)
				a, err := usbnet.Open(t.Context(), h, nil)
				if err != nil {
					t.Fatal(err)
				}
				if a.MAC != [6]byte{2, 's', 'n', 'a', 'g', 1} {
					t.Errorf("MAC % x", a.MAC)
				}
				a.Close()
			})
		})
	}
}

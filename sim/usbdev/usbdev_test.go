package usbdev

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"snag/usb"
)

func adapterConfig(need bool) EthernetConfig {
	return EthernetConfig{
		Descriptors: Descriptors{
			Speed: HighSpeed, Class: 2, ID: usb.ID{Vendor: 0x0451, Product: 0xd022}, Manufacturer: "maker",
			Configs: []Config{RNDISConfig(2, 0x82, 0x81, 0x01, 512), ECMConfig(1, 0x82, 0x81, 0x01, 512)},
		},
		HostMAC:          net.HardwareAddr{2, 0, 0, 0, 0, 1},
		NeedNotification: need,
	}
}

func TestDescriptors(t *testing.T) {
	d := NewEthernet(adapterConfig(true)).Descriptors()
	dev := d.Device()
	if len(dev) != 18 || dev[17] != 2 || binary.LittleEndian.Uint16(dev[10:]) != 0xd022 {
		t.Errorf("device descriptor % x", dev)
	}
	for i, value := range []byte{2, 1} {
		c := d.Config(i)
		if int(binary.LittleEndian.Uint16(c[2:])) != len(c) || c[4] != 2 || c[5] != value {
			t.Errorf("configuration %d: % x", i, c)
		}
		for b := c; len(b) > 0; b = b[b[0]:] {
			if int(b[0]) < 2 || int(b[0]) > len(b) {
				t.Fatalf("configuration %d: descriptor of length %d at the end: % x", i, b[0], c)
			}
		}
	}
	if d.Config(2) != nil {
		t.Error("a third configuration")
	}
	if got := d.String(iMACAddress); !bytes.Equal(got[2:6], []byte("0\x002\x00")) {
		t.Errorf("MAC string % x", got)
	}
	if d.String(200) != nil {
		t.Error("a string of an unused index")
	}
}

// TestPackets checks what ends a transfer.
func TestPackets(t *testing.T) {
	for _, tc := range []struct {
		name string
		give []int // transfers of these lengths
		buf  int
		want []int // what reads of buf bytes return
	}{
		{"short", []int{10, 20}, 100, []int{10, 20}},
		{"full packets wait for a short one", []int{64, 10}, 1000, []int{74}},
		{"zero-length packet", []int{128, 0}, 1000, []int{128}},
		{"buffer full", []int{128, 0}, 64, []int{64, 64, 0}},
		{"buffer full exactly", []int{64, 64}, 128, []int{128}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := NewGadget(&Descriptors{Configs: []Config{{Value: 1, Interfaces: []Interface{{Endpoints: []Endpoint{
				{Address: 0x81, MaxPacket: 64}, {Address: 0x02, MaxPacket: 64}}}}}}}, nil)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				for _, n := range tc.give {
					g.InPipe(0x81).Write(ctx, make([]byte, n))
				}
			}()
			go func() {
				for _, n := range tc.give {
					g.Out(ctx, 0x02, make([]byte, n))
				}
			}()
			for _, want := range tc.want {
				if n, err := g.In(ctx, 0x81, make([]byte, tc.buf)); n != want || err != nil {
					t.Errorf("IN: %d bytes, %v; expected %d", n, err, want)
				}
				if n, err := g.OutPipe(0x02).Read(ctx, make([]byte, tc.buf)); n != want || err != nil {
					t.Errorf("OUT: %d bytes, %v; expected %d", n, err, want)
				}
			}
		})
	}
}

func TestOverflow(t *testing.T) {
	g := NewGadget(&Descriptors{Configs: []Config{{Value: 1, Interfaces: []Interface{{Endpoints: []Endpoint{{Address: 0x81, MaxPacket: 64}}}}}}}, nil)
	go g.InPipe(0x81).Write(t.Context(), make([]byte, 64))
	if _, err := g.In(t.Context(), 0x81, make([]byte, 10)); err != ErrOverflow {
		t.Errorf("%v, expected an overflow", err)
	}
}

// rndisSetFilter is what a host sends.
func rndisSetFilter(filter uint32) []byte {
	return words(rndisSet, 32, 2, oidPacketFilter, 4, 20, 0, filter)
}

// TestLinkUp walks an RNDIS host's way and looks at the link at each step.
func TestLinkUp(t *testing.T) {
	for _, need := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			e := NewEthernet(adapterConfig(need))
			defer e.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			control := func(s Setup, b []byte) []byte {
				t.Helper()
				n, err := e.Control(ctx, s, b)
				if err != nil {
					t.Fatalf("%+v: %v", s, err)
				}
				return b[:n]
			}
			command := func(b []byte) []byte {
				control(Setup{Type: 0x21, Length: uint16(len(b))}, b)
				return control(Setup{Type: 0xa1, Request: 1, Length: 1025}, make([]byte, 1025))
			}
			up := func(want bool, when string) {
				t.Helper()
				synctest.Wait()
				if up, _ := e.Link.Up(); up != want {
					t.Errorf("need %t: link up %t %s", need, up, when)
				}
			}
			control(Setup{Request: reqSetConfig, Value: 2}, nil)
			r := command(words(rndisInitialize, 24, 1, 1, 0, 0x4000))
			if len(r) != 52 || binary.LittleEndian.Uint32(r) != rndisInitialize|rndisCompletion {
				t.Fatalf("INITIALIZE: % x", r)
			}
			if r := command(words(rndisQuery, 28, 5, oidPermanentAddress, 0, 0, 0)); !bytes.Equal(r[24:], []byte{2, 0, 0, 0, 0, 1}) {
				t.Errorf("MAC: % x", r)
			}
			if r := command(words(rndisQuery, 28, 5, 0x00010202, 0, 0, 0)); binary.LittleEndian.Uint32(r[12:]) != rndisStatusNotSupported {
				t.Errorf("unknown OID: % x", r)
			}
			up(false, "after INITIALIZE")
			if r := command(rndisSetFilter(0x2d)); len(r) != 16 || r[12] != 0 {
				t.Errorf("SET: % x", r)
			}
			up(false, "before the host reads anything")
			// The host opens the interface.
			polling, stop := context.WithCancel(ctx)
			go e.In(polling, 0x81, make([]byte, 2048))
			if need {
				up(false, "before the notification is read")
				for range 4 {
					note := make([]byte, 16)
					if n, err := e.In(ctx, 0x82, note); n != 8 || err != nil || note[0] != 1 {
						t.Errorf("notification % x, %v", note[:n], err)
					}
				}
			}
			up(true, "when the interface is open")
			stop()
			up(need, "when the host stops polling")
			command(words(rndisHalt, 12, 3))
			up(false, "after HALT")
		})
	}
}

func TestECMLinkUp(t *testing.T) {
	e := NewEthernet(adapterConfig(true))
	defer e.Close()
	e.Control(t.Context(), Setup{Request: reqSetConfig, Value: 1}, nil)
	if up, _ := e.Link.Up(); up {
		t.Error("up before the data interface is on")
	}
	if _, err := e.Control(t.Context(), Setup{Type: 1, Request: reqSetInterface, Value: 1, Index: 1}, nil); err != nil {
		t.Fatal(err)
	}
	if up, _ := e.Link.Up(); !up {
		t.Error("not up with the data interface on")
	}
	if _, err := e.Control(t.Context(), Setup{Type: 1, Request: reqSetInterface, Value: 2, Index: 1}, nil); err != ErrStall {
		t.Errorf("alternate setting 2: %v", err)
	}
}

// TestFrames moves frames both ways; one needs a byte of padding.
func TestFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := NewEthernet(adapterConfig(true))
		defer e.Close()
		ctx := t.Context()
		e.Control(ctx, Setup{Request: reqSetConfig, Value: 2}, nil)
		for _, n := range []int{60, 512 - rndisHeader, 1514} {
			sent := bytes.Repeat([]byte{byte(n)}, n)
			go e.Link.Send(ctx, sent)
			buf := make([]byte, 2048)
			m, err := e.In(ctx, 0x81, buf)
			if err != nil || m%512 == 0 {
				t.Fatalf("%d bytes, %v", m, err)
			}
			if frames, err := decodeRNDISPackets(buf[:m]); err != nil || len(frames) != 1 || !bytes.Equal(frames[0], sent) {
				t.Errorf("frame of %d bytes: %v, %d frames", n, err, len(frames))
			}
			go e.Out(ctx, 0x01, append(encodeRNDISPacket(sent), 0))
			if got := <-e.Link.Frames(); !bytes.Equal(got, sent) {
				t.Errorf("frame of %d bytes arrives as %d", n, len(got))
			}
		}
	})
}

func TestSendCancelled(t *testing.T) {
	e := NewEthernet(adapterConfig(true))
	e.Control(t.Context(), Setup{Request: reqSetConfig, Value: 2}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Link.Send(ctx, make([]byte, 60)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, expected the context's end", err)
	}
	e.Close()
	if err := e.Link.Send(t.Context(), make([]byte, 60)); err != ErrGone {
		t.Errorf("%v, expected ErrGone", err)
	}
	if _, err := e.In(t.Context(), 0x81, make([]byte, 64)); err != ErrGone {
		t.Errorf("%v, expected ErrGone", err)
	}
}

func FuzzRNDIS(f *testing.F) {
	f.Add(encodeRNDISPacket([]byte("frame")))
	f.Add(words(rndisInitialize, 24, 1, 1, 0, 0x4000))
	f.Add(words(rndisQuery, 28, 5, oidPermanentAddress, 0, 0, 0))
	f.Add(rndisSetFilter(0x2d))
	f.Add(words(rndisSet, 32, 2, oidPacketFilter, 4, 0xfffffff8, 0, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		frames, _ := decodeRNDISPackets(b)
		total := 0
		for _, f := range frames {
			total += len(f)
		}
		if total > len(b) {
			t.Errorf("%d bytes of frames from %d", total, len(b))
		}
		r := rndisState{initialized: true}
		if answer, err := r.command(b); err == nil && answer != nil && int(binary.LittleEndian.Uint32(answer[4:])) != len(answer) {
			t.Errorf("answer of %d bytes: % x", len(answer), answer)
		}
	})
}

// TestHalt stalls both directions, what is pending too, until the host says otherwise.
func TestHalt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const in, out = 0x81, 0x02
		g := NewGadget(&Descriptors{Configs: []Config{{Value: 1, Interfaces: []Interface{{Number: 3, Endpoints: []Endpoint{
			{Address: in, MaxPacket: 64}, {Address: out, MaxPacket: 64}}}}}}}, nothing{})
		defer g.Close()
		control := func(s Setup) {
			t.Helper()
			if _, err := g.Control(t.Context(), s, nil); err != nil {
				t.Errorf("%+v: %v", s, err)
			}
		}
		control(Setup{Request: reqSetConfig, Value: 1})
		for _, resume := range []Setup{
			{Type: recipientEndpoint, Request: reqClearFeature},
			{Type: 1, Request: reqSetInterface, Index: 3},
			{Request: reqSetConfig, Value: 1},
		} {
			pending := make(chan error, 2)
			go func() { _, err := g.In(t.Context(), in, make([]byte, 64)); pending <- err }()
			go func() { _, err := g.Out(t.Context(), out, make([]byte, 64)); pending <- err }()
			synctest.Wait()
			g.Halt(in)
			control(Setup{Type: recipientEndpoint, Request: reqSetFeature, Index: out})
			for range 2 {
				if err := <-pending; err != ErrStall {
					t.Errorf("pending: %v", err)
				}
			}
			go g.InPipe(in).Write(t.Context(), []byte("in"))
			go g.OutPipe(out).Read(t.Context(), make([]byte, 64))
			synctest.Wait()
			if _, err := g.In(t.Context(), in, make([]byte, 64)); err != ErrStall {
				t.Errorf("IN: %v", err)
			}
			if _, err := g.Out(t.Context(), out, make([]byte, 64)); err != ErrStall {
				t.Errorf("OUT: %v", err)
			}
			status := make([]byte, 2)
			g.Control(t.Context(), Setup{Type: 0x80 | recipientEndpoint, Index: in, Length: 2}, status)
			if status[0] != 1 {
				t.Errorf("status % x", status)
			}
			for _, ep := range []uint16{in, out} {
				if resume.Request == reqClearFeature {
					resume.Index = ep
				}
				control(resume)
			}
			if n, err := g.In(t.Context(), in, make([]byte, 64)); n != 2 || err != nil {
				t.Errorf("IN after %+v: %d, %v", resume, n, err)
			}
			if n, err := g.Out(t.Context(), out, make([]byte, 64)); n != 64 || err != nil {
				t.Errorf("OUT after %+v: %d, %v", resume, n, err)
			}
		}
	})
}

// nothing is a function that does nothing.
type nothing struct{}

func (nothing) Configured(uint8)      {}
func (nothing) Selected(uint8, uint8) {}
func (nothing) Control(context.Context, Setup, []byte) (int, error) {
	return 0, ErrStall
}

// TestCancelledTransfer shows that a transfer the host has cancelled takes nothing any more, not even a
// packet that is offered before the model of the host controller notices.
func TestCancelledTransfer(t *testing.T) {
	for range 20 { // select chooses at random
		synctest.Test(t, func(t *testing.T) {
			p := newPipe(64)
			given := make(chan error)
			go func() {
				_, err := p.give(transfer{ctx: t.Context()})
				given <- err
			}()
			synctest.Wait()
			cancelled, cancel := context.WithCancel(t.Context())
			cancel()
			if n, err := p.take(transfer{ctx: cancelled, data: make([]byte, 64), strict: true}); n != 0 || err != context.Canceled {
				t.Fatalf("the cancelled transfer: %d bytes, %v", n, err)
			}
			if n, err := p.take(transfer{ctx: t.Context(), data: make([]byte, 64), strict: true}); n != 0 || err != nil {
				t.Fatalf("the next one: %d bytes, %v", n, err)
			}
			if err := <-given; err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestWhile ends what goes on when the host begins anew.
func TestWhile(t *testing.T) {
	g := NewGadget(&Descriptors{Configs: []Config{{Value: 1}}}, Inert{})
	configure := func(value uint16) {
		t.Helper()
		if _, err := g.Control(t.Context(), Setup{Request: reqSetConfig, Value: value}, nil); err != nil {
			t.Fatal(err)
		}
	}
	begun := errors.New("begun")
	configure(1)
	times, again := g.Configured()
	ctx, stop := g.While(t.Context(), times, begun)
	defer stop()
	configure(0)
	if times != 1 || closed(again) || ctx.Err() != nil {
		t.Fatal(times, ctx.Err())
	}
	configure(1)
	<-ctx.Done()
	if !closed(again) || context.Cause(ctx) != begun {
		t.Error(context.Cause(ctx))
	}
	late, stop := g.While(t.Context(), times, begun)
	defer stop()
	if context.Cause(late) != begun {
		t.Error("it did not see that the host has begun anew meanwhile")
	}
}

// TestSendWithin sends a frame without anybody's help: there is no other goroutine that could carry it, in the bubble's
// time. It ends in time, with the configuration, and with the device.
func TestSendWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := NewEthernet(adapterConfig(false))
		defer e.Close()
		frame := bytes.Repeat([]byte{7}, 512-rndisHeader) // one that needs padding
		configure := func() { e.Control(t.Context(), Setup{Request: reqSetConfig, Value: 2}, nil) }
		send := func(wait time.Duration, want error, took time.Duration) {
			t.Helper()
			begun := time.Now()
			if err := e.Link.SendWithin(t.Context(), frame, wait); !errors.Is(err, want) || time.Since(begun) != took {
				t.Errorf("%v after %s, expected %v after %s", err, time.Since(begun), want, took)
			}
		}
		read := func() {
			t.Helper()
			b := make([]byte, 2048)
			if n, err := e.In(t.Context(), 0x81, b); n != 513 || err != nil || !bytes.Equal(b[rndisHeader:512], frame) {
				t.Errorf("%d bytes, %v", n, err)
			}
		}
		after := func(d time.Duration, f func()) {
			go func() {
				time.Sleep(d)
				f()
			}()
		}
		send(time.Second, context.DeadlineExceeded, time.Second) // before there is a configuration
		configure()
		send(time.Second, context.DeadlineExceeded, time.Second) // nobody reads
		send(0, context.DeadlineExceeded, 0)
		after(time.Millisecond, read)
		send(time.Second, nil, time.Millisecond)
		after(0, read)
		synctest.Wait()
		send(time.Second, nil, 0)
		after(time.Millisecond, configure)
		send(time.Second, context.Canceled, time.Millisecond)
		// While another frame waits it takes its turn, for as long as it may.
		after(0, func() { e.Link.SendWithin(t.Context(), frame, time.Minute) })
		synctest.Wait()
		send(time.Second, context.DeadlineExceeded, time.Second)
		after(time.Second, func() { read(); read() })
		send(time.Minute, nil, time.Second)
		after(time.Second, e.Close)
		send(time.Minute, ErrGone, time.Second)
	})
}

// TestCancelledMeanwhile cancels one end of a transfer before it has noticed what the other does.
func TestCancelledMeanwhile(t *testing.T) {
	type result struct {
		n   int
		err error
	}
	for range 50 { // select chooses at random
		synctest.Test(t, func(t *testing.T) {
			p := newPipe(64)
			over := make(chan result)
			begin := func(do func(transfer) (int, error), x transfer) {
				go func() {
					n, err := do(x)
					over <- result{n, err}
				}()
				synctest.Wait()
			}
			until := make(chan struct{})
			begin(p.give, transfer{ctx: t.Context(), data: []byte("ab"), until: until})
			close(until)
			n, err := p.take(transfer{ctx: t.Context(), data: make([]byte, 64), wait: time.Second})
			if r := <-over; n != r.n || (err == nil) != (r.err == nil) {
				t.Fatalf("given %d, %v; taken %d, %v", r.n, r.err, n, err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			begin(p.take, transfer{ctx: ctx, data: make([]byte, 64)})
			cancel()
			n, err = p.give(transfer{ctx: t.Context(), data: []byte("ab"), wait: time.Second})
			if r := <-over; n != 0 || err != context.DeadlineExceeded || r.n != 0 || r.err != context.Canceled {
				t.Fatalf("given to who was cancelled: %d, %v; taken %d, %v", n, err, r.n, r.err)
			}
		})
	}
}

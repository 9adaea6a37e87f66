package usbnet_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"snag/sim/inproc"
	"snag/sim/usbdev"
	"snag/usb"
	"snag/usb/rndis"
	"snag/usb/usbnet"
)

var hostMAC = net.HardwareAddr{0x00, 0x18, 0x31, 0, 0, 2}

// port is where the device is.
const port = usb.Port("231-1")

// plug attaches a device and opens it.
func plug(t *testing.T, dev usbdev.Device) (*inproc.Host, usb.Handle) {
	t.Helper()
	host := inproc.New()
	if err := host.Port(port).Attach(t.Context(), dev); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		host.Port(port).Detach()
		if c, ok := dev.(interface{ Close() }); ok {
			c.Close()
		}
	})
	synctest.Wait()
	devices, _ := host.Devices()
	if len(devices) != 1 {
		t.Fatalf("%d devices", len(devices))
	}
	h, err := host.Open(t.Context(), devices[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return host, h
}

func ethernet(needNotification bool, configs ...usbdev.Config) *usbdev.Ethernet {
	return usbdev.NewEthernet(usbdev.EthernetConfig{
		Descriptors: usbdev.Descriptors{Speed: usbdev.HighSpeed, ID: usb.ID{Vendor: 0x0451, Product: 0x6141}, Configs: configs},
		HostMAC:     hostMAC, NeedNotification: needNotification,
	})
}

// driver is the kernel's driver of the device's first interface.
func driver(t *testing.T, host *inproc.Host) string {
	t.Helper()
	devices, _ := host.Devices()
	if len(devices) != 1 || len(devices[0].Interfaces) == 0 {
		return ""
	}
	return devices[0].Interfaces[0].Driver
}

// A frame goes each way, of every length that matters, whichever configuration has the function.
func TestLink(t *testing.T) {
	nothing := usbdev.Config{Value: 1, Attributes: 0x40}
	// Other people's descriptors.
	rndis := func() usbdev.Config { return usbdev.RNDISConfig(1, 0x82, 0x81, 2, 512) }
	settings, swapped, first := rndis(), rndis(), rndis()
	settings.Interfaces = append(settings.Interfaces, settings.Interfaces[1])
	settings.Interfaces[1].Endpoints, settings.Interfaces[2].Alt = nil, 1
	swapped.Interfaces[0].Extra = []byte{5, 0x24, 6, 1, 0}
	first.Interfaces[0].Extra, first.Interfaces[0].Number, first.Interfaces[1].Number = nil, 1, 0
	single := usbdev.ECMConfig(1, 0x82, 0x81, 1, 512)
	single.Interfaces = append(single.Interfaces[:1:1], single.Interfaces[2])
	single.Interfaces[1].Alt = 0
	for _, tc := range []struct {
		name    string
		configs []usbdev.Config
		notify  bool
		kind    usbnet.Kind
		config  uint8
		driver  string
	}{
		{"RNDIS", []usbdev.Config{usbdev.RNDISConfig(1, 0x82, 0x81, 2, 512)}, false, usbnet.RNDIS, 1, "rndis_host"},
		{"SPL", []usbdev.Config{usbdev.RNDISConfig(2, 0x82, 0x81, 1, 512), nothing}, true, usbnet.RNDIS, 2, "rndis_host"},
		{"full speed", []usbdev.Config{usbdev.RNDISConfig(1, 0x82, 0x81, 1, 64)}, true, usbnet.RNDIS, 1, "rndis_host"},
		{"ECM", []usbdev.Config{usbdev.ECMConfig(1, 0x82, 0x81, 1, 512)}, false, usbnet.ECM, 1, "cdc_ether"},
		{"the active one of two", []usbdev.Config{usbdev.ECMConfig(1, 0x82, 0x81, 1, 512), usbdev.RNDISConfig(2, 0x82, 0x81, 1, 512)}, false, usbnet.ECM, 1, "cdc_ether"},
		{"RNDIS with a setting without endpoints", []usbdev.Config{settings}, false, usbnet.RNDIS, 1, "rndis_host"},
		{"ECM without one", []usbdev.Config{single}, false, usbnet.ECM, 1, "cdc_ether"},
		{"union the wrong way round", []usbdev.Config{swapped}, false, usbnet.RNDIS, 1, "rndis_host"},
		{"no union, and the data interface is the first", []usbdev.Config{first}, false, usbnet.RNDIS, 1, "rndis_host"},
		{"packets of 8 bytes", []usbdev.Config{usbdev.RNDISConfig(1, 0x82, 0x81, 1, 8)}, true, usbnet.RNDIS, 1, "rndis_host"},
		{"not the active one", []usbdev.Config{nothing, usbdev.RNDISConfig(7, 0x82, 0x81, 1, 512)}, true, usbnet.RNDIS, 7, "rndis_host"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dev := ethernet(tc.notify, tc.configs...)
				host, h := plug(t, dev)
				a, err := usbnet.Open(t.Context(), h, nil)
				if err != nil {
					t.Fatal(err)
				}
				if a.Kind != tc.kind || a.Config != tc.config || !bytes.Equal(a.MAC[:], hostMAC) {
					t.Errorf("%v in configuration %d, MAC % x", a.Kind, a.Config, a.MAC)
				}
				if d := driver(t, host); d != "" {
					t.Errorf("driver %s is still bound", d)
				}
				got := make(chan []byte, 10)
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- a.Run(ctx, func(f []byte) { got <- bytes.Clone(f) }) }()
				synctest.Wait()
				if up, _ := dev.Link.Up(); !up {
					t.Error("the link is not up")
				}
				for _, n := range []int{14, 60, 512 - 44, 512, 1024 - 44, 1514} {
					frame := bytes.Repeat([]byte{byte(n)}, n)
					if err := a.Send(frame); err != nil {
						t.Fatal(err)
					}
					f := <-dev.Link.Frames()
					if !bytes.HasPrefix(f, frame) || len(f) > n+1 {
						t.Errorf("%d bytes sent, %d came", n, len(f))
					}
					if err := dev.Link.Send(ctx, frame); err != nil {
						t.Fatal(err)
					}
					if f := <-got; !bytes.HasPrefix(f, frame) || len(f) > n+1 {
						t.Errorf("%d bytes sent by the device, %d came", n, len(f))
					}
				}
				if err := a.Send(make([]byte, 1515)); !errors.Is(err, usbnet.ErrTooLong) {
					t.Error(err)
				}
				if c := a.Counts(); c != (usbnet.Counts{In: 6, Out: 6}) {
					t.Errorf("%+v", c)
				}
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
				a.Close()
				if up, _ := dev.Link.Up(); up && a.Kind == usbnet.RNDIS {
					t.Error("the link is still up")
				}
				if err := h.Close(); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				if d := driver(t, host); d != tc.driver {
					t.Errorf("driver %q afterwards, want %s", d, tc.driver)
				}
			})
		})
	}
}

func TestNoFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, h := plug(t, usbdev.NewGadget(&usbdev.Descriptors{Speed: usbdev.HighSpeed, ID: usb.ID{Vendor: 1, Product: 2}, Configs: []usbdev.Config{{Value: 1, Interfaces: []usbdev.Interface{
			{Class: 2, SubClass: 2, Protocol: 1}, {Number: 1, Class: 0x0a},
		}}}}, usbdev.Inert{}))
		if _, err := usbnet.Open(t.Context(), h, nil); !errors.Is(err, usbnet.ErrNoFunction) {
			t.Error(err)
		}
	})
}

// hostile is an RNDIS device that does as it likes.
type hostile struct {
	*usbdev.Gadget
	answer func(command []byte) []byte // to a control message; nil: none ever
	ready  [][]byte
	mu     sync.Mutex
}

func newHostile(answer func([]byte) []byte) *hostile {
	d := &hostile{answer: answer}
	d.Gadget = usbdev.NewGadget(&usbdev.Descriptors{Speed: usbdev.HighSpeed, ID: usb.ID{Vendor: 0x0451, Product: 0x6141},
		Configs: []usbdev.Config{usbdev.RNDISConfig(1, 0x82, 0x81, 2, 512)}}, hostileFunction{d})
	return d
}

type hostileFunction struct{ d *hostile }

func (hostileFunction) Configured(uint8)      {}
func (hostileFunction) Selected(uint8, uint8) {}
func (f hostileFunction) Control(_ context.Context, s usbdev.Setup, data []byte) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if s.Type == 0x21 {
		if b := f.d.answer(bytes.Clone(data)); b != nil {
			f.d.ready = append(f.d.ready, b)
		}
		return len(data), nil
	}
	if len(f.d.ready) == 0 {
		return copy(data, []byte{0}), nil
	}
	b := f.d.ready[0]
	if len(f.d.ready) > 1 || binary.LittleEndian.Uint32(b) != 0xdead {
		f.d.ready = f.d.ready[1:]
	}
	return copy(data, b), nil
}

func words(w ...uint32) (b []byte) {
	for _, v := range w {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

// obedient answers as it should, but that f may change it.
func obedient(f func(typ uint32, answer []byte) []byte) func([]byte) []byte {
	return func(command []byte) []byte {
		typ, id := binary.LittleEndian.Uint32(command), binary.LittleEndian.Uint32(command[8:])
		var b []byte
		switch typ {
		case rndis.TypeInitialize:
			b = words(typ|rndis.Completion, 52, id, 0, 1, 0, 1, 0, 1, 1580, 0, 0, 0)
		case rndis.TypeQuery:
			b = append(words(typ|rndis.Completion, 30, id, 0, 6, 16), hostMAC...)
		case rndis.TypeHalt:
			return nil
		default:
			b = words(typ|rndis.Completion, 16, id, 0)
		}
		if f != nil {
			b = f(typ, b)
		}
		return b
	}
}

// A device that does not come up as it should ends with an error that says why, in time.
func TestHostileControl(t *testing.T) {
	at := func(when uint32, b []byte) func(uint32, []byte) []byte {
		return func(typ uint32, answer []byte) []byte {
			if typ == when {
				return b
			}
			return answer
		}
	}
	put := func(when uint32, off int, v uint32) func(uint32, []byte) []byte {
		return func(typ uint32, answer []byte) []byte {
			if typ == when {
				binary.LittleEndian.PutUint32(answer[off:], v)
			}
			return answer
		}
	}
	for _, tc := range []struct {
		name   string
		answer func([]byte) []byte
		says   string // empty: it comes up all the same
	}{
		{"good", obedient(nil), ""},
		{"never answers", func([]byte) []byte { return nil }, "no answer to INITIALIZE within 5s"},
		{"never answers SET", obedient(at(rndis.TypeSet, nil)), "no answer to SET of the packet filter within 5s"},
		{"never answers QUERY", obedient(at(rndis.TypeQuery, nil)), ""},
		{"refuses INITIALIZE", obedient(put(rndis.TypeInitialize, 12, 0xc0000001)), "refused with status 0xc0000001"},
		{"refuses QUERY", obedient(put(rndis.TypeQuery, 12, 0xc00000bb)), ""},
		{"refuses SET", obedient(put(rndis.TypeSet, 12, 0xc0010015)), "refused with status 0xc0010015"},
		{"other medium", obedient(put(rndis.TypeInitialize, 28, 3)), "its medium is 3"},
		{"wrong ID", obedient(put(rndis.TypeInitialize, 8, 77)), "no answer to INITIALIZE"},
		{"length too long", obedient(put(rndis.TypeInitialize, 4, 0xffffffff)), "no answer to INITIALIZE"},
		{"length too short", obedient(put(rndis.TypeInitialize, 4, 16)), "of 16 bytes, expected"},
		{"value too long", obedient(put(rndis.TypeQuery, 16, 0xfffffff0)), ""},
		{"value elsewhere", obedient(put(rndis.TypeQuery, 20, 0xfffffff0)), ""},
		{"value of another length", obedient(put(rndis.TypeQuery, 16, 5)), ""},
		{"a group's address", obedient(at(rndis.TypeQuery, append(words(0x80000004, 30, 2, 0, 6, 16), 1, 2, 3, 4, 5, 6))), ""},
		{"shouts", func([]byte) []byte { return append(words(0xdead, 12, 1), make([]byte, 2000)...) }, "64 other messages came instead of the answer"},
		{"shouts keep-alives", func(c []byte) []byte { return words(rndis.TypeKeepalive, 12, 1) }, "other messages came instead of the answer"},
		{"too short", func([]byte) []byte { return make([]byte, 8) }, "no answer to INITIALIZE"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				host, h := plug(t, newHostile(tc.answer))
				begun := time.Now()
				a, err := usbnet.Open(t.Context(), h, nil)
				if took := time.Since(begun); took > 11*time.Second {
					t.Errorf("it took %s", took)
				}
				if (err == nil) != (tc.says == "") || !strings.Contains(fmt.Sprint(err), tc.says) {
					t.Errorf("got %v, want %q", err, tc.says)
				}
				if err == nil {
					if a.MAC[0]&1 != 0 {
						t.Errorf("MAC % x", a.MAC)
					}
					a.Close()
				} else if strings.Contains(err.Error(), "USB device 0451:6141 on port 231-1") == false {
					t.Errorf("which device? %v", err)
				}
				h.Close()
				synctest.Wait()
				if d := driver(t, host); d != "rndis_host" {
					t.Errorf("driver %q afterwards", d)
				}
			})
		})
	}
}

// run opens a hostile device and has it run.
func run(t *testing.T, d *hostile, input func([]byte)) (a *usbnet.Adapter, ended <-chan error, cancel func()) {
	t.Helper()
	_, h := plug(t, d)
	a, err := usbnet.Open(t.Context(), h, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() { end <- a.Run(ctx, input) }()
	return a, end, cancel
}

// A device that floods is heard, and costs no memory.
func TestFlood(t *testing.T) {
	var lies [][]byte
	good := rndis.AppendPacket(nil, make([]byte, 1514))
	for off := 0; off < 16; off += 4 {
		for _, v := range []uint32{0, 1, 43, 0x7fffffff, 0xfffffff8, 0xffffffff} {
			b := bytes.Clone(good)
			binary.LittleEndian.PutUint32(b[off:], v)
			lies = append(lies, b)
		}
	}
	lies = append(lies, make([]byte, 4096), rndis.AppendPacket(nil, make([]byte, 4000)), rndis.AppendPacket(nil, nil), []byte{1})
	many := bytes.Repeat(rndis.AppendPacket(nil, make([]byte, 14)), 30)
	lies = append(lies, many)
	synctest.Test(t, func(t *testing.T) {
		d := newHostile(obedient(nil))
		frames := 0
		a, ended, cancel := run(t, d, func(f []byte) {
			if frames++; len(f) < 14 || len(f) > 1515 {
				t.Errorf("a frame of %d bytes", len(f))
			}
		})
		shout := func(n int) {
			for i := range n {
				if _, err := d.InPipe(0x81).Write(t.Context(), lies[i%len(lies)]); err != nil {
					t.Fatal(err)
				}
			}
		}
		shout(1000)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		shout(20_000)
		runtime.GC()
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 1<<20 {
			t.Errorf("%d bytes more after the flood", grown)
		}
		c := a.Counts()
		t.Logf("%+v", c)
		if c.Malformed < 10_000 || c.In == 0 || int(c.In) != frames {
			t.Errorf("%+v, %d frames", c, frames)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		a.Close()
	})
}

// A device that takes nothing is sent nothing more.
func TestTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newHostile(obedient(nil))
		a, ended, cancel := run(t, d, func([]byte) {})
		defer cancel()
		full := 0
		for range 1000 {
			if err := a.Send(make([]byte, 1514)); errors.Is(err, usbnet.ErrFull) {
				full++
			} else if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if full < 800 {
			t.Errorf("%d of 1000 frames were refused", full)
		}
		begun := time.Now()
		err := <-ended
		if took := time.Since(begun); took > 30*time.Second || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after %s: %v", took, err)
		}
		a.Close()
	})
}

// A halted endpoint is taken up again; one that stays so is the end.
func TestHalts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newHostile(obedient(nil))
		got := make(chan int, 10)
		a, ended, cancel := run(t, d, func(f []byte) { got <- len(f) })
		defer cancel()
		synctest.Wait()
		d.Halt(0x81)
		if _, err := d.InPipe(0x81).Write(t.Context(), rndis.AppendPacket(nil, make([]byte, 60))); err != nil {
			t.Fatal(err)
		}
		if n := <-got; n != 60 {
			t.Errorf("%d bytes", n)
		}
		if c := a.Counts(); c.Failed != 1 {
			t.Errorf("%+v", c)
		}
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
					d.Halt(0x81)
				}
			}
		}()
		begun := time.Now()
		err := <-ended
		close(stop)
		if took := time.Since(begun); took < time.Second || took > 5*time.Second || !errors.Is(err, usb.ErrStall) {
			t.Errorf("after %s: %v", took, err)
		}
		a.Close()
	})
}

// poster is a handle that can begin transfers, up to so many at a time.
type poster struct {
	usb.Handle
	mu       sync.Mutex
	inFlight int
	last     chan struct{} // closed when the one that was begun last has ended
	busy     bool          // another call has the endpoint
	taken    int
	failed   error
}

func (p *poster) Stream(ctx context.Context, ep uint8, idle time.Duration, transfers iter.Seq[[]byte]) (int64, error) {
	has := func(busy bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.busy = busy
	}
	has(true)
	defer has(false)
	if p.last != nil {
		<-p.last // what comes later comes behind it
	}
	return p.Handle.Stream(ctx, ep, idle, transfers)
}

func (p *poster) Post(ep uint8, data []byte) (taken int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken, err, p.taken, p.failed = p.taken, p.failed, 0, nil
	if err != nil {
		return taken, err
	}
	if p.busy || p.inFlight == 4 {
		return taken, usb.ErrNoRoom
	}
	p.inFlight++
	data = bytes.Clone(data)
	before, ended := p.last, make(chan struct{})
	p.last = ended
	go func() {
		defer close(ended)
		if before != nil {
			<-before
		}
		_, err := p.Out(context.Background(), ep, data)
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.inFlight--; err == nil {
			p.taken++
		} else {
			p.failed = err
		}
	}()
	return taken, nil
}

// posting runs an adapter whose handle begins transfers.
func posting(t *testing.T) (d *hostile, a *usbnet.Adapter, ended <-chan error, cancel func()) {
	t.Helper()
	d = newHostile(obedient(nil))
	_, h := plug(t, d)
	a, err := usbnet.Open(t.Context(), &poster{Handle: h}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() { end <- a.Run(ctx, func([]byte) {}) }()
	synctest.Wait()
	return d, a, end, cancel
}

// Frames whose transfers are begun at once come in their order with those that had to wait; more are refused.
func TestPost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, a, ended, cancel := posting(t)
		sent := 0
		for range 1000 {
			frame := make([]byte, 64)
			binary.LittleEndian.PutUint32(frame, uint32(sent))
			if err := a.Send(frame); errors.Is(err, usbnet.ErrFull) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			sent++
			synctest.Wait()
		}
		if sent < 100 || sent > 200 {
			t.Errorf("%d frames were taken", sent)
		}
		buf := make([]byte, 2048)
		for i := range sent {
			n, err := d.OutPipe(2).Read(t.Context(), buf)
			if err != nil {
				t.Fatal(err)
			}
			frame, _, err := rndis.NextPacket(buf[:n])
			if err != nil || binary.LittleEndian.Uint32(frame) != uint32(i) {
				t.Fatalf("number %d is % x, %v", i, frame, err)
			}
		}
		synctest.Wait()
		if c := a.Counts(); c.Out != int64(sent) || c.Overflowed != 1 {
			t.Errorf("%+v, %d sent", c, sent)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		a.Close()
	})
}

// Frames keep their order while the device takes them, those that waited and those that need not.
func TestPostInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const frames = 5000
		d, a, ended, cancel := posting(t)
		go func() {
			for i := range uint32(frames) {
				for errors.Is(a.Send(binary.LittleEndian.AppendUint32(make([]byte, 0, 64), i)[:64]), usbnet.ErrFull) {
					time.Sleep(time.Millisecond)
				}
			}
		}()
		buf := make([]byte, 2048)
		for i := range uint32(frames) {
			n, err := d.OutPipe(2).Read(t.Context(), buf)
			if err != nil {
				t.Fatal(err)
			}
			frame, _, err := rndis.NextPacket(buf[:n])
			if err != nil || binary.LittleEndian.Uint32(frame) != i {
				t.Fatalf("number %d is % x, %v", i, frame, err)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		a.Close()
	})
}

// A stall of a transfer that nobody waits for is seen with the next frame, which comes; an endpoint that stays stalled is
// the end.
func TestPostHalts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, a, ended, cancel := posting(t)
		defer cancel()
		buf := make([]byte, 2048)
		send := func() {
			if err := a.Send(make([]byte, 60)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		for range 3 { // a minute apart: one has nothing to do with the other
			d.Halt(2)
			send()
			send()
			if _, err := d.OutPipe(2).Read(t.Context(), buf); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			send() // the device is seen to have taken one
			if _, err := d.OutPipe(2).Read(t.Context(), buf); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		if c := a.Counts(); c.Failed != 3 {
			t.Errorf("%+v", c)
		}
		begun := time.Now()
		for {
			d.Halt(2)
			_ = a.Send(make([]byte, 60))
			synctest.Wait()
			select {
			case err := <-ended:
				if took := time.Since(begun); took < time.Second || took > 5*time.Second || !errors.Is(err, usb.ErrStall) {
					t.Errorf("after %s: %v", took, err)
				}
				a.Close()
				return
			case <-time.After(20 * time.Millisecond):
			}
			if time.Since(begun) > time.Minute {
				t.Fatal("it does not end")
			}
		}
	})
}

// A device that leaves is no failure.
func TestLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev := ethernet(true, usbdev.RNDISConfig(1, 0x82, 0x81, 2, 512))
		host, h := plug(t, dev)
		a, err := usbnet.Open(t.Context(), h, nil)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, func() { host.Port(port).Detach() })
		if err := a.Run(t.Context(), func([]byte) {}); err != nil {
			t.Error(err)
		}
		a.Close()
	})
}

// A silent device is asked for a sign of life, and its own questions are answered.
func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked, answered int
		d := newHostile(func(c []byte) []byte {
			switch typ := binary.LittleEndian.Uint32(c); typ {
			case rndis.TypeKeepalive:
				asked++
			case rndis.TypeKeepalive | rndis.Completion:
				if answered++; !bytes.Equal(c, rndis.KeepaliveAnswer(99)) {
					t.Errorf("answer % x", c)
				}
				return nil
			}
			return obedient(nil)(c)
		})
		a, ended, cancel := run(t, d, func([]byte) {})
		time.Sleep(21 * time.Second)
		d.mu.Lock()
		if asked != 4 {
			t.Errorf("asked %d times in 21 s", asked)
		}
		d.ready = append(d.ready, rndis.Keepalive(99))
		d.mu.Unlock()
		if _, err := d.InPipe(0x82).Write(t.Context(), words(1, 0)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if answered != 1 {
			t.Errorf("%d answers", answered)
		}
		a.Close()
	})
}

// Whatever the descriptors say, what is found can be used.
func FuzzFind(f *testing.F) {
	for _, c := range []usbdev.Config{usbdev.RNDISConfig(1, 0x82, 0x81, 2, 512), usbdev.ECMConfig(1, 0x82, 0x81, 1, 512)} {
		d := &usbdev.Descriptors{Speed: usbdev.HighSpeed, Configs: []usbdev.Config{c}}
		f.Add(append(d.Device(), d.Config(0)...), uint8(1))
	}
	f.Fuzz(func(t *testing.T, raw []byte, active uint8) {
		d, err := usb.ParseDescriptors(raw)
		if err != nil {
			return
		}
		if fn, ok := usbnet.Find(d, active); ok {
			s := d.Setting(fn.Config, fn.Data, fn.Alt)
			if fn.In.MaxPacket == 0 || fn.Out.MaxPacket == 0 || fn.In.Address&0x80 == 0 || fn.Out.Address&0x80 != 0 || s == nil && len(d.Configs) == 1 {
				t.Errorf("%+v", fn)
			}
		}
	})
}

// A device that is nothing but random bytes: it neither panics nor outlives its deadlines.
func FuzzDevice(f *testing.F) {
	f.Add(words(0x80000002, 52, 1, 0, 1, 0, 1, 0, 1, 1580, 0, 0, 0), append(words(0x80000004, 30, 2, 0, 6, 16), hostMAC...), words(0x80000005, 16, 3, 0), rndis.AppendPacket(nil, make([]byte, 60)))
	f.Fuzz(func(t *testing.T, one, two, three, data []byte) {
		synctest.Test(t, func(t *testing.T) {
			answers := [][]byte{one, two, three}
			d := newHostile(func([]byte) []byte {
				if len(answers) == 0 {
					return nil
				}
				b := answers[0]
				answers = answers[1:]
				if len(b) < 4 {
					return nil
				}
				return b
			})
			_, h := plug(t, d)
			begun := time.Now()
			a, err := usbnet.Open(t.Context(), h, nil)
			if took := time.Since(begun); took > 11*time.Second {
				t.Errorf("it took %s", took)
			}
			if err != nil {
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			go d.InPipe(0x81).Write(ctx, data)
			if err := a.Run(ctx, func([]byte) {}); err != nil {
				t.Error(err)
			}
			a.Close()
		})
	})
}

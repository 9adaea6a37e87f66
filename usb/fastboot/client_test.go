package fastboot_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	sim "snag/sim/fastboot"
	"snag/sim/inproc"
	"snag/sim/uboot"
	"snag/sim/usbdev"
	"snag/usb"
	"snag/usb/fastboot"
)

// script is a transport that plays a device: answers by command, each several.
type script struct {
	answers map[string][]string
	queue   []string
	sent    []string
	taken   int64 // of data, before err; all if err is nil
	err     error
}

func (s *script) Send(_ context.Context, b []byte) error {
	s.sent = append(s.sent, string(b))
	s.queue = append(s.queue, s.answers[string(b)]...)
	return nil
}

func (s *script) Receive(ctx context.Context, buf []byte) (int, error) {
	if len(s.queue) == 0 {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	next := s.queue[0]
	s.queue = s.queue[1:]
	if next == "GONE" {
		return 0, usb.ErrGone
	}
	if next == "AGAIN" {
		s.queue = []string{"INFOagain", "AGAIN"}
		return copy(buf, "INFOagain"), nil
	}
	if slow, ok := strings.CutPrefix(next, "SLOW"); ok {
		select {
		case <-time.After(4 * time.Second):
			return copy(buf, slow), nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return copy(buf, next), nil
}

func (s *script) Stream(_ context.Context, _ time.Duration, pieces iter.Seq[[]byte]) (int64, error) {
	var n int64
	for b := range pieces {
		n += int64(len(b))
		s.sent = append(s.sent, fmt.Sprintf("%d bytes", len(b)))
	}
	if s.err != nil {
		return s.taken, s.err
	}
	return n, nil
}

// What the client makes of answers.
func TestAnswers(t *testing.T) {
	zeros := func(n int) io.Reader { return bytes.NewReader(make([]byte, n)) }
	for _, tc := range []struct {
		name    string
		answers map[string][]string
		do      func(ctx context.Context, c *fastboot.Client) (any, error)
		want    any
		says    string // in the error
		sent    string
		broken  bool
		most    time.Duration
	}{
		{name: "value", answers: map[string][]string{"getvar:version": {"OKAY0.4"}}, want: "0.4", sent: "getvar:version",
			do: func(ctx context.Context, c *fastboot.Client) (any, error) { return c.GetVar(ctx, "version") }},
		{name: "refused", answers: map[string][]string{"getvar:x": {"INFOa", "FAILVariable not implemented"}}, want: "", says: "getvar:x: the device answers FAIL: Variable not implemented",
			do: func(ctx context.Context, c *fastboot.Client) (any, error) { return c.GetVar(ctx, "x") }},
		{name: "silence", want: "", says: "getvar:x: no answer: context deadline exceeded", broken: true, most: 5 * time.Second,
			do: func(ctx context.Context, c *fastboot.Client) (any, error) { return c.GetVar(ctx, "x") }},
		{name: "texts restart the timer", answers: map[string][]string{"flash:a": {"SLOWINFO1", "SLOWTEXT2", "SLOWOKAY"}}, most: 12 * time.Second,
			do: func(ctx context.Context, c *fastboot.Client) (any, error) {
				return nil, c.Flash(ctx, "a", 5*time.Second)
			}},
		{name: "but not for ever", answers: map[string][]string{"flash:a": strings.Split(strings.Repeat("SLOWINFO1 ", 100), " ")}, says: "deadline", broken: true, most: 50 * time.Second,
			do: func(ctx context.Context, c *fastboot.Client) (any, error) {
				return nil, c.Flash(ctx, "a", 5*time.Second)
			}},
		{name: "texts without end", answers: map[string][]string{"erase:a": {"AGAIN"}}, says: "erase:a: more than 10000 texts", broken: true,
			do: func(ctx context.Context, c *fastboot.Client) (any, error) { return nil, c.Erase(ctx, "a", 0) }},
		{name: "unknown status", answers: map[string][]string{"erase:a": {"WHAT\x01"}}, says: `erase:a: expected INFO, TEXT, OKAY, FAIL or DATA, got 57 48 41 54 01 ("WHAT")`, broken: true,
			do: func(ctx context.Context, c *fastboot.Client) (any, error) { return nil, c.Erase(ctx, "a", 0) }},
		{name: "short answer", answers: map[string][]string{"erase:a": {"OK"}}, says: "got 4f 4b", broken: true,
			do: func(ctx context.Context, c *fastboot.Client) (any, error) { return nil, c.Erase(ctx, "a", 0) }},
		{name: "data that were not asked for", answers: map[string][]string{"erase:a": {"DATA00000007"}}, says: "expected OKAY or FAIL, got 44 41 54 41 30", broken: true,
			do: func(ctx context.Context, c *fastboot.Client) (any, error) { return nil, c.Erase(ctx, "a", 0) }},
		{name: "all variables", answers: map[string][]string{"getvar:all": {"INFOversion: 0.4", "INFOpartition-size:boot: 0x10", "INFOempty:", "INFOodd", "OKAY"}},
			want: []fastboot.Variable{{Name: "version", Value: "0.4"}, {Name: "partition-size:boot", Value: "0x10"}, {Name: "empty"}, {Name: "odd"}},
			do:   func(ctx context.Context, c *fastboot.Client) (any, error) { return c.GetVars(ctx) }},
		{name: "limit", answers: map[string][]string{"getvar:max-download-size": {"FAILVariable not implemented"}, "getvar:downloadsize": {"OKAY0x400"}}, want: int64(1024),
			do: func(ctx context.Context, c *fastboot.Client) (any, error) { return c.MaxDownload(ctx) }},
		{name: "no limit", answers: map[string][]string{"getvar:max-download-size": {"OKAY"}, "getvar:downloadsize": {"FAIL"}}, want: int64(0),
			do: func(ctx context.Context, c *fastboot.Client) (any, error) { return c.MaxDownload(ctx) }},
		{name: "limit that is none", answers: map[string][]string{"getvar:max-download-size": {"OKAYlots"}, "getvar:downloadsize": {"OKAY0x400"}}, want: int64(1024),
			do: func(ctx context.Context, c *fastboot.Client) (any, error) { return c.MaxDownload(ctx) }},
		{name: "limits that are none", answers: map[string][]string{"getvar:max-download-size": {"OKAYlots"}, "getvar:downloadsize": {"OKAY64 MiB"}}, want: int64(0),
			do: func(ctx context.Context, c *fastboot.Client) (any, error) { return c.MaxDownload(ctx) }},
		{name: "limit without end", answers: map[string][]string{"getvar:max-download-size": {"OKAY0xffffffffffffffff"}}, want: int64(0xffffffff),
			do: func(ctx context.Context, c *fastboot.Client) (any, error) { return c.MaxDownload(ctx) }},
		{name: "patience of the user's", answers: map[string][]string{"flash:a": {"SLOWOKAY"}}, most: 5 * time.Second,
			do: func(ctx context.Context, c *fastboot.Client) (any, error) {
				c.Patience = 5 * time.Second
				return nil, c.Flash(ctx, "a", 3*time.Second)
			}},
		{name: "download", answers: map[string][]string{"download:00040001": {"INFOx", "DATA00040001", "INFOy", "OKAY"}}, sent: "download:00040001, 262144 bytes, 1 bytes",
			do: func(ctx context.Context, c *fastboot.Client) (any, error) {
				return nil, c.Download(ctx, zeros(0x40001), 0x40001, nil)
			}},
		{name: "download above the limit", says: "download of 20 bytes: the device takes 10 at most",
			do: func(ctx context.Context, c *fastboot.Client) (any, error) {
				c.Limit = 10
				return nil, c.Download(ctx, zeros(20), 20, nil)
			}},
		{name: "download above the buffer", answers: map[string][]string{"download:00000014": {"FAIL00000014"}}, says: "larger than the device's buffer",
			do: func(ctx context.Context, c *fastboot.Client) (any, error) {
				return nil, c.Download(ctx, zeros(20), 20, nil)
			}},
		{name: "empty download", says: "download of 0 bytes, expected 1 to 4294967295",
			do: func(ctx context.Context, c *fastboot.Client) (any, error) {
				return nil, c.Download(ctx, zeros(0), 0, nil)
			}},
		{name: "another number", answers: map[string][]string{"download:00000014": {"DATA00000015"}}, says: "expected DATA00000014, got 44 41", sent: "download:00000014", broken: true,
			do: func(ctx context.Context, c *fastboot.Client) (any, error) {
				return nil, c.Download(ctx, zeros(20), 20, nil)
			}},
		{name: "no data wanted", answers: map[string][]string{"download:00000014": {"OKAY"}}, says: "expected DATA or FAIL, got 4f 4b 41 59", sent: "download:00000014", broken: true,
			do: func(ctx context.Context, c *fastboot.Client) (any, error) {
				return nil, c.Download(ctx, zeros(20), 20, nil)
			}},
		{name: "data refused", answers: map[string][]string{"download:00000014": {"DATA00000014", "FAILReceived invalid data length"}}, says: "invalid data length",
			do: func(ctx context.Context, c *fastboot.Client) (any, error) {
				return nil, c.Download(ctx, zeros(20), 20, nil)
			}},
		{name: "file cut", answers: map[string][]string{"download:00000014": {"DATA00000014", "OKAY"}}, says: "download of 20 bytes: after 7: unexpected EOF", sent: "download:00000014, 20 bytes",
			do: func(ctx context.Context, c *fastboot.Client) (any, error) {
				return nil, c.Download(ctx, zeros(7), 20, nil)
			}},
		{name: "reboot", answers: map[string][]string{"reboot-bootloader": {"OKAY"}}, sent: "reboot-bootloader", broken: true,
			do: func(ctx context.Context, c *fastboot.Client) (any, error) { return nil, c.Reboot(ctx, "bootloader") }},
		{name: "gone at once", answers: map[string][]string{"continue": {"GONE"}}, broken: true,
			do: func(ctx context.Context, c *fastboot.Client) (any, error) { return nil, c.Continue(ctx) }},
		{name: "boot refused", answers: map[string][]string{"boot": {"FAILno image"}}, says: "no image",
			do: func(ctx context.Context, c *fastboot.Client) (any, error) { return nil, c.Boot(ctx) }},
		{name: "gone elsewhere", answers: map[string][]string{"set_active:a": {"GONE"}}, says: "device gone", broken: true,
			do: func(ctx context.Context, c *fastboot.Client) (any, error) { return nil, c.SetActive(ctx, "a") }},
		{name: "UCmd", answers: map[string][]string{"UCmd:a:b c": {"OKAY"}}, sent: "UCmd:a:b c, UCmd:a:b c",
			do: func(ctx context.Context, c *fastboot.Client) (any, error) {
				return nil, errors.Join(c.Run(ctx, "a:b c", 0), c.Run(ctx, "a:b c", 0))
			}},
		{name: "UCmd that fails", answers: map[string][]string{"UCmd:false": {"FAIL"}}, says: "without a reason", sent: "UCmd:false",
			do: func(ctx context.Context, c *fastboot.Client) (any, error) { return nil, c.Run(ctx, "false", 0) }},
		{name: "oem run", answers: map[string][]string{"UCmd:x": {"FAILunrecognized command"}, "oem run:x": {"OKAY"}}, sent: "UCmd:x, oem run:x, oem run:x",
			do: func(ctx context.Context, c *fastboot.Client) (any, error) {
				return nil, errors.Join(c.Run(ctx, "x", 0), c.Run(ctx, "x", 0))
			}},
		{name: "neither", answers: map[string][]string{"UCmd:x": {"FAILunrecognized command"}, "oem run:x": {"FAILUnsupported command"}}, says: "CONFIG_FASTBOOT_UUU_SUPPORT",
			do: func(ctx context.Context, c *fastboot.Client) (any, error) { return nil, c.Run(ctx, "x", 0) }},
		{name: "ACmd", answers: map[string][]string{"ACmd:reset": {"OKAY"}}, sent: "ACmd:reset", broken: true,
			do: func(ctx context.Context, c *fastboot.Client) (any, error) { return nil, c.Start(ctx, "reset") }},
		{name: "long ACmd", says: "of 64 bytes, U-Boot takes 63",
			do: func(ctx context.Context, c *fastboot.Client) (any, error) {
				return nil, c.Start(ctx, strings.Repeat("x", 64))
			}},
		{name: "oem", answers: map[string][]string{"oem format": {"OKAY"}, "oem partconf:1 7": {"OKAY"}, "oem bootbus:0 0 2": {"OKAY"}}, sent: "oem format, oem partconf:1 7, oem bootbus:0 0 2",
			do: func(ctx context.Context, c *fastboot.Client) (any, error) {
				return nil, errors.Join(c.Format(ctx), c.PartConf(ctx, 1, 7), c.BootBus(ctx, 0, 0, 2))
			}},
		{name: "console", answers: map[string][]string{"oem console:version": {"INFO=> version", "INFOU-Boot", "OKAY"}}, want: []string{"=> version", "U-Boot"},
			do: func(ctx context.Context, c *fastboot.Client) (any, error) { return c.Console(ctx, "version") }},
		{name: "control characters", says: "control characters",
			do: func(ctx context.Context, c *fastboot.Client) (any, error) { return nil, c.Erase(ctx, "a\nb", 0) }},
		{name: "too long", says: "fastboot command of 5006 bytes",
			do: func(ctx context.Context, c *fastboot.Client) (any, error) {
				return nil, c.Erase(ctx, strings.Repeat("x", 5000), 0)
			}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{answers: tc.answers}
				c := fastboot.New(s)
				begun := time.Now()
				got, err := tc.do(t.Context(), c)
				if took := time.Since(begun); took > tc.most {
					t.Errorf("it took %s", took)
				}
				if (err != nil) != (tc.says != "") || err != nil && !strings.Contains(err.Error(), tc.says) {
					t.Errorf("%v, want %q", err, tc.says)
				}
				if !reflect.DeepEqual(got, tc.want) {
					t.Errorf("got %#v, want %#v", got, tc.want)
				}
				if sent := strings.Join(s.sent, ", "); tc.sent != "" && sent != tc.sent {
					t.Errorf("sent %q, want %q", sent, tc.sent)
				}
				before := len(s.sent)
				c.GetVar(t.Context(), "version")
				if broken := len(s.sent) == before; broken != tc.broken {
					t.Errorf("out of step: %t, want %t", broken, tc.broken)
				}
			})
		})
	}
}

// A FAIL in the middle of the data is what is reported, not the stalled transfer.
func TestFailAmongData(t *testing.T) {
	s := &script{answers: map[string][]string{"download:00000014": {"DATA00000014", "FAILno memory"}}, taken: 5, err: usb.ErrStall}
	err := fastboot.New(s).Download(t.Context(), bytes.NewReader(make([]byte, 20)), 20, nil)
	if refused, ok := errors.AsType[*fastboot.FailError](err); !ok || refused.Text != "no memory" || !errors.Is(err, usb.ErrStall) || !strings.Contains(err.Error(), "after 5 bytes") {
		t.Error(err)
	}
}

// connect brings a board and a client together over one of the carriers.
func connect(t *testing.T, over string, cfg sim.Config) (*fastboot.Client, *sim.Board) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	switch over {
	case "full speed":
		cfg.Speed = usbdev.FullSpeed
	case "super speed":
		cfg.Speed = usbdev.SuperSpeed
	}
	b, err := sim.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var tr fastboot.Transport
	switch over {
	case "TCP":
		ours, theirs := pipes(true, false)
		wg.Go(func() { b.ServeConn(ctx, theirs) })
		tr, err = fastboot.NewTCP(ctx, ours)
	case "UDP", "lossy UDP":
		ours, theirs := pipes(false, over == "lossy UDP")
		wg.Go(func() { b.ServeUDP(ctx, theirs) })
		tr, err = fastboot.NewUDP(ctx, ours)
	default:
		host := inproc.New()
		wg.Go(func() { b.Run(ctx, host.Port("1-1")) })
		tr, err = fastboot.OpenUSB(ctx, open(t, host), false)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fastboot.New(tr), b
}

// open waits for the device on a host and opens it.
func open(t *testing.T, host *inproc.Host) usb.Handle {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	change, err := host.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range change {
		devices, _ := host.Devices()
		if len(devices) == 1 && devices[0].Config == 1 {
			h, err := host.Open(ctx, devices[0])
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { h.Close() })
			return h
		}
	}
	t.Fatal("no device")
	return nil
}

var carriers = []string{"full speed", "high speed", "super speed", "TCP", "UDP", "lossy UDP"}

// A session with U-Boot, over everything.
func TestSession(t *testing.T) {
	for _, over := range carriers {
		for _, size := range []int{1, 63, 64, 65, 512, 1024, 4096, 100_000, 256 << 10, 300_001} {
			t.Run(fmt.Sprintf("%s %d", over, size), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ctx := t.Context()
					c, b := connect(t, over, sim.Config{
						Variables: map[string]string{"full": strings.Repeat("v", 60), "x": "1"},
						Command:   func(line string) bool { return line != "false" },
						Console:   []string{strings.Repeat("a", 60), strings.Repeat("b", 60), "end"},
					})
					image := make([]byte, size)
					for i := range image {
						image[i] = byte(i * 7)
					}
					if n, err := c.MaxDownload(ctx); err != nil || n != 32<<20 {
						t.Fatal(n, err)
					}
					if v, err := c.GetVar(ctx, "full"); err != nil || v != strings.Repeat("v", 60) {
						t.Fatal(v, err)
					}
					if shown, err := c.Console(ctx, ""); err != nil || len(shown) != 3 || shown[2] != "end" {
						t.Fatal(shown, err)
					}
					// A command that fills its packet.
					if over != "UDP" && over != "lossy UDP" {
						for _, n := range []int{64, 512, 1024} {
							if err := c.Run(ctx, strings.Repeat("x", n-len("UCmd:")), 0); err != nil {
								t.Fatal(err)
							}
						}
					}
					var last int64
					if err := c.Download(ctx, bytes.NewReader(image), int64(size), func(n int64) { last = n }); err != nil {
						t.Fatal(err)
					}
					if last != int64(size) {
						t.Errorf("progress ended at %d", last)
					}
					if err := c.Flash(ctx, "boot", 0); err != nil {
						t.Fatal(err)
					}
					if err := c.Flash(ctx, "nowhere", 0); err == nil || !strings.Contains(err.Error(), "invalid partition or device") {
						t.Fatal(err)
					}
					if err := c.Run(ctx, "setenv fastboot.y 0x12", 0); err != nil {
						t.Fatal(err)
					}
					if v, err := c.GetVar(ctx, "y"); err != nil || v != "0x12" {
						t.Fatal(v, err)
					}
					if err := c.Run(ctx, "false", 0); err == nil {
						t.Error("false is true")
					}
					if vars, err := c.GetVars(ctx); err != nil || len(vars) < 7 {
						t.Fatal(vars, err)
					}
					if err := c.Continue(ctx); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
					r := b.Report()
					if d := r.Stages[0].Downloads; len(d) != 1 || !d[0].Complete || d[0].Bytes != size || r.Partitions["boot"].Bytes != size || r.Partitions["boot"].SHA256 != d[0].SHA256 {
						t.Errorf("%+v", r)
					}
					for _, v := range r.Violations {
						t.Errorf("the client did wrong: %s", v.Text)
					}
				})
			})
		}
	}
}

// A device that goes wrong is an error in time.
func TestDeviceFaults(t *testing.T) {
	for _, kind := range sim.FaultKinds {
		for _, at := range []string{"download", "data", "100000", "getvar"} {
			for _, over := range []string{"high speed", "TCP", "UDP"} {
				if over == "UDP" && kind == sim.Infos || at == "100000" && (kind == sim.Empty || kind == sim.Cut || kind == sim.Wrong || kind == sim.Size || kind == sim.Long || kind == sim.Infos || kind == sim.Mute) {
					continue
				}
				if over != "high speed" && kind == sim.Stall {
					continue
				}
				t.Run(fmt.Sprintf("%s %s %s", kind, at, over), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						fault, err := sim.ParseFault(fmt.Sprintf("%s:gadget:%s", kind, at))
						if err != nil {
							t.Fatal(err)
						}
						c, _ := connect(t, over, sim.Config{Faults: []sim.Fault{fault}})
						begun := time.Now()
						_, err = c.GetVar(t.Context(), "version")
						if err == nil {
							err = c.Download(t.Context(), bytes.NewReader(make([]byte, 200_000)), 200_000, nil)
						}
						took := time.Since(begun)
						if good := kind == sim.NAK; (err == nil) != good {
							t.Error(err)
						}
						if took > 12*time.Second {
							t.Errorf("it took %s", took)
						}
					})
				})
			}
		}
	}
}

// Over the sockets of the kernel.
func TestSockets(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			b, err := sim.New(sim.Config{})
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			defer wg.Wait()
			defer cancel()
			var addr net.Addr
			if network == "tcp" {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				addr = l.Addr()
				wg.Go(func() { b.ServeTCP(ctx, l) })
			} else {
				l, err := net.ListenPacket("udp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				addr = l.LocalAddr()
				wg.Go(func() { b.ServeUDP(ctx, l) })
			}
			conn, err := net.Dial(network, addr.String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			var tr fastboot.Transport
			if network == "tcp" {
				tr, err = fastboot.NewTCP(ctx, conn)
			} else {
				tr, err = fastboot.NewUDP(ctx, conn)
			}
			if err != nil {
				t.Fatal(err)
			}
			c := fastboot.New(tr)
			if err := c.Download(ctx, bytes.NewReader(make([]byte, 300_000)), 300_000, nil); err != nil {
				t.Fatal(err)
			}
			if err := c.Flash(ctx, "boot", 0); err != nil {
				t.Fatal(err)
			}
			r := b.Report()
			if r.Partitions["boot"].Bytes != 300_000 || len(r.Violations) > 0 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// A message that does not fit into a packet goes on in the next one, and so does the device's.
func TestContinued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := pipes(false, false)
		defer ours.Close()
		var got []string // kind, flags and length of what came
		go func() {
			buf := make([]byte, 10_000)
			rest := strings.Repeat("y", 700)
			for {
				n, err := theirs.Read(buf)
				if err != nil {
					return
				}
				answer := append([]byte{buf[0], 0}, buf[2:4]...)
				switch {
				case buf[0] == 1:
					answer = append(answer, 0xff, 0xff) // wraps
				case buf[0] == 2:
					answer = append(answer, 0, 1, 2, 4) // 516 bytes
				case n == 4 && len(rest) > 512:
					answer[1] = 1
					answer, rest = append(answer, rest[:512]...), rest[512:]
				case n == 4:
					answer = append(answer, rest...)
				default:
					got = append(got, fmt.Sprintf("%d %d %x %d", buf[0], buf[1], buf[2:4], n-4))
				}
				theirs.Write(answer)
			}
		}()
		u, err := fastboot.NewUDP(t.Context(), ours)
		if err != nil {
			t.Fatal(err)
		}
		if err := u.Send(t.Context(), make([]byte, 1025)); err != nil {
			t.Fatal(err)
		}
		if want := []string{"3 1 0000 512", "3 1 0001 512", "3 0 0002 1"}; !reflect.DeepEqual(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		buf := make([]byte, 700)
		if n, err := u.Receive(t.Context(), buf); err != nil || n != 700 {
			t.Error(n, err)
		}
		if _, err := u.Receive(t.Context(), buf[:1]); err == nil || !strings.Contains(err.Error(), "a message of 1 bytes at most") {
			t.Error(err)
		}
	})
}

// What a server is that speaks no fastboot.
func TestHandshakes(t *testing.T) {
	for _, tc := range []struct{ network, answer, says string }{
		{"tcp", "FB00", "fastboot handshake: expected FB01, got 46 42 30 30"},
		{"tcp", "HTTP", "got 48 54 54 50"},
		{"tcp", "", "deadline"},
		{"udp", "", "fastboot query of 127.0.0.1: context deadline exceeded"},
		{"udp", "\x01\x00\x00\x00\x01", "fastboot query: expected a sequence number of 2 bytes, got 01"},
		{"udp", "\x00\x00\x00\x00no\x07", `error packet: "no"`},
		{"udp", "\x03\x00\x00\x00\x00\x00", "deadline"},
	} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := pipes(tc.network == "tcp", false)
			if tc.answer != "" {
				theirs.Write([]byte(tc.answer))
			}
			begun := time.Now()
			var err error
			if tc.network == "tcp" {
				_, err = fastboot.NewTCP(t.Context(), ours)
			} else {
				_, err = fastboot.NewUDP(t.Context(), ours)
			}
			if err == nil || !strings.Contains(err.Error(), tc.says) || time.Since(begun) > 2*time.Second {
				t.Errorf("%s %q: %v after %s, want %q", tc.network, tc.answer, err, time.Since(begun), tc.says)
			}
		})
	}
}

// A device without the interface is not taken for one that has it.
func TestInterface(t *testing.T) {
	for _, any := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			b, err := sim.New(sim.Config{OtherClass: true})
			if err != nil {
				t.Fatal(err)
			}
			host := inproc.New()
			var wg sync.WaitGroup
			wg.Go(func() { b.Run(ctx, host.Port("1-1")) })
			_, err = fastboot.OpenUSB(ctx, open(t, host), any)
			if (err == nil) != any || err != nil && !errors.Is(err, fastboot.ErrNoInterface) {
				t.Error(err)
			}
			cancel()
			wg.Wait()
		})
	}
}

// TestLongLines has U-Boot run lines that no command has room for. It gets all of them, or none.
func TestLongLines(t *testing.T) {
	long := `setenv a 'one; $b "two"'; setenv b ${a}; setenv c "it's '${b}'"; setenv d ` + strings.Repeat("x1", 3000)
	for _, over := range []string{"high speed", "UDP"} {
		for _, oem := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, oem run %t", over, oem), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := &uboot.Machine{MMC: []*uboot.MMC{uboot.NewMMC(64<<20, 0)}}
					c, b := connect(t, over, sim.Config{UBoot: m, NoUUU: oem, OEMRun: oem})
					if err := c.Run(t.Context(), long, 0); err != nil {
						t.Fatal(err)
					}
					for name, want := range map[string]string{"b": `one; $b "two"`, "c": `it's 'one; $b "two"'`, "d": strings.Repeat("x1", 3000), "snag": ""} {
						if got := m.Getenv(name); got != want {
							t.Errorf("%s is %.60q, expected %.60q", name, got, want)
						}
					}
					if err := c.WriteGPT(t.Context(), 0, "name=boot,size=1MiB,uuid=12345678-9abc-def0-1234-56789abcdef0;name=root,size=-,uuid=12345678-9abc-def0-1234-56789abcdef1"); err != nil {
						t.Error(err)
					}
					if table, err := uboot.ReadGPT(m.MMC[0].Areas[0]); err != nil || len(table.Parts) != 2 {
						t.Errorf("%+v, %v", table, err)
					}
					var refused *fastboot.FailError
					if err := c.Run(t.Context(), "false # "+strings.Repeat("x", 5000), 0); !errors.As(err, &refused) || !strings.Contains(err.Error(), "false # xx") {
						t.Errorf("a long line that fails: %.200v", err)
					}
					if _, err := c.GetVar(t.Context(), strings.Repeat("x", 100)); over == "UDP" && !strings.Contains(fmt.Sprint(err), "of 107 bytes: over UDP there may be 64") {
						t.Errorf("a long name: %v", err)
					}
					for _, v := range b.Report().Violations {
						t.Errorf("the host did wrong: %s (%d times)", v.Text, v.N)
					}
				})
			})
		}
	}
}

package am335x

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"snag/event"
	"snag/netboot"
	"snag/netboot/netboottest"
	"snag/socs"
)

var errNoMore = errors.New("no more stages")

// netBoard has some stages, then none. Events are kept by their kind.
type netBoard struct {
	mu     sync.Mutex
	net    *netboottest.Network
	stages []*socs.Stage
	events []event.Body
}

func (b *netBoard) Next(context.Context) (*socs.Stage, error) {
	if len(b.stages) == 0 {
		return nil, errNoMore
	}
	s := b.stages[0]
	b.stages = b.stages[1:]
	s.Since = time.Now()
	s.Link = &netboot.Link{
		BOOTP: b.net.Listen("192.168.0.100:67"), TFTP: b.net.Listen("192.168.0.100:69"),
		Server: netip.MustParsePrefix("192.168.0.100/24"), Client: netip.MustParseAddr("192.168.0.101"),
	}
	return s, nil
}

func (b *netBoard) Emit(_ string, body event.Body) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, body)
}

// ask broadcasts a BOOTP request (RFC 951) with a vendor class.
func (b *netBoard) ask(class string) {
	p := make([]byte, 300)
	copy(p, "\x01\x01\x06\x00\x00\x00\x00\x01")     // op, htype, hlen, hops, xid
	copy(p[28:], "\x00\x18\x31\x00\x00\x01")        // chaddr
	binary.BigEndian.PutUint32(p[236:], 0x63825363) // RFC 1497
	copy(p[240:], "\x3c"+string(rune(len(class)))+class+"\xff")
	b.net.Listen("0.0.0.0:68").WriteTo(p, &net.UDPAddr{IP: net.IPv4bcast, Port: 67})
}

// fetch gets a file by TFTP, up to a block if that is not 0.
func (b *netBoard) fetch(t *testing.T, name string, blocks int) {
	c := netboottest.Client{Passive: true}
	if blocks > 0 {
		c.Stop = func(n int) bool { return n > blocks }
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := c.Fetch(ctx, b.net.Listen("192.168.0.101:1234"), netip.MustParseAddrPort("192.168.0.100:69"), name, nil)
	if err != nil && !errors.Is(err, netboottest.ErrStopped) {
		t.Error(err)
	}
}

// The engine bounds the time between stages; within one it is the backend.
func TestDeadlines(t *testing.T) {
	rom := func() *socs.Stage { return &socs.Stage{Port: "1-1", ROM: true} }
	spl := func() *socs.Stage { return &socs.Stage{Port: "1-1"} }
	left := make(chan struct{})
	close(left)
	reset := func() *socs.Stage { return &socs.Stage{Port: "1-1", Gone: left} }
	for _, tc := range []struct {
		name   string
		stages []*socs.Stage
		board  func(*testing.T, *netBoard)
		after  time.Duration
		stands string
		says   string
	}{
		{"silent ROM", []*socs.Stage{rom()}, nil, 130 * time.Second, stageROM, "no BOOTP request within 2m10s"},
		{"silent SPL", []*socs.Stage{spl()}, nil, 75 * time.Second, stageSPL, "no BOOTP request within 1m15s"},
		{"ROM that asks once", []*socs.Stage{rom()}, func(_ *testing.T, b *netBoard) { b.ask("AM335x ROM") }, 60 * time.Second, stageROM, "after 0 of 20000 bytes and was silent for 1m0s"},
		{"ROM that stops", []*socs.Stage{rom()}, func(t *testing.T, b *netBoard) { b.fetch(t, "spl.bin", 5) }, 60 * time.Second, stageROM, "after 2560 of 20000 bytes"},
		{"SPL that stops", []*socs.Stage{spl()}, func(t *testing.T, b *netBoard) { b.fetch(t, "u-boot.img", 5) }, 60 * time.Second, stageSPL, "of 50000 bytes"},
		{"SPL that hears nothing", []*socs.Stage{spl()}, func(_ *testing.T, b *netBoard) {
			b.ask("AM335x U-Boot SPL")
			c := b.net.Listen("192.168.0.101:1234")
			for range 15 { // U-Boot's timer, of 20 tries
				c.WriteTo([]byte("\x00\x01u-boot.img\x00octet\x00"), &net.UDPAddr{IP: net.IPv4(192, 168, 0, 100), Port: 69})
				time.Sleep(5 * time.Second)
			}
		}, 60 * time.Second, stageSPL, "asks for u-boot.img again and again, and has acknowledged nothing of 50000 bytes for 1m0s"},
		{"ROM that pauses for 46.5 s", []*socs.Stage{rom()}, func(t *testing.T, b *netBoard) {
			time.Sleep(46500 * time.Millisecond)
			b.ask("AM335x ROM")
			time.Sleep(46500 * time.Millisecond)
			b.fetch(t, "spl.bin", 0)
		}, 93 * time.Second, "", errNoMore.Error()},
		{"ROM that never starts SPL", []*socs.Stage{rom(), rom(), rom(), rom()}, func(t *testing.T, b *netBoard) {
			for range 3 {
				b.fetch(t, "spl.bin", 0)
				time.Sleep(time.Second)
			}
			b.ask("AM335x ROM")
		}, 3 * time.Second, stageROM, "3 times"},
		{"SPL that is reset before it asks", []*socs.Stage{rom(), reset(), rom(), reset(), rom(), reset(), rom(), reset()}, func(t *testing.T, b *netBoard) {
			for range 4 {
				b.fetch(t, "spl.bin", 0)
				time.Sleep(time.Second)
			}
		}, 3 * time.Second, "", errNoMore.Error()},
		{"other chip", []*socs.Stage{rom()}, func(_ *testing.T, b *netBoard) { b.ask("AM43xx ROM") }, 0, stageROM, `"AM43xx ROM"`},
		{"running Linux", []*socs.Stage{spl()}, func(_ *testing.T, b *netBoard) { b.ask("udhcp 1.36.1") }, 75 * time.Second, stageSPL, `one came that calls itself "udhcp 1.36.1": a system that runs`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &netBoard{net: netboottest.New(1, nil), stages: slices.Clone(tc.stages)}
				var playing sync.WaitGroup
				playing.Go(func() {
					if synctest.Wait(); tc.board != nil {
						tc.board(t, b)
					}
				})
				begun := time.Now()
				err := Backend{}.Recover(t.Context(), job(b))
				took := time.Since(begun)
				playing.Wait()
				if err == nil || !strings.Contains(err.Error(), tc.says) {
					t.Fatalf("got %v, want %q", err, tc.says)
				}
				var stuck *socs.BoardError
				if tc.stands != "" && (!errors.As(err, &stuck) || stuck.Stage != tc.stands || stuck.Hint == "") {
					t.Errorf("got %#v, want stage %s and a hint", err, tc.stands)
				}
				if took < tc.after || took > tc.after+time.Second {
					t.Errorf("it took %s, want %s", took, tc.after)
				}
			})
		})
	}
}

// A board that leaves is waited for; one that has it all is done.
func TestGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := make(chan struct{})
		b := &netBoard{net: netboottest.New(1, nil), stages: []*socs.Stage{
			{Port: "1-1", ROM: true, Gone: gone}, {Port: "1-1", ROM: true}, {Port: "1-1"},
		}}
		go func() {
			synctest.Wait()
			b.fetch(t, "spl.bin", 5)
			close(gone)
			synctest.Wait()
			b.fetch(t, "spl.bin", 0)
			synctest.Wait()
			b.fetch(t, "u-boot.img", 0)
		}()
		if err := (Backend{}).Recover(t.Context(), job(b)); err != nil {
			t.Fatal(err)
		}
		var warned, done int
		for _, e := range b.events {
			switch e := e.(type) {
			case event.Warning:
				warned++
				if !strings.Contains(e.Text, "left port 1-1 after 2560 of 20000 bytes") {
					t.Error(e.Text)
				}
			case event.StageDone:
				done++
			}
		}
		if warned != 1 || done != 2 {
			t.Errorf("%d warnings, %d stages done, want 1 and 2", warned, done)
		}
	})
}

// A board that is reset again and again while SPL fetches U-Boot has a first stage that runs.
func TestResets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const resets = 5
		b := &netBoard{net: netboottest.New(1, nil)}
		var gone []chan struct{}
		for i := range resets + 1 {
			gone = append(gone, make(chan struct{}))
			b.stages = append(b.stages, &socs.Stage{Port: "1-1", ROM: true}, &socs.Stage{Port: "1-1", Gone: gone[i]})
		}
		go func() {
			for i := range resets + 1 {
				synctest.Wait()
				b.fetch(t, "spl.bin", 0)
				synctest.Wait()
				if i == resets {
					b.fetch(t, "u-boot.img", 0)
					return
				}
				b.fetch(t, "u-boot.img", i+1)
				close(gone[i])
			}
		}()
		if err := (Backend{}).Recover(t.Context(), job(b)); err != nil {
			t.Error(err)
		}
	})
}

// What is known of who asks decides what it gets; where that says nothing, the USB ID does.
func TestPick(t *testing.T) {
	for _, tc := range []struct {
		rom  bool
		runs int
		c    netboot.Client
		want string // the stage; empty: nothing
	}{
		{true, 0, netboot.Client{}, stageROM},
		{true, 0, netboot.Client{VendorClass: "AM335x ROM"}, stageROM},
		{true, 0, netboot.Client{VendorClass: "DM814x ROM v1.0"}, stageROM},
		{false, 0, netboot.Client{VendorClass: "AM335x ROM"}, stageROM},
		{true, 0, netboot.Client{VendorClass: "AM335x U-Boot SPL"}, stageSPL},
		{true, 1, netboot.Client{VendorClass: "U-Boot.armv7", DHCP: true}, stageSPL},
		{false, 0, netboot.Client{}, stageSPL},
		{false, 0, netboot.Client{VendorClass: "something", DHCP: true}, stageSPL},
		{true, 0, netboot.Client{DHCP: true}, stageROM},
		{true, 1, netboot.Client{DHCP: true}, stageSPL}, // of the ROM's USB ID, and it knows no class
		{true, 1, netboot.Client{}, stageROM},
		{true, 1, netboot.Client{VendorClass: "udhcp 1.36", DHCP: true}, ""},
	} {
		r := recovery{job: job(nil), files: [2]netboot.File{{Stage: stageROM}, {Stage: stageSPL}}, runs: tc.runs}
		f, err := r.pick(&socs.Stage{ROM: tc.rom}, tc.c)
		got := ""
		if f != nil {
			got = f.Stage
		}
		if err != nil || got != tc.want {
			t.Errorf("ROM's ID %v, %d runs, %+v: %q, %v, want %q", tc.rom, tc.runs, tc.c, got, err, tc.want)
		}
	}
}

func job(b *netBoard) socs.Job {
	return socs.Job{Model: socs.Model{Name: "am335x", Family: "am335x"}, Board: b, Firmware: socs.Firmware{
		slotSPL:   {Path: "spl.bin", Data: make([]byte, 20_000)},
		slotUBoot: {Path: "u-boot.img", Data: make([]byte, 50_000)},
	}}
}

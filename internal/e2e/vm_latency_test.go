package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"snag/internal/lab"
	"snag/sim/am335x"
	"snag/usb"
)

// The board's link is to be up so long after the moment when snag may have its interface.
const (
	latencyMedian = 250 * time.Millisecond
	latencyWorst  = time.Second
	latencyStages = 20
)

// idle is how much of the processor's time others may take where that is judged; after so many recoveries it is known
// whether it can be.
const (
	idle      = 0.05
	idleKnown = 3
)

// TestWithUdevLatency measures, at an ordinary user's recoveries, the time from the registration of
// the interface, and of udev's leave to open its device's node if that comes later, to the moment when
// the board sees the link up. That of the first recovery, which reads the programs, does not count.
func TestWithUdevLatency(t *testing.T) {
	lab.Inside(t)
	setUp(t)
	fw := generateSized(t, 5, 8<<10, 8<<10)
	seen := observe(t)
	var all []time.Duration
	var stolen []float64
	var busy float64
	for n := range latencyStages/2 + 1 {
		if !part(n, 2) {
			continue
		}
		p := start(t, user, "recover", "-s", "am335x", "-f", fw.config)
		time.Sleep(700 * time.Millisecond) // not part of what is measured: snag is to be waiting
		stolen = append(stolen, stolenShare(300*time.Millisecond))
		board, port, unplug := plugged(t, am335x.Config{SPLDelay: 300 * time.Millisecond, ROMRetries: []time.Duration{5 * time.Second}}, "")
		if code := p.exit(t, 3*time.Minute); code != 0 {
			t.Fatalf("exit code %d\n%s", code, p)
		}
		fw.booted(t, board)
		r := board.Report()
		unplug()
		for _, s := range r.Stages {
			ready := seen.ready(port.Name(), s.Plugged)
			took := s.FirstBOOTP.Sub(ready.max()) // SPL's link counts as up when the driver is bound
			t.Logf("%d %s: after the plug: interface %s, node %s, link %s, first request taken %s; so %s\n", n, s.Name,
				ms(ready.registered.Sub(s.Plugged)), ms(ready.node.Sub(s.Plugged)), ms(s.LinkUp.Sub(s.Plugged)), ms(s.FirstBOOTP.Sub(s.Plugged)), ms(took))
			if n > 0 {
				all = append(all, took)
			}
		}
		slices.Sort(stolen)
		if busy = stolen[len(stolen)/2]; n >= idleKnown && busy > idle {
			break
		}
	}
	slices.Sort(all)
	median, worst := all[len(all)/2], all[len(all)-1]
	t.Logf("link up after %s in the median of %d, %s at worst; the machine was away for %.0f %% of the time", ms(median), len(all), ms(worst), 100*busy)
	switch {
	case median <= latencyMedian && worst <= latencyWorst:
	case busy > idle:
		t.Log("not judged: the figures are for a machine with nothing else to do")
	default:
		t.Errorf("expected a median of %v at most, and never more than %v", latencyMedian, latencyWorst)
	}
}

// stolenShare tells how much of the processor's time others on the host take: whoever does nothing but
// look at the clock sees it leap.
func stolenShare(look time.Duration) float64 {
	begun := time.Now()
	var away time.Duration
	last := begun
	for last.Sub(begun) < look {
		now := time.Now()
		if gap := now.Sub(last); gap > 2*time.Millisecond {
			away += gap
		}
		last = now
	}
	return away.Seconds() / last.Sub(begun).Seconds()
}

func ms(d time.Duration) string { return fmt.Sprintf("%.0f ms", d.Seconds()*1000) }

// readiness is when a stage could be taken.
type readiness struct{ registered, node time.Time }

func (r readiness) max() time.Time {
	if r.node.After(r.registered) {
		return r.node
	}
	return r.registered
}

// observer notes when interfaces of USB devices are registered and when device nodes get the group
// plugdev.
type observer struct {
	mu    sync.Mutex
	links []sighting // key: port
	nodes []sighting // key: node
}

type sighting struct {
	key  string
	when time.Time
}

// observe watches the host until the test ends.
func observe(t *testing.T) *observer {
	t.Helper()
	o := &observer{}
	updates, done := make(chan netlink.LinkUpdate, 64), make(chan struct{})
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		t.Fatal(err)
	}
	bus := nodes(t)
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.InotifyAddWatch(fd, bus, unix.IN_ATTRIB); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	t.Cleanup(func() { close(done); f.Close() })
	go func() {
		for u := range updates {
			if name := u.Attrs().ParentDev; u.Header.Type == unix.RTM_NEWLINK && name != "" {
				port, _, _ := strings.Cut(name, ":")
				o.note(&o.links, fmt.Sprintf("%s#%d", port, u.Attrs().Index))
			}
		}
	}()
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := f.Read(buf)
			if err != nil {
				return
			}
			for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
				length := int(b[12]) | int(b[13])<<8
				name, _, _ := strings.Cut(string(b[unix.SizeofInotifyEvent:][:length]), "\x00")
				b = b[unix.SizeofInotifyEvent+length:]
				var st unix.Stat_t
				if unix.Stat(bus+"/"+name, &st) == nil && st.Gid == user.Groups[0] && st.Mode&0o060 == 0o060 {
					o.note(&o.nodes, name)
				}
			}
		}
	}()
	return o
}

// note notes the first sighting of what a key means. A node's name comes again only after 127 others.
func (o *observer) note(list *[]sighting, key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !slices.ContainsFunc(*list, func(s sighting) bool { return s.key == key }) {
		*list = append(*list, sighting{key, time.Now()})
	}
}

// ready finds what was first seen after a plug. One board at a time is plugged in here.
func (o *observer) ready(port usb.Port, plugged time.Time) readiness {
	o.mu.Lock()
	defer o.mu.Unlock()
	first := func(list []sighting, prefix string) time.Time {
		for _, s := range list {
			if strings.HasPrefix(s.key, prefix) && s.when.After(plugged.Add(-50*time.Millisecond)) {
				return s.when
			}
		}
		return time.Time{}
	}
	return readiness{first(o.links, string(port)+"#"), first(o.nodes, "")}
}

// nodes is the directory with the nodes of the virtual controller's devices.
func nodes(t testing.TB) string {
	t.Helper()
	bus, _, _ := strings.Cut(string(hostPort(t, 1)), "-")
	return "/dev/bus/usb/" + ("000" + bus)[len(bus):]
}

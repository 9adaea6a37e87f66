//go:build linux

package usbfs

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Finished URBs are taken back by one goroutine at a time. As a rule that is the watcher, which waits in the runtime's
// poller; but to be woken by it costs two turns of the scheduler and as many system calls as a short transfer itself.
// So who waits for all that is in flight is the leader for some milliseconds: waits in the kernel, and reaps. The
// watcher is put aside then, else each end of a transfer would wake it too: the node is not in the runtime's poller
// itself but in an epoll instance that is, and that it is taken out of. A leader that has got what it waited for leaves
// it so, for the next one. Who receives (receive.go) leads with other transfers in flight, too: it is back soon. Nobody
// else leads then: what comes would be handed on by who waits for something else, maybe for ever.
//
// The leader of a quick host waits in the request that reaps, which has no time limit, but ends with a signal. Go's
// monitor sends one to a thread that runs, or seems to, for 10 ms; lest it depends on that alone, so does the timer. No
// timer runs while a garbage collection waits for all goroutines to stop, which sends such signals as well. Where
// GODEBUG=asyncpreemptoff=1 has it send none the leader's wait is told to the scheduler, else both would wait for ever.
//
// What makes sure that nothing is left to nobody: the watcher is put aside only by a leader, and the timer runs from
// then until it is back, which it is once nobody has led for a while. Sooner it is back when somebody waits who does not
// lead, or no longer. To put the node into the instance wakes the watcher if there is something to reap already, or the
// device gone. And the watcher reaps until the kernel says that there is nothing more, or that the device is gone: of what
// has happened before there is no further wake-up.
const (
	leadTurn    = 2 * time.Millisecond   // for which a leader heeds no context, if the host is not a quick one
	leadFor     = 50 * time.Millisecond  // without anything to reap, until the watcher is left to it: four URBs at high speed take 27 ms
	restTime    = 10 * time.Millisecond  // without a leader, until the watcher is back: it sees the device leave while nobody waits
	receiveTime = 250 * time.Millisecond // the same while somebody receives: each time wakes one more thread
	yieldTime   = 7 * time.Millisecond   // between two turns of the scheduler, if the host is not a quick one

	// lostAfter bounds how long the kernel may take to end the transfers of a device that left.
	lostAfter = time.Second
)

// leaders counts those of all handles. There are fewer than Go's scheduler has processors, of which each keeps one: for
// some milliseconds nothing else would go on.
var leaders atomic.Int32

// watcher is what a handle has for it.
type watcher struct {
	epoll *os.File // has the node while the watcher is there
	there bool
	led   bool        // somebody leads
	again bool        // somebody has led since the timer ran out last
	asked bool        // somebody else waits for the watcher meanwhile
	timer *time.Timer // runs while the watcher is not there

	receivers atomic.Int32 // who receive, and lead again and again
	waits     int          // of quick leaders that are over
	waited    int          // waits when the timer ran out last

	cooperative bool // Go's scheduler sends no signals

	watching sync.WaitGroup

	urb     uintptr        // that was reaped last
	node    [1]unix.PollFd // for the leader
	turn    unix.Timespec  // of the leader
	yielded time.Time      // by the leader

	processors atomic.Int32 // that Go's scheduler had lately: to ask it each time takes its lock
}

// startWatcher starts the watcher.
func (h *handle) startWatcher() error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return err
	}
	h.epoll = os.NewFile(uintptr(fd), "epoll of "+h.dev.Node) // non-blocking: served by the runtime's poller
	h.processors.Store(int32(runtime.GOMAXPROCS(0)))
	h.cooperative = strings.Contains(os.Getenv("GODEBUG"), "asyncpreemptoff=")
	h.node[0] = unix.PollFd{Fd: int32(h.fd), Events: unix.POLLOUT}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.timer = time.AfterFunc(restTime, h.rested)
	if err := h.callBack(); err != nil {
		h.there = true // the timer has nothing to do
		h.timer.Stop()
		h.epoll.Close()
		return err
	}
	h.watching.Go(h.watch)
	return nil
}

// stopWatcher returns when the watcher has ended. Nobody leads, and nobody will.
func (h *handle) stopWatcher() {
	h.mu.Lock()
	h.there = true // it does not come back
	h.timer.Stop()
	h.mu.Unlock()
	h.epoll.Close()
	h.watching.Wait()
}

// watch reaps what no leader does, until the watcher is stopped.
func (h *handle) watch() {
	conn, err := h.epoll.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Read(func(uintptr) bool {
		for h.reapOne(false) == nil {
		}
		return false
	})
}

// reapOne takes a finished URB back. The errors are EAGAIN if there is none, or somebody else reaps, and ENODEV if there
// is none and the device is gone.
func (h *handle) reapOne(leader bool) error {
	h.mu.Lock() // until it is removed from those in flight: who finds none there has nothing to wait for
	defer h.mu.Unlock()
	switch {
	case h.led != leader:
		return unix.EAGAIN
	case h.lost:
		return unix.ENODEV
	}
	errno := unix.EINTR
	for errno == unix.EINTR {
		errno = h.brief(reqReapURBNoDelay, unsafe.Pointer(&h.urb))
	}
	return h.took(errno)
}

// reapNext waits for a finished URB and takes it back, for the leader, who waits for one that is in flight. The errors
// are EINTR after a signal, and ENODEV if there is none and the device is gone.
func (h *handle) reapNext() error {
	var errno unix.Errno
	if h.cooperative {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, uintptr(h.fd), reqReapURB, uintptr(unsafe.Pointer(&h.urb)))
	} else {
		_, _, errno = unix.RawSyscall(unix.SYS_IOCTL, uintptr(h.fd), reqReapURB, uintptr(unsafe.Pointer(&h.urb)))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waits++
	return h.took(errno)
}

// took ends what a request to reap began, with h.urb if that has succeeded. h.mu is held.
func (h *handle) took(errno unix.Errno) error {
	switch errno {
	case 0:
		if t := h.reaped(h.urb); t != nil {
			h.land(t)
			t.end()
		}
		return nil
	case unix.EAGAIN, unix.EINTR:
		return errno
	}
	h.left()
	return unix.ENODEV
}

// left says that the device is gone. The kernel takes nothing more, and is about to end what is in flight. What it does
// not end is lost, and not reaped any more. h.mu is held.
func (h *handle) left() {
	select {
	case <-h.gone:
		return
	default:
	}
	close(h.gone)
	time.AfterFunc(lostAfter, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.lost = true
		for len(h.flights) > 0 {
			t := h.flights[0]
			h.land(t)
			t.lost = true
			t.end()
		}
	})
}

// direct reaps until t is reaped, or something was sent to failed, if nothing is in flight but own, the caller's, or own
// is empty, and that takes no longer than some milliseconds. Else the watcher reaps: the caller awaits t afterwards.
func (h *handle) direct(ctx context.Context, t *transfer, failed <-chan struct{}, own ...*transfer) {
	over := func() bool { return t.over.Load() || len(failed) > 0 }
	if over() || !h.lead(own) {
		return
	}
	var last time.Time // when something was reaped
	for !over() && ctx.Err() == nil && (len(own) == 0 || h.receivers.Load() == 0) {
		now := time.Now()
		if last.IsZero() {
			last = now
		} else if now.Sub(last) > h.leadFor {
			break
		}
		// The scheduler's monitor takes a goroutine that has been running for 10 ms for one that hogs its processor, takes
		// that away in each system call it is told of from then on, and looks every 20 µs whether it can (retake in
		// runtime/proc.go).
		if !h.quick && now.Sub(h.yielded) > yieldTime {
			h.yielded = now
			runtime.Gosched()
		}
		var err error
		switch {
		case h.quick:
			if err = h.reapNext(); err == nil {
				last = now
			}
		case h.ready():
			last = now
			for err == nil && !over() {
				err = h.reapOne(true)
			}
		}
		if err == unix.ENODEV {
			break
		}
	}
	h.follow(t.over.Load() && t.urb.Status == 0) // an error may be that the device leaves
}

// ready waits for a turn whether there is something to reap. A signal ends it.
func (h *handle) ready() bool {
	h.turn = unix.NsecToTimespec(int64(leadTurn)) // the kernel writes to it
	n, _ := unix.Ppoll(h.node[:], &h.turn, nil)
	return n > 0
}

// lead makes the caller, who waits for its own transfers, the leader, or has the watcher reap. Where own is empty, as of
// who receives, others may wait beside it: they have theirs reaped by it, or after receiveTime, twice at most, by the
// watcher.
func (h *handle) lead(own []*transfer) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	mine := 0
	for _, t := range own {
		if !t.over.Load() {
			mine++
		}
	}
	may := !h.closing && !h.led && (len(own) == 0 || len(h.flights) == mine && h.receivers.Load() == 0)
	select {
	case <-h.gone: // the kernel would let nobody wait
		may = false
	default:
	}
	if may && leaders.Add(1) >= h.processors.Load() {
		leaders.Add(-1)
		may = false
	}
	if !may {
		h.ask()
		return false
	}
	h.requests.Add(1)
	h.led, h.again = true, true
	h.putAside()
	return true
}

// follow ends what lead began. The watcher is back if all is not well, as if the leader did not come to what it waited
// for.
func (h *handle) follow(well bool) {
	h.mu.Lock()
	h.led = false
	if !well || h.asked {
		h.ask()
	}
	h.mu.Unlock()
	leaders.Add(-1)
	h.requests.Done()
}

// watched has the watcher reap.
func (h *handle) watched() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ask()
}

// ask has the watcher back, once nobody leads. h.mu is held.
func (h *handle) ask() {
	if h.asked = h.led; !h.asked {
		_ = h.callBack() // else the timer tries again
	}
}

// rested has the watcher back if nobody has led since it was called last. A leader who has waited since then is
// interrupted, to look at its context.
func (h *handle) rested() {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.there:
	case h.again:
		if h.led && h.quick && h.waits == h.waited {
			interrupt()
		}
		h.again, h.waited = h.led, h.waits
		h.processors.Store(int32(runtime.GOMAXPROCS(0)))
		if h.receivers.Load() > 0 {
			h.timer.Reset(receiveTime)
		} else {
			h.timer.Reset(restTime)
		}
	default:
		_ = h.callBack()
	}
}

// interrupt ends what the threads of this process wait for in the kernel, as far as a signal can. It is the one with which
// Go's scheduler interrupts them: its handler takes it, and what was interrupted is begun again.
func interrupt() {
	threads, _ := os.ReadDir("/proc/self/task") // a goroutine may be on any
	for _, t := range threads {
		if id, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.Tgkill(os.Getpid(), id, unix.SIGURG)
		}
	}
}

// callBack has the watcher reap. h.mu is held.
func (h *handle) callBack() error {
	if h.there {
		return nil
	}
	if err := h.inEpoll(unix.EPOLL_CTL_ADD); err != nil {
		h.timer.Reset(restTime)
		return err
	}
	h.there = true
	h.timer.Stop()
	return nil
}

// putAside has the watcher reap no more. h.mu is held.
func (h *handle) putAside() {
	if !h.there {
		return
	}
	_ = h.inEpoll(unix.EPOLL_CTL_DEL) // takes nothing that there may not be
	h.there = false
	h.timer.Reset(restTime)
}

// inEpoll puts the node into the epoll instance, or takes it out. It is ready for writing when an URB is finished, and
// there is no more asked for to hear that the device is gone.
func (h *handle) inEpoll(op int) error {
	conn, err := h.epoll.SyscallConn()
	if err != nil {
		return err
	}
	var errno error
	if err := conn.Control(func(epoll uintptr) {
		errno = unix.EpollCtl(int(epoll), op, h.fd, &unix.EpollEvent{Events: unix.EPOLLOUT, Fd: int32(h.fd)})
	}); err != nil {
		return err
	}
	return errno
}

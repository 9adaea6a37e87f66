package e2e

import (
	"encoding/binary"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"snag/netsetup"
)

// holder keeps helpers from going on.
type holder struct {
	helpers chan int // the process ID of each that is held
	release func()   // lets them, and all after them, go
}

// hold holds every snag-netmove that opens the list of further USB IDs, which it does for a board of an ID
// that is not built in, until it is released or the test ends. The means are permission events of fanotify(7).
func hold(t *testing.T) *holder {
	t.Helper()
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY)
	if err != nil {
		t.Fatal("fanotify: ", err)
	}
	if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD, unix.FAN_OPEN_PERM, unix.AT_FDCWD, netsetup.HelperConf); err != nil {
		t.Fatal("fanotify: ", err)
	}
	f := os.NewFile(uintptr(fd), "fanotify")
	h := &holder{helpers: make(chan int, 8)}
	var mu sync.Mutex
	var waiting []int32 // descriptors of files whose opening is held
	released := false
	allow := func(file int32) {
		// struct fanotify_response: the event's descriptor, and the answer.
		b := binary.NativeEndian.AppendUint32(nil, uint32(file))
		f.Write(binary.NativeEndian.AppendUint32(b, unix.FAN_ALLOW))
		unix.Close(int(file))
	}
	h.release = sync.OnceFunc(func() {
		mu.Lock()
		defer mu.Unlock()
		released = true
		for _, file := range waiting {
			allow(file)
		}
	})
	done := make(chan struct{})
	t.Cleanup(func() {
		h.release()
		f.Close() // allows what is left
		<-done
	})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := f.Read(buf)
			if err != nil {
				return
			}
			// struct fanotify_event_metadata: u32 length, u8 version, u8, u16, u64 mask, i32 descriptor, i32 process
			for b := buf[:n]; len(b) >= 24; b = b[binary.NativeEndian.Uint32(b):] {
				file, pid := int32(binary.NativeEndian.Uint32(b[16:])), int(binary.NativeEndian.Uint32(b[20:]))
				comm, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
				mu.Lock()
				if released || strings.TrimSpace(string(comm)) != "snag-netmove" {
					allow(file)
				} else {
					waiting = append(waiting, file)
					h.helpers <- pid
				}
				mu.Unlock()
			}
		}
	}()
	return h
}

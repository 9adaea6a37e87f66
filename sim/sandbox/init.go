package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// initFD is the socket pair in Init's process.
const initFD = 3

// machine is Init's process: the virtual machine's hardware and first process.
type machine struct {
	ch    *channel
	net   *wiring
	view  *view
	mu    sync.Mutex
	procs map[int]*os.Process // running commands by request ID
}

// initMain is Init's process. It runs until the caller's end of the socket pair is closed.
func initMain() error {
	unix.CloseOnExec(initFD)
	ch, err := newChannel(os.NewFile(initFD, "sandbox"))
	if err != nil {
		return err
	}
	// The terminal's signals are for the command; not ignored, because it would inherit that.
	signal.Notify(make(chan os.Signal, 1), unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGHUP)
	m := &machine{ch: ch, procs: make(map[int]*os.Process)}
	if err := m.setUp(); err != nil {
		return ch.send(message{Op: "ready", Err: err.Error()})
	}
	if err := ch.send(message{Op: "ready"}); err != nil {
		return err
	}
	for {
		q, files, err := ch.receive()
		if err != nil {
			killAll()
			return nil
		}
		m.handle(q, files)
		for _, f := range files {
			f.Close()
		}
	}
}

func (m *machine) setUp() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("subreaper: %w", err)
	}
	if err := mountSys(); err != nil {
		return err
	}
	var err error
	if m.view, err = newView("/sys"); err != nil {
		return err
	}
	m.net, err = newNetwork(m.view, func(q message, files ...*os.File) { m.ch.send(q, files...) })
	return err
}

// mountSys covers /sys with a tmpfs. What has nothing to do with devices stays visible.
func mountSys() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	keep := make(map[string]int)
	for _, dir := range []string{"devices/system", "fs", "kernel", "module"} {
		if fd, err := unix.Open("/sys/"+dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
			keep[dir] = fd
			defer unix.Close(fd)
		}
	}
	if err := unix.Mount("sysfs", "/sys", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("tmpfs on /sys: %w", err)
	}
	for dir, fd := range keep {
		if err := os.MkdirAll("/sys/"+dir, 0o755); err != nil {
			return err
		}
		// A container may forbid one or the other; it is not needed.
		unix.Mount("/proc/self/fd/"+strconv.Itoa(fd), "/sys/"+dir, "", unix.MS_BIND|unix.MS_REC, "")
	}
	return nil
}

func (m *machine) handle(q message, files []*os.File) {
	var err error
	switch q.Op {
	case "attach":
		err = m.net.attach(q)
	case "detach":
		err = m.net.detach(q.Port)
	case "run":
		err = m.run(q, files)
	case "signal":
		m.mu.Lock()
		if p := m.procs[q.ID]; p != nil {
			p.Signal(syscall.Signal(q.Signal)) // it may have ended meanwhile
		}
		m.mu.Unlock()
		return
	default:
		err = fmt.Errorf("request %q", q.Op)
	}
	done := message{Op: "done", ID: q.ID}
	if err != nil {
		done.Err = err.Error()
	}
	m.ch.send(done) // if the caller is gone, receive says so
}

// run starts a command: Args are the path, then the arguments from the zeroth on. It dies with this
// process.
func (m *machine) run(q message, files []*os.File) error {
	if len(q.Args) < 2 || len(files) != 3 {
		return errors.New("run: malformed request")
	}
	cmd := &exec.Cmd{
		Path: q.Args[0], Args: q.Args[1:], Env: q.Env, Dir: q.Dir,
		Stdin: files[0], Stdout: files[1], Stderr: files[2],
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL},
	}
	started := make(chan error)
	go func() {
		// The kernel sends the death signal when the thread ends that started the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			m.mu.Lock()
			m.procs[q.ID] = cmd.Process
			m.mu.Unlock()
		}
		started <- err
		if err != nil {
			return
		}
		cmd.Wait()
		m.mu.Lock()
		delete(m.procs, q.ID)
		m.mu.Unlock()
		status := cmd.ProcessState.ExitCode()
		if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			status = 128 + int(ws.Signal())
		}
		m.ch.send(message{Op: "exit", ID: q.ID, Status: status})
	}()
	return <-started
}

// killAll kills every descendant. As the subreaper, this process becomes the parent of orphans, so
// that killing its children until there are none reaches all.
func killAll() {
	for {
		children := 0
		dirs, err := os.ReadDir("/proc")
		if err != nil {
			return
		}
		for _, d := range dirs {
			pid, err := strconv.Atoi(d.Name())
			if err != nil {
				continue
			}
			stat, err := os.ReadFile("/proc/" + d.Name() + "/stat")
			if err != nil {
				continue
			}
			// PID (NAME) STATE PPID …; the name may hold anything.
			fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
			if len(fields) > 1 && fields[1] == strconv.Itoa(os.Getpid()) {
				children++
				unix.Kill(pid, unix.SIGKILL)
				unix.Wait4(pid, nil, 0, nil) // whoever waits for it besides gets ECHILD
			}
		}
		if children == 0 {
			return
		}
	}
}

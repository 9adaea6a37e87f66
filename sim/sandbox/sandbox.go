package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"snag/usb"
)

// initName is the name by which the program knows that it is to be Init's process.
const initName = "snag-sim-sandbox"

// Init does not return in the process that [Start] makes of this program. Elsewhere it does nothing.
// It is to be called before anything else is.
func Init() {
	if len(os.Args) == 1 && os.Args[0] == initName {
		if err := initMain(); err != nil {
			fmt.Fprintln(os.Stderr, "sandbox:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// Sandbox is a set of namespaces with virtual ports.
type Sandbox struct {
	cmd  *exec.Cmd
	ch   *channel
	gone chan struct{} // closed when the channel ended

	closing sync.Once
	closed  error // what Close returns

	mu      sync.Mutex
	nextID  int
	waiting map[int]chan message // answers to requests
	runs    map[int]chan message // exits of commands
	ports   map[string]*Port
}

// startTimeout bounds the making of the namespaces, requestTimeout that of one port's change.
const (
	startTimeout   = 10 * time.Second
	requestTimeout = 10 * time.Second
)

// Start makes a sandbox. It is not bound to ctx beyond the start: Close ends it.
//
// It needs user namespaces, or root. The program must call Init.
func Start(ctx context.Context) (*Sandbox, error) {
	s, err := start(ctx, true)
	if err != nil && os.Geteuid() == 0 {
		// A root without user namespaces (in a chroot, or where they are turned off) can do without.
		var err2 error
		if s, err2 = start(ctx, false); err2 == nil {
			return s, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("sandbox for virtual boards: %w (it takes user namespaces or root)", err)
	}
	return s, nil
}

func start(ctx context.Context, userns bool) (*Sandbox, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	theirs := os.NewFile(uintptr(fds[1]), "sandbox")
	defer theirs.Close()
	ch, err := newChannel(os.NewFile(uintptr(fds[0]), "sandbox"))
	if err != nil {
		return nil, err
	}
	attr := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
	if userns {
		attr.Cloneflags |= unix.CLONE_NEWUSER
		if err := mapIDs(attr); err != nil {
			ch.conn.Close()
			return nil, err
		}
	}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{initName}, Env: os.Environ(),
		Stderr: os.Stderr, ExtraFiles: []*os.File{theirs}, SysProcAttr: attr,
	}
	if err := cmd.Start(); err != nil {
		ch.conn.Close()
		return nil, err
	}
	s := &Sandbox{
		cmd: cmd, ch: ch, gone: make(chan struct{}),
		waiting: make(map[int]chan message), runs: make(map[int]chan message), ports: make(map[string]*Port),
	}
	ready := make(chan message, 1)
	s.waiting[0] = ready
	go s.receive()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case m := <-ready:
		if m.Err == "" {
			return s, nil
		}
		err = errors.New(m.Err)
	case <-s.gone:
		err = errors.New("the program does not call sandbox.Init, or could not be started again")
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.Close()
	return nil, err
}

// mapIDs gives an ordinary user uid 0, and root every ID that it has.
func mapIDs(attr *syscall.SysProcAttr) error {
	if os.Geteuid() != 0 {
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
		return nil
	}
	read := func(name string) (maps []syscall.SysProcIDMap, err error) {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			var inside, outside, n int
			if _, err := fmt.Sscan(line, &inside, &outside, &n); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			maps = append(maps, syscall.SysProcIDMap{ContainerID: inside, HostID: inside, Size: n})
		}
		return maps, nil
	}
	var err1, err2 error
	attr.UidMappings, err1 = read("/proc/self/uid_map")
	attr.GidMappings, err2 = read("/proc/self/gid_map")
	attr.GidMappingsEnableSetgroups = true
	return errors.Join(err1, err2)
}

// Close kills what runs in the sandbox and takes it apart.
func (s *Sandbox) Close() error {
	s.closing.Do(func() {
		s.ch.conn.Close()
		<-s.gone
		kill := time.AfterFunc(5*time.Second, func() { s.cmd.Process.Kill() })
		defer kill.Stop()
		if err := s.cmd.Wait(); err != nil {
			s.closed = fmt.Errorf("sandbox: %w", err)
		}
	})
	return s.closed
}

// receive hands out what Init's process sends.
func (s *Sandbox) receive() {
	defer close(s.gone)
	for {
		m, files, err := s.ch.receive()
		if err != nil {
			return
		}
		s.mu.Lock()
		port := s.ports[m.Port]
		var to chan message
		switch m.Op {
		case "ready", "done":
			to = s.waiting[m.ID]
			delete(s.waiting, m.ID)
		case "exit":
			to = s.runs[m.ID]
			delete(s.runs, m.ID)
		}
		s.mu.Unlock()
		switch {
		case m.Op == "link" && port != nil && len(files) == 1:
			port.newLink(m.Gen, files[0])
			continue
		case m.Op == "carrier" && port != nil:
			port.carrier(m.Gen, m.Up)
		case to != nil:
			to <- m // buffered
		}
		for _, f := range files {
			f.Close()
		}
	}
}

// errGone is the end of Init's process.
var errGone = errors.New("the sandbox has ended")

// request sends a request and waits until it is done. exit, if not nil, is registered for the end of
// the command that the request starts.
func (s *Sandbox) request(m message, exit chan message, files ...*os.File) (id int, err error) {
	done := make(chan message, 1)
	s.mu.Lock()
	s.nextID++
	m.ID = s.nextID
	s.waiting[m.ID] = done
	if exit != nil {
		s.runs[m.ID] = exit
	}
	s.mu.Unlock()
	if err := s.ch.send(m, files...); err != nil {
		return 0, fmt.Errorf("sandbox: %w", err)
	}
	select {
	case m := <-done:
		if m.Err != "" {
			return 0, errors.New(m.Err)
		}
		return m.ID, nil
	case <-s.gone:
		return 0, errGone
	case <-time.After(requestTimeout):
		return 0, errors.New("the sandbox does not answer")
	}
}

// Command is a command to run in the sandbox. Nil files are /dev/null, a nil Env is the caller's.
type Command struct {
	Args                  []string
	Env                   []string
	Dir                   string
	Stdin, Stdout, Stderr *os.File
	Signals               <-chan os.Signal // forwarded to the command
}

// Run runs a command and returns its exit status, 128 plus the signal's number if a signal killed it.
// When ctx ends the command is killed. Several may run at once.
func (s *Sandbox) Run(ctx context.Context, c Command) (int, error) {
	if len(c.Args) == 0 {
		return 0, errors.New("sandbox: no command")
	}
	path, err := exec.LookPath(c.Args[0])
	if err != nil {
		return 0, fmt.Errorf("sandbox: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	files := []*os.File{c.Stdin, c.Stdout, c.Stderr}
	for i := range files {
		if files[i] == nil {
			files[i] = null
		}
	}
	env, dir := c.Env, c.Dir
	if env == nil {
		env = os.Environ()
	}
	if dir == "" {
		if dir, err = os.Getwd(); err != nil {
			return 0, err
		}
	}
	exit := make(chan message, 1)
	id, err := s.request(message{Op: "run", Args: append([]string{path}, c.Args...), Env: env, Dir: dir}, exit, files...)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", c.Args[0], err)
	}
	kill := ctx.Done()
	for {
		select {
		case m := <-exit:
			return m.Status, ctx.Err()
		case sig := <-c.Signals:
			if n, ok := sig.(syscall.Signal); ok {
				s.ch.send(message{Op: "signal", ID: id, Signal: int(n)}) // a failure shows as gone
			}
		case <-kill:
			kill = nil
			s.ch.send(message{Op: "signal", ID: id, Signal: int(unix.SIGKILL)})
		case <-s.gone:
			return 0, errGone
		}
	}
}

// Port returns the port of that name; it begins to exist when something is plugged in.
func (s *Sandbox) Port(name usb.Port) *Port {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ports[string(name)]
	if p == nil {
		p = &Port{s: s, name: string(name)}
		s.ports[string(name)] = p
	}
	return p
}

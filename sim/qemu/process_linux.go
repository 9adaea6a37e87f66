package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a running QEMU.
type process struct {
	cmd    *exec.Cmd
	ended  chan struct{}
	said   bytes.Buffer // after ended: its error output
	result error        // after ended
}

// startProcess starts cmd. It ends at the latest when this process does, however that comes about.
func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, ended: make(chan struct{})}
	cmd.Stderr = &p.said
	cmd.WaitDelay = time.Second // if a child of it holds on to that
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The parent whose death ends it is the thread that started it: that one has to live as long.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.result = cmd.Wait()
			close(p.ended)
		}
	}()
	return p, <-started
}

// kill ends the process and waits for its end.
func (p *process) kill() {
	p.cmd.Process.Kill() // an error says that it has ended
	<-p.ended
}

// why says, after the process ended by itself, how that came.
func (p *process) why() error {
	said := strings.TrimSpace(p.said.String())
	switch {
	case p.result != nil && said != "":
		return fmt.Errorf("QEMU ended: %w: %s", p.result, said)
	case p.result != nil:
		return fmt.Errorf("QEMU ended: %w", p.result)
	}
	return errors.New("QEMU ended")
}

// socketPair returns a connection and the file that is its other end.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket")
	conn, err := net.FileConn(ours) // a duplicate
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}

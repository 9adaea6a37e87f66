//go:build linux

package netsetup

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

	"golang.org/x/sys/unix"
)

// process is a running worker.
type process struct {
	to   channel
	cmd  *exec.Cmd
	ends chan struct{} // closed when it has ended
	how  error         // then: how, with what it wrote last
}

// startWorker starts this program as a worker, in new namespaces of the given kinds. The error is what
// clone(2) said, if it was that.
func startWorker(namespaces uintptr) (*process, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket pair for the network worker: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "worker"), os.NewFile(uintptr(pair[1]), "snag")
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		return nil, fmt.Errorf("socket pair for the network worker: %w", err)
	}

	stderr := &tail{}
	p := &process{
		to:   channel{conn.(*net.UnixConn)},
		ends: make(chan struct{}),
		cmd: &exec.Cmd{
			Path:       "/proc/self/exe",
			Args:       []string{workerName},
			Env:        []string{},
			Dir:        "/",
			Stderr:     stderr,
			ExtraFiles: []*os.File{theirs},
			SysProcAttr: &syscall.SysProcAttr{
				Cloneflags: namespaces,
				Pdeathsig:  unix.SIGKILL,
				Setpgid:    true, // an interrupt of the terminal is for snag, which then ends the worker
			},
		},
	}
	if namespaces&unix.CLONE_NEWUSER != 0 {
		p.cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		p.cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}

	started := make(chan error, 1)
	go func() {
		// The signal at the parent's death comes at the death of the thread that started the child
		// (PR_SET_PDEATHSIG(2const)): this one, which therefore stays as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		err = p.cmd.Wait()
		if err == nil {
			err = errors.New("exit status 0")
		}
		if s := stderr.String(); s != "" {
			err = fmt.Errorf("%w: %s", err, s)
		}
		p.how = err
		close(p.ends)
	}()
	if err := <-started; err != nil {
		conn.Close()
		return nil, err
	}
	return p, nil
}

// wait waits for the end of the worker and says how it ended; never nil.
func (p *process) wait() error {
	<-p.ends
	return p.how
}

func (p *process) kill() { p.cmd.Process.Kill() }

// tail keeps the last bytes that were written to it.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	const keep = 2048
	t.b = append(t.b, p...)
	if len(t.b) > keep {
		t.b = append([]byte(nil), t.b[len(t.b)-keep:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	return strings.TrimSpace(string(bytes.ToValidUTF8(t.b, nil)))
}

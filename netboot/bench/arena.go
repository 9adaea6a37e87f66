package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"snag/netsetup"
)

var (
	serverAddr = netip.MustParseAddr("192.168.0.100")
	clientAddr = netip.MustParseAddr("192.168.0.101")
)

const relayPort = 69

// arena is one server, its two namespaces and the relay.
type arena struct {
	server
	dir         string
	host, board *space
	procs       []*exec.Cmd
	files       io.WriteCloser // names of files for snag
	ready       io.ReadCloser  // a byte for each taken
	offered     string
}

func newArena(s server, dir string) (_ *arena, err error) {
	a := &arena{server: s, dir: dir}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	if a.host, err = newSpace(); err != nil {
		return nil, err
	}
	if a.board, err = newSpace(); err != nil {
		return nil, err
	}
	err = a.host.do(func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "v0"}, PeerName: "v0", PeerNamespace: netlink.NsFd(a.board.fd),
		})
	})
	if err != nil {
		return nil, fmt.Errorf("veth: %w", err)
	}
	if err := a.host.up(serverAddr); err != nil {
		return nil, err
	}
	if err := a.board.up(clientAddr); err != nil {
		return nil, err
	}
	if s.nat {
		if err := a.host.do(netsetup.TranslatePorts); err != nil {
			return nil, fmt.Errorf("NAT: %w", err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "serve")
	if s.command == nil {
		if a.files, err = cmd.StdinPipe(); err != nil {
			return nil, err
		}
		if a.ready, err = cmd.StdoutPipe(); err != nil {
			return nil, err
		}
	} else {
		args := s.command(dir)
		cmd = exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+s.libs)
	}
	if err := a.start(a.host, cmd); err != nil {
		return nil, err
	}
	if err := a.start(a.board, exec.Command(self, "relay", (far/2).String())); err != nil {
		return nil, err
	}
	// The servers say nothing when they are ready; the client's repeated request would cost a run a second.
	deadline := time.Now().Add(10 * time.Second)
	for _, port := range []struct {
		s    *space
		port string
	}{{a.host, s.port}, {a.board, fmt.Sprint(relayPort)}} {
		for free := true; free; {
			_ = port.s.do(func() error {
				pc, err := net.ListenPacket("udp4", "0.0.0.0:"+port.port)
				if free = err == nil; free {
					pc.Close()
				}
				return nil
			})
			if time.Now().After(deadline) {
				return nil, fmt.Errorf("nothing listens on port %s", port.port)
			}
			if free {
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
	return a, nil
}

func (a *arena) start(s *space, cmd *exec.Cmd) error {
	cmd.Stderr = os.Stderr
	if err := s.do(cmd.Start); err != nil {
		return err
	}
	a.procs = append(a.procs, cmd)
	return nil
}

func (a *arena) socket() (*socket, error) {
	var s *socket
	err := a.board.do(func() (err error) {
		s, err = newSocket()
		return err
	})
	return s, err
}

func (a *arena) close() {
	for _, p := range a.procs {
		_ = p.Process.Kill()
		_ = p.Wait()
	}
	for _, s := range []*space{a.host, a.board} {
		if s != nil {
			close(s.tasks)
		}
	}
}

// space is a network namespace: a thread of this process that is in it. The thread ends with it, never to be
// used for anything else.
type space struct {
	tasks chan func()
	fd    int
}

func newSpace() (*space, error) {
	s := &space{tasks: make(chan func())}
	errs := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			s.fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		errs <- err
		if err != nil {
			return
		}
		for f := range s.tasks {
			f()
		}
		unix.Close(s.fd)
	}()
	if err := <-errs; err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	return s, nil
}

// do runs f on the namespace's thread.
func (s *space) do(f func() error) error {
	errs := make(chan error)
	s.tasks <- func() { errs <- f() }
	return <-errs
}

func (s *space) up(addr netip.Addr) error {
	return s.do(func() error {
		for name, a := range map[string]string{"lo": "", "v0": addr.String() + "/24"} {
			l, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			if a != "" {
				na, err := netlink.ParseAddr(a)
				if err != nil {
					return err
				}
				if err := netlink.AddrAdd(l, na); err != nil {
					return err
				}
			}
			if err := netlink.LinkSetUp(l); err != nil {
				return err
			}
		}
		return nil
	})
}

package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"snag/sim/usbdev"
)

// message is one datagram of the socket pair, as JSON. The caller sends attach, detach, run and
// signal; Init's process answers each attach, detach and run with done, and sends ready, link, carrier
// and exit on its own.
type message struct {
	Op   string
	ID   int    `json:",omitempty"` // of a request, and of its answer
	Port string `json:",omitempty"` // attach, detach, link, carrier
	Err  string `json:",omitempty"` // done, ready

	Device  *usbdev.Descriptors `json:",omitempty"` // attach
	HostMAC net.HardwareAddr    `json:",omitempty"` // attach: the interface's; none: not a network device

	Gen int  `json:",omitempty"` // link and carrier: which of the port's links
	Up  bool `json:",omitempty"` // carrier

	Args   []string `json:",omitempty"` // run
	Env    []string `json:",omitempty"`
	Dir    string   `json:",omitempty"`
	Signal int      `json:",omitempty"` // signal: to the run of that ID
	Status int      `json:",omitempty"` // exit: of the run of that ID; 128 + signal if killed
}

const maxMessage = 1 << 20

// channel is an end of the socket pair. Files go along with link (a packet socket) and run (standard
// input, output and error).
type channel struct{ conn *net.UnixConn }

func newChannel(f *os.File) (*channel, error) {
	c, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("not a unix socket")
	}
	u.SetWriteBuffer(maxMessage)
	return &channel{u}, nil
}

func (c *channel) send(m message, files ...*os.File) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	_, _, err = c.conn.WriteMsgUnix(b, rights, nil)
	return err
}

// receive returns io.EOF when the other end is gone.
func (c *channel) receive() (message, []*os.File, error) {
	var m message
	b, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*8))
	n, oobn, flags, _, err := c.conn.ReadMsgUnix(b, oob)
	if err != nil {
		return m, nil, err
	}
	if n == 0 {
		return m, nil, io.EOF
	}
	var fds []int
	if oobn > 0 {
		cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return m, nil, err
		}
		for _, cm := range cmsgs {
			more, err := unix.ParseUnixRights(&cm)
			if err != nil {
				return m, nil, err
			}
			fds = append(fds, more...)
		}
	}
	err = json.Unmarshal(b[:n], &m)
	var files []*os.File
	for _, fd := range fds {
		if m.Op == "link" {
			unix.SetNonblock(fd, true) // for the poller; a command's files stay as they are
		}
		files = append(files, os.NewFile(uintptr(fd), "passed"))
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		return m, files, errors.New("message cut short")
	}
	if err != nil {
		return m, files, fmt.Errorf("message: %w", err)
	}
	return m, files, nil
}

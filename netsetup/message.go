//go:build linux

package netsetup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxMessage is the longest message between snag and its worker, in bytes.
const maxMessage = 4096

// kind is what a message says.
type kind string

const (
	kindSetup      kind = "setup"      // snag: the first message; what to set up
	kindReady      kind = "ready"      // worker: done; with three descriptors: namespace, BOOTP socket, TFTP socket
	kindConfigure  kind = "configure"  // snag: an interface has been moved in
	kindConfigured kind = "configured" // worker: it is up
	kindGone       kind = "gone"       // worker: a configured interface has vanished
	kindNote       kind = "note"       // worker: something worth telling
	kindFailed     kind = "failed"     // worker: what was asked for did not work
)

// message is everything that snag and its worker, which are the same program, say to each other:
// one JSON object in one datagram of a SOCK_SEQPACKET socket pair.
type message struct {
	Kind kind `json:"kind"`

	ID     int    `json:"id,omitempty"`     // configure, and its answer configured or failed
	NoNAT  bool   `json:"nonat,omitempty"`  // setup: bind the servers' own ports (tests)
	Parent string `json:"parent,omitempty"` // configure: IFLA_PARENT_DEV_NAME, if it has one
	Index  int    `json:"index,omitempty"`  // configured, gone: the index inside the namespace
	Name   string `json:"name,omitempty"`   // configured: the interface's name

	Carrier bool          `json:"carrier,omitempty"` // configured: the link has a carrier
	Took    time.Duration `json:"took,omitempty"`    // configured: from the request to the carrier, or to giving up on one

	Text  string        `json:"text,omitempty"`  // note, failed
	Errno syscall.Errno `json:"errno,omitempty"` // failed: what the system said, if it was the system
}

// descriptors is how many come with a message.
func (m message) descriptors() int {
	if m.Kind == kindReady {
		return 3
	}
	return 0
}

func (m message) encode() ([]byte, error) {
	const room = maxMessage - 1024 // for everything else
	if len(m.Text) > room/6 {      // a byte is six in JSON at worst
		m.Text = m.Text[:room/6]
	}
	b, err := json.Marshal(m)
	if err == nil && len(b) > maxMessage {
		err = fmt.Errorf("worker message of %d bytes, at most %d", len(b), maxMessage)
	}
	return b, err
}

// decode reads one message and checks that it is one that the other side may send.
func decode(b []byte) (message, error) {
	var m message
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return message{}, fmt.Errorf("worker message: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return message{}, errors.New("worker message: more than one object")
	}
	switch {
	case m.ID < 0 || m.Index < 0 || m.Took < 0:
		return message{}, errors.New("worker message: negative number")
	case len(m.Name) >= unix.IFNAMSIZ || len(m.Parent) > 63:
		return message{}, errors.New("worker message: name too long")
	}
	switch m.Kind {
	case kindSetup, kindReady, kindNote, kindFailed:
	case kindConfigure:
		if m.ID == 0 {
			return message{}, errors.New("worker message: no request number")
		}
	case kindConfigured:
		if m.ID == 0 || m.Index == 0 {
			return message{}, errors.New("worker message: no request number or no interface")
		}
	case kindGone:
		if m.Index == 0 {
			return message{}, errors.New("worker message: no interface")
		}
	default:
		return message{}, fmt.Errorf("worker message: unknown kind %.20q", m.Kind)
	}
	return m, nil
}

// channel is one end of the socket pair. One goroutine may send and another receive.
type channel struct{ conn *net.UnixConn }

// send sends one message with the descriptors that belong to it.
func (c channel) send(m message, fds ...int) error {
	b, err := m.encode()
	if err != nil {
		return err
	}
	if len(fds) != m.descriptors() {
		return fmt.Errorf("worker message %s with %d descriptors, expected %d", m.Kind, len(fds), m.descriptors())
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err = c.conn.WriteMsgUnix(b, oob, nil)
	return err
}

// receive waits for the next message. The error is io.EOF when the other side has ended.
// The descriptors are the caller's.
func (c channel) receive() (message, []int, error) {
	b := make([]byte, maxMessage)
	oob := make([]byte, unix.CmsgSpace(8*4))
	n, oobn, flags, _, err := c.conn.ReadMsgUnix(b, oob)
	if err != nil {
		if errors.Is(err, syscall.ECONNRESET) {
			err = io.EOF
		}
		return message{}, nil, err
	}
	fds := rights(oob[:oobn])
	m, err := decode(b[:n])
	switch {
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = errors.New("worker message: cut off")
	case err == nil && len(fds) != m.descriptors():
		err = fmt.Errorf("worker message %s with %d descriptors, expected %d", m.Kind, len(fds), m.descriptors())
	}
	if err != nil {
		closeAll(fds)
		return message{}, nil, err
	}
	return m, fds, nil
}

// rights takes all descriptors out of the control data; the package net has asked for close-on-exec.
func rights(oob []byte) (fds []int) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range msgs {
		if more, err := unix.ParseUnixRights(&m); err == nil {
			fds = append(fds, more...)
		}
	}
	return fds
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

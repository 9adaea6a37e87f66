package qemu

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"time"
)

const (
	patience  = 10 * time.Second // for one answer of the stub
	maxPacket = 0x1000           // what QEMU's stub takes, and about what it sends
	maxMemory = 2000             // bytes of memory in one packet, two digits each
	interrupt = 0x03             // stops the processor; no packet
	attempts  = 3                // at a packet that arrives damaged
)

// Numbers of registers in the debugger's description of an Arm processor (org.gnu.gdb.arm.core).
const (
	regSP   = 13
	regLR   = 14
	regPC   = 15
	regCPSR = 25
)

// stub is the connection to QEMU's debugger stub. After an error it is of no more use.
type stub struct {
	conn net.Conn
	r    *bufio.Reader
}

func newStub(conn net.Conn) *stub {
	return &stub{conn: conn, r: bufio.NewReaderSize(conn, 2*maxPacket)}
}

// bound makes the connection's reads and writes end with ctx, and after patience at the latest, until release.
func (s *stub) bound(ctx context.Context) (release func()) {
	s.conn.SetDeadline(time.Now().Add(patience))
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		s.conn.SetDeadline(time.Unix(1, 0))
	})
	return func() {
		if !stop() {
			<-done
		}
		s.conn.SetDeadline(time.Time{})
	}
}

// prepare makes the stub answer as the other methods expect it.
func (s *stub) prepare() error {
	// QEMU's stub knows no registers before the client has read their description.
	for offset, last := 0, false; !last; {
		part, err := s.call(fmt.Sprintf("qXfer:features:read:target.xml:%x,%x", offset, maxPacket/2))
		if err != nil {
			return err
		}
		if len(part) < 2 || part[0] != 'l' && part[0] != 'm' {
			return fmt.Errorf("description of the processor: %w", refusal(part))
		}
		offset += len(part) - 1
		last = part[0] == 'l' || offset > 1<<20
	}
	// Addresses are those on the bus. By a processor's addresses QEMU drops what is written to devices.
	return s.command("Qqemu.PhyMemMode:1")
}

func (s *stub) readMemory(addr uint32, b []byte) error {
	for len(b) > 0 {
		n := min(len(b), maxMemory)
		answer, err := s.call(fmt.Sprintf("m%x,%x", addr, n))
		if err == nil {
			err = decode(b[:n], answer)
		}
		if err != nil {
			return fmt.Errorf("reading %d bytes at %#x: %w", n, addr, err)
		}
		b, addr = b[n:], addr+uint32(n)
	}
	return nil
}

// writeMemory writes up to four bytes in one access of the bus, if addr is a multiple of their number.
func (s *stub) writeMemory(addr uint32, b []byte) error {
	for len(b) > 0 {
		n := min(len(b), maxMemory)
		if err := s.command(fmt.Sprintf("M%x,%x:%x", addr, n, b[:n])); err != nil {
			return fmt.Errorf("writing %d bytes at %#x: %w", n, addr, err)
		}
		b, addr = b[n:], addr+uint32(n)
	}
	return nil
}

func (s *stub) readRegister(number int) (uint32, error) {
	var b [4]byte
	answer, err := s.call(fmt.Sprintf("p%x", number))
	if err == nil {
		err = decode(b[:], answer)
	}
	if err != nil {
		return 0, fmt.Errorf("reading register %d: %w", number, err)
	}
	return binary.LittleEndian.Uint32(b[:]), nil
}

func (s *stub) writeRegister(number int, value uint32) error {
	if err := s.command(fmt.Sprintf("P%x=%x", number, binary.LittleEndian.AppendUint32(nil, value))); err != nil {
		return fmt.Errorf("writing register %d: %w", number, err)
	}
	return nil
}

// breakAt makes the processor stop before it executes the instruction at addr. Nothing is written there.
func (s *stub) breakAt(addr uint32) error {
	if err := s.command(fmt.Sprintf("Z1,%x,4", addr)); err != nil {
		return fmt.Errorf("breakpoint at %#x: %w", addr, err)
	}
	return nil
}

// monitor has QEMU's monitor carry out a command.
func (s *stub) monitor(line string) error {
	answer, err := s.call(fmt.Sprintf("qRcmd,%x", line))
	for err == nil && len(answer) > 2 && answer[0] == 'O' { // what it prints
		answer, err = s.receive()
	}
	if err == nil && answer != "OK" {
		err = refusal(answer)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", line, err)
	}
	return nil
}

// command sends a packet that is answered by OK.
func (s *stub) command(data string) error {
	answer, err := s.call(data)
	if err == nil && answer != "OK" {
		err = refusal(answer)
	}
	return err
}

// errRefused is a whole answer that is not the expected one: the next command may fare better.
var errRefused = errors.New("refused by QEMU's debugger stub")

func refusal(answer string) error {
	if answer == "" {
		return fmt.Errorf("%w, which does not know the command", errRefused)
	}
	return fmt.Errorf("%w with %.40q", errRefused, answer)
}

// decode decodes an answer that is len(b) bytes.
func decode(b []byte, answer string) error {
	if len(answer) != hex.EncodedLen(len(b)) {
		return refusal(answer)
	}
	if _, err := hex.Decode(b, []byte(answer)); err != nil {
		return refusal(answer)
	}
	return nil
}

// call sends a packet and returns the answer.
func (s *stub) call(data string) (string, error) {
	if err := s.send(data); err != nil {
		return "", err
	}
	return s.receive()
}

// A packet is '$', data, '#' and the sum of the data's bytes, modulo 256, in two hexadecimal digits. Each packet
// is acknowledged by '+'; '-' asks for it once more. In data, '}' comes before a byte whose bit 5 is inverted.

// send sends a packet and waits for its acknowledgement. data holds none of "#$*}".
func (s *stub) send(data string) error {
	packet := fmt.Appendf(nil, "$%s#%02x", data, sum(data))
	for range attempts {
		if _, err := s.conn.Write(packet); err != nil {
			return err
		}
		switch c, err := s.r.ReadByte(); {
		case err != nil:
			return err
		case c == '+':
			return nil
		case c != '-':
			return fmt.Errorf("QEMU's debugger stub acknowledges with %q", c)
		}
	}
	return fmt.Errorf("QEMU's debugger stub refuses a packet %d times", attempts)
}

// receive waits for a packet, acknowledges it and returns its data.
func (s *stub) receive() (string, error) {
	for range attempts {
		data, good, err := readPacket(s.r)
		if err != nil {
			return "", err
		}
		answer := "+"
		if !good {
			answer = "-"
		}
		if _, err := s.conn.Write([]byte(answer)); err != nil {
			return "", err
		}
		if good {
			return data, nil
		}
	}
	return "", fmt.Errorf("%d packets of QEMU's debugger stub in a row have a wrong sum", attempts)
}

// readPacket reads one packet. It is not good if its sum is wrong. An error says that what comes is no
// packet, that it is longer than twice what QEMU sends, or abbreviates (by '*'), which QEMU does not.
func readPacket(r *bufio.Reader) (data string, good bool, err error) {
	if c, err := r.ReadByte(); err != nil {
		return "", false, err
	} else if c != '$' {
		return "", false, fmt.Errorf("QEMU's debugger stub begins a packet with %q", c)
	}
	raw, err := r.ReadSlice('#') // at most the size of r's buffer
	if err != nil {
		return "", false, fmt.Errorf("a packet of QEMU's debugger stub: %w", err)
	}
	raw = raw[:len(raw)-1]
	want := sum(string(raw))
	var b []byte
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '*':
			return "", false, errors.New("a packet of QEMU's debugger stub is abbreviated")
		case c == '}' && i+1 < len(raw):
			i++
			b = append(b, raw[i]^0x20)
		default:
			b = append(b, c)
		}
	}
	var digits, got [2]byte
	for i := range digits {
		if digits[i], err = r.ReadByte(); err != nil {
			return "", false, err
		}
	}
	_, err = hex.Decode(got[:1], digits[:])
	return string(b), err == nil && got[0] == want, nil
}

func sum(data string) (n byte) {
	for i := range len(data) {
		n += data[i]
	}
	return n
}

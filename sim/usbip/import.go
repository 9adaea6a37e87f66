package usbip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"snag/sim/usbdev"
)

// ErrNotThere says that a server has no device at a bus ID now, or that another client has it.
var ErrNotThere = errors.New("no free device at this bus ID")

// Import asks the server behind conn for the device at a bus ID, and returns its speed. From then on conn
// carries the device's transfers, until the device is unplugged.
func Import(ctx context.Context, conn net.Conn, busID string) (usbdev.Speed, error) {
	if len(busID) >= busIDLen {
		return 0, fmt.Errorf("bus ID %q: longer than %d bytes", busID, busIDLen-1)
	}
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		conn.SetDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() {
			<-done
		}
		conn.SetDeadline(time.Time{})
	}()
	request := append(opHeader(opReqImport, 0), make([]byte, busIDLen)...)
	copy(request[8:], busID)
	if _, err := conn.Write(request); err != nil {
		return 0, fmt.Errorf("USB/IP import of %s: %w", busID, err)
	}
	var reply [8 + deviceRecLen]byte
	if _, err := io.ReadFull(conn, reply[:8]); err != nil {
		return 0, fmt.Errorf("USB/IP import of %s: %w", busID, err)
	}
	if op := binary.BigEndian.Uint16(reply[2:]); op != opRepImport {
		return 0, fmt.Errorf("USB/IP import of %s: the server answers with operation %#x, not %#x", busID, op, opRepImport)
	}
	if binary.BigEndian.Uint32(reply[4:]) != 0 {
		return 0, fmt.Errorf("USB/IP import of %s: %w", busID, ErrNotThere)
	}
	if _, err := io.ReadFull(conn, reply[8:]); err != nil {
		return 0, fmt.Errorf("USB/IP import of %s: %w", busID, err)
	}
	return usbdev.Speed(binary.BigEndian.Uint32(reply[8+296:])), nil
}

package main

import (
	"bytes"
	"strconv"

	"golang.org/x/sys/unix"
)

// confPath is the list of further USB IDs. "snag setup --usb VID:PID" writes it.
const confPath = "/etc/snag/netmove.conf"

// maxConf is the longest list that is read, in bytes.
const maxConf = 64 << 10

// readConf reads the list of further IDs. A list that does not exist is empty. One that others than
// root might have written, or that has any fault, is no list at all.
func readConf(path string) ([]id, *refusal) {
	bad := func(why string) *refusal { return &refusal{exitConf, confPath + ": " + why} }

	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, bad(err.Error())
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, bad(err.Error())
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, bad("not a regular file")
	case st.Uid != 0:
		return nil, bad("does not belong to root")
	case st.Mode&0o022 != 0:
		return nil, bad("may be written by others than root")
	case st.Size > maxConf:
		return nil, bad("longer than " + itoa(maxConf) + " bytes")
	}
	buf := make([]byte, maxConf)
	n := 0
	for n < len(buf) {
		m, err := unix.Read(fd, buf[n:])
		if err != nil {
			return nil, bad(err.Error())
		}
		if m == 0 {
			break
		}
		n += m
	}
	ids, line := parseConf(buf[:n])
	if line != 0 {
		return nil, bad("line " + itoa(line) + ": expected VID:PID, four hexadecimal digits each")
	}
	return ids, nil
}

// parseConf reads a list of IDs: one VID:PID a line, four hexadecimal digits each; empty lines, and
// everything after a '#', count as nothing. line is the number of the first faulty line, 0 if none is.
func parseConf(b []byte) (ids []id, line int) {
	for n := 1; len(b) > 0; n++ {
		var l []byte
		l, b, _ = bytes.Cut(b, []byte("\n"))
		l, _, _ = bytes.Cut(l, []byte("#"))
		l = bytes.Trim(l, " \t\r")
		if len(l) == 0 {
			continue
		}
		i, ok := parseID(l)
		if !ok {
			return nil, n
		}
		ids = append(ids, i)
	}
	return ids, 0
}

func parseID(b []byte) (id, bool) {
	if len(b) != 9 || b[4] != ':' {
		return id{}, false
	}
	v, err1 := strconv.ParseUint(string(b[:4]), 16, 16)
	p, err2 := strconv.ParseUint(string(b[5:]), 16, 16)
	return id{uint16(v), uint16(p)}, err1 == nil && err2 == nil
}

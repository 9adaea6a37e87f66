//go:build linux

package lab

import (
	"bytes"
	"fmt"
)

// cpio is an archive in the "newc" format, which the kernel unpacks as its first
// root file system (Documentation/driver-api/early-userspace/buffer-format.rst).
// A member is
//
//	offset  length  what
//	0       6       "070701"
//	6       13*8    hexadecimal: inode, mode, uid, gid, links, mtime, size,
//	                device major, minor, rdev major, minor, name length, 0
//	110     n       name with a final zero, padded to a multiple of 4
//	...     size    content, padded to a multiple of 4
//
// and the last one is called "TRAILER!!!".
type cpio struct {
	bytes.Buffer
	inode int
}

const (
	cpioDir  = 0o040755
	cpioFile = 0o100755
)

func (c *cpio) dir(name string)                  { c.member(name, cpioDir, nil) }
func (c *cpio) file(name string, content []byte) { c.member(name, cpioFile, content) }

func (c *cpio) member(name string, mode int, content []byte) {
	c.inode++
	c.WriteString("070701")
	for _, v := range []int{c.inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0} {
		fmt.Fprintf(c, "%08x", v)
	}
	c.WriteString(name + "\x00")
	c.pad()
	c.Write(content)
	c.pad()
}

func (c *cpio) pad() {
	for c.Len()%4 != 0 {
		c.WriteByte(0)
	}
}

// end completes the archive.
func (c *cpio) end() []byte {
	c.member("TRAILER!!!", 0, nil)
	return c.Bytes()
}

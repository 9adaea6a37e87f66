//go:build unix

package inspect_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"snag/firmware/inspect"
)

// worked is how much of the processor's time this program has had: of the clock's, others on the machine have theirs
// too.
func worked(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A FIT whose thousand images are all the same bytes, and all of its file, is taken apart in a moment.
func TestWork(t *testing.T) {
	const images, size = 1000, 32 << 20
	be := binary.BigEndian
	var nodes []byte
	names := "data-offset\x00data-size\x00"
	pad := func() { nodes = append(nodes, make([]byte, -len(nodes)&3)...) }
	begin := func(name string) {
		nodes = append(append(be.AppendUint32(nodes, 1), name...), 0)
		pad()
	}
	end := func() { nodes = be.AppendUint32(nodes, 2) }
	number := func(name string, v uint32) {
		for _, w := range []uint32{3, 4, uint32(strings.Index(names, name)), v} {
			nodes = be.AppendUint32(nodes, w)
		}
	}
	begin("")
	begin("images")
	for i := range images {
		begin(fmt.Sprint("i", i))
		number("data-offset", 0)
		number("data-size", size)
		end()
	}
	end()
	end()
	nodes = be.AppendUint32(nodes, 9)
	const header = 40 + 16 // and no reserved memory
	var file []byte
	for _, w := range []int{0xd00dfeed, header + len(nodes) + len(names), header, header + len(nodes), 40, 17, 16, 0, len(names), len(nodes)} {
		file = be.AppendUint32(file, uint32(w))
	}
	file = append(append(append(file, make([]byte, 16)...), nodes...), names...)
	file = append(file, make([]byte, -len(file)&3+size)...)
	begun := worked(t)
	r := inspect.Data("evil.itb", file)
	if took := worked(t) - begun; took > time.Second {
		t.Errorf("it took %s of the processor's time", took)
	}
	if len(r.Parts) == 0 || len(r.Parts[0].Parts) != images+1 {
		t.Errorf("parts: %+v", r.Parts)
	}
}

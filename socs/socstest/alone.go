package socstest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// machine is what alone holds until the process ends.
var machine *os.File

// alone waits until no other process on this machine runs the tests of the same package: its boards are on ports of the
// same names, and snag locks a port by its name. Where there can be no lock the tests go on without.
var alone = sync.OnceFunc(func() {
	name := filepath.Join(os.TempDir(), "snag-"+filepath.Base(os.Args[0])+".lock")
	var err error
	machine, err = os.Open(name) // whoever made it
	if errors.Is(err, fs.ErrNotExist) {
		machine, err = os.OpenFile(name, os.O_RDONLY|os.O_CREATE, 0o644)
	}
	for err == nil && syscall.Flock(int(machine.Fd()), syscall.LOCK_EX) == syscall.EINTR {
	}
})

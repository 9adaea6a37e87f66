//go:build !linux

package recovery

// portLock is nothing: the system gives a device's interfaces to one process, which has to do.
type portLock struct{}

func lockPort(string) (*portLock, error) { return &portLock{}, nil }

func portLocked(string) bool { return false }

func (*portLock) release() {}

// ttyClaim is nothing: the serial package asks for exclusive use where there is such a thing.
type ttyClaim struct{}

func claimTTY(string) (ttyClaim, error) { return ttyClaim{}, nil }

func (ttyClaim) release() {}

package recovery

import "fmt"

// LockedError says that another process works on the port.
type LockedError struct {
	Port    string
	PID     int
	Command string
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("port %s is in use by process %d (%s)", e.Port, e.PID, e.Command)
}

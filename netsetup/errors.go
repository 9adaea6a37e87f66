package netsetup

import (
	"errors"
	"fmt"
)

// ErrGone is reported when an interface vanished: unplugged, reset, or re-enumerated as its next stage.
var ErrGone = errors.New("the network interface is gone")

// ErrWorker is reported when the process that holds the namespace ended without being told to.
var ErrWorker = errors.New("the network worker has ended")

// NoNamespaceError says that there is no network namespace of a name.
type NoNamespaceError struct {
	Name string
	Err  error
}

func (e *NoNamespaceError) Error() string {
	return fmt.Sprintf("no network namespace %q: %v", e.Name, e.Err)
}

func (e *NoNamespaceError) Unwrap() error { return e.Err }

// Reason is why the system does not let snag work, for programs.
type Reason string

// The reasons of a [SetupError].
const (
	// User namespaces.
	ReasonChroot    Reason = "chroot"     // the kernel refuses user namespaces to a chrooted process
	ReasonAppArmor  Reason = "apparmor"   // kernel.apparmor_restrict_unprivileged_userns, and no profile allows it
	ReasonSysctl    Reason = "sysctl"     // kernel.unprivileged_userns_clone is 0 (Debian's kernels)
	ReasonMaxUserNS Reason = "max-userns" // user.max_user_namespaces is 0, or all are in use
	ReasonMaxNetNS  Reason = "max-netns"  // user.max_net_namespaces is 0, or all are in use
	ReasonSeccomp   Reason = "seccomp"    // a container's system call filter
	ReasonKernel    Reason = "kernel"     // the kernel was built without namespaces
	ReasonDenied    Reason = "denied"     // the kernel refuses and does not say why

	// The helper.
	ReasonNoHelper     Reason = "no-helper"          // it is not installed
	ReasonHelperFile   Reason = "helper-file"        // it is installed wrongly: owner, mode, setuid
	ReasonNotCapable   Reason = "helper-not-capable" // it does not have its capability
	ReasonNoNewPrivs   Reason = "no-new-privs"       // snag runs with no_new_privs, so the helper gets no capability
	ReasonNamespace    Reason = "namespace"          // the helper does not accept the caller or the namespace
	ReasonNotUSB       Reason = "not-usb"            // the interface is not a USB network device
	ReasonNotListed    Reason = "not-listed"         // its USB ID is not on the helper's list
	ReasonNode         Reason = "node"               // the user may not open the USB device's node
	ReasonConf         Reason = "helper-conf"        // the helper does not trust or understand its list
	ReasonNotPermitted Reason = "not-permitted"      // root without CAP_NET_ADMIN, or --netns without root
)

// SetupError says that the system, not the board, is in the way: something is not allowed or not
// installed. It ends snag with exit code 4.
type SetupError struct {
	Op     string // what was being done: "create a user namespace", "move usb0"
	Reason Reason
	Hint   string // what to do about it, a command where there is one
	Err    error  // what the system said
}

// Error does not hold the hint, which has a place of its own on the screen.
func (e *SetupError) Error() string { return fmt.Sprintf("%s: %v", e.Op, e.Err) }

func (e *SetupError) Unwrap() error { return e.Err }

// Package lab boots a real Linux kernel in a virtual machine and runs tests in it.
//
// The machines that build snag need not have USB, root, nor a network of their own
// to play with. So the tests that want a kernel's USB stack, its namespaces, NAT,
// udev or tracing run in a VM: Debian's (or Ubuntu's) own kernel in QEMU, with the
// host's / as its root file system, read-only, under an overlay that is forgotten
// afterwards. Every program of the host, and every binary built a moment ago, runs
// in the VM as it is. Nothing is installed on the host and nothing needs root or
// KVM; plain "go test" drives it.
//
// # Running something
//
// [Run] boots a VM, runs a shell script in it as root (or as an ordinary user, see
// [Job]), and hands back its outputs and exit status. [GoTest] builds a package's
// tests, runs those that match inside one VM and reports each of them as a subtest
// of the caller:
//
//	func TestInVM(t *testing.T) {
//		lab.GoTest(t, ".", "^TestVM", lab.Job{Script: "modprobe vhci-hcd", Udev: true})
//	}
//
//	func TestVMAttach(t *testing.T) {
//		lab.Inside(t) // skips on the host
//		...
//	}
//
// A boot takes some seconds, so put what can share a VM into one GoTest.
//
// # Packages
//
// What is not on the host is fetched by name from the distribution's own archive:
// [Fetch] unpacks packages into a cache ($SNAG_LAB_CACHE, else snag-lab in the
// user's cache directory) with an apt state of its own, and [Job.Packages] lays
// packages, with what they depend on and the host lacks, over the VM's root. The
// host's dpkg, its architectures and its package lists stay as they are.
// "go run ./internal/lab/labtool" fetches what the VM needs beforehand.
//
// A test that cannot have what it needs skips and says why; with SNAG_LAB=require
// in the environment it fails instead, with SNAG_LAB=off every VM test skips, as it
// does in -short mode.
//
// # The inside
//
// /lab/bin is first on the PATH and holds what [Job.Files] puts there; /lab/out is writable and is [Result.Out]
// afterwards; [Job.Dirs] are mounted, read-only, where they are on the host. /tmp, /run, /var/tmp and /dev/shm are
// empty and writable; everything else shows the host's files, as far as the user who runs the test may read them, and
// may be written too (nothing of it lasts). All modules of the kernel are at hand for modprobe. There are two accounts:
// root (home /run/root), and "labuser" (uid and gid 1001, in group plugdev, home /home/labuser). There is no init
// system, and udevd only if asked for.
//
// # More machines
//
// [Job.QEMU] appends arguments to the VM's command line. A USB network device of
// QEMU on a host controller of its own, its other end on a socket for a second QEMU
// (a U-Boot, say) that the test starts beside the VM, by [Command] and [RunBound]:
//
//	-device qemu-xhci,id=x
//	-netdev stream,id=n,server=on,addr.type=unix,addr.path=SOCKET
//	-device usb-net,bus=x.0,netdev=n
//
// and a way from the VM to services of the host, which it sees at 10.0.2.2, after
// "modprobe virtio_net" and setting 10.0.2.15/24 on the interface:
//
//	-netdev user,id=u -device virtio-net-pci,netdev=u,romfile=
//
// # Pieces
//
// sources.go finds the archives, apt.go is the private apt state, fetch.go the
// cache, kernel.go resolves the kernel and its modules, cpio.go and guest/ are the
// initramfs, qemu.go boots, lab.go is what tests call, gotest.go maps test results.
package lab

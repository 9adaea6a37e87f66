// Package sandbox lets a command see virtual USB network boards on a Linux machine without USB in its
// kernel, without root, and without touching anything outside.
//
// The command runs in user, network and mount namespaces of its own, in which it is uid 0. A board
// that is plugged in appears there as it would on a real machine:
//
//   - a network interface, usbN or ethN, with a new index at every enumeration: one end of a veth pair,
//     whose other end lies in a further network namespace and is the board's. The board's model, in
//     the calling process, reads and writes it through a packet socket. The kernel's network between
//     the two is real: broadcasts, ARP, NAT, checksums.
//   - a sysfs: a tmpfs on /sys that holds the entries of the USB bus and of the network interfaces,
//     laid out as on a real Linux, kept in step with enumerations and with what the command does to
//     the interfaces: one that it moves into another namespace leaves /sys/class/net, one that comes back
//     reappears. An interface whose namespace dies comes back too, as a USB adapter does (under a new
//     index; a USB adapter keeps its own where it is free).
//   - uevents, on the kernel's netlink group of the namespace.
//
// What is not there: device nodes in /dev/bus/usb, and USB transfers. Other than network devices are
// only shown in sysfs.
//
// The process between is the calling program itself, started again: a program that uses this package
// calls [Init] first thing in main, a test in TestMain.
//
//	caller: models, Sandbox --socket pair--> Init: namespaces, veth, sysfs --> command
//
// The caller holds the socket pair: when it ends, however it does, Init's process kills what runs in
// the sandbox and exits, and the kernel takes the namespaces apart.
package sandbox

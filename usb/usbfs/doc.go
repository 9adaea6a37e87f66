// Package usbfs is the USB transport of Linux: package usb's Host and Handle on sysfs, on uevents and on the device
// nodes in /dev/bus/usb. It needs neither cgo nor a library.
//
// The requests to a node are those of the kernel's Documentation/driver-api/usb/usb.rst and
// include/uapi/linux/usbdevice_fs.h; what they do beyond that is in drivers/usb/core/devio.c.
//
// The pieces:
//
//   - host.go lists and watches; open.go opens a node, and waits for its permissions after a plug, and for the device's
//     configuration.
//   - urb.go hands transfers (URBs) to the kernel, reap.go takes them back: one goroutine a handle does, which waits for
//     finished ones in the runtime's poller (a node is ready for writing when there is one), or who waits for all that is
//     in flight, in the kernel. So a transfer blocks a thread for some milliseconds at most, and never all of them.
//   - transfer.go makes the transfers of a Handle from URBs, control.go two control transfers at a time, post.go those that
//     nobody waits for.
//   - interface.go has what is about interfaces: claims, alternate settings, configurations, and the reset. These requests
//     are uninterruptible in the kernel, which bounds them to some seconds: when a context ends before, the call returns,
//     and the next one of its kind, and Close, wait for the rest.
//
// # Memory
//
// The kernel copies what is to be sent while an URB is submitted, and what was received while it is reaped; nothing is
// written to memory of the process at any other time. Nevertheless URBs, and buffers for what is received, are pinned
// from the one to the other. The kernel's copies of all programs together are bounded by the parameter usbfs_memory_mb
// of its module usbcore, 16 MiB if nobody changed it. An endpoint has at most 1 MiB in flight; when the kernel has no
// more memory, fewer and smaller URBs do.
//
// # In flight
//
// What the number of URBs in flight makes of throughput, on the virtual host controller of an emulated machine, in MB/s
// (the best of 5; the machine was busy; the ratios matter):
//
//	URBs                                   1     2     4     8    16
//	interrupt OUT, reports of 1025 bytes  2.1   2.4   3.0   3.6   3.8
//	bulk OUT, transfers of 1025 bytes     1.6   2.6   2.6   2.6   2.5
//	bulk OUT, 8 MiB in URBs of 16 KiB     3.2   2.9   5.1   4.8  10.1
//	bulk OUT, 8 MiB in URBs of 64 KiB      11    15    11    12    13
//	bulk OUT, 8 MiB in URBs of 128 KiB     34    27    32    31    27
//
// So small transfers want many URBs and large ones long URBs. With 256 KiB and 1 MiB in flight an image over fastboot
// took 0.90 of the time that it took with 128 KiB and 512 KiB, with 1 MiB and 2 MiB 0.78; but what a slow device takes
// must be an URB within the time that it may be idle. Up to 64 are in flight, and up to 1 MiB; when there is no more
// room, the sender is woken once half of them have ended. To measure again:
//
//	go test ./usb/usbfs -run TestMeasure -measure -v
//
// # The end
//
// When a process dies, the kernel cancels its transfers and releases its interfaces, but it does not give them back to
// the drivers that were bound before: replug the device, or write its interface's name (1-2:1.0) to
// /sys/bus/usb/drivers_probe. Close gives them back.
package usbfs

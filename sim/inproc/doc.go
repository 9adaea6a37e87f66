// Package inproc is a USB host without a kernel: a [usb.Host] whose ports take virtual devices, for tests that need
// neither root nor a machine. Nothing in it does I/O or sleeps, so it runs in a testing/synctest bubble.
//
// A [Port] is a [usbdev.Port]. What is attached there is enumerated as Linux does it: the device descriptor, the
// configurations, the strings, SET_CONFIGURATION of the first one, no SET_INTERFACE; then the drivers that Linux has
// for the interfaces are bound. Of a driver there is its name in [usb.Interface], and for usbhid the requests of its
// probe, since gadgets wait for them. Claim detaches the driver, Release and Close give the interface back.
//
// The device number changes with each attach. The buses of a controller may be paired ([Pair]): then a device is found
// on the bus of its speed, whichever of the port's two names it was plugged into.
//
// The pieces: host.go has the buses and what is listed, device.go one attached device, its enumeration and its
// drivers, transfer.go the queue of each endpoint, handle.go what a client does with an open device.
package inproc

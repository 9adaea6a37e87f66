// Package libusb is the USB transport for systems that are not Linux: package usb's Host and Handle on libusb 1.0,
// through github.com/google/gousb. It is a module of its own, since it needs cgo, libusb and a package that not every
// Go module proxy has; docs/libusb.md says how it is built. On Linux package usbfs does better; this one runs there
// too, and is tested there.
//
// The pieces: host.go lists, watches and opens; system_linux.go and system_other.go are what the systems differ in;
// handle.go is an open device; interface.go has configurations, claims, settings and the reset; transfer.go the
// transfers; errors.go names errors as package usb does.
//
// # What gousb 1.1.1 lacks, and what is done about it
//
//   - No hotplug. Watch looks regularly; on Linux uevents make it look at once.
//   - No port paths, which came with 1.1.2: on Linux they are sysfs's, elsewhere gousb's if it has them. Without, a port is
//     named after the device's bus and address ("1-5"), and a board cannot be followed to its next stage.
//   - NewContext panics where libusb cannot start. Open makes it an error. Each Handle has a context, and with it an event
//     loop, of its own, which ends after the device was closed: within 100 ms.
//   - OpenDevices returns an error beside good devices. It counts only if the device was not opened. It panics at a device
//     that describes an interface in two places; as long as one is attached, Open has an error for all devices.
//   - Config cannot select none (0).
//   - With SetAutoDetach, Config detaches the drivers of all interfaces. Here it is called before; libusb then detaches the
//     claimed interface's.
//   - Interface finds the number of alternate settings by taking an interface's number for its place in the list, and panics
//     where interfaces are not counted from 0. It is handed a list in which it is right, which also says whether
//     SET_INTERFACE is sent.
//   - An alternate setting cannot be selected for a claimed interface. It is released, which sends SET_INTERFACE for setting
//     0 if another was active, and claimed again. Reset needs the same.
//   - No clear-halt. CLEAR_FEATURE by a control transfer leaves the host's data toggle as it is, and what the device takes
//     for a repeated packet is lost (USB 2.0, 8.6). ClearHalt therefore selects the interface's setting once more, which
//     starts the toggles of all its endpoints anew on both sides (USB 2.0, 9.1.1.5), and ends their transfers.
//   - Control has no context, no deadline but ControlTimeout, for which 0 is for ever, and cannot be cancelled; more than
//     65535 bytes are cut without a word. Control calls are made one after the other, each with a limit of at most
//     usb.DefaultTimeout. When the context ends before, the call returns, and the next one, and Close, wait for the rest. What
//     a failed one has transferred is not known. StreamControl therefore has one in flight, not several.
//   - A cancelled transfer is TransferCancelled, whatever ended it; here it is the context's error.
//   - WriteStream sends whole buffers, also when it was given less. Here each has one transfer, of its size, and several of
//     them are in flight. A zero-length packet it cannot send at all; before and after one nothing is in flight.
//   - Strings are cut to ASCII and 200 bytes: see usb.String. Class descriptors are dropped: all descriptors are read from
//     sysfs, or by GET_DESCRIPTOR.
//   - Interface and Config keep errors as text only; their code is read from it.
//   - libusb answers I/O error to requests that Linux refuses, whatever its reason.
//   - The event loop logs with package log. Each opened device leaves some hundred bytes of memory behind.
package libusb

// Package libusb tests the module usb/libusb, which the tests of this module cannot import: it needs cgo, and packages
// that may not be there.
package libusb

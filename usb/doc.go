// Package usb knows USB devices as the operating system shows them: physical ports, identities,
// what is attached and what comes and goes. Class protocols that several families use are in
// sub-packages. Enumeration reads sysfs only and opens no device.
package usb

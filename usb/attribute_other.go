//go:build !linux

package usb

import "os"

// ReadAttribute reads a file of sysfs.
func ReadAttribute(name string) (string, error) {
	b, err := os.ReadFile(name)
	return string(b[:min(len(b), maxAttribute)]), err
}

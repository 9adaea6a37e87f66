//go:build !linux

package usb

import (
	"os"
	"path/filepath"
)

// ReadAttribute reads a file of sysfs.
func ReadAttribute(name string) (string, error) {
	b, err := os.ReadFile(name)
	return string(b[:min(len(b), maxAttribute)]), err
}

// readAttribute is [ReadAttribute] of a file below a directory.
func readAttribute(dir *os.File, name string) (string, error) {
	return ReadAttribute(filepath.Join(dir.Name(), name))
}

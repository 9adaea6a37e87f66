// Package flash writes disk images to the storage of boards.
//
// What is written comes from package image; where it goes to is a Target: a block device under a USB port or a file
// (flash/block), what U-Boot's fastboot reaches (flash/fastboot), an alternate setting of a DFU device (flash/dfu).
package flash

import (
	"context"

	"snag/flash/image"
)

// Target is a place that an image is written to.
type Target interface {
	// Write writes what the image holds, and returns nil only when all of it was right and is on the medium. It closes
	// im.
	Write(ctx context.Context, im *image.Image, o Options) error
	// String names the target as its user would: "/dev/sdb on 1-2", "fastboot 1-2, mmc 0".
	String() string
}

// Options is how an image is written.
type Options struct {
	// Verify has what was written read back and compared, beyond the checksums that the image came with. A target that
	// cannot do that refuses before it has written anything.
	Verify bool
	// Progress, if not nil, is called with the bytes of the image that a step is further, by several goroutines at a
	// time.
	Progress func(step Step, n int64)
}

// Step is what a target is doing.
type Step string

// The steps.
const (
	Writing   Step = "writing"
	Verifying Step = "verifying"
)

// Verifier is a Target that can compare what is there with an image, without writing. It closes the image.
type Verifier interface {
	Verify(ctx context.Context, im *image.Image, o Options) error
}

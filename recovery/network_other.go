//go:build !linux

package recovery

import (
	"context"
	"errors"

	"snag/socs"
)

// kernelNet is empty: only Linux gives a board a network of its own.
type kernelNet struct{}

func (*board) closeKernel() {}

func (*board) closed(error) error { return nil }

// openNetwork prepares for stages that are network adapters, which snag drives itself here.
func (b *board) openNetwork(ctx context.Context) error {
	if b.opt.Net == NetKernel || b.opt.NetNS != "" {
		return &UsageError{Err: errors.New("the kernel's network leads to boards on Linux alone"), Hint: "leave --net out"}
	}
	b.user = true
	return b.openUSB(ctx)
}

func (*board) nextInterface(context.Context) (*socs.Stage, error) { return nil, errors.ErrUnsupported }

func (*board) noInterface(*NoBoardError) {}

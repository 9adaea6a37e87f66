package plan

import (
	"context"
	"errors"
	"io"

	"snag/event"
	"snag/usb/fastboot"
)

// Interactive does what somebody says step by step.
type Interactive struct {
	// Next returns the next actions; io.EOF: there are no more.
	Next func(ctx context.Context) ([]Action, error)
}

func (*Interactive) String() string              { return "what is typed" }
func (*Interactive) gadget() Gadget              { return Fastboot }
func (*Interactive) check(context.Context) error { return nil }
func (*Interactive) does() []string              { return nil }

// run does the actions. What only the board refuses, or is not there on this machine, does not end it.
func (a *Interactive) run(ctx context.Context, x *session) error {
	for {
		actions, err := a.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, action := range actions {
			err := action.check(ctx)
			if err == nil {
				if err = x.need(ctx, action.gadget()); err == nil {
					if err = action.run(ctx, x); err != nil && !harmless(err) {
						return err
					}
				}
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				x.emit(event.Warning{Text: action.String() + ": " + err.Error()})
				break
			}
		}
	}
}

// harmless reports whether a client can go on after an error.
func harmless(err error) bool {
	_, refused := errors.AsType[*fastboot.FailError](err)
	_, size := errors.AsType[*fastboot.SizeError](err)
	return refused || size
}

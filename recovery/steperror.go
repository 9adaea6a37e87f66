package recovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"snag/socs"
)

// StepError is the error of a step of a script or plan, which where names. What no other exit code names is the board's
// fault (*socs.BoardError, at stage), unless it is a file's, or ours says that it is this side's; hint is what to do
// about it. The end of the context is returned as what ended it.
func StepError(ctx context.Context, stage, where string, err error, ours bool, hint string) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	e := fmt.Errorf("%s: %w", where, err)
	if ExitCode(err) != ExitFailed {
		if stuck, ok := errors.AsType[*socs.BoardError](err); ok && ExitCode(err) == ExitBoard {
			if stuck.Stage != "" {
				stage = stuck.Stage
			}
			return &socs.BoardError{Stage: stage, Err: e, Hint: stuck.Hint}
		}
		return e
	}
	if _, file := errors.AsType[*fs.PathError](err); file || ours {
		return e
	}
	return &socs.BoardError{Stage: stage, Err: e, Hint: cmp.Or(hint, "the board's serial console may tell why; reset the board before another try")}
}

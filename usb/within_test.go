package usb_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"snag/usb"
)

// Within's contexts do what package context's do, whoever asks first.
func TestWithin(t *testing.T) {
	late, stopped := errors.New("late"), errors.New("stopped")
	for name, end := range map[string]struct {
		parent time.Duration // its deadline; 0: none
		do     func(stop context.CancelCauseFunc, cancel context.CancelFunc)
		err    error
		cause  error
		after  time.Duration
	}{
		"in time":                  {err: context.DeadlineExceeded, cause: late, after: time.Second},
		"with its parent, in time": {parent: time.Millisecond, err: context.DeadlineExceeded, cause: context.DeadlineExceeded, after: time.Millisecond},
		"before its parent":        {parent: time.Hour, err: context.DeadlineExceeded, cause: late, after: time.Second},
		"with its parent":          {do: func(stop context.CancelCauseFunc, _ context.CancelFunc) { stop(stopped) }, err: context.Canceled, cause: stopped},
		"cancelled":                {do: func(_ context.CancelCauseFunc, cancel context.CancelFunc) { cancel() }, err: context.Canceled, cause: context.Canceled},
	} {
		for asked, ask := range map[string]func(*testing.T, context.Context){
			"nobody": func(*testing.T, context.Context) {},
			"its error": func(t *testing.T, ctx context.Context) {
				if err := ctx.Err(); err != nil {
					t.Errorf("%v before its end", err)
				}
			},
			"who waits": func(t *testing.T, ctx context.Context) {
				select {
				case <-ctx.Done():
					t.Error("done before its end")
				default:
				}
			},
		} {
			t.Run(name+" after "+asked, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					parent, stop := context.WithCancelCause(context.WithValue(t.Context(), late, stopped))
					defer stop(nil)
					if end.parent > 0 {
						var cancel context.CancelFunc
						parent, cancel = context.WithTimeout(parent, end.parent)
						defer cancel()
					}
					ctx, cancel := usb.Within(parent, time.Second, late)
					defer cancel()
					begun := time.Now()
					want := begun.Add(time.Second)
					if end.parent > 0 && end.parent < time.Second {
						want = begun.Add(end.parent)
					}
					if at, ok := ctx.Deadline(); !ok || !at.Equal(want) {
						t.Errorf("deadline %v %v, expected %v", at, ok, want)
					}
					if v := ctx.Value(late); v != stopped {
						t.Errorf("value %v", v)
					}
					ask(t, ctx)
					if end.do != nil {
						end.do(stop, cancel)
					} else {
						time.Sleep(end.after)
						synctest.Wait()
					}
					if err, cause := ctx.Err(), context.Cause(ctx); err != end.err || cause != end.cause {
						t.Errorf("%v because of %v, expected %v because of %v", err, cause, end.err, end.cause)
					}
					<-ctx.Done()
					if after := time.Since(begun); after != end.after {
						t.Errorf("done after %v, expected %v", after, end.after)
					}
				})
			})
		}
	}
}

// What is derived from one ends with it, and is told of its cause.
func TestWithinDerived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := errors.New("late")
		ctx, cancel := usb.Within(t.Context(), time.Second, late)
		defer cancel()
		derived, stop := context.WithTimeout(ctx, time.Hour)
		defer stop()
		begun := time.Now()
		<-derived.Done()
		if after := time.Since(begun); after != time.Second || context.Cause(derived) != late {
			t.Errorf("%v after %v, expected %v after 1 s", context.Cause(derived), after, late)
		}
	})
}

// Nobody waits: there is nothing but the context.
func TestWithinCost(t *testing.T) {
	parent, stop := context.WithCancel(t.Context())
	defer stop()
	if n := testing.AllocsPerRun(100, func() {
		ctx, cancel := usb.Within(parent, time.Hour, nil)
		if ctx.Err() != nil {
			t.Error(ctx.Err())
		}
		cancel()
	}); n > 2 {
		t.Errorf("%v allocations, expected 2 at most", n)
	}
}

package usbtest

import (
	"context"
	"errors"
	"iter"
	"slices"
	"testing"
	"time"

	"snag/sim/inproc"
	"snag/usb"
)

// flawed is a host that does one thing wrong.
type flawed struct {
	*inproc.Host
	open func(usb.Handle) usb.Handle
	find func(*inproc.Host, usb.Device) usb.Device // what Open opens
}

func (f flawed) Open(ctx context.Context, d usb.Device) (usb.Handle, error) {
	if f.find != nil {
		d = f.find(f.Host, d)
	}
	h, err := f.Host.Open(ctx, d)
	if err == nil && f.open != nil {
		h = f.open(h)
	}
	return h, err
}

// The flaws of a handle. Each embeds a handle that has none.
type (
	zeroLengthPackets struct{ usb.Handle }
	oneByOne          struct{ usb.Handle }
	readsAll          struct{ usb.Handle }
	countsOffered     struct{ usb.Handle }
	keepsControls     struct{ usb.Handle }
	goesOn            struct{ usb.Handle }
	leavesHalt        struct{ usb.Handle }
	losesClaims       struct{ usb.Handle }
	sparesRequests    struct {
		usb.Handle
		alts map[uint8]uint8
	}
	causeless  struct{ usb.Handle }
	neverBusy  struct{ usb.Handle }
	closesOnce struct {
		usb.Handle
		closed bool
	}
	impatient struct{ usb.Handle }
	swallows  struct{ usb.Handle }
	shortens  struct{ usb.Handle }
	swaps     struct{ usb.Handle }
)

func (h zeroLengthPackets) Out(ctx context.Context, ep uint8, data []byte) (int, error) {
	n, err := h.Handle.Out(ctx, ep, data)
	if err == nil && n > 0 && n%512 == 0 {
		_, err = h.Handle.Out(ctx, ep, nil)
	}
	return n, err
}

func (h oneByOne) Stream(ctx context.Context, ep uint8, idle time.Duration, transfers iter.Seq[[]byte]) (total int64, err error) {
	for b := range transfers {
		ctx, cancel := context.WithTimeout(ctx, idle)
		var n int
		n, err = h.Out(ctx, ep, b)
		cancel()
		total += int64(n)
		if err != nil {
			break
		}
	}
	return total, err
}

func (h readsAll) Stream(ctx context.Context, ep uint8, idle time.Duration, transfers iter.Seq[[]byte]) (int64, error) {
	return h.Handle.Stream(ctx, ep, idle, slices.Values(slices.Collect(transfers)))
}

func (h countsOffered) Stream(ctx context.Context, ep uint8, idle time.Duration, transfers iter.Seq[[]byte]) (int64, error) {
	total := int64(0)
	_, err := h.Handle.Stream(ctx, ep, idle, func(yield func([]byte) bool) {
		for b := range transfers {
			total += int64(len(b))
			if !yield(b) {
				return
			}
		}
	})
	return total, err
}

// StreamControl takes all before it begins, in one buffer.
func (h keepsControls) StreamControl(ctx context.Context, idle time.Duration, transfers iter.Seq2[usb.Setup, []byte]) (int, error) {
	var setups []usb.Setup
	var data [][]byte
	for s, b := range transfers {
		setups, data = append(setups, s), append(data, b)
	}
	return h.Handle.StreamControl(ctx, idle, func(yield func(usb.Setup, []byte) bool) {
		for i, s := range setups {
			if !yield(s, data[i]) {
				return
			}
		}
	})
}

// StreamControl performs also what is behind a transfer that failed.
func (h goesOn) StreamControl(ctx context.Context, idle time.Duration, transfers iter.Seq2[usb.Setup, []byte]) (n int, first error) {
	for s, b := range transfers {
		ctx, cancel := context.WithTimeout(ctx, max(idle, time.Second))
		_, err := h.Control(ctx, s, b)
		cancel()
		if n++; first == nil {
			first = err
		}
	}
	return n, first
}

func (h leavesHalt) ClearHalt(context.Context, uint8) error { return nil }

func (h losesClaims) Reset(ctx context.Context) error {
	err := h.Handle.Reset(ctx)
	for iface := range uint8(3) {
		h.Release(ctx, iface)
	}
	return err
}

func (h sparesRequests) SetAlt(ctx context.Context, iface, alt uint8) error {
	if h.alts[iface] == alt {
		return nil
	}
	h.alts[iface] = alt
	return h.Handle.SetAlt(ctx, iface, alt)
}

func (h causeless) In(ctx context.Context, ep uint8, buf []byte) (int, error) {
	n, err := h.Handle.In(ctx, ep, buf)
	if err != nil {
		err = errors.New(err.Error())
	}
	return n, err
}

func (h neverBusy) Claim(ctx context.Context, iface uint8) error {
	if err := h.Handle.Claim(ctx, iface); !errors.Is(err, usb.ErrBusy) {
		return err
	}
	return nil
}

func (h *closesOnce) Close() error {
	if h.closed {
		return errors.New("closed")
	}
	h.closed = true
	return h.Handle.Close()
}

func (h impatient) In(ctx context.Context, ep uint8, buf []byte) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	return h.Handle.In(ctx, ep, buf)
}

func (h swallows) Out(ctx context.Context, ep uint8, data []byte) (int, error) {
	if len(data) == 0 {
		return 0, nil
	}
	return h.Handle.Out(ctx, ep, data)
}

// In reads in pieces and takes a full piece for the end.
func (h shortens) In(ctx context.Context, ep uint8, buf []byte) (int, error) {
	return h.Handle.In(ctx, ep, buf[:min(len(buf), 16<<10)])
}

// Out sends the second half first.
func (h swaps) Out(ctx context.Context, ep uint8, data []byte) (int, error) {
	if half := len(data) / 1024 * 512; half > 0 {
		data = slices.Concat(data[half:], data[:half])
	}
	return h.Handle.Out(ctx, ep, data)
}

// shortly is how long these tests wait for what does not come.
const shortly = 300 * time.Millisecond

// TestFlaws checks that the suite finds what is wrong with a host.
func TestFlaws(t *testing.T) {
	for name, tc := range map[string]struct {
		open func(usb.Handle) usb.Handle
		find func(*inproc.Host, usb.Device) usb.Device
		want []string // what is to fail
	}{
		"adds zero-length packets":     {open: func(h usb.Handle) usb.Handle { return zeroLengthPackets{h} }, want: []string{"zero-length packets"}},
		"swallows zero-length packets": {open: func(h usb.Handle) usb.Handle { return swallows{h} }, want: []string{"zero-length packets"}},
		"has one in flight":            {open: func(h usb.Handle) usb.Handle { return oneByOne{h} }, want: []string{"stream has several in flight"}},
		"does not copy":                {open: func(h usb.Handle) usb.Handle { return readsAll{h} }, want: []string{"stream of wide reports", "stream of bulk transfers", "stream has several in flight"}},
		"counts what was offered":      {open: func(h usb.Handle) usb.Handle { return countsOffered{h} }, want: []string{"stream idle", "stream error", "stream cancelled", "stream unplugged"}},
		"keeps data of controls":       {open: func(h usb.Handle) usb.Handle { return keepsControls{h} }, want: []string{"control stream"}},
		"goes on after an error":       {open: func(h usb.Handle) usb.Handle { return goesOn{h} }, want: []string{"control stream error", "control stream idle", "control stream unplugged", "control stream refused"}},
		"leaves an endpoint halted":    {open: func(h usb.Handle) usb.Handle { return leavesHalt{h} }, want: []string{"stall and recovery", "stream error"}},
		"loses claims":                 {open: func(h usb.Handle) usb.Handle { return losesClaims{h} }, want: []string{"reset"}},
		"spares requests":              {open: func(h usb.Handle) usb.Handle { return sparesRequests{h, make(map[uint8]uint8)} }, want: []string{"alternate settings"}},
		"hides causes":                 {open: func(h usb.Handle) usb.Handle { return causeless{h} }, want: []string{"overflow", "stall and recovery", "cancel", "deadline", "ended context", "unplug", "re-enumeration"}},
		"is never busy":                {open: func(h usb.Handle) usb.Handle { return neverBusy{h} }, want: []string{"claim conflict"}},
		"closes once":                  {open: func(h usb.Handle) usb.Handle { return &closesOnce{Handle: h} }, want: []string{"close"}},
		"is impatient":                 {open: func(h usb.Handle) usb.Handle { return impatient{h} }, want: []string{"deadline"}},
		"cuts large transfers":         {open: func(h usb.Handle) usb.Handle { return shortens{h} }, want: []string{"64 KiB", "early end of a large buffer"}},
		"mixes data up":                {open: func(h usb.Handle) usb.Handle { return swaps{h} }, want: []string{"64 KiB", "five devices"}},
		"opens what is there": {find: func(h *inproc.Host, d usb.Device) usb.Device {
			list, _ := h.Devices()
			if e, ok := on(list, d.Port); ok {
				return e
			}
			return d
		}, want: []string{"replaced by its like", "re-enumeration"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := inproc.New()
			lab := Lab{Host: flawed{host, tc.open, tc.find}, patience: shortly}
			for _, port := range []usb.Port{"1-1", "1-2", "1-3", "1-4", "1-5"} {
				lab.Ports = append(lab.Ports, host.Port(port))
			}
			for _, name := range tc.want {
				if _, err := perform(t, &lab, find(name)); err == nil {
					t.Errorf("%s passes", name)
				}
			}
		})
	}
}

func TestJudge(t *testing.T) {
	failed := errors.New("failed")
	for _, tc := range []struct {
		listed     bool
		err        error
		skip, fail bool
	}{{false, nil, false, false}, {false, failed, false, true}, {true, failed, true, false}, {true, nil, false, true}} {
		skip, err := judge("the reason", tc.listed, tc.err)
		if (skip != "") != tc.skip || (err != nil) != tc.fail {
			t.Errorf("%+v: %q, %v", tc, skip, err)
		}
	}
}

func TestPanic(t *testing.T) {
	_, err := perform(t, &Lab{patience: shortly}, func(*T) { panic("a bug of the host") })
	if err == nil {
		t.Error("a panic is no failure")
	}
}

func TestLeak(t *testing.T) {
	end := make(chan struct{})
	defer close(end)
	for what, f := range map[string]func(){
		"a goroutine": func() { go func() { <-end }() },
		"two of one place": func() {
			for range 2 {
				go func() { <-end }()
			}
		},
		"its own's": func() { go func() { go func() { <-end }() }() },
	} {
		if _, err := perform(t, &Lab{patience: shortly / 10}, func(*T) { f() }); err == nil {
			t.Errorf("%s is left and not found", what)
		}
	}
	if _, err := perform(t, &Lab{patience: defaultPatience}, func(*T) { go time.Sleep(shortly / 10) }); err != nil {
		t.Errorf("of a test that leaves nothing: %v", err)
	}
}

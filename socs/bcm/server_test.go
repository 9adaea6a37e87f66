package bcm

import (
	"context"
	"errors"
	"strings"
	"testing"

	"snag/event"
	"snag/firmware"
	"snag/socs"
	"snag/usb"
)

// parrot is a second stage that says the same for ever.
type parrot struct {
	usb.Handle
	says string
}

func (p parrot) Control(_ context.Context, s usb.Setup, data []byte) (int, error) {
	if s.ToHost() {
		clear(data)
		copy(data[4:], p.says)
	}
	return len(data), nil
}

type counter struct{ notes int }

func (*counter) Next(context.Context) (*socs.Stage, error) { return nil, errors.New("no stage") }
func (c *counter) Emit(string, event.Body)                 { c.notes++ }

// A second stage that never comes to an end is given up, and little is told of it.
func TestParrot(t *testing.T) {
	for _, says := range []string{"*KEY*value", "config.txt"} {
		c := &counter{}
		r := &recovery{Board: c, chip: chips["bcm2711"], files: &files{chip: chips["bcm2711"], archive: &firmware.Bootfiles{}}}
		err := r.bootcode(t.Context(), &socs.Stage{}, &port{handle: parrot{says: says}})
		if !errors.Is(err, errMessage) || !strings.Contains(err.Error(), "asks without end, 10000 times by now") {
			t.Errorf("%s: %v", says, err)
		}
		if c.notes > maxListed {
			t.Errorf("%s: %d events", says, c.notes)
		}
	}
}

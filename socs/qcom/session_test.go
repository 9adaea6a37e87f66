package qcom

import (
	"context"
	"errors"
	"iter"
	"strings"
	"testing"
	"time"

	"snag/event"
	"snag/socs"
	"snag/usb"
)

// parrot says the same for ever, and takes everything.
type parrot struct {
	usb.Handle
	says []byte
}

func (p parrot) In(_ context.Context, _ uint8, buf []byte) (int, error) {
	return copy(buf, p.says), nil
}

func (p parrot) Out(_ context.Context, _ uint8, b []byte) (int, error) { return len(b), nil }

func (p parrot) Stream(_ context.Context, _ uint8, _ time.Duration, transfers iter.Seq[[]byte]) (n int64, err error) {
	for b := range transfers {
		n += int64(len(b))
	}
	return n, nil
}

type deafBoard struct{}

func (deafBoard) Next(context.Context) (*socs.Stage, error) { return nil, errors.New("no stage") }
func (deafBoard) Emit(string, event.Body)                   {}

// A board that says the same again and again is given up.
func TestParrot(t *testing.T) {
	for _, tc := range []struct {
		says   []byte
		rested bool // an image has ended
		want   string
	}{
		{says: request(cmdReady), want: "the board goes round in circles: it has said 65 things that are not about data, the last of them CMD_READY"},
		{says: request(cmdDoneResp, 1), rested: true, want: "the last of them DONE_RESP"},
		{says: request(cmdHello, 2, 1, 4096, modePending, 0, 0, 0, 0, 0, 0), want: "the board has said HELLO 17 times"},
	} {
		r := &recovery{board: deafBoard{}, rested: tc.rested, images: []*image{{slot: slotXBL, id: 13}, {slot: slotUBoot, id: 5}}}
		s := &session{recovery: r, transport: &transport{handle: parrot{says: tc.says}, out: usb.Endpoint{Address: 1, MaxPacket: 512}}}
		err := s.run(t.Context())
		if stuck, ok := errors.AsType[*socs.BoardError](err); !ok || stuck.Hint == "" || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v, want %q", err, tc.want)
		}
	}
}

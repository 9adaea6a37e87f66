package netboot

import (
	"testing"
	"time"
)

// A client that answers a repeated block only once, and whose answer is lost, is woken by the next block.
func TestDeafClient(t *testing.T) {
	data := make([]byte, 10*defaultBlksize)
	for _, tc := range []struct {
		name    string
		request readRequest
		acked   int // so many blocks before the silence
		want    []int
	}{
		{"options", readRequest{blksize: defaultBlksize}, 3, []int{4, 5, 5, 5}},
		{"the block before the last", readRequest{blksize: defaultBlksize}, 9, []int{10, 10, 10, 10}},
		{"no options", readRequest{}, 3, []int{4, 4, 4, 4}},
		{"window", readRequest{blksize: defaultBlksize, window: 4}, 4, []int{8, 8, 8, 8}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr, now := newTransfer(data, &tc.request), time.Unix(1000, 0)
			tr.begin(now)
			if tr.oack != nil {
				tr.ack(0, now)
			}
			for n := tr.window; n <= tc.acked; n += tr.window {
				tr.ack(uint16(n), now)
			}
			for i, want := range tc.want {
				now = tr.due
				if step := tr.tick(now); step != stepSend || tr.next != tc.acked+1 || tr.sent != want {
					t.Fatalf("timeout %d: step %d sends %d to %d, want %d to %d", i+1, step, tr.next, tr.sent, tc.acked+1, want)
				}
			}
			// It had the first of them: the rest is in flight already. Then all goes on as before.
			if tr.sent > tc.acked+1 && tr.window == 1 {
				if tr.ack(uint16(tc.acked+1), now); tr.next <= tr.sent {
					t.Errorf("after the ACK of %d, %d to %d are sent again", tc.acked+1, tr.next, tr.sent)
				}
				if tr.ack(uint16(tc.acked+2), now); tr.next != tc.acked+3 || tr.sent != tc.acked+3 {
					t.Errorf("after the ACK of %d, %d to %d are sent", tc.acked+2, tr.next, tr.sent)
				}
			}
		})
	}
}

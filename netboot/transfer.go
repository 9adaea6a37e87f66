package netboot

import "time"

// Timer values. The retransmission timer follows RFC 6298 with a floor and a ceiling for a link of one hop: a
// ROM at 512 bytes a block must have its 110 KB within 60 s though one packet in ten is lost.
const (
	firstRTO = 250 * time.Millisecond // until the first measurement
	minRTO   = 50 * time.Millisecond  // boards pause for longer than the link's round trip
	maxRTO   = time.Second            // also the least timeout that a client can negotiate

	// silence is how long a client may make no progress before its transfer is given up: longer than any client
	// goes on with it. U-Boot repeats its last ACK 20 times, every 5 s, and several of these may be lost.
	silence = 110 * time.Second

	// finalTries is how often blocks up to the last one are sent again before a silent client is
	// taken to have them all: a ROM jumps right after its last ACK, which may be lost.
	finalTries = 6

	// deafTries is after how many timeouts the block after the one in flight is sent along. U-Boot answers a block
	// that it has already only once; if that answer is lost too it ignores the block until its own timer
	// runs out, for 5 s, but takes the next (net/tftp.c, tftp_last_nack). Clients without options are left alone:
	// what a ROM does with a block out of turn is not known.
	deafTries = 2

	// settle is how long after its start an identical request from the same port is taken for a duplicate of the first
	// while the client acknowledges blocks. A client that did restart asks again.
	settle = 500 * time.Millisecond
)

// step is what a transfer wants done after it was told something.
type step int

const (
	stepWait    step = iota // nothing, until the transfer's due time
	stepSend                // send what pending returns
	stepDone                // the client has acknowledged the last block
	stepUnacked             // the last block was sent, and the client is gone
	stepGiveUp              // the client is silent in the middle of the file
)

// transfer is the sending side of one file, RFC 1350 with the windows of RFC 7440. It does no I/O and reads
// no clock. Blocks are counted from 1 without wrapping; block 0 is the OACK.
type transfer struct {
	data    []byte
	blksize int
	window  int
	last    int    // the number of the last block, which is shorter than blksize and may be empty
	oack    []byte // nil if no options were asked for

	acked int // the last block acknowledged; -1 while the OACK is not
	next  int // the first block that is to be sent now
	sent  int // the last block in flight: acked+1 to sent are

	sentAt   time.Time // when the blocks in flight were sent last
	due      time.Time // when they are to be sent again
	progress time.Time // when the client last acknowledged something new
	clean    bool      // the blocks in flight were sent only once: their ACK measures the round trip
	again    int       // the last block that was sent more than once, or 0
	tries    int       // timeouts since the last progress

	// paused says that the board has asked for an address again and so probably restarted: nothing is
	// sent until it acknowledges something after all.
	paused bool

	rto, srtt, rttvar, minRTT time.Duration // srtt is zero until measured
}

func newTransfer(data []byte, r *readRequest) *transfer {
	t := &transfer{data: data, blksize: defaultBlksize, window: 1, rto: firstRTO}
	if t.oack = r.oack(len(data)); t.oack != nil {
		t.acked = -1
	}
	if r.blksize != 0 {
		t.blksize = r.blksize
	}
	if r.window != 0 {
		t.window = r.window
	}
	t.last = len(data)/t.blksize + 1
	return t
}

// begin puts the first packets in flight.
func (t *transfer) begin(now time.Time) step {
	t.progress = now
	t.clean = true
	return t.fly(t.acked+1, now)
}

// fly puts the blocks from next to the end of the window in flight, or the OACK.
func (t *transfer) fly(next int, now time.Time) step {
	t.next = next
	t.sent = min(t.acked+t.window, t.last)
	if t.acked < 0 {
		t.sent = 0
	}
	t.sentAt = now
	t.due = now.Add(t.rto)
	return stepSend
}

// repeat sends all that is in flight again.
func (t *transfer) repeat(now time.Time) step {
	t.clean = false
	s := t.fly(t.acked+1, now)
	t.again = t.sent
	return s
}

// block returns the data of block n, from 1 to last.
func (t *transfer) block(n int) []byte {
	return t.data[(n-1)*t.blksize : min(n*t.blksize, len(t.data))]
}

// ackedBytes is how much of the file the client has acknowledged.
func (t *transfer) ackedBytes() int { return min(max(t.acked, 0)*t.blksize, len(t.data)) }

// started reports whether the client has acknowledged anything.
func (t *transfer) started() bool { return t.acked > 0 || t.acked == 0 && t.oack != nil }

// lively reports whether the client acknowledged something just now.
func (t *transfer) lively(now time.Time) bool {
	return t.started() && !t.paused && now.Sub(t.progress) < minRTO
}

// allSent reports whether the last block was sent: a client that vanishes now may have it.
func (t *transfer) allSent() bool { return t.sent == t.last && !t.paused }

// ack is told of an ACK. The number is of 16 bits; a window is smaller than that, so the block is not in doubt.
//
// A duplicate is never answered in lock-step, or every packet would be sent twice from then on (the Sorcerer's
// Apprentice, RFC 1123, section 4.2.3.1). With a window, an ACK of a block in its middle, or a duplicate so
// late that it can be an answer to this window, says that the block after it was lost: sending goes on from
// there (RFC 7440). But clients also send these when they see a block twice. So none is believed until blocks
// are acknowledged that were sent only once: whatever an earlier repetition provoked is over then.
func (t *transfer) ack(n uint16, now time.Time) step {
	d := int(n - uint16(t.acked))
	if d > t.sent-t.acked {
		return stepWait
	}
	believe := t.acked+d > t.again
	if d == 0 {
		if t.window > 1 && believe && t.srtt != 0 && now.Sub(t.sentAt) >= t.minRTT*7/8 {
			return t.repeat(now)
		}
		return stepWait
	}
	whole := d == t.sent-t.acked
	if t.clean {
		t.measure(now.Sub(t.sentAt))
	} else if t.tries == 0 && t.srtt != 0 {
		t.rto = t.estimate() // no timer was too short here: an end to the back-off
	}
	t.acked += d
	t.progress = now
	t.tries = 0
	t.paused = false
	switch {
	case t.acked == t.last:
		return stepDone
	case whole:
		t.clean = true
		return t.fly(t.acked+1, now)
	case believe:
		return t.repeat(now)
	default:
		// The client counts its window from here: what it lacks of that follows.
		t.clean = false
		return t.fly(t.sent+1, now)
	}
}

// tick is told the time.
func (t *transfer) tick(now time.Time) step {
	switch {
	case now.Before(t.due):
		return stepWait
	case t.allSent() && t.tries >= finalTries:
		return stepUnacked
	case now.Sub(t.progress) >= silence:
		return stepGiveUp
	case t.paused:
		t.due = t.progress.Add(silence)
		return stepWait
	}
	t.tries++
	t.rto = min(2*t.rto, maxRTO)
	t.repeat(now)
	if t.window == 1 && t.oack != nil && t.acked >= 0 && t.tries >= deafTries && t.sent+1 < t.last {
		t.sent++
		t.again = t.sent
	}
	return stepSend
}

// pause stops sending until the client acknowledges something new.
func (t *transfer) pause() { t.paused = true }

// measure takes one round trip into the estimate (RFC 6298, section 2).
func (t *transfer) measure(rtt time.Duration) {
	rtt = max(rtt, time.Microsecond)
	if t.srtt == 0 {
		t.srtt, t.rttvar, t.minRTT = rtt, rtt/2, rtt
	} else {
		t.rttvar += ((t.srtt - rtt).Abs() - t.rttvar) / 4
		t.srtt += (rtt - t.srtt) / 8
		t.minRTT = min(t.minRTT, rtt)
	}
	t.rto = t.estimate()
}

func (t *transfer) estimate() time.Duration { return min(max(t.srtt+4*t.rttvar, minRTO), maxRTO) }

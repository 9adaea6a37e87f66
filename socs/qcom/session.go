package qcom

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"snag/socs"
	"snag/socs/stages"
)

// How long the board may take. A loaded XBL trains the DRAM before it says HELLO.
const (
	firstTime = 2 * time.Second  // for the first HELLO, which has been waiting
	helloTime = 30 * time.Second // for one after an image
	answer    = 10 * time.Second // for anything else
	resetTime = time.Second      // for RESET to be taken
)

// What a board may ask of a host at most: in a session, what is not about data; and of an image, in bytes, each request
// counting for some more.
const (
	maxHellos   = 16
	maxOthers   = 64
	requestCost = 64
	moreCost    = 1 << 20
)

// session is Sahara with a board from plug to unplug.
type session struct {
	*recovery
	*transport
	since time.Time // the stage, or the end of the image before

	hellos int
	others int   // packets that are not about data
	asked  int64 // of the active image, by what the requests cost
	sent   int64
	told   *stages.Transfer // of the active image
}

// fail is an error with what to do about it.
func (r *recovery) fail(hint, format string, args ...any) error {
	return &socs.BoardError{Stage: r.stage(), Err: fmt.Errorf(format, args...), Hint: hint}
}

// reset has the board begin anew, as far as it can.
func (s *session) reset(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resetTime)
	defer cancel()
	s.handle.Out(ctx, s.out.Address, request(cmdReset))
}

// again are the hints of a board that does not go on.
const (
	againHint = "power-cycle the board into EDL and run snag again"
	eatenHint = "another program (ModemManager, a driver) may have read what the board says first: power-cycle the board into EDL and run snag again"
)

// run answers the board until it has everything.
func (s *session) run(ctx context.Context) error {
	p, err := s.first(ctx)
	for {
		if err != nil {
			return err
		}
		wait, done, err := s.answer(ctx, p)
		if done || err != nil {
			return err
		}
		if p, err = s.next(ctx, wait); err != nil {
			return err
		}
	}
}

// first waits for what the board says first. If there is nothing its HELLO may have been read by another program: then
// the answer to that may have it go on.
func (s *session) first(ctx context.Context) (packet, error) {
	late := time.Now().Add(answer)
	b, err := s.receive(ctx, firstTime)
	if silent(ctx, err) {
		s.warn("the board has said nothing for %s: its HELLO may have been read by another program (ModemManager); answering it all the same", firstTime)
		short, cancel := context.WithTimeout(ctx, firstTime)
		defer cancel()
		if _, err := s.handle.Out(short, s.out.Address, helloResponse(2, 1, modePending)); err != nil && !silent(ctx, err) {
			return packet{}, err
		}
		if b, err = s.receive(ctx, time.Until(late)); silent(ctx, err) {
			return packet{}, s.fail(eatenHint, "no HELLO within %s: %w", answer, err)
		}
	}
	if err != nil {
		return packet{}, err
	}
	return s.parse(b)
}

// silent says whether it was for the board's silence that a transfer failed.
func silent(ctx context.Context, err error) bool {
	return ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded)
}

// next waits for what the board says next.
func (s *session) next(ctx context.Context, wait time.Duration) (packet, error) {
	b, err := s.receive(ctx, wait)
	if err == nil {
		return s.parse(b)
	}
	if !silent(ctx, err) {
		return packet{}, err
	}
	if wait == helloTime {
		var missing string
		for _, i := range s.images {
			if !i.done {
				missing = i.slot
				break
			}
		}
		return packet{}, s.fail("the first stage does not start, or wants nothing more: check that it was built for this board, and for recovery",
			"the board has not asked for %s within %s: %w", missing, wait, err)
	}
	return packet{}, s.fail(againHint, "the board has said nothing for %s: %w", wait, err)
}

// parse decodes what the board said.
func (s *session) parse(b []byte) (packet, error) {
	if bytes.HasPrefix(b, []byte("<?xml")) {
		return packet{}, s.fail(againHint, "expected Sahara, got Firehose (% x): a programmer was started before, and runs", b[:min(len(b), 16)])
	}
	return parsePacket(b)
}

// answer does what a packet asks for. It says how long the next one may take, or that the board has everything.
func (s *session) answer(ctx context.Context, p packet) (wait time.Duration, done bool, err error) {
	if p.Command != cmdReadData && p.Command != cmdReadData64 {
		if s.others++; s.others > maxOthers {
			return 0, false, s.fail(againHint, "the board goes round in circles: it has said %d things that are not about data, the last of them %s", s.others, p)
		}
	}
	switch p.Command {
	case cmdHello:
		return answer, false, s.hello(ctx, p)
	case cmdReady: // a host before has left it in that mode, or this one has
		return answer, false, s.send(ctx, request(cmdSwitchMode, modePending), func(int) {})
	case cmdReadData, cmdReadData64:
		return answer, false, s.read(ctx, p)
	case cmdEndImage:
		return answer, false, s.end(ctx, p)
	case cmdDoneResp:
		if !s.rested {
			return 0, false, fmt.Errorf("%w: DONE_RESP, while no image has ended", errPacket)
		}
		if p.Status == 0 && s.left() == 0 && len(s.images) < len(slots) {
			s.note("the board may wait for another image, of which none was given")
		}
		return helloTime, s.left() == 0, nil
	case cmdMemDebug, cmdMemDebug64:
		return 0, false, s.dumps()
	}
	return 0, false, fmt.Errorf("%w: %s, which was not asked for", errPacket, p)
}

func (s *session) dumps() error {
	return s.fail("power-cycle the board into EDL (the dump is lost then; qdl and edl can save it before)", "the board holds a crash dump, and offers it (memory debug mode): it takes no image")
}

// hello answers HELLO.
func (s *session) hello(ctx context.Context, p packet) error {
	if s.hellos++; s.hellos > maxHellos {
		return s.fail(againHint, "the board has said HELLO %d times", s.hellos)
	}
	if p.Mode == modeDump {
		return s.dumps()
	}
	if p.Mode > modeCommand {
		return fmt.Errorf("%w: HELLO for mode %d, which is not known", errPacket, p.Mode)
	}
	if s.active != nil {
		s.warn("the board says HELLO in the middle of %s: starting over", s.active.slot)
		s.active = nil
	}
	return s.send(ctx, helloResponse(p.Version, p.Oldest, p.Mode), func(int) {})
}

// read sends what the board asks for.
func (s *session) read(ctx context.Context, p packet) error {
	if s.active == nil {
		if err := s.begin(p); err != nil {
			return err
		}
	}
	img, size := s.active, uint64(len(s.active.Data))
	switch {
	case p.Image != uint64(img.id):
		return fmt.Errorf("%w: %s in the middle of image %d", errPacket, p, img.id)
	case p.Offset > size || p.Length > size-p.Offset:
		return s.fail("the file is cut, or another one than this step wants: copy or build it again",
			"the board asks for %d bytes at %#x of %s, which has %d: %s", p.Length, p.Offset, img.slot, size, img.Path)
	}
	if s.asked += int64(p.Length) + requestCost; s.asked > 4*int64(size)+moreCost {
		return s.fail(againHint, "the board asks for the same bytes of %s again and again: %d of a file of %d", img.slot, s.sent, size)
	}
	err := s.send(ctx, img.Data[p.Offset:][:p.Length], s.progress)
	if err == nil {
		s.sent += int64(p.Length)
		s.progress(0)
	}
	return err
}

// begin begins with the image that the board asks for.
func (s *session) begin(p packet) error {
	for _, img := range s.images {
		if uint64(img.id) != p.Image {
			continue
		}
		if img.runs++; img.runs > stages.MaxRuns {
			return s.fail("the image does not start on this board: check that it was built for this board, and that power and cable are good",
				"the board asks for %s once more, after it had begun with it %d times", img.slot, stages.MaxRuns)
		}
		if img.runs > 1 {
			s.warn("the board asks for %s again: starting over", img.slot)
		}
		for _, i := range s.images {
			if i == img || img == s.images[0] { // what came after it is lost too
				i.done = false
			}
		}
		s.active, s.rested, s.asked, s.sent = img, false, 0, 0
		s.told = stages.Begin(s.board, s.stage(), img.Path, len(img.Data))
		s.told.Since, s.told.Retries = s.since, img.runs-1
		return nil
	}
	known := ""
	for _, i := range s.images {
		known += fmt.Sprintf(", %s has %d", i.slot, i.id)
	}
	for _, slot := range slots {
		if uint64(slot.id) == p.Image && len(s.images) < len(slots) {
			return s.fail("name it in the configuration: "+slot.name, "the board asks for image %d, which is %s and was not given%s", p.Image, slot.name, known)
		}
	}
	return s.fail("give the right one of your files this number in the configuration (image_id), if there is one",
		"the board asks for image %d, and there is none%s", p.Image, known)
}

// progress tells how much was sent, n bytes of this request among it. Some may be asked for twice.
func (s *session) progress(n int) {
	s.told.At(min(int(s.sent)+n, s.told.Total))
}

// end takes notice of an image's end.
func (s *session) end(ctx context.Context, p packet) error {
	img := s.active
	what := "what it was told"
	if img != nil {
		what = fmt.Sprintf("%s (%s)", img.slot, img.Path)
	}
	switch {
	case p.Status != 0:
		return s.fail(statusHint(p.Status), "the board refuses %s: %s", what, statusText(p.Status))
	case img == nil:
		return fmt.Errorf("%w: the end of image %d, of which nothing was read", errPacket, p.Image)
	case p.Image != uint64(img.id):
		return fmt.Errorf("%w: the end of image %d in the middle of image %d", errPacket, p.Image, img.id)
	}
	s.told.Total = int(s.sent) // it wants no more
	s.told.Done()
	s.active, s.rested, img.done = nil, true, true
	s.since = time.Now()
	return s.send(ctx, request(cmdDone), func(int) {})
}

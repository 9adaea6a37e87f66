package stm32mp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"snag/event"
	"snag/socs"
	"snag/socs/dfustage"
	"snag/socs/stages"
	"snag/usb"
	"snag/usb/dfu"
)

// Phases (AN5275; TF-A, stm32cubeprogrammer.h).
const (
	phaseLayout = 0x00 // a flash layout is awaited; or nothing any more
	phaseFSBL   = 0x01
	phaseDDR    = 0x02 // firmware of the memory controller
	phaseSSBL   = 0x03
	phaseCmd    = 0xf1 // the setting behind which the phase stands
	phaseError  = 0xff
)

// phase is what the board says of itself.
type phase struct {
	id     byte
	addr   uint32 // where what it waits for goes
	detach bool   // it waits for DETACH
	text   string // of an error
}

// undefined is the address of a board that waits for no file.
const undefined = 0xffffffff

// parsePhase decodes what is behind the setting of the phase (U-Boot, stm32prog_get_phase; TF-A, dfu_callback_upload),
// little-endian:
//
//	off size
//	0   1    phase
//	1   4    address
//	5   4    offset
//	9   ...  phase 0: 1 if DETACH is awaited; phase ff: text
func parsePhase(b []byte) (phase, error) {
	if len(b) < 9 {
		return phase{}, fmt.Errorf("phase: expected 9 bytes or more, got % x", b)
	}
	p := phase{id: b[0], addr: binary.LittleEndian.Uint32(b[1:])}
	switch p.id {
	case phaseLayout:
		p.detach = len(b) > 9 && b[9]&1 != 0
	case phaseError:
		p.text = printable(b[9:])
	}
	return p, nil
}

// printable is a board's text, without what would disturb a terminal.
func printable(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '.'
		}
		return r
	}, s))
}

// settingsByPhase sorts a stage's settings. Their names are like "@FSBL /0x01/1*1Me", in TF-A's manner or, without the
// first space, in U-Boot's.
func settingsByPhase(alts []dfu.Alt) map[byte]dfu.Alt {
	m := make(map[byte]dfu.Alt)
	for _, a := range alts {
		name, rest, _ := strings.Cut(a.Name, "/")
		phase, _, _ := strings.Cut(rest, "/")
		digits, isHex := strings.CutPrefix(phase, "0x")
		id, err := strconv.ParseUint(digits, 16, 8)
		if _, ok := m[byte(id)]; strings.HasPrefix(name, "@") && isHex && err == nil && !ok {
			m[byte(id)] = a
		}
	}
	return m
}

// recovery is one board on its way up.
type recovery struct {
	*chip
	fw    socs.Firmware
	board socs.Board
	runs  stages.Runs
	at    string // the stage

	detached time.Time // when the last DETACH was sent
}

// session is one enumeration.
type session struct {
	*dfustage.Session
	settings map[byte]dfu.Alt
	sent     map[byte]bool // by phase
	renewed  bool          // the port was reset, and the same device came back
	same     bool          // it is what was told to leave
}

// serve does what one enumeration of the board asks for.
func (r *recovery) serve(ctx context.Context, stage *socs.Stage) (done bool, err error) {
	for again := false; ; again = true {
		s, err := r.open(ctx, stage, again)
		if err != nil {
			return false, err
		}
		if _, ok := s.settings[phaseCmd]; !ok {
			return true, r.serveSPL(ctx, s)
		}
		if s.same {
			err = r.again(ctx, s)
		} else {
			done, err = r.follow(ctx, s)
		}
		if !s.renewed || done || err != nil {
			return done, err
		}
		// It has the same descriptors as before, but its settings may have other names.
		if err := s.Release(ctx); err != nil {
			return false, err
		}
	}
}

// open finds out what the stage is. again says that it should be another one than before.
func (r *recovery) open(ctx context.Context, stage *socs.Stage, again bool) (*session, error) {
	d, err := dfustage.Open(ctx, r.board, stage, func(d *dfu.Device) bool { return d.Alts[0].Name != "" })
	switch {
	case err == nil:
	case isTransfer(err):
		return nil, err
	default:
		return nil, &socs.BoardError{Stage: r.at, Err: fmt.Errorf("expected DFU of the boot ROM, TF-A or SPL: %w", err),
			Hint: "if the board runs U-Boot or Linux already, reset it with the boot pins set to serial boot; else build the first stage for USB (TF-A: STM32MP_USB_PROGRAMMER=1, U-Boot's SPL: CONFIG_SPL_DFU)"}
	}
	s := &session{Session: d, settings: settingsByPhase(d.Alts), sent: make(map[byte]bool)}
	_, cmd := s.settings[phaseCmd]
	_, fsbl := s.settings[phaseFSBL]
	_, noSPL := s.Find("u-boot*")
	_, noUBoot := s.Find("@FlashLayout*")
	switch {
	case !cmd && noSPL == nil:
		r.at = stageSPL
	case !cmd:
		return nil, &socs.BoardError{Stage: r.at, Err: fmt.Errorf("the device on port %s is no STM32MP in serial boot: it has no alternate setting \"@virtual /0xF1/...\", but %s", stage.Port, names(d.Alts)),
			Hint: "microcontrollers (STM32F, H, ...) show the same USB ID: unplug them, or name the board's port with --usb-path"}
	case noUBoot == nil:
		return nil, &socs.BoardError{Stage: r.at, Err: fmt.Errorf("the board on port %s runs U-Boot's stm32prog already: it offers %s", stage.Port, names(d.Alts)),
			Hint: "it is up; to recover it once more reset it, with the boot pins set to serial boot"}
	case fsbl && again && time.Since(r.detached) < startTime: // it may answer until it starts the first stage
		s.same = true
	case fsbl && again:
		return nil, &socs.BoardError{Stage: r.at, Err: fmt.Errorf("the board on port %s shows the same after DETACH and a reset of the port: %s", stage.Port, names(d.Alts)),
			Hint: "the ROM did not start the first stage: check that it was built for this board with USB (STM32MP_USB_PROGRAMMER=1); a closed part starts signed images only"}
	case fsbl:
		r.at = stageROM
		r.known(stage)
	default:
		r.at = stageTFA
	}
	return s, nil
}

func isTransfer(err error) bool {
	_, ok := errors.AsType[*usb.TransferError](err)
	return ok || errors.Is(err, usb.ErrGone) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

func names(alts []dfu.Alt) string {
	var s []string
	for _, a := range alts {
		s = append(s, a.String())
	}
	return strings.Join(s, ", ")
}

// deviceID is in the product strings of ROM, TF-A and U-Boot.
var deviceID = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`@Device ID /(0x[0-9A-Fa-f]{3})\b`) })

// known warns of a board of another model.
func (r *recovery) known(stage *socs.Stage) {
	f := deviceID().FindStringSubmatch(stage.USB.Device().Product)
	if f == nil || strings.EqualFold(f[1], r.device) {
		return
	}
	text := "the board shows device ID " + f[1]
	if is := other(func(c *chip) bool { return strings.EqualFold(f[1], c.device) }); is != "" {
		text += ", that of " + is
	}
	r.board.Emit(r.at, event.Warning{Text: fmt.Sprintf("%s; %s has %s", text, r.name, r.device)})
}

// follow does what phase after phase asks for.
func (r *recovery) follow(ctx context.Context, s *session) (done bool, err error) {
	p, err := r.first(ctx, s)
	for ; err == nil && p != nil; p, err = r.next(ctx, s) {
		switch {
		case p.id == phaseError:
			return false, r.phaseError(s, p)
		case p.detach:
			return false, &socs.BoardError{Stage: r.at, Err: fmt.Errorf("the board on port %s has a file already, which snag did not send: it waits for DETACH", s.Stage.Port),
				Hint: "another program stopped in the middle: reset the board and run snag again"}
		}
		if err := r.answer(ctx, s, p); err != nil {
			return false, err
		}
		if s.sent[phaseSSBL] {
			return true, r.start(ctx, s)
		}
	}
	return false, err // nil: it has left, or enumerates anew
}

// first is the phase that an enumeration begins in. A ROM waits for the first stage, whatever it says; TF-A of
// STM32MP15 has the same settings. TF-A that does not tell waits for what it has the first setting for.
func (r *recovery) first(ctx context.Context, s *session) (*phase, error) {
	_, rom := s.settings[phaseFSBL]
	if rom && r.detach {
		return &phase{id: phaseFSBL}, nil
	}
	p, err := r.ask(ctx, s)
	switch {
	case err == nil && rom && p.id != phaseSSBL && p.id != phaseError:
		return &phase{id: phaseFSBL}, nil
	case err == nil:
		return &p, nil
	case context.Cause(ctx) != nil:
		return nil, context.Cause(ctx)
	case !unanswered(err) && !(rom && errors.Is(err, context.DeadlineExceeded)):
		return nil, err
	}
	for _, id := range []byte{phaseFSBL, phaseDDR, phaseSSBL} {
		if _, ok := s.settings[id]; ok {
			return &phase{id: id}, nil
		}
	}
	return nil, err
}

// unanswered tells whether an error means that the board does not tell its phase, though it is there.
func unanswered(err error) bool {
	_, status := errors.AsType[*dfu.StatusError](err)
	return status || errors.Is(err, usb.ErrStall) || errors.Is(err, errPhase)
}

var errPhase = errors.New("no phase")

// ask reads the phase.
func (r *recovery) ask(ctx context.Context, s *session) (phase, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if err := s.Select(ctx, s.settings[phaseCmd]); err != nil {
		return phase{}, fmt.Errorf("phase: %w", err)
	}
	b, err := s.Upload(ctx, 512)
	if err != nil {
		return phase{}, fmt.Errorf("phase: %w", err)
	}
	p, err := parsePhase(b)
	if err != nil {
		return phase{}, fmt.Errorf("%w: %w", errPhase, err)
	}
	return p, nil
}

// answer gives the board what its phase asks for.
func (r *recovery) answer(ctx context.Context, s *session, p *phase) error {
	alt, ok := s.settings[p.id]
	if p.id == phaseFSBL {
		r.at = stageROM
	}
	if s.sent[p.id] || !ok {
		what := "for which it has no alternate setting"
		if ok {
			what = "whose file it has"
		}
		return &socs.BoardError{Stage: r.at, Err: fmt.Errorf("the board on port %s is in phase %#02x, %s; it has %s", s.Stage.Port, p.id, what, names(s.Alts)),
			Hint: "reset the board and run snag again; watch its serial console"}
	}
	var f dfustage.File
	switch p.id {
	case phaseLayout:
		f = dfustage.File{Path: "flash layout", Data: flashLayout()}
	case phaseFSBL:
		if err := r.runs.Begin(r.board); err != nil {
			return err
		}
		f = r.file(slotTFA)
	case phaseDDR:
		r.at, f = stageTFA, r.file(slotFIPDDR)
	case phaseSSBL:
		r.at, f = stageTFA, r.file(slotFIP)
	}
	if f.Data == nil {
		return &socs.BoardError{Stage: r.at, Err: fmt.Errorf("the board on port %s asks for phase %#02x (alternate setting %s), for which no file was given", s.Stage.Port, p.id, alt),
			Hint: "give " + r.waysText() + ", all of one build"}
	}
	if p.id == phaseLayout {
		r.board.Emit(r.at, event.Note{Text: "this TF-A wants a flash layout first: sending one that names nothing but the stages"})
	}
	_, err := s.Send(ctx, r.at, alt, f)
	if err != nil {
		return r.explained(ctx, s, err)
	}
	s.sent[p.id] = true
	return nil
}

func (r *recovery) file(slot string) dfustage.File {
	img := r.fw[slot]
	return dfustage.File{Path: img.Path, Data: img.Data}
}

// explained adds to a refusal what the board has to say of it.
func (r *recovery) explained(ctx context.Context, s *session, err error) error {
	if !unanswered(err) {
		return err
	}
	if p, perr := r.ask(ctx, s); perr == nil && p.id == phaseError && p.text != "" {
		return fmt.Errorf("%w; the board says %q", err, p.text)
	}
	return err
}

func (r *recovery) phaseError(s *session, p *phase) error {
	text := p.text
	if text == "" {
		text = "nothing more"
	}
	return &socs.BoardError{Stage: r.at, Err: fmt.Errorf("the board on port %s has given up (phase 0xff): it says %q", s.Stage.Port, text),
		Hint: "check that all files are of one build for this board, reset the board and run snag again"}
}

// next makes the board go on to what it was sent, and returns the phase that it is in then; nil if it is to be looked
// for on its port.
func (r *recovery) next(ctx context.Context, s *session) (*phase, error) {
	switch {
	case s.sent[phaseLayout] && !s.sent[phaseSSBL]:
		return r.await(ctx, s, phaseLayout)
	case s.sent[phaseDDR]:
		if err := r.leave(ctx, s); err != nil {
			return nil, err
		}
		return r.await(ctx, s, phaseDDR)
	case !r.detach:
		p, err := r.await(ctx, s, phaseFSBL)
		r.at = stageTFA
		return p, err
	}
	if err := r.leave(ctx, s); err != nil {
		return nil, err
	}
	return nil, r.renew(ctx, s)
}

// leave sends DETACH. Whether the board heeds it will be seen by what it does next.
func (r *recovery) leave(ctx context.Context, s *session) error {
	defer func() { r.detached = time.Now() }()
	if p, err := r.ask(ctx, s); err == nil && p.id == phaseError {
		return r.phaseError(s, &p)
	}
	within, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if err := s.Detach(within); err != nil && context.Cause(ctx) != nil {
		return context.Cause(ctx)
	}
	return nil
}

// await waits until the board is in another phase than that of a file which it was sent, or waits for DETACH; it does
// not answer while it starts what it has. nil: it has left.
func (r *recovery) await(ctx context.Context, s *session, sent byte) (*phase, error) {
	var last string
	for end := time.Now().Add(startTime); time.Now().Before(end); {
		p, err := r.ask(ctx, s)
		switch {
		case errors.Is(err, usb.ErrGone):
			return nil, nil
		case context.Cause(ctx) != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			last = err.Error()
		case p.id == sent, p.detach, p.id == phaseLayout && p.addr == undefined:
			last = fmt.Sprintf("it is still in phase %#02x", p.id)
		default:
			return &p, nil
		}
		if stages.Left(ctx, s.Stage, askAgain) {
			return nil, nil
		}
	}
	return nil, &socs.BoardError{Stage: r.at, Err: fmt.Errorf("the board on port %s does not go on from phase %#02x within %s: expected the next one, %s", s.Stage.Port, sent, startTime, last),
		Hint: "what was sent does not start, or has no USB: check that it was built for this board (TF-A with STM32MP_USB_PROGRAMMER=1), and watch its serial console"}
}

// renew sees to it that the host asks the first stage what it is. Where TF-A keeps the ROM's enumeration it
// is the port's reset that makes the host ask; before that, TF-A must run.
func (r *recovery) renew(ctx context.Context, s *session) error {
	if !r.stays {
		if stages.Left(ctx, s.Stage, leaveTime) {
			return nil
		}
	} else if left, err := r.answers(ctx, s); left || err != nil {
		return err
	}
	return r.reset(ctx, s)
}

// again does so once more for a ROM that was still there.
func (r *recovery) again(ctx context.Context, s *session) error {
	if stages.Left(ctx, s.Stage, resetAgain) {
		return nil
	}
	if left, err := r.answers(ctx, s); left || err != nil {
		return err
	}
	return r.reset(ctx, s)
}

func (r *recovery) reset(ctx context.Context, s *session) error {
	reset, cancel := context.WithTimeout(ctx, resetTime)
	defer cancel()
	err := s.Reset(reset)
	s.renewed = err == nil
	if errors.Is(err, usb.ErrGone) { // another one came back
		return nil
	}
	return err
}

// answers waits until TF-A does.
func (r *recovery) answers(ctx context.Context, s *session) (left bool, err error) {
	for end := time.Now().Add(startTime); time.Now().Before(end); {
		ask, cancel := context.WithTimeout(ctx, time.Second)
		_, err = s.Status(ask)
		cancel()
		switch {
		case err == nil:
			return false, nil
		case errors.Is(err, usb.ErrGone):
			return true, nil
		case context.Cause(ctx) != nil:
			return false, context.Cause(ctx)
		}
		if stages.Left(ctx, s.Stage, askAgain) {
			return true, nil
		}
	}
	return false, &socs.BoardError{Stage: r.at, Err: fmt.Errorf("the first stage on port %s does not answer within %s: %w", s.Stage.Port, startTime, err),
		Hint: "it does not start, or has no USB: check that it was built for this board (TF-A with STM32MP_USB_PROGRAMMER=1), and watch its serial console"}
}

// start makes TF-A start what it has.
func (r *recovery) start(ctx context.Context, s *session) error {
	p, err := r.ask(ctx, s)
	switch {
	case errors.Is(err, usb.ErrGone):
		return nil // older ones do not wait for it
	case err == nil && p.id == phaseError:
		return r.phaseError(s, &p)
	}
	return s.Detach(ctx)
}

// serveSPL gives U-Boot's SPL what it asks for by the name of the file.
func (r *recovery) serveSPL(ctx context.Context, s *session) error {
	alt, err := s.Find("u-boot*")
	if err != nil {
		return err
	}
	f := r.file(slotUBoot)
	if f.Data == nil {
		return &socs.BoardError{Stage: r.at, Err: fmt.Errorf("U-Boot's SPL on port %s asks for %s, and no file was given for it", s.Stage.Port, alt),
			Hint: "give u-boot.itb or u-boot.img of the SPL's build as " + slotUBoot}
	}
	left, err := s.Send(ctx, r.at, alt, f)
	switch {
	case err != nil:
		return err
	case left:
		return s.Started(ctx, alt)
	}
	return s.Detach(ctx)
}

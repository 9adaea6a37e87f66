package imx

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"snag/event"
	"snag/firmware"
	"snag/socs"
	"snag/usb"
)

// scripted is a device that answers what the host sends it by a function. A nil answer stands for the end of its
// enumeration.
type scripted struct {
	desc    *usb.Descriptors
	reports []byte // the report descriptor
	answer  func(out []byte) [][]byte
	mu      sync.Mutex
	queue   [][]byte
	sent    [][]byte
	gone    chan struct{}
}

var (
	hidDescriptors = &usb.Descriptors{Configs: []usb.ConfigDescriptor{{Value: 1, Settings: []usb.Setting{{
		Class: 3, Endpoints: []usb.Endpoint{{Address: 0x81, Type: usb.Interrupt, MaxPacket: 64}},
	}}}}}
	bulkDescriptors = &usb.Descriptors{Configs: []usb.ConfigDescriptor{{Value: 1, Settings: []usb.Setting{{
		Class: 255, Endpoints: []usb.Endpoint{{Address: 0x82, Type: usb.Bulk, MaxPacket: 512}, {Address: 1, Type: usb.Bulk, MaxPacket: 512}},
	}}}}}
)

// reportDescriptor has the four reports of SDP, with data of some size.
func reportDescriptor(data int) []byte {
	b := []byte{0x75, 8}
	for _, r := range []struct {
		id, kind byte
		size     int
	}{{1, 0x91, 16}, {2, 0x91, data}, {3, 0x81, 4}, {4, 0x81, 64}} {
		b = append(b, 0x85, r.id, 0x96, byte(r.size), byte(r.size>>8), r.kind, 2)
	}
	return b
}

func (s *scripted) Device() usb.Device {
	return usb.Device{Port: "1-1", ID: usb.ID{Vendor: 1, Product: 2}, Release: 2, Config: 1, Interfaces: []usb.Interface{{}}}
}
func (s *scripted) Descriptors() *usb.Descriptors              { return s.desc }
func (s *scripted) Configure(context.Context, uint8) error     { return nil }
func (s *scripted) Claim(context.Context, uint8) error         { return nil }
func (s *scripted) Release(context.Context, uint8) error       { return nil }
func (s *scripted) SetAlt(context.Context, uint8, uint8) error { return nil }
func (s *scripted) ClearHalt(context.Context, uint8) error     { return nil }
func (s *scripted) Reset(context.Context) error                { return nil }
func (s *scripted) Gone() <-chan struct{}                      { return s.gone }
func (s *scripted) Close() error                               { return nil }
func (s *scripted) Out(_ context.Context, _ uint8, data []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data = slices.Clone(data)
	s.sent = append(s.sent, data)
	s.queue = append(s.queue, s.answer(data)...)
	return len(data), nil
}

func (s *scripted) Stream(ctx context.Context, ep uint8, _ time.Duration, transfers iter.Seq[[]byte]) (int64, error) {
	var n int64
	for t := range transfers {
		s.Out(ctx, ep, t)
		n += int64(len(t))
	}
	return n, nil
}

func (s *scripted) Control(ctx context.Context, setup usb.Setup, data []byte) (int, error) {
	if setup.ToHost() {
		return copy(data, s.reports), nil
	}
	return s.Out(ctx, 0, data)
}

func (s *scripted) StreamControl(ctx context.Context, _ time.Duration, transfers iter.Seq2[usb.Setup, []byte]) (n int, _ error) {
	for _, b := range transfers {
		s.Out(ctx, 0, b)
		n++
	}
	return n, nil
}

func (s *scripted) In(ctx context.Context, ep uint8, buf []byte) (int, error) {
	s.mu.Lock()
	if len(s.queue) == 0 {
		s.mu.Unlock()
		<-ctx.Done()
		return 0, &usb.TransferError{Op: "in", Endpoint: int(ep), Err: ctx.Err()}
	}
	b := s.queue[0]
	s.queue = s.queue[1:]
	s.mu.Unlock()
	if b == nil {
		// The host notices a little later that it is gone.
		time.AfterFunc(100*time.Millisecond, func() { close(s.gone) })
		return 0, &usb.TransferError{Op: "in", Endpoint: int(ep), Err: usb.ErrProtocol}
	}
	return copy(buf, b), nil
}

// serveScripted has a scripted device served as the ROM of a model, with an image of 5000 bytes at 0x10000000. Without
// an error the board has everything, or is waited for.
func serveScripted(t *testing.T, model string, s *scripted, commands []firmware.DCDCommand) ([]event.Body, bool, error) {
	t.Helper()
	chip, err := chipOf(socs.Model{Name: model})
	if err != nil {
		t.Fatal(err)
	}
	s.gone = make(chan struct{})
	b := &eventBoard{stages: []*socs.Stage{{Port: "1-1", ROM: true, USB: s, Gone: s.gone, Since: time.Now()}}}
	r := &recovery{chip: chip, board: b, endLog: noLog, plan: &plan{images: []image{{
		path: "u-boot.imx", ivt: &firmware.IVT{}, data: make([]byte, 5000), addr: 0x10000000, dcd: commands,
	}}}}
	if err = r.drive(t.Context()); err == errNoStage {
		return b.events, false, nil
	}
	return b.events, err == nil, err
}

type eventBoard struct {
	stages []*socs.Stage // that come

	mu     sync.Mutex
	events []event.Body
}

var errNoStage = errors.New("no stage")

func (b *eventBoard) Next(context.Context) (*socs.Stage, error) {
	if len(b.stages) == 0 {
		return nil, errNoStage
	}
	stage := b.stages[0]
	b.stages = b.stages[1:]
	return stage, nil
}

func (b *eventBoard) Emit(_ string, e event.Body) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, e)
}

// report is an input report.
func report(id byte, w word) []byte { return append([]byte{id}, w[:]...) }

// answerHID answers a report as an open part does, and a jump with what is told.
func answerHID(out []byte, jumped ...[]byte) [][]byte {
	hab := report(reportHAB, wordOpen)
	if out[0] == reportData {
		return nil
	}
	switch binary.BigEndian.Uint16(out[1:]) {
	case cmdJump:
		return append([][]byte{hab}, jumped...)
	case cmdSkipDCD:
		return [][]byte{hab, report(reportStatus, wordSkipped)}
	case cmdWriteFile:
		return [][]byte{hab, report(reportStatus, wordComplete)}
	}
	return [][]byte{hab, report(reportStatus, wordWritten)}
}

// What devices say that is not as usual, over HID.
func TestAnswers(t *testing.T) {
	for _, tc := range []struct {
		name   string
		data   int    // size of data reports that the device announces
		desc   []byte // of the reports; nil: as it should be
		before []byte // waits in the device already
		jumped [][]byte
		says   string // the error, or else an event
		fails  bool
	}{
		{name: "as usual", data: 1024, says: "the part is open"},
		{name: "left by another program", data: 1024, before: report(reportStatus, wordComplete)},
		{name: "left by another program, unknown", data: 1024, before: report(9, wordComplete), says: "expected report 3, got report 9: 88 88 88 88", fails: true},
		{name: "smaller reports", data: 64, says: "the device announces data reports of 64 bytes, expected 1024"},
		{name: "larger reports", data: 4096},
		{name: "descriptor without report IDs", data: 1024, desc: []byte{0x75, 8, 0x95, 64, 0x81, 2, 0x95, 16, 0x91, 2}, says: "the part is open"},
		{name: "descriptor that is cut", data: 1024, desc: reportDescriptor(1024)[:5], says: "the part is open"},
		{name: "empty descriptor", data: 1024, desc: []byte{}, says: "the part is open"},
		{name: "warning after the jump", data: 1024, jumped: [][]byte{report(reportStatus, word{habWarning, 0x30, 0x0a, 0x1d})}, says: "69 30 0a 1d: warning, engine failure, in authentication, CAAM"},
		{name: "refused", data: 1024, jumped: [][]byte{report(reportStatus, word{habFailure, 0x05, 0x0a, 0})}, says: "was refused: expected no status, got 33 05 0a 00: failure, invalid IVT, in authentication, any engine", fails: true},
		{name: "answer that is no status", data: 1024, jumped: [][]byte{report(reportStatus, word{1, 2, 3, 4})}, says: "01 02 03 04: unknown 0x01, unknown 0x02, in unknown 0x03, unknown 0x04", fails: true},
		{name: "short status", data: 1024, jumped: [][]byte{{reportStatus, habFailure}}, says: "expected 4 bytes in report 4, got 1: 33", fails: true},
		{name: "leaves", data: 1024, jumped: [][]byte{nil}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scripted{desc: hidDescriptors, reports: reportDescriptor(tc.data), answer: func(out []byte) [][]byte { return answerHID(out, tc.jumped...) }}
				if tc.desc != nil {
					s.reports = tc.desc
				}
				if tc.before != nil {
					s.queue = append(s.queue, tc.before)
				}
				events, done, err := serveScripted(t, "imx6ull", s, nil)
				if tc.fails != (err != nil) || done == tc.fails {
					t.Fatalf("done: %v, error: %v", done, err)
				}
				said := fmt.Sprint(events)
				if tc.fails {
					stuck, ok := errors.AsType[*socs.BoardError](err)
					if !ok || stuck.Hint == "" || stuck.Stage != stageROM {
						t.Errorf("%#v: want a BoardError of the ROM with a hint", err)
					}
					said = err.Error()
				}
				if !strings.Contains(said, tc.says) {
					t.Errorf("it said %q, want %q", said, tc.says)
				}
				size := min(tc.data, 1024)
				for _, out := range s.sent {
					if out[0] == reportData && len(out) != size+1 {
						t.Errorf("data report of %d bytes, want %d and the ID", len(out), size)
					}
				}
			})
		})
	}
}

// An answer over bulk endpoints may be filled up to a packet.
func TestBulkPadded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		padded := func(w word) []byte { return append(w[:], make([]byte, 60)...) }
		s := &scripted{desc: bulkDescriptors, answer: func(out []byte) [][]byte {
			switch {
			case len(out) != commandSize:
				return nil // the file
			case binary.BigEndian.Uint16(out) == cmdErrorStatus:
				return [][]byte{padded(wordComplete)}
			}
			return [][]byte{padded(wordOpen)}
		}}
		if _, done, err := serveScripted(t, "imx53", s, nil); err != nil || !done {
			t.Errorf("done %v, %v", done, err)
		}
	})
}

// A transfer that fails because the board was unplugged is told from one that went wrong.
func TestUnpluggedInAnswer(t *testing.T) {
	for _, unplugged := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := &scripted{desc: hidDescriptors, reports: reportDescriptor(1024), answer: func([]byte) [][]byte { return [][]byte{nil} }}
			if !unplugged {
				s.answer = func([]byte) [][]byte { return [][]byte{{}} } // an empty report
			}
			_, done, err := serveScripted(t, "imx6ull", s, nil)
			if done || unplugged != (err == nil) {
				t.Errorf("unplugged %v: done %v, %v", unplugged, done, err)
			}
		})
	}
}

// What a ROM tells while it takes a stream is passed on.
func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chip, err := chipOf(socs.Model{Name: "imx8qxp"})
		if err != nil {
			t.Fatal(err)
		}
		s := &scripted{desc: hidDescriptors, reports: reportDescriptor(1024), answer: func([]byte) [][]byte { return nil }, gone: make(chan struct{})}
		s.queue = [][]byte{append([]byte{4, 0, 0, 0}, "booting\x00\x00"...), {4, 0}, append([]byte{4, 0, 0, 0}, "\x1b[2Jdone\n"...)}
		b := &eventBoard{}
		r := &recovery{chip: chip, board: b, endLog: noLog, plan: &plan{stream: &payload{path: "flash.bin", data: make([]byte, 5000)}, second: &payload{}}}
		if done, err := r.serve(t.Context(), &socs.Stage{Port: "1-1", ROM: true, USB: s, Gone: s.gone}); done || err != nil {
			t.Errorf("done %v, %v; want to go on", done, err)
		}
		synctest.Wait()
		r.endLog()
		if said := fmt.Sprint(b.events); !strings.Contains(said, "{the ROM's log: booting}") || !strings.Contains(said, "{the ROM's log: [2Jdone}") {
			t.Error(said)
		}
	})
}

// A DCD is executed register by register where the ROM cannot.
func TestExecuteDCD(t *testing.T) {
	for _, tc := range []struct {
		name  string
		dcd   []firmware.DCDCommand
		start uint32 // of the register
		want  uint32
		reads int
		says  string // the error
	}{
		{"write", []firmware.DCDCommand{{Op: firmware.DCDWrite, Width: 4, Address: 0x100, Value: 0x12345678}}, 1, 0x12345678, 0, ""},
		{"write 16 bits", []firmware.DCDCommand{{Op: firmware.DCDWrite, Width: 2, Address: 0x100, Value: 0x5678}}, 0xffffffff, 0xffff5678, 0, ""},
		{"write 8 bits", []firmware.DCDCommand{{Op: firmware.DCDWrite, Width: 1, Address: 0x100, Value: 0x78}}, 0xffffffff, 0xffffff78, 0, ""},
		{"set", []firmware.DCDCommand{{Op: firmware.DCDSet, Width: 4, Address: 0x100, Value: 0xf0}}, 0x10f, 0x1ff, 1, ""},
		{"clear", []firmware.DCDCommand{{Op: firmware.DCDClear, Width: 4, Address: 0x100, Value: 0xf}}, 0x10f, 0x100, 1, ""},
		{"set 8 bits", []firmware.DCDCommand{{Op: firmware.DCDSet, Width: 1, Address: 0x100, Value: 0xf0}}, 0x10f, 0x1ff, 1, ""},
		{"check", []firmware.DCDCommand{{Op: firmware.DCDCheck, Width: 4, Address: 0x100, Value: 0xf, Condition: firmware.AllSet}}, 0x10f, 0x10f, 1, ""},
		{"check in vain", []firmware.DCDCommand{{Op: firmware.DCDCheck, Width: 4, Address: 0x100, Value: 0xf0, Condition: firmware.AnySet}}, 0x10f, 0x10f, 3001, "check of register 0x00000100"},
		{"check three times", []firmware.DCDCommand{{Op: firmware.DCDCheck, Width: 4, Address: 0x100, Value: 0xf0, HasCount: true, Count: 3, Condition: firmware.AllSet}}, 0x10f, 0x10f, 3, "3 times: expected all set of 0xf0, got 0x10f"},
		{"check left out", []firmware.DCDCommand{{Op: firmware.DCDCheck, Width: 4, Address: 0x100, Value: 0xf0, HasCount: true, Condition: firmware.AllSet}}, 0x10f, 0x10f, 0, ""},
		{"nop", []firmware.DCDCommand{{Op: firmware.DCDNOP}}, 1, 1, 0, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				register, reads := make([]byte, 4), 0
				binary.LittleEndian.PutUint32(register, tc.start)
				s := &scripted{desc: bulkDescriptors, answer: func(out []byte) [][]byte {
					if len(out) != commandSize {
						return nil // the file
					}
					width := int(out[6]) / 8
					switch binary.BigEndian.Uint16(out) {
					case cmdReadRegister:
						reads++
						return [][]byte{wordOpen[:], slices.Clone(register[:width])}
					case cmdWriteRegister:
						value := binary.BigEndian.Uint32(out[11:])
						for i := range width {
							register[i] = byte(value >> (8 * i))
						}
						return [][]byte{wordOpen[:], wordWritten[:]}
					case cmdErrorStatus:
						return [][]byte{wordComplete[:]}
					}
					return [][]byte{wordOpen[:]}
				}}
				_, done, err := serveScripted(t, "imx53", s, tc.dcd)
				if tc.says == "" && (err != nil || !done) || tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)) {
					t.Errorf("done %v, %v; want %q", done, err, tc.says)
				}
				if got := binary.LittleEndian.Uint32(register); got != tc.want || reads < tc.reads || reads > tc.reads+2 {
					t.Errorf("the register is %#x after %d reads, want %#x and %d", got, reads, tc.want, tc.reads)
				}
			})
		})
	}
}

// The boot stages of a card end where its first partition begins.
func TestBootArea(t *testing.T) {
	mbr := func(entries ...uint32) []byte {
		b := make([]byte, 100*512)
		b[510], b[511] = 0x55, 0xaa
		for i, lba := range entries {
			b[446+16*i+4] = 0x83
			binary.LittleEndian.PutUint32(b[446+16*i+8:], lba)
		}
		return b
	}
	gpt := mbr(1)
	copy(gpt[512:], "EFI PART")
	binary.LittleEndian.PutUint64(gpt[512+72:], 2)
	binary.LittleEndian.PutUint32(gpt[512+80:], 128)
	binary.LittleEndian.PutUint32(gpt[512+84:], 128)
	for i, lba := range []uint64{60, 50} {
		entry := gpt[2*512+128*i:]
		entry[0] = 1
		binary.LittleEndian.PutUint64(entry[32:], lba)
	}
	lying := slices.Clone(gpt)
	binary.LittleEndian.PutUint64(lying[512+72:], 1<<60)
	for _, tc := range []struct {
		name string
		data []byte
		want int // blocks; 0 for no card
	}{
		{"none", make([]byte, 5000), 0},
		{"short", []byte{1}, 0},
		{"no partition", mbr(), 0},
		{"two", mbr(80, 40), 40},
		{"behind the end", mbr(200), 0},
		{"GPT", gpt, 50},
		{"GPT that lies", lying, 0},
	} {
		area, cut := bootArea(tc.data)
		if cut != (tc.want > 0) || cut && len(area) != tc.want*512 || !cut && len(area) != len(tc.data) {
			t.Errorf("%s: %d bytes, %v, want %d blocks", tc.name, len(area), cut, tc.want)
		}
	}
}

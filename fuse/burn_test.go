package fuse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"snag/event"
	"snag/recovery"
	"snag/sim/ocotp"
	"snag/sim/uboot"
	"snag/socs"
	"snag/usb/fastboot"
)

// board is a U-Boot with fuses, at the other end of a fastboot that loses nothing.
type board struct {
	*ocotp.Array
	*uboot.Machine
	recorded bool // the console is recorded
	ran      []string
}

func newBoard(t *testing.T, soc string) *board {
	t.Helper()
	a, err := ocotp.New(soc)
	if err != nil {
		t.Fatal(err)
	}
	b := &board{Array: a, recorded: true}
	b.Machine = &uboot.Machine{
		Env:       map[string]string{"soc": map[string]string{"imx6": "mx6", "imx7": "mx7", "imx8": "imx8m"}[soc[:4]]},
		Commands:  map[string]uboot.Command{"fuse": a.Command},
		Registers: a.Register,
		Reset:     a.Power,
	}
	return b
}

// bank are the words of a bank that are not zero.
func (b *board) bank(n int) map[int]uint32 {
	all := map[int]uint32{}
	for at, v := range b.Fuses() {
		if at.Bank == n {
			all[at.Word] = v
		}
	}
	return all
}

func (b *board) Run(ctx context.Context, line string, patience time.Duration) error {
	b.ran = append(b.ran, line)
	err := b.Machine.Run(ctx, line)
	if err == nil || ctx.Err() != nil || errors.Is(err, uboot.ErrReset) || errors.Is(err, errLost) {
		return err
	}
	return &fastboot.FailError{Command: "UCmd:" + line}
}

func (b *board) GetVar(_ context.Context, name string) (string, error) {
	if v := b.Getenv("fastboot." + name); v != "" {
		return v, nil
	}
	return "", &fastboot.FailError{Command: "getvar:" + name, Text: "Variable not implemented"}
}

func (b *board) Console(context.Context, string) ([]string, error) {
	if !b.recorded {
		return nil, &fastboot.FailError{Command: "oem console", Text: "Unsupported command"}
	}
	return b.Machine.Console(), nil
}

// errLost is an answer that does not come.
var errLost = errors.New("no answer: the device is gone")

// record is what was told.
type record struct {
	states []string // of the words, as "4 2 burnt"
	texts  []string
}

func (r *record) emit(body event.Body) {
	switch b := body.(type) {
	case event.Fuse:
		r.states = append(r.states, fmt.Sprintf("%d %d %s", b.Bank, b.Word, b.State))
	case event.Note:
		r.texts = append(r.texts, b.Text)
	case event.Warning:
		r.texts = append(r.texts, "warning: "+b.Text)
	}
}

// yes confirms.
func yes(context.Context) error { return nil }

func address(t *testing.T, s string) net.HardwareAddr {
	t.Helper()
	a, err := Address(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func plan(t *testing.T, soc string, addresses ...string) *Plan {
	t.Helper()
	var all []net.HardwareAddr
	for _, s := range addresses {
		all = append(all, address(t, s))
	}
	p, err := MAC(soc, all...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const (
	mac0 = "00:bb:cc:dd:ee:ff"
	mac1 = "00:22:33:44:55:66"
)

// Every SoC: the words are where its manual has them, are looked at, burnt, and there when it is looked again, after a
// reset and before.
func TestBurn(t *testing.T) {
	two := map[int]uint32{0: 0xccddeeff, 1: 0x556600bb, 2: 0x00223344}
	two6 := map[int]uint32{2: 0xccddeeff, 3: 0x556600bb, 4: 0x00223344}
	one := map[int]uint32{0: 0xccddeeff, 1: 0xbb}
	one6 := map[int]uint32{2: 0xccddeeff, 3: 0xbb}
	for _, tc := range []struct {
		soc, chip string
		addresses []string
		bank      int
		want      map[int]uint32
	}{
		{"imx8mp", "imx8mp", []string{mac0, mac1}, 9, two}, {"imx865", "imx8mp", []string{mac0}, 9, one},
		{"imx8mm", "imx8mm", []string{mac0}, 9, one}, {"imx8mn", "imx8mn", []string{mac0}, 9, one},
		{"imx7d", "imx7d", []string{mac0, mac1}, 9, two}, {"imx7s", "imx7d", []string{mac0}, 9, one},
		{"imx6q", "imx6q", []string{mac0}, 4, one6}, {"imx6dl", "imx6d", []string{mac0}, 4, one6}, {"imx6sl", "imx6sl", []string{mac0}, 4, one6},
		{"imx6sx", "imx6sx", []string{mac0, mac1}, 4, two6}, {"imx6ul", "imx6ul", []string{mac0, mac1}, 4, two6}, {"imx6ull", "imx6ull", []string{mac0, mac1}, 4, two6},
	} {
		for _, recorded := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, %d addresses, console %t", tc.soc, len(tc.addresses), recorded), func(t *testing.T) {
				b := newBoard(t, tc.chip)
				b.recorded = recorded
				p := plan(t, tc.soc, tc.addresses...)
				run := func(confirm func(context.Context) error, state string) {
					t.Helper()
					var r record
					if err := p.carryOut(t.Context(), b, r.emit, confirm); err != nil {
						t.Fatalf("%v\n%q", err, b.ran)
					}
					last := r.states[len(r.states)-len(p.Words):]
					for i, w := range p.Words {
						if want := fmt.Sprintf("%d %d %s", w.Bank, w.Word, state); last[i] != want {
							t.Errorf("%q, want %s", r.states, want)
						}
					}
				}
				run(nil, "to burn") // a dry run
				if n := len(b.Burnt()); n != 0 {
					t.Fatalf("a dry run burnt %d words", n)
				}
				run(yes, "burnt")
				run(yes, "there")
				b.Machine.Power()
				run(yes, "there")
				if got := b.bank(tc.bank); !maps.Equal(got, tc.want) {
					t.Errorf("bank %d: %#x, want %#x", tc.bank, got, tc.want)
				}
				if n := len(b.Burnt()); n != len(tc.want) {
					t.Errorf("%d burnings for %d words", n, len(tc.want))
				}
				if slices.ContainsFunc(b.ran, func(s string) bool { return strings.HasPrefix(s, "fuse prog") && !strings.Contains(s, "-y") }) {
					t.Errorf("without -y U-Boot asks on its console: %q", b.ran)
				}
			})
		}
	}
}

// What must not be burnt is not, nor is anything else then.
func TestRefuse(t *testing.T) {
	for _, tc := range []struct {
		name    string
		prepare func(*board)
		soc     string // of --soc
		want    []string
	}{
		{"a bit would have to become 0", func(b *board) { b.Burn(9, 0, 0x10000000) }, "", []string{"MAC_ADDR0 (bank 9 word 0) is burnt otherwise", "0x10000000 would have to be 0"}},
		{"a word is burnt in part", func(b *board) { b.Burn(9, 1, 0xbb) }, "", []string{"MAC_ADDR1", "in part", "lacks the bits 0x55660000"}},
		{"another address is there", func(b *board) { b.Burn(9, 0, 0x9f012345); b.Burn(9, 1, 0x0004) }, "", []string{"MAC_ADDR0", "MAC_ADDR1", "otherwise"}},
		{"locked", func(b *board) { b.Burn(0, 0, 1<<14) }, "", []string{"MAC_ADDR0 (bank 9 word 0) is empty and locked"}},
		{"another family's U-Boot", func(b *board) { b.Env["soc"] = "mx6" }, "", []string{"no imx865", "is for mx6"}},
		{"a SoC with a name like the family's", func(b *board) { b.Env["soc"] = "imx8ulp" }, "", []string{"is for imx8ulp"}},
		{"for another family's SoC", func(b *board) {}, "imx6sx", []string{"no imx6sx", "is for imx8m"}},
		{"the shadow registers were overridden", func(b *board) { b.Setenv("x", "y"); b.command("fuse override 9 2 0x1") }, "", []string{"MAC_ADDR2", "shadow register 0x00000001"}},
		{"the fuses change", func(b *board) {
			n := uint32(0)
			b.Hook = func(op ocotp.Op, bank, word int, v *uint32) error {
				if op == ocotp.Sense && bank == 9 && word == 2 {
					n++
					*v = n & 1
				}
				return nil
			}
		}, "", []string{"when read again"}},
		{"sensing fails", func(b *board) {
			b.Hook = func(op ocotp.Op, _, _ int, _ *uint32) error {
				if op == ocotp.Sense {
					return errors.New("disabled")
				}
				return nil
			}
		}, "", []string{"fuse sense 0x9 0x0"}},
		{"no command fuse", func(b *board) { delete(b.Commands, "fuse") }, "", []string{"fuse sense"}},
	} {
		for _, recorded := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, console %t", tc.name, recorded), func(t *testing.T) {
				b := newBoard(t, "imx8mp")
				b.recorded = recorded
				tc.prepare(b)
				soc := "imx8mp"
				if tc.soc != "" {
					soc = tc.soc
				}
				var r record
				err := plan(t, soc, mac0, mac1).carryOut(t.Context(), b, r.emit, yes)
				if _, ok := errors.AsType[*socs.BoardError](err); !ok {
					t.Fatalf("%v, want a BoardError", err)
				}
				for _, w := range tc.want {
					if !strings.Contains(err.Error(), w) {
						t.Errorf("%v\nwant %q", err, w)
					}
				}
				if n := b.Burnt(); len(n) > 0 {
					t.Errorf("burnt %#x", n)
				}
			})
		}
	}
}

// command runs a command of the board itself.
func (b *board) command(line string) {
	if err := b.Machine.Run(context.Background(), line); err != nil {
		panic(err)
	}
}

// U-Boot shows its fuses in neither way.
func TestNoWay(t *testing.T) {
	b := newBoard(t, "imx8mp")
	b.recorded = false
	b.Missing = []string{"setexpr"}
	var r record
	err := plan(t, "imx8mp", mac0).carryOut(t.Context(), b, r.emit, yes)
	if !errors.Is(err, errNoWay) || len(b.Burnt()) > 0 {
		t.Errorf("%v", err)
	}
}

func TestNotConfirmed(t *testing.T) {
	b := newBoard(t, "imx8mp")
	var r record
	no := errors.New("no")
	if err := plan(t, "imx8mp", mac0).carryOut(t.Context(), b, r.emit, func(context.Context) error { return no }); err != no || len(b.Burnt()) > 0 {
		t.Errorf("%v", err)
	}
}

// Who is asked types the first address, in whatever form, or nothing is burnt.
func TestConfirm(t *testing.T) {
	p := plan(t, "imx8mp", mac0, mac1)
	for typed, ok := range map[string]bool{mac0 + "\n": true, strings.ToUpper(mac0): true, mac1 + "\n": false, "yes\n": false, "\n" + mac0 + "\n": false, "": false} {
		var asked strings.Builder
		err := p.Confirm(t.Context(), "1-2", strings.NewReader(typed), &asked)
		if _, refused := errors.AsType[*recovery.UsageError](err); (err == nil) != ok || refused == ok || !strings.Contains(asked.String(), mac0) {
			t.Errorf("%q: %v", typed, err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(recovery.ErrInterrupted)
	in, never := io.Pipe()
	defer never.Close()
	if err := p.Confirm(ctx, "1-2", in, io.Discard); !errors.Is(err, recovery.ErrInterrupted) {
		t.Error(err)
	}
}

// The address whose word is zero needs no burning of it.
func TestZeroWord(t *testing.T) {
	b := newBoard(t, "imx8mm")
	var r record
	if err := plan(t, "imx8mm", "00:04:00:00:00:00").carryOut(t.Context(), b, r.emit, yes); err != nil {
		t.Fatal(err)
	}
	if got := b.Burnt(); len(got) != 1 || got[0] != (ocotp.Write{Place: ocotp.Place{Bank: 9, Word: 1}, Value: 4}) {
		t.Errorf("%#x", got)
	}
}

// The board goes away, or burns badly, at each word; what stands is told, and the next run goes on from there.
func TestMidway(t *testing.T) {
	words := []string{"MAC_ADDR0", "MAC_ADDR1", "MAC_ADDR2"}
	for at := range words {
		for _, tc := range []struct {
			name string
			hook func(b *board, v *uint32) error // of the burning of the word
			want string
			next string // of the word at the next run; empty: it is refused then
		}{
			{"lost before it is burnt", func(_ *board, v *uint32) error { *v = 0; return errLost }, "is not known", "burnt"},
			{"lost when it was burnt", func(*board, *uint32) error { return errLost }, "is not known", "there"},
			{"lost in the middle of it", func(_ *board, v *uint32) error { *v &= 0x00010001 << 1; return errLost }, "is not known", ""},
			{"burnt by halves", func(_ *board, v *uint32) error { *v &= 0xff; return nil }, "was burnt with", ""},
			{"not burnt at all", func(_ *board, v *uint32) error { *v = 0; return nil }, "was burnt with", "burnt"},
			{"refused", func(_ *board, v *uint32) error { *v = 0; return errors.New("refused") }, "FAIL", "burnt"},
		} {
			t.Run(words[at]+" "+tc.name, func(t *testing.T) {
				b := newBoard(t, "imx8mp")
				b.Hook = func(op ocotp.Op, bank, word int, v *uint32) error {
					if op == ocotp.Prog && word == at {
						return tc.hook(b, v)
					}
					return nil
				}
				p := plan(t, "imx8mp", "06:0b:0c:0d:0e:0f", "02:23:33:44:55:66")
				var r record
				err := p.carryOut(t.Context(), b, r.emit, yes)
				if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), words[at]) {
					t.Fatalf("%v, want %q of %s", err, tc.want, words[at])
				}
				if n := len(b.Burnt()); n != at+1 {
					t.Errorf("%d words burnt, want %d", n, at+1)
				}

				b.Hook = nil
				b.Machine.Power()
				r = record{}
				err = p.carryOut(t.Context(), b, r.emit, yes)
				state := r.states[len(r.states)-1]
				for _, s := range r.states {
					if strings.HasPrefix(s, fmt.Sprintf("9 %d ", at)) {
						state = s
					}
				}
				if tc.next == "" {
					if err == nil || len(b.Burnt()) != at+1 {
						t.Errorf("%v, burnt %#x; want a refusal", err, b.Burnt())
					}
					return
				}
				if err != nil || !strings.HasSuffix(state, tc.next) {
					t.Errorf("the next run: %v, %q, want %s", err, r.states, tc.next)
				}
				if got := b.bank(9); !maps.Equal(got, map[int]uint32{0: 0x0c0d0e0f, 1: 0x5566060b, 2: 0x02233344}) {
					t.Errorf("%#x", got)
				}
			})
		}
	}
}

// An interruption waits for the word at work, and keeps the next one from being burnt.
func TestInterrupted(t *testing.T) {
	b := newBoard(t, "imx8mp")
	stop := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	b.Hook = func(op ocotp.Op, _, _ int, _ *uint32) error {
		if op == ocotp.Prog {
			cancel(stop)
		}
		return nil
	}
	var r record
	err := plan(t, "imx8mp", mac0, mac1).carryOut(ctx, b, r.emit, yes)
	if !errors.Is(err, stop) || len(b.Burnt()) != 1 || r.states[len(r.states)-1] != "9 0 burnt" {
		t.Errorf("%v, %q", err, r.states)
	}
}

package am335x

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.bug.st/serial"

	"snag/event"
	"snag/sim/uart"
	"snag/socs"
)

// uartBoard is a board on an open tty, and what was told of it.
type uartBoard struct {
	mu     sync.Mutex
	events []event.Body
	stages []string
}

func (b *uartBoard) Next(context.Context) (*socs.Stage, error) { return nil, errors.New("not on UART") }

func (b *uartBoard) Emit(stage string, body event.Body) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events, b.stages = append(b.events, body), append(b.stages, stage)
}

// told is the events in short, progress once.
func (b *uartBoard) told() string {
	var out []string
	for i, e := range b.events {
		s := b.stages[i] + ":" + e.Kind()
		if len(out) == 0 || out[len(out)-1] != s {
			out = append(out, s)
		}
	}
	return strings.Join(out, " ")
}

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		f.Value.Set("6") // tests that run at once wait for serial lines, not for the processor
	}
	os.Exit(m.Run())
}

func TestUART(t *testing.T) {
	const ms = time.Millisecond
	fast := uart.Config{ROMPing: 50 * ms, SPLPing: 100 * ms}
	with := func(f uart.Faults) uart.Config {
		c := fast
		c.Faults = f
		return c
	}
	banner := fast
	banner.Banner = "\r\nCC U-Boot SPL CC\r\nCPU CCore Clock\r\nC\x06\x15\x00\xff\r\n"
	small := fast
	small.MaxSPL = 1000
	for _, tt := range []struct {
		name  string
		board uart.Config
		limit time.Duration // for the whole recovery
		err   string        // a part of the error; empty for success
		hint  string
	}{
		{"ideal", fast, time.Minute, "", ""},
		{"banner full of C", banner, time.Minute, "", ""},
		{"refused blocks", with(uart.Faults{Refuse: 9}), time.Minute, "", ""},
		{"noise", with(uart.Faults{Noise: 5}), time.Minute, "", ""},
		{"lost bytes", with(uart.Faults{LoseByte: 40009}), time.Minute, "", ""},
		{"reset in the first stage", with(uart.Faults{ResetROM: 20_000}), time.Minute, "", ""},
		{"reset in the second stage", with(uart.Faults{ResetSPL: 100_000}), time.Minute, "", ""},
		{"ROM gives up once", with(uart.Faults{CancelBlock: 3}), time.Minute, "cancelled the transfer", "raw u-boot-spl.bin"},
		{"SPL too large", small, time.Minute, "cancelled the transfer", "109 KiB"},
		{"silent ROM", with(uart.Faults{Silent: true}), 5 * time.Second, "expected the letter C 3 times in a row, got nothing", "UART boot mode"},
		{"boots from elsewhere", with(uart.Faults{Text: "Debian GNU/Linux 13 CPU\r\n"}), 5 * time.Second, "Debian GNU/Linux", "other media"},
		{"wrong baud", with(uart.Faults{Text: "\x80\x00\xf8\x00\x00\xfe"}), 5 * time.Second, `\xf8`, "--baudrate"},
		{"silent SPL", with(uart.Faults{SilentSPL: true}), 15 * time.Second, "got 103 bytes, 1 of them 'C'", "YMODEM"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			board, err := uart.Start(tt.board)
			if err != nil {
				t.Skipf("no pseudo-terminal: %v", err)
			}
			defer board.Close()
			port, err := serial.Open(board.TTY, &serial.Mode{BaudRate: 115200})
			if err != nil {
				t.Fatal(err)
			}
			defer port.Close()

			r := rand.NewChaCha8([32]byte{})
			spl, uboot := make([]byte, 34567), make([]byte, 287654) // block numbers wrap in both
			r.Read(spl)
			r.Read(uboot)
			b := &uartBoard{}
			job := socs.Job{Board: b, Firmware: socs.Firmware{
				slotSPL:   {Path: "fw/u-boot-spl.bin", Data: spl},
				slotUBoot: {Path: "fw/u-boot.img", Data: uboot},
			}}
			ctx, cancel := context.WithTimeout(t.Context(), tt.limit)
			defer cancel()
			err = recoverUART(ctx, job, &socs.Stage{Serial: port})
			if tt.err != "" {
				stuck, ok := errors.AsType[*socs.BoardError](err)
				if !ok || !strings.Contains(err.Error(), tt.err) || !strings.Contains(stuck.Hint, tt.hint) {
					t.Errorf("error %v\nhint %s\nwant %q, %q", err, fmt.Sprintf("%+v", stuck), tt.err, tt.hint)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			select {
			case <-board.Ended():
			case <-ctx.Done():
				t.Fatal("U-Boot does not start")
			}
			got := board.Received()
			if board.Err() != nil || !got.Done || got.UBootName != "u-boot.img" || !bytes.Equal(got.UBoot, uboot) {
				t.Errorf("U-Boot: error %v, name %q, %d bytes of %d, or they differ", board.Err(), got.UBootName, len(got.UBoot), len(uboot))
			}
			if !bytes.HasPrefix(got.SPL, spl) || len(got.SPL) >= len(spl)+128 {
				t.Errorf("SPL: %d bytes of %d, or they differ", len(got.SPL), len(spl))
			}
			if f := tt.board.Faults; f.ResetROM+f.ResetSPL > 0 {
				if !strings.Contains(b.told(), "rom:warning rom:board") {
					t.Errorf("told %s", b.told())
				}
				return
			}
			if want := "rom:board rom:stage rom:progress rom:stage_done spl:board spl:stage spl:progress spl:stage_done"; b.told() != want {
				t.Errorf("told %s\nwant %s", b.told(), want)
			}
			last := b.events[len(b.events)-2].(event.Progress)
			done := b.events[len(b.events)-1].(event.StageDone).Summary
			if last.Bytes != last.Total || last.Total != int64(len(uboot)) || last.Rate <= 0 || done.Bytes != last.Bytes {
				t.Errorf("last progress %+v, summary %+v", last, done)
			}
			if f := tt.board.Faults; f == (uart.Faults{}) && done.Retries > 0 || f.Refuse+f.LoseByte > 0 && done.Retries == 0 {
				t.Errorf("%d retries", done.Retries)
			}
		})
	}
}

// unpluggedBoard loses its line with the first bytes that are through.
type unpluggedBoard struct {
	uartBoard
	unplug func()
}

func (b *unpluggedBoard) Emit(stage string, body event.Body) {
	b.uartBoard.Emit(stage, body)
	if _, ok := body.(event.Progress); ok {
		b.unplug()
	}
}

// A serial adapter that is unplugged in the middle is no fault of the board's.
func TestUARTUnplugged(t *testing.T) {
	board, err := uart.Start(uart.Config{ROMPing: 50 * time.Millisecond})
	if err != nil {
		t.Skipf("no pseudo-terminal: %v", err)
	}
	port, err := serial.Open(board.TTY, &serial.Mode{BaudRate: 115200})
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	b := &unpluggedBoard{unplug: sync.OnceFunc(func() { board.Close() })}
	begun := time.Now()
	err = recoverUART(t.Context(), socs.Job{Board: b, Firmware: socs.Firmware{
		slotSPL:   {Path: "u-boot-spl.bin", Data: make([]byte, 30_000)},
		slotUBoot: {Path: "u-boot.img", Data: make([]byte, 1000)},
	}}, &socs.Stage{Serial: port})
	stuck, ok := errors.AsType[*socs.BoardError](err)
	if !ok || stuck.Stage != stageROM || !strings.Contains(err.Error(), "128 of 30000 bytes") || !strings.Contains(stuck.Hint, "serial adapter still plugged in") {
		t.Errorf("%v, %+v", err, stuck)
	}
	if took := time.Since(begun); took > 9*time.Second { // an answer is awaited for 10
		t.Errorf("it took %v", took)
	}
}

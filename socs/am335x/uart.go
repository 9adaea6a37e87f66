package am335x

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"snag/event"
	"snag/internal/xmodem"
	"snag/socs"
	"snag/socs/stages"
)

// The UART boot of the ROM (SPRUH73, 26.1.8.5) and of U-Boot SPL (common/spl/spl_ymodem.c): 115200 8N1, the
// receiver pings with 'C', the ROM about every 3 s, SPL about every 5 s.
const (
	// pings in a row start a transfer: SPL's banner holds a C ("CPU"), which must not.
	pings = 3
	// pingTimeout is how long the SPL may take to ask for U-Boot. Some 45 s after its first ping it
	// stops asking for CRCs.
	pingTimeout = 30 * time.Second
	// Blocks of 128 bytes are what the ROM is known to take (Snagboot sends them); SPRUH73 names
	// XMODEM-1K, which would save 2 s. A refused block could not be told from a damaged one, so there is no trying.
	romBlock = xmodem.Block128
	// U-Boot's receiver takes both; with 1024 bytes there are eight times fewer turns of the line.
	splBlock = xmodem.Block1K
)

// recoverUART recovers a board over its serial line, which carries all of its stages: the first file by
// XMODEM to the ROM, the second by YMODEM to SPL. The board may be switched on as long as ctx
// lasts. A board that stands at its SPL stage looks like one at its ROM stage and must be reset.
func recoverUART(ctx context.Context, job socs.Job, stage *socs.Stage) error {
	u := uartLink{
		Sender: xmodem.NewSender(stage.Serial),
		board:  job.Board,
	}
	for ; ; u.resets++ {
		err := u.stages(ctx, job.Firmware[slotSPL], job.Firmware[slotUBoot])
		if !errors.Is(err, xmodem.ErrAnew) || u.resets == maxResets {
			return err
		}
		u.board.Emit(stageROM, event.Warning{Text: "the board was reset in the middle of a file: starting over"})
	}
}

// maxResets is how often a board may begin anew.
const maxResets = 2

// stages sends the files.
func (u uartLink) stages(ctx context.Context, spl, uboot socs.Image) error {
	err := u.stage(ctx, stageROM, spl, "XMODEM", func(ctx context.Context, o xmodem.Options) error {
		o.BlockSize = romBlock
		return u.SendXMODEM(ctx, spl.Data, o)
	})
	if err != nil {
		return err
	}
	return u.stage(ctx, stageSPL, uboot, "YMODEM", func(ctx context.Context, o xmodem.Options) error {
		o.BlockSize = splBlock
		return u.SendYMODEM(ctx, filepath.Base(uboot.Path), uboot.Data, o)
	})
}

// uartLink is a board on a serial line.
type uartLink struct {
	*xmodem.Sender
	board  socs.Board
	resets int // of the board, since the recovery began
}

// stage waits until the board asks for a file and sends it.
func (u uartLink) stage(ctx context.Context, stage string, image socs.Image, protocol string,
	send func(context.Context, xmodem.Options) error) error {

	retries := u.Retries()
	if err := u.awaitPings(ctx, stage, image.Path); err != nil {
		return err
	}
	u.board.Emit(stage, event.BoardSeen{})
	t := stages.Begin(u.board, stage, image.Path, len(image.Data))
	if err := send(ctx, xmodem.Options{Progress: t.At}); err != nil {
		return &socs.BoardError{
			Stage: stage,
			Err:   fmt.Errorf("send %s by %s: %w", image.Path, protocol, err),
			Hint:  sendHint(stage, err),
		}
	}
	t.Retries = u.Retries() - retries
	t.Done()
	return nil
}

// awaitPings waits for the ROM as long as ctx lasts, for SPL and after a reset no longer than pingTimeout.
func (u uartLink) awaitPings(ctx context.Context, stage, file string) error {
	rom := stage == stageROM
	if !rom || u.resets > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, pingTimeout)
		defer cancel()
	}
	// What the line held before it was opened may be years old.
	err := u.AwaitPings(ctx, pings, rom)
	silence, ok := errors.AsType[*xmodem.SilenceError](err)
	switch {
	case err == nil || errors.Is(err, context.Canceled):
		return err
	case !ok:
		return &socs.BoardError{Stage: stage, Err: fmt.Errorf("wait until the board asks for %s: %w", file, err),
			Hint: "is the serial adapter still plugged in?"}
	}
	return &socs.BoardError{
		Stage: stage,
		Err:   fmt.Errorf("wait until the board asks for %s: expected the letter C %d times in a row, got %s", file, pings, silence.Got()),
		Hint:  silenceHint(rom, silence),
	}
}

func silenceHint(rom bool, s *xmodem.SilenceError) string {
	switch {
	case s.NAKs >= pings:
		return "the receiver has fallen back to checksums, which is what U-Boot's SPL does when it waited for long: reset the board and start again"
	case rom && s.Bytes == 0:
		return "is the line the board's UART0, is TX wired to RX, and is the board in UART boot mode " +
			"(BeagleBone: no SD card, hold S2 while switching the power on; a reset does not sample the boot pins again)?"
	case rom && s.Pings > 0 && s.Pings == s.Bytes:
		return "the board asks, but stopped or is slow: let it ask for longer (--timeout), or reset it"
	case rom && printable(s.Last):
		return "the board speaks but does not ask for a file: it boots from other media; " +
			"remove the SD card, hold the boot button while switching the power on"
	case rom:
		return "the line is not readable: the ROM speaks at 115200 baud (--baudrate), 8N1, at 3.3 V levels"
	case s.Bytes == 0:
		return "the SPL did not start or is silent: is it built for this board, and is its console on this UART?"
	}
	return "the SPL started but does not ask for U-Boot: it needs CONFIG_SPL_YMODEM_SUPPORT"
}

func sendHint(stage string, err error) string {
	switch {
	case errors.Is(err, context.Canceled):
		return ""
	case errors.Is(err, xmodem.ErrLine):
		return "is the serial adapter still plugged in? Plug it in again, reset the board and start again"
	case errors.Is(err, xmodem.ErrCancelled) && stage == stageROM:
		return "the ROM refuses the file: is it a raw u-boot-spl.bin (no MLO) that fits its 109 KiB?"
	}
	return "reset the board and start again; if that does not help, shorten the cable, close other programs on the line " +
		"and build the SPL with CONFIG_SPL_SILENT_CONSOLE"
}

// printable reports whether b is mostly text.
func printable(b []byte) bool {
	n := 0
	for _, c := range b {
		if c >= ' ' && c < 0x7f || c == '\r' || c == '\n' {
			n++
		}
	}
	return n*10 >= len(b)*9
}

package progress_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"snag/event"
	"snag/event/progress"
)

// Progress is told ten times a second, the end once, and the file's end as its user has it.
func TestTransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		emit := func(stage string, body event.Body) {
			s := stage + ": "
			switch body := body.(type) {
			case event.StageBegun:
				s += fmt.Sprintf("%s, %d bytes", body.File, body.Bytes)
			case event.Progress:
				s += fmt.Sprintf("%d of %d, %.0f/s", body.Bytes, body.Total, body.Rate)
			case event.StageDone:
				s += fmt.Sprintf("%d in %s, %d retries", body.Summary.Bytes, body.Summary.Duration, body.Summary.Retries)
			}
			told = append(told, s)
		}
		want := func(texts ...string) {
			t.Helper()
			if !slices.Equal(told, texts) {
				t.Errorf("told %q, want %q", told, texts)
			}
			told = nil
		}
		since := time.Now()
		time.Sleep(time.Second)
		spl := progress.Begin(emit, "spl", "u-boot.img", 1000)
		for n := 0; n <= 1000; n += 100 {
			spl.At(n)
			time.Sleep(50 * time.Millisecond)
		}
		spl.Since, spl.Retries = since, 2
		spl.Done()
		want("spl: u-boot.img, 1000 bytes", "spl: 0 of 1000, 0/s", "spl: 200 of 1000, 2000/s", "spl: 400 of 1000, 2000/s", "spl: 600 of 1000, 2000/s",
			"spl: 800 of 1000, 2000/s", "spl: 1000 of 1000, 2000/s", "spl: 1000 in 1.55s, 2 retries")

		rom := progress.Begin(emit, "rom", "flash.bin", 1000)
		rom.At(900)
		rom.Total = 900 // it wants no more
		time.Sleep(time.Second)
		rom.Done()
		want("rom: flash.bin, 1000 bytes", "rom: 900 of 1000, 900000/s", "rom: 900 of 900, 900/s", "rom: 900 in 1s, 0 retries")

		disk := progress.Begin(emit, "disk", "disk.img.zst", int64(-1)) // its end will tell
		for n := range int64(4) {
			time.Sleep(50 * time.Millisecond)
			disk.At(n << 32)
		}
		disk.Total = 3 << 32
		disk.Done()
		want("disk: disk.img.zst, -1 bytes", "disk: 0 of -1, 0/s", "disk: 8589934592 of -1, 57266230613/s",
			"disk: 12884901888 of 12884901888, 64424509440/s", "disk: 12884901888 in 200ms, 0 retries")
	})
}

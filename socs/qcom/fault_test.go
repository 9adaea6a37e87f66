package qcom_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"snag/event"
	"snag/recovery"
	"snag/sim/inproc"
	"snag/sim/qcom"
	"snag/socs"
	backend "snag/socs/qcom"
	"snag/socs/socstest"
	"snag/usb"
)

// A board that is wrong ends the recovery in time, and the error says what was expected, what came, and what to do; or
// the recovery gets over it.
func TestFaults(t *testing.T) {
	const (
		soon = 2 * time.Second
		mute = 11 * time.Second // 10 s for a packet
		away = 35 * time.Second
	)
	for _, tc := range []struct {
		fault string // several, by space
		code  int
		says  string        // the error, or else the events
		most  time.Duration // of the whole recovery
	}{
		// In the place of the first HELLO.
		{fault: "error:rom:hello:2", code: 6, says: "the board refuses what it was told: status 0x2, protocol mismatch", most: soon},
		{fault: "cut:rom:hello", code: 6, says: "no Sahara packet: HELLO says that it has 48 bytes, 24 came", most: soon},
		{fault: "short:rom:hello", code: 6, says: "no Sahara packet: expected 8 bytes at least, got 4: 01 00 00 00", most: soon},
		{fault: "long:rom:hello", code: 6, says: "HELLO says that it has 48 bytes, 64 came", most: soon},
		{fault: "lie:rom:hello", code: 6, says: "HELLO says that it has 56 bytes, 48 came", most: soon},
		{fault: "wrong:rom:hello", code: 6, says: "no Sahara packet: command 0x99, which is not known, in 48 bytes: 99 00 00 00 30", most: soon},
		{fault: "debug:rom:hello", code: 6, says: "the board holds a crash dump", most: soon},
		{fault: "range:rom:hello", code: 6, says: "the board asks for 512 bytes at 0xffffff00 of xbl, which has", most: soon},
		{fault: "again:rom:hello", code: 6, says: "the board asks for the same bytes of xbl again and again", most: 10 * time.Second},
		{fault: "nak:rom:hello:1s", most: 3 * time.Second},
		{fault: "nak:rom:hello:3s", says: "warning: the board has said nothing for 2s: its HELLO may have been read by another program", most: 6 * time.Second},
		{fault: "hang:rom:hello", code: 6, says: "no HELLO within 10s", most: mute},
		{fault: "reset:rom:hello", most: 3 * time.Second},

		// At READ_DATA, or in the middle of the data.
		{fault: "error:rom:100000:13", code: 6, says: "the board refuses xbl (xbl.bin): status 0xd, error reading data", most: soon},
		{fault: "cut:rom:0 cut:rom:0", code: 6, says: "HELLO says", most: soon},
		{fault: "cut:rom:64", code: 6, says: "READ_DATA says that it has 20 bytes, 10 came", most: soon},
		{fault: "short:rom:64", code: 6, says: "expected 8 bytes at least, got 4: 03 00 00 00", most: soon},
		{fault: "long:rom:64", code: 6, says: "READ_DATA says that it has 20 bytes, 36 came", most: soon},
		{fault: "lie:xbl:64", code: 6, says: "READ_DATA says that it has 28 bytes, 20 came", most: soon},
		{fault: "wrong:rom:64", code: 6, says: "command 0x99", most: soon},
		{fault: "other:rom:64", code: 6, says: "READ_DATA of image 99, 224 bytes at 0x40 in the middle of image 13", most: soon},
		{fault: "range:rom:64", code: 6, says: "the board asks for 512 bytes at 0xffffff00 of xbl, which has 411", most: soon},
		{fault: "again:rom:64", code: 6, says: "the board asks for the same bytes of xbl again and again", most: 10 * time.Second},
		{fault: "hello:rom:64", says: "warning: the board says HELLO in the middle of xbl: starting over", most: soon},
		{fault: "hello:rom:64 hello:rom:100 hello:rom:200", code: 6, says: "the board asks for xbl once more, after it had begun with it 3 times", most: soon},
		{fault: "debug:rom:64", code: 6, says: "the board holds a crash dump, and offers it (memory debug mode)", most: soon},
		{fault: "early:rom:64", code: 6, says: "the next stage did not appear", most: away},
		{fault: "nak:rom:100000", most: 5 * time.Second},
		{fault: "hang:rom:100000", code: 6, says: "USB stream on endpoint 0x01 of 05c6:9008 on port 213-1: context deadline exceeded", most: mute},
		{fault: "hang:rom:64", code: 6, says: "the board has said nothing for 10s", most: mute},
		{fault: "stall:rom:64", code: 6, says: "endpoint stalled", most: soon},
		{fault: "stall:rom:100000", code: 6, says: "endpoint stalled", most: soon},
		{fault: "unplug:rom:100000", code: 6, says: "did not come back within 15s", most: 16 * time.Second},
		{fault: "reset:rom:100000", says: "warning: the board asks for xbl again: starting over", most: 3 * time.Second},
		{fault: "reset:rom:1000 reset:rom:2000 reset:rom:3000", code: 6, says: "the board asks for xbl once more, after it had begun with it 3 times", most: 4 * time.Second},

		// At the end of an image.
		{fault: "error:rom:end:0x21", code: 6, says: "the board refuses xbl (xbl.bin): status 0x21, authentication of the hash table failed", most: soon},
		{fault: "error:rom:end:0x99", code: 6, says: "status 0x99, which is not known", most: soon},
		{fault: "cut:rom:end", code: 6, says: "END_IMAGE_TX says that it has 16 bytes, 8 came", most: soon},
		{fault: "other:rom:end", code: 6, says: "the end of image 99 in the middle of image 13", most: soon},
		{fault: "hello:rom:end", says: "HELLO in the middle of xbl", most: soon},
		{fault: "hang:rom:end", code: 6, says: "the board has said nothing for 10s", most: mute},
		{fault: "unplug:rom:end", code: 6, says: "did not come back within 15s", most: 16 * time.Second},
		{fault: "reset:xbl:end", says: "warning: the board asks for xbl again: starting over", most: 4 * time.Second},
		{fault: "error:rom:done:1", code: 6, says: "the board refuses what it was told: status 0x1, invalid command in this state", most: soon},
		{fault: "cut:rom:done", code: 6, says: "expected 8 bytes at least, got 6", most: soon},
		{fault: "wrong:rom:done", code: 6, says: "command 0x99", most: soon},
		{fault: "hang:rom:done", code: 6, says: "the board has said nothing for 10s", most: mute},
		{fault: "unplug:rom:done", code: 6, says: "the next stage did not appear on port 213-1 within 30s", most: away},
		{fault: "early:xbl:done", code: 0, says: "taking that for success", most: 3 * time.Second},

		// XBL.
		{fault: "error:xbl:end:0x25", code: 6, says: "the board refuses u-boot (u-boot.bin): status 0x25, authentication of the image failed", most: 3 * time.Second},
		{fault: "error:xbl:hello:0x24", code: 6, says: "the board refuses what it was told: status 0x24", most: 3 * time.Second},
		{fault: "other:xbl:64", code: 6, says: "READ_DATA of image 99, 168 bytes at 0x40 in the middle of image 5", most: 3 * time.Second},
		{fault: "hang:xbl:hello", code: 6, says: "the board has not asked for u-boot within 30s", most: away},
		{fault: "nak:xbl:hello:25s", most: 28 * time.Second},
		{fault: "hang:xbl:100000", code: 6, says: "context deadline exceeded", most: 12 * time.Second},
		{fault: "unplug:xbl:100000", code: 6, says: "did not come back within 15s", most: 18 * time.Second},
		{fault: "reset:xbl:100000", says: "warning: the board asks for xbl again: starting over", most: 4 * time.Second},
	} {
		t.Run(tc.fault, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := qcom.Config{Faults: socstest.Faults(t, qcom.ParseFault, tc.fault)}
				o := attempt(t, inproc.New(), port, cfg, files(cfg, qcom.Generate(300_000, 1)), nil)
				o.Ends(t, tc.code, tc.says, tc.most)
				for _, v := range o.Report.Violations {
					t.Errorf("the host did wrong: %s", v.Text)
				}
			})
		})
	}
}

// What a board may be doing instead of waiting for an image.
func TestModes(t *testing.T) {
	for name, tc := range map[string]struct {
		cfg  qcom.Config
		fw   func(socs.Firmware)
		says string
		hint string
		most time.Duration
	}{
		"crash dump":     {cfg: qcom.Config{Mode: qcom.Dump}, says: "the board holds a crash dump", hint: "power-cycle the board into EDL", most: time.Second},
		"firehose":       {cfg: qcom.Config{Mode: qcom.Firehose}, says: "expected Sahara, got Firehose", hint: "power-cycle", most: 3 * time.Second},
		"does not start": {cfg: qcom.Config{Never: "xbl"}, says: "the board has not asked for u-boot within 30s", hint: "the first stage does not start", most: 32 * time.Second},
		"wants no u-boot": {cfg: qcom.Config{Single: true}, fw: func(fw socs.Firmware) { fw["u-boot"] = fw["xbl"] },
			says: "the board has not asked for u-boot within 30s", hint: "wants nothing more", most: 32 * time.Second},
		"other ids": {cfg: qcom.Config{IDs: [2]uint32{21, 5}}, says: "the board asks for image 21, and there is none, xbl has 13, u-boot has 5", hint: "image_id", most: time.Second},
		"swapped":   {cfg: qcom.Config{IDs: [2]uint32{13, 7}}, says: "the board asks for image 7, and there is none", hint: "image_id", most: 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fw := files(qcom.Config{}, qcom.Generate(1000, 1))
				if tc.fw != nil {
					tc.fw(fw)
					x := fw["u-boot"]
					x.Params = map[string]any{"image_id": 5}
					fw["u-boot"] = x
				}
				o := attempt(t, inproc.New(), port, tc.cfg, fw, nil)
				o.Bad(t, 6, tc.says)
				if hint := recovery.Hint(o.Err); !strings.Contains(hint, tc.hint) {
					t.Errorf("hint %q, want %q", hint, tc.hint)
				}
				if o.Took > tc.most {
					t.Errorf("it took %s", o.Took)
				}
			})
		})
	}
}

// Without u-boot the board may have enough, or ask for it.
func TestXBLAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fw := files(qcom.Config{Single: true}, qcom.Generate(1000, 1))
		board, err := qcom.New(qcom.Config{})
		if err != nil {
			t.Fatal(err)
		}
		host := inproc.New()
		ctx, unplug := socstest.Plug(t, host.Port(port), board)
		defer unplug()
		a := socstest.Try(ctx, host, recovery.Options{Backend: backend.Backend{}, Model: socstest.Model(t, "iq9075"), Port: port, Firmware: fw})
		if a.Err != nil || !strings.Contains(a.Texts(), "the board may wait for another image, of which none was given") {
			t.Errorf("%v\n%s", a.Err, a.Texts())
		}
	})
}

// The configuration's numbers count, not the usual ones.
func TestImageIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		images := qcom.Generate(1000, 1)
		fw := socs.Firmware{
			"xbl":    {Path: "a", Data: images.XBL, Params: map[string]any{"image_id": 21}},
			"u-boot": {Path: "b", Data: images.MBN, Params: map[string]any{"image_id": 13}},
		}
		attempt(t, inproc.New(), port, qcom.Config{IDs: [2]uint32{21, 13}}, fw, nil).Good(t)
	})
}

// Files that the board finds out to be wrong. They are refused before it is touched, if that can be seen, else the board's words are told.
func TestBadFiles(t *testing.T) {
	images := qcom.Generate(300_000, 1)
	bare := noHashes(images.XBL)
	for name, tc := range map[string]struct {
		xbl  []byte
		cfg  qcom.Config
		says string
	}{
		"no hash segment": {bare, qcom.Config{Signed: true}, "status 0x23, no hash table in the ELF file"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fw := files(qcom.Config{}, images)
				fw["xbl"] = socs.Image{Path: "xbl.elf", Data: tc.xbl}
				o := attempt(t, inproc.New(), port, tc.cfg, fw, nil)
				o.Bad(t, 6, tc.says)
				if !strings.Contains(recovery.Hint(o.Err), "not signed") {
					t.Error(recovery.Hint(o.Err))
				}
			})
		})
	}
}

// Two boards on one host do not disturb each other.
func TestTwoBoards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, fw := inproc.New(), files(qcom.Config{}, qcom.Generate(1_000_000, 1))
		results := make(chan *socstest.Outcome[qcom.Report])
		for i := range 2 {
			go func() {
				results <- attempt(t, host, usb.Port(fmt.Sprintf("214-%d", i+1)), qcom.Config{}, maps.Clone(fw), nil)
			}()
		}
		for range 2 {
			(<-results).Good(t)
		}
	})
}

// Progress never goes back within a stage, and each image is a stage.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fw := files(qcom.Config{}, qcom.Generate(2_000_000, 1))
		o := attempt(t, inproc.New(), port, qcom.Config{}, fw, func(opt *recovery.Options) { opt.Expect = usb.ID{} })
		o.Good(t)
		var last event.Progress
		var stages []string
		for _, e := range o.Events {
			switch b := e.Body.(type) {
			case event.StageBegun:
				last = event.Progress{}
				stages = append(stages, fmt.Sprintf("%s %s", e.Stage, b.File))
			case event.Progress:
				if b.Bytes < last.Bytes || b.Bytes > b.Total {
					t.Errorf("%+v after %+v", b, last)
				}
				last = b
			case event.StageDone:
				if s := b.Summary; s.Stage != e.Stage || s.Bytes < 2_000_000 || s.Retries != 0 || last.Bytes != s.Bytes {
					t.Errorf("%+v, after %+v", s, last)
				}
			}
		}
		if fmt.Sprint(stages) != "[rom xbl.bin xbl u-boot.bin]" {
			t.Errorf("stages %q", stages)
		}
	})
}

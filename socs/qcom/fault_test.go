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
	"snag/sim/virtual"
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
	socstest.Play(t, qcom.ParseFault, []socstest.Case[qcom.Config]{
		// In the place of the first HELLO.
		{Faults: "error:rom:hello:2", Code: 6, Says: "the board refuses what it was told: status 0x2, protocol mismatch", Most: soon},
		{Faults: "cut:rom:hello", Code: 6, Says: "no Sahara packet: HELLO says that it has 48 bytes, 24 came", Most: soon},
		{Faults: "short:rom:hello", Code: 6, Says: "no Sahara packet: expected 8 bytes at least, got 4: 01 00 00 00", Most: soon},
		{Faults: "long:rom:hello", Code: 6, Says: "HELLO says that it has 48 bytes, 64 came", Most: soon},
		{Faults: "lie:rom:hello", Code: 6, Says: "HELLO says that it has 56 bytes, 48 came", Most: soon},
		{Faults: "wrong:rom:hello", Code: 6, Says: "no Sahara packet: command 0x99, which is not known, in 48 bytes: 99 00 00 00 30", Most: soon},
		{Faults: "debug:rom:hello", Code: 6, Says: "the board holds a crash dump", Most: soon},
		{Faults: "range:rom:hello", Code: 6, Says: "the board asks for 512 bytes at 0xffffff00 of xbl, which has", Most: soon},
		{Faults: "again:rom:hello", Code: 6, Says: "the board asks for the same bytes of xbl again and again", Most: 10 * time.Second},
		{Faults: "nak:rom:hello:1s", Most: 3 * time.Second},
		{Faults: "nak:rom:hello:3s", Says: "warning: the board has said nothing for 2s: its HELLO may have been read by another program", Most: 6 * time.Second},
		{Faults: "hang:rom:hello", Code: 6, Says: "no HELLO within 10s", Most: mute},
		{Faults: "reset:rom:hello", Most: 3 * time.Second},

		// At READ_DATA, or in the middle of the data.
		{Faults: "error:rom:100000:13", Code: 6, Says: "the board refuses xbl (xbl.bin): status 0xd, error reading data", Most: soon},
		{Faults: "cut:rom:0 cut:rom:0", Code: 6, Says: "HELLO says", Most: soon},
		{Faults: "cut:rom:64", Code: 6, Says: "READ_DATA says that it has 20 bytes, 10 came", Most: soon},
		{Faults: "short:rom:64", Code: 6, Says: "expected 8 bytes at least, got 4: 03 00 00 00", Most: soon},
		{Faults: "long:rom:64", Code: 6, Says: "READ_DATA says that it has 20 bytes, 36 came", Most: soon},
		{Faults: "lie:xbl:64", Code: 6, Says: "READ_DATA says that it has 28 bytes, 20 came", Most: soon},
		{Faults: "wrong:rom:64", Code: 6, Says: "command 0x99", Most: soon},
		{Faults: "other:rom:64", Code: 6, Says: "READ_DATA of image 99, 224 bytes at 0x40 in the middle of image 13", Most: soon},
		{Faults: "range:rom:64", Code: 6, Says: "the board asks for 512 bytes at 0xffffff00 of xbl, which has 411", Most: soon},
		{Faults: "again:rom:64", Code: 6, Says: "the board asks for the same bytes of xbl again and again", Most: 10 * time.Second},
		{Faults: "hello:rom:64", Says: "warning: the board says HELLO in the middle of xbl: starting over", Most: soon},
		{Faults: "hello:rom:64 hello:rom:100 hello:rom:200", Code: 6, Says: "the board asks for xbl once more, after it had begun with it 3 times", Most: soon},
		{Faults: "debug:rom:64", Code: 6, Says: "the board holds a crash dump, and offers it (memory debug mode)", Most: soon},
		{Faults: "early:rom:64", Code: 6, Says: "the next stage did not appear", Most: away},
		{Faults: "nak:rom:100000", Most: 5 * time.Second},
		{Faults: "hang:rom:100000", Code: 6, Says: "USB stream on endpoint 0x01 of 05c6:9008 on port 213-1: context deadline exceeded", Most: mute},
		{Faults: "hang:rom:64", Code: 6, Says: "the board has said nothing for 10s", Most: mute},
		{Faults: "stall:rom:64", Code: 6, Says: "endpoint stalled", Most: soon},
		{Faults: "stall:rom:100000", Code: 6, Says: "endpoint stalled", Most: soon},
		{Faults: "unplug:rom:100000", Code: 6, Says: "did not come back within 15s", Most: 16 * time.Second},
		{Faults: "reset:rom:100000", Says: "warning: the board asks for xbl again: starting over", Most: 3 * time.Second},
		{Faults: "reset:rom:1000 reset:rom:2000 reset:rom:3000", Code: 6, Says: "the board asks for xbl once more, after it had begun with it 3 times", Most: 4 * time.Second},

		// At the end of an image.
		{Faults: "error:rom:end:0x21", Code: 6, Says: "the board refuses xbl (xbl.bin): status 0x21, authentication of the hash table failed", Most: soon},
		{Faults: "error:rom:end:0x99", Code: 6, Says: "status 0x99, which is not known", Most: soon},
		{Faults: "cut:rom:end", Code: 6, Says: "END_IMAGE_TX says that it has 16 bytes, 8 came", Most: soon},
		{Faults: "other:rom:end", Code: 6, Says: "the end of image 99 in the middle of image 13", Most: soon},
		{Faults: "hello:rom:end", Says: "HELLO in the middle of xbl", Most: soon},
		{Faults: "hang:rom:end", Code: 6, Says: "the board has said nothing for 10s", Most: mute},
		{Faults: "unplug:rom:end", Code: 6, Says: "did not come back within 15s", Most: 16 * time.Second},
		{Faults: "reset:xbl:end", Says: "warning: the board asks for xbl again: starting over", Most: 4 * time.Second},
		{Faults: "error:rom:done:1", Code: 6, Says: "the board refuses what it was told: status 0x1, invalid command in this state", Most: soon},
		{Faults: "cut:rom:done", Code: 6, Says: "expected 8 bytes at least, got 6", Most: soon},
		{Faults: "wrong:rom:done", Code: 6, Says: "command 0x99", Most: soon},
		{Faults: "hang:rom:done", Code: 6, Says: "the board has said nothing for 10s", Most: mute},
		{Faults: "unplug:rom:done", Code: 6, Says: "the next stage did not appear on port 213-1 within 30s", Most: away},
		{Faults: "early:xbl:done", Code: 0, Says: "taking that for success", Most: 3 * time.Second},

		// XBL.
		{Faults: "error:xbl:end:0x25", Code: 6, Says: "the board refuses u-boot (u-boot.bin): status 0x25, authentication of the image failed", Most: 3 * time.Second},
		{Faults: "error:xbl:hello:0x24", Code: 6, Says: "the board refuses what it was told: status 0x24", Most: 3 * time.Second},
		{Faults: "other:xbl:64", Code: 6, Says: "READ_DATA of image 99, 168 bytes at 0x40 in the middle of image 5", Most: 3 * time.Second},
		{Faults: "hang:xbl:hello", Code: 6, Says: "the board has not asked for u-boot within 30s", Most: away},
		{Faults: "nak:xbl:hello:25s", Most: 28 * time.Second},
		{Faults: "hang:xbl:100000", Code: 6, Says: "context deadline exceeded", Most: 12 * time.Second},
		{Faults: "unplug:xbl:100000", Code: 6, Says: "did not come back within 15s", Most: 18 * time.Second},
		{Faults: "reset:xbl:100000", Says: "warning: the board asks for xbl again: starting over", Most: 4 * time.Second},
	}, func(t *testing.T, _ socstest.Case[qcom.Config], faults []virtual.Fault) *socstest.Outcome[qcom.Report] {
		cfg := qcom.Config{Faults: faults}
		o := attempt(t, inproc.New(), port, cfg, files(cfg, qcom.Generate(300_000, 1)), nil)
		for _, v := range o.Report.Violations {
			t.Errorf("the host did wrong: %s", v.Text)
		}
		return o
	})
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

// Files that the board finds out to be wrong. They are refused before it is touched, if that can be seen, else the
// board's words are told.
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

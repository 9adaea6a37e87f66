// Package am335x recovers boards with TI's AM335x, and AM43xx, whose boot ROM does the same.
//
// Over USB the ROM is an RNDIS network device: it broadcasts BOOTP, fetches the first stage (U-Boot
// SPL, without any header) by TFTP and jumps to it. SPL comes back as another network device and
// fetches u-boot.img the same way. Over UART the ROM takes SPL by XMODEM, SPL takes U-Boot by YMODEM.
//
// Sources: TI AM335x TRM (SPRUH73), chapter 26 "Initialization"; U-Boot, common/spl/spl_net.c,
// net/bootp.c, net/tftp.c, drivers/usb/gadget/ether.c.
package am335x

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"snag/event"
	"snag/netboot"
	"snag/socs"
	"snag/usb"
)

// The stages, as events and errors name them.
const (
	stageROM = "rom" // the ROM fetches slotSPL
	stageSPL = "spl" // SPL fetches slotUBoot
)

// Deadlines. The ROM's pauses between BOOTP requests were seen to be up to 46.5 s, and its
// whole transfer may take 60 s; SPL asks for 53 s before it gives up.
const (
	romRequest  = 130 * time.Second // from the link coming up to the ROM's first request
	splRequest  = 75 * time.Second  // and to SPL's
	stalled     = 60 * time.Second  // without any sign of progress after it
	reenumerate = 30 * time.Second  // from SPL's last byte to its enumeration: 1-3 s as a rule
)

// maxRuns is how often the first stage is sent whole: a ROM that asks again after it received
// everything could not run it, if that is not a reset's doing.
const maxRuns = 3

// Backend recovers AM335x and AM43xx boards.
type Backend struct{}

var _ socs.Backend = Backend{}

// Family describes the AM335x: its ROM is 0451:6141 (TRM 26.1.9.4), U-Boot's SPL 0451:d022
// (am335x_evm_defconfig).
func (Backend) Family() socs.Family {
	return socs.Family{
		Name:        "am335x",
		Title:       "TI AM335x and AM43xx (Sitara)",
		Carriers:    []socs.Carrier{socs.Network, socs.Serial},
		ROM:         []socs.Identity{{ID: usb.ID{Vendor: 0x0451, Product: 0x6141}}},
		Later:       []socs.Identity{{ID: usb.ID{Vendor: 0x0451, Product: 0xd022}}},
		Reenumerate: reenumerate,
		BootMode:    "BeagleBone: hold S2 at power-on, no SD card",
		Slots: []socs.Slot{
			{Name: slotSPL, Required: true, Keys: []string{keyBootfile}, Doc: "first stage, spl/u-boot-spl.bin (an MLO's header is removed)"},
			{Name: slotUBoot, Required: true, Keys: []string{keyBootfile}, Doc: "second stage, u-boot.img"},
		},
	}
}

// keyBootfile is the file name offered to the board, if it must differ from the path's base: an SPL
// built with SYS_BOOTFILE_PREFIX ignores names without that prefix (U-Boot, net/bootp.c).
const keyBootfile = "bootfile"

// Check implements socs.Backend.
func (Backend) Check(model socs.Model, fw socs.Firmware) (socs.Firmware, []socs.Finding, error) {
	return check(model, fw)
}

// Recover implements socs.Backend.
func (Backend) Recover(ctx context.Context, job socs.Job) error {
	r := recovery{job: job, files: [2]netboot.File{
		file(stageROM, job.Firmware[slotSPL]),
		file(stageSPL, job.Firmware[slotUBoot]),
	}}
	for {
		stage, err := job.Board.Next(ctx)
		if err != nil {
			return err
		}
		if stage.Serial != nil {
			return recoverUART(ctx, job, stage)
		}
		done, err := r.serve(ctx, stage)
		if err != nil {
			return err
		}
		if done == &r.files[1] {
			return nil
		}
	}
}

// file is an image as the boot servers offer it.
func file(stage string, img socs.Image) netboot.File {
	name, ok := img.Params[keyBootfile].(string)
	if !ok {
		name = offered(img.Path)
	}
	return netboot.File{Stage: stage, Name: name, Data: img.Data}
}

// offered is the name of a path's file as a BOOTP reply can carry it. U-Boot takes what is in front of a colon for the
// TFTP server's address (net/net.c, net_parse_bootfile).
func offered(path string) string {
	name := strings.Map(func(r rune) rune {
		if r == ':' || r < ' ' || r == 0x7f {
			return '_'
		}
		return r
	}, filepath.Base(path))
	return name[:min(len(name), netboot.MaxBootFile)]
}

type recovery struct {
	job   socs.Job
	files [2]netboot.File // what the ROM and SPL fetch
	runs  int             // how often the ROM received the whole SPL and nothing was seen of that

	system string // the vendor class of a running system that asked
}

// serve answers one enumeration of the board until it has fetched a file, which is returned, or
// left its port, which returns nil: the board may come again.
func (r *recovery) serve(ctx context.Context, stage *socs.Stage) (*netboot.File, error) {
	// Which file it will be is known for certain once the board has said who it is.
	serving, patience := &r.files[1], splRequest
	if stage.ROM {
		serving, patience = &r.files[0], romRequest
	} else {
		r.runs = 0 // the first stage runs, whatever becomes of it
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if stage.Gone != nil {
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			select {
			case <-stage.Gone:
				cancel(errGone)
			case <-stop:
			}
		}()
	}
	// The watchdog is wound up by every sign of life.
	var asked atomic.Bool
	watchdog := time.AfterFunc(patience, func() {
		if asked.Load() {
			cancel(errStalled)
		} else {
			cancel(errSilent)
		}
	})
	defer watchdog.Stop()
	alive := func() {
		asked.Store(true)
		watchdog.Reset(stalled)
	}

	var begun *netboot.File
	var refused error
	result, err := netboot.Serve(ctx, *stage.Link, netboot.Config{
		Log: slog.New(slog.DiscardHandler),
		Pick: func(c netboot.Client) *netboot.File {
			f, err := r.pick(stage, c)
			if err == nil && f == &r.files[0] && r.runs == maxRuns {
				err = &socs.BoardError{Stage: stageROM, Err: fmt.Errorf("the ROM fetched the whole first stage %d times and did not start it", maxRuns),
					Hint: "the SPL does not run on this board: check that it was built for this board and SoC, and that the part is not a high-security (HS) one, which needs a signed SPL"}
			}
			if err != nil {
				refused = err
				cancel(err)
				return nil
			}
			if f == nil {
				return nil
			}
			alive()
			if f != begun {
				switch {
				case f == &r.files[1]:
					r.runs = 0 // as above, of an SPL with the ROM's ID
				case r.runs > 0:
					r.job.Board.Emit(stageROM, event.Warning{Text: "the boot ROM is back: it has received the whole first stage before and did not stay with it"})
				}
				begun, serving = f, f
				r.job.Board.Emit(f.Stage, event.StageBegun{File: f.Name, Bytes: int64(len(f.Data))})
			}
			return f
		},
		Emit: func(_ string, body event.Body) {
			if _, ok := body.(event.Progress); ok {
				alive()
			}
			r.job.Board.Emit(serving.Stage, body)
		},
	})
	switch {
	case err == nil:
		return r.fetched(stage, result), nil
	case refused != nil:
		return nil, refused
	case errors.Is(err, errGone):
		r.job.Board.Emit(serving.Stage, event.Warning{Text: fmt.Sprintf(
			"the board left port %s after %d of %d bytes: reset or unplugged; waiting for it to come back",
			stage.Port, result.Bytes, len(serving.Data))})
		return nil, nil
	case errors.Is(err, errSilent) && r.system != "":
		return nil, &socs.BoardError{Stage: serving.Stage, Err: fmt.Errorf("no BOOTP request of a boot ROM or an SPL within %s of the link coming up; one came that calls itself %q: a system that runs", patience, r.system),
			Hint: "the board has booted from its own media: take the SD card out, hold its boot button while the power is switched on, and run snag again"}
	case errors.Is(err, errSilent):
		return nil, &socs.BoardError{Stage: serving.Stage, Err: fmt.Errorf("no BOOTP request within %s of the link coming up", patience),
			Hint: "reset the board while snag waits; if it stays silent, check that its boot switches select USB boot and that the SPL was built with SPL_NET and SPL_USB_ETHER"}
	case errors.Is(err, errStalled) && time.Since(result.FirstByte) < stalled/2: // a request, which is no progress
		return nil, &socs.BoardError{Stage: serving.Stage, Err: fmt.Errorf("the board asks for %s again and again, and has acknowledged nothing of %d bytes for %s", serving.Name, len(serving.Data), stalled),
			Hint: "what it is sent does not reach it: reset the board and run snag again, and try another cable or hub port"}
	case errors.Is(err, errStalled):
		return nil, &socs.BoardError{Stage: serving.Stage, Err: fmt.Errorf("the board stopped asking after %d of %d bytes and was silent for %s", result.Bytes, len(serving.Data), stalled),
			Hint: "reset the board and run snag again; try another cable or hub port if it stops at different places"}
	default:
		return nil, err
	}
}

var (
	errGone    = errors.New("the board left its port")
	errSilent  = errors.New("no request")
	errStalled = errors.New("no progress")
)

// fetched accounts for a file that the board has whole.
func (r *recovery) fetched(stage *socs.Stage, result netboot.Result) *netboot.File {
	f := result.File
	r.job.Board.Emit(f.Stage, event.StageDone{Summary: event.StageSummary{
		Stage: f.Stage, File: f.Name, Bytes: int64(len(f.Data)),
		Duration: result.LastByte.Sub(stage.Since), Retries: result.Retransmits,
	}})
	if f == &r.files[0] {
		r.runs++
	}
	return f
}

// romClasses are the vendor classes (DHCP option 60) of the ROMs. AM335x silicon of PG1.0 says that
// it is a DM814x (TI errata 1.0.8).
var romClasses = map[string]string{"AM335x ROM": chipAM335x.name, "DM814x ROM": chipAM335x.name, "AM43xx ROM": chipAM43xx.name}

// systems are the vendor classes of running systems: a board that asks with one of these has
// booted already.
var systems = []string{"udhcp", "dhcpcd", "MSFT ", "android-dhcp", "anaconda", "systemd", "Linux"}

// pick decides which file a client is served: by its vendor class, else by what enumerated. A nil
// file means that the request is none of ours.
func (r *recovery) pick(stage *socs.Stage, c netboot.Client) (*netboot.File, error) {
	for class, chip := range romClasses {
		if !strings.HasPrefix(c.VendorClass, class) {
			continue
		}
		if want := chipOf(r.job.Model).name; chip != want {
			return nil, &socs.BoardError{Stage: stageROM, Err: fmt.Errorf("the boot ROM calls itself %q, expected one of %s for model %s", class, want, r.job.Model.Name),
				Hint: "name the SoC that is on the board (-s), with firmware built for it"}
		}
		return &r.files[0], nil
	}
	for _, system := range systems {
		if strings.HasPrefix(c.VendorClass, system) {
			r.system = c.VendorClass[:min(len(c.VendorClass), 40)]
			return nil, nil
		}
	}
	// An SPL may bear the ROM's USB ID; but no ROM calls itself so, nor speaks DHCP.
	spl := strings.Contains(c.VendorClass, "SPL") || strings.HasPrefix(c.VendorClass, "U-Boot") || c.DHCP && r.runs > 0
	if stage.ROM && !spl {
		return &r.files[0], nil
	}
	return &r.files[1], nil
}

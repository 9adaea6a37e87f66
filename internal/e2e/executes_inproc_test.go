package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/recovery"
	"snag/sim/imx"
	"snag/sim/inproc"
	"snag/sim/qemu"
	"snag/sim/usbdev"
	"snag/socs"
	backend "snag/socs/imx"
	"snag/usb"
)

// executing is Debian's firmware for a board, and what is to be read on its console when it runs.
type executing struct {
	soc   string // "" is an imx6q
	board string
	slots []string // snag's names of its files, one for each stage
	files []string
	uart  int // the console
	talk  []exchange
}

// exchange is something that a board prints, and what is typed then.
type exchange struct{ says, typed string }

// keys keep U-Boot from booting by itself, typed long before it asks for any key and waits two seconds, which may be
// over before a busy computer's answer. It forgets what it has received when it sets its UART up, but no UART holds so
// many. Not for the R40, whose U-Boot is deaf afterwards on QEMU's machine.
var keys = strings.Repeat(" ", 100)

var (
	oneStage = executing{
		board: "mx6qsabrelite", slots: []string{"u-boot-with-dcd"}, files: []string{"u-boot-dtb.imx"}, uart: 2,
		talk: []exchange{{"U-Boot 20", ""}, {"DRAM:", ""}},
	}
	twoStages = executing{
		board: "mx6cuboxi", slots: []string{"SPL", "u-boot"}, files: []string{"SPL", "u-boot.img"}, uart: 1,
		talk: []exchange{{"U-Boot SPL 20", keys}, {"Hit any key", " "}, {"=> ", "version\r"}, {"U-Boot 20", ""}, {"=> ", ""}},
	}
	fromFEL = executing{
		soc: "h3", board: "nanopi_neo_air", slots: []string{"u-boot-with-spl"}, files: []string{"u-boot-sunxi-with-spl.bin"}, uart: 0,
		talk: []exchange{{"U-Boot SPL 20", keys}, {"Trying to boot from FEL", ""}, {"Hit any key", " "}, {"=> ", "version\r"}, {"U-Boot 20", ""}, {"=> ", ""}},
	}
)

// path is a file's on the host.
func (x executing) path(t *testing.T, stage int) string {
	t.Helper()
	pkg := "u-boot-imx:armhf"
	if x.soc != "" {
		pkg = "u-boot-sunxi:armhf"
	}
	return filepath.Join(lab.Packages(t, pkg)[0], "usr/lib/u-boot", x.board, x.files[stage])
}

// firmware reads the files. With damage, one byte at the entry of the first is changed.
func (x executing) firmware(t *testing.T, damage bool) socs.Firmware {
	t.Helper()
	fw := socs.Firmware{}
	for i, slot := range x.slots {
		data, err := os.ReadFile(x.path(t, i))
		if err != nil {
			t.Fatal(err)
		}
		if damage && i == 0 {
			data = bytes.Clone(data)
			entry, self := binary.LittleEndian.Uint32(data[4:]), binary.LittleEndian.Uint32(data[20:]) // of the IVT
			data[entry-self] ^= 0xff
		}
		fw[slot] = socs.Image{Path: x.path(t, i), Data: data}
	}
	return fw
}

// power powers a board in this process that executes what it receives.
func (x executing) power(t *testing.T, port usbdev.Port) (*imx.Board, *qemu.Machine) {
	t.Helper()
	machine, err := qemu.Start(t.Context(), qemu.Config{QEMU: lab.Command(t, "qemu-system-arm", "qemu-system-arm")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { machine.Close() })
	cfg := imx.Config{Machine: machine}
	if len(x.files) == 2 {
		cfg.SPL, cfg.SPLFinds = imx.SDPV, imx.FindNothing // a legacy image, executed where it was written
	}
	if cfg.Model, err = imx.FindModel("imx6q"); err != nil {
		t.Fatal(err)
	}
	board, err := imx.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- board.Run(ctx, port) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return board, machine
}

// TestExecutingInProcess recovers boards whose firmware runs, with nothing between the engine and the board but the
// models of USB. An image with one byte changed at its entry gets no further than that.
func TestExecutingInProcess(t *testing.T) {
	const silence = 3 * time.Second // the banner takes a tenth of that
	model, err := socs.Lookup("imx6q")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		executing
		damage bool
		fails  string // the recovery's error
	}{
		{name: "one stage", executing: oneStage},
		{name: "two stages", executing: twoStages},
		{name: "damaged", executing: oneStage, damage: true}, // nothing tells the host
		{name: "damaged SPL", executing: twoStages, damage: true, fails: "still waiting for the next stage"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			host, port := inproc.New(), usb.Port("1-1")
			board, machine := test.power(t, host.Port(port))
			opt := recovery.Options{
				Backend: backend.Backend{}, Model: model, Firmware: test.firmware(t, test.damage), Port: port, USB: host,
				Timeout: time.Minute,
			}
			if test.fails != "" {
				opt.Timeout = silence
			}
			err := recovery.Run(t.Context(), opt)
			if test.fails == "" && err != nil || test.fails != "" && (err == nil || !strings.Contains(err.Error(), test.fails)) {
				t.Errorf("recovery: %v, expected the error %q", err, test.fails)
			}
			console := machine.UART[test.uart-1]
			if test.damage {
				ctx, cancel := context.WithTimeout(t.Context(), silence)
				defer cancel()
				if s, err := console.Await(ctx, "U-Boot"); err == nil {
					t.Errorf("it prints %q", s)
				}
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for _, x := range test.talk {
				if _, err := console.Await(ctx, x.says); err != nil {
					t.Fatal(err)
				}
				if _, err := console.Write([]byte(x.typed)); err != nil {
					t.Fatal(err)
				}
			}
			t.Log(console.Text())
			if test.board == twoStages.board { // at U-Boot's prompt
				if strings.Contains(console.Text(), "WDT:") { // a newer one resets over the watchdog's pin, which QEMU's board does not have
					if err := machine.Reset(ctx); err != nil {
						t.Fatal(err)
					}
				} else {
					console.Write([]byte("reset\r"))
				}
				eventually(t, "the ROM after U-Boot's reset", func() bool {
					stages := board.Report().Stages
					return len(stages) == 3 && stages[2].Name == imx.StageROM
				})
			}
			r := board.Report()
			for _, v := range r.Violations {
				t.Errorf("the host did wrong: %s (%d times)", v.Text, v.N)
			}
		})
	}
}

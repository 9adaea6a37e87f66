//go:build linux

// Bench measures recoveries of virtual boards with snag and, in turns with it, with others: Debian's uuu, imx_usb,
// dfu-util, fastboot, sunxi-fel and rkdeveloptool, and Snagboot where SNAGBOOT names its sources. All run in one VM of
// package lab.
//
// For the AM335x it is how long the board takes from being plugged in until it has the last byte of U-Boot, by the
// kernel's network and by snag's own ("snag user"). snag and Snagboot run as root and with udevd, on the same virtual
// board: a device of the kernel's virtual USB host controller whose ROM asks by BOOTP every second. They take turns;
// the table has the medians of the board's own clock. Either is started at the moment of the plug, with all in place
// that it wants beforehand: nothing for snag, and for Snagboot its am335x_usb_setup.sh, which runs as it is and polls
// for interfaces. Only the shell that the script ends with is replaced, by one that waits for the plug. Before that the
// machine is idle: it takes the namespace of the run before apart for some time. A first run of each is not counted. A
// failed one is repeated, up to twice as often as there are runs in all, and counted in the table.
//
// For the i.MX it is how long the program runs, from its start to its end, when the board is there and udevd is done
// with it; and how much memory it had at most. For DFU it is the same, for a stage that takes a large file, and for
// fastboot, for an image that is written to an eMMC. For FEL it is that of SPL and U-Boot. For Rockchip it is the same,
// for a loader container.
//
//	SNAGBOOT        Snagboot's sources (the directory with src/)
//	SNAGBOOT_TFTPY  the sources of tftpy, which Debian lacks; else the directory tftpy beside $SNAGBOOT
//
// What else Snagboot needs are Debian packages. Nothing of it comes with snag.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"snag/internal/lab"
	"snag/sim/imx"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	runs := flag.Int("runs", 5, "how often each program is measured")
	delay := flag.Duration("delay", 0, "`time` by which the board's link delays each frame, each way")
	window := flag.Duration("spl-window", 15*time.Second, "`time` that SPL waits for its link; U-Boot's 3 s are short in an emulated machine")
	cpus := flag.Int("cpus", 1, "of the VM; more make an emulated one slower on a busy machine")
	boards := flag.String("boards", "am335x,imx,dfu,fastboot,sunxi,rockchip", "which to measure")
	flash := flag.Int("flash", 512, "size of the image for fastboot, in `MiB`")
	fip := flag.Int("fip", 16, "size of TF-A's FIP for DFU, in `MiB`")
	stream := flag.Int("stream", 24, "size of the i.MX8MP's stream, in `MiB`")
	guest := flag.Bool("guest", false, "this is the VM: -guest FIRMWARE IMAGE")
	one := flag.Bool("run", false, "run a program and write what it took: -run PROGRAM ARGUMENT...")
	write := flag.Bool("fel", false, "write to a board's memory over FEL: -fel ADDRESS FILE PORT")
	flag.Parse()
	with := func(board string) bool { return slices.Contains(strings.Split(*boards, ","), board) }
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := error(nil)
	switch {
	case *one:
		err = runOne(os.Stdout, flag.Args())
	case *write && flag.NArg() == 3:
		runtime.GOMAXPROCS(max(2, runtime.GOMAXPROCS(0))) // as cmd/snag does
		err = felWrite(ctx, flag.Args())
	case *guest:
		if with("am335x") {
			err = measure(ctx, os.Stdout, flag.Arg(0), *runs, *window, *delay)
		}
		if with("imx") && err == nil {
			err = measureIMX(ctx, os.Stdout, flag.Arg(1), *runs, *stream<<20)
		}
		if with("dfu") && err == nil {
			err = measureDFU(ctx, os.Stdout, *runs, *fip<<20)
		}
		if with("fastboot") && err == nil {
			err = measureFastboot(ctx, os.Stdout, *runs, *flash<<20)
		}
		if with("sunxi") && err == nil {
			err = measureSunxi(ctx, os.Stdout, *runs)
		}
		if with("rockchip") && err == nil {
			err = measureRockchip(ctx, os.Stdout, *runs)
		}
	default:
		err = host(ctx, *boards, *fip, *stream, *flash, *runs, *window, *delay, *cpus)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// drivers are what a distribution loads by itself, by udev or by an earlier use.
const drivers = `modprobe -a vhci-hcd usbhid hid-generic rndis_host cdc_ether nft_nat nft_masq nft_chain_nat nft_compat xt_nat xt_MASQUERADE xt_tcpudp
`

// host runs this program in a VM.
func host(ctx context.Context, boards string, fip, stream, flash, runs int, window, delay time.Duration, cpus int) error {
	dir, err := os.MkdirTemp("", "snag-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	job := lab.Job{
		Udev: true, CPUs: cpus, Timeout: 3*time.Minute + time.Duration(runs)*8*time.Minute,
		Files: map[string]string{}, Dirs: []string{filepath.Join(dir, "firmware")},
		Packages: []string{"uuu", "imx-usb-loader", "dfu-util", "fastboot", "sunxi-tools", "rkdeveloptool"},
		Memory:   1024 + 3*flash, // the image is a file in memory, and what the board has of it
	}
	for name, pkg := range map[string]string{"snag": "snag/cmd/snag", "snag-netmove": "snag/cmd/snag-netmove", "bench": "snag/internal/e2e/bench"} {
		file := filepath.Join(dir, name)
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", file, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building %s: %w\n%s", pkg, err, out)
		}
		job.Files["/lab/bin/"+name] = file
	}
	firmware := exec.CommandContext(ctx, "go", "run", "snag/internal/lab/labtool", "firmware", filepath.Join(dir, "firmware"))
	firmware.Stderr = os.Stderr
	kind, err := firmware.Output()
	if err != nil {
		return fmt.Errorf("firmware: %w", err)
	}
	job.Script = drivers
	if src := os.Getenv("SNAGBOOT"); src != "" {
		tftpy := os.Getenv("SNAGBOOT_TFTPY")
		if tftpy == "" {
			tftpy = filepath.Join(filepath.Dir(filepath.Clean(src)), "tftpy")
		}
		for variable, file := range map[*string]string{&src: "src/snagrecover/am335x_usb_setup.sh", &tftpy: "tftpy/__init__.py"} {
			if *variable, err = filepath.Abs(*variable); err != nil {
				return err
			}
			if _, err := os.Stat(filepath.Join(*variable, file)); err != nil {
				return fmt.Errorf("SNAGBOOT and SNAGBOOT_TFTPY: %w", err)
			}
			job.Dirs = append(job.Dirs, *variable)
		}
		job.Packages = append(job.Packages, "python3", "python3-usb", "python3-yaml", "python3-serial", "python3-xmodem", "iptables", "iproute2", "procps")
		// Python's ctypes finds libusb by the linker's cache, and the host need not have it.
		job.Script += fmt.Sprintf("/sbin/ldconfig\nexport SNAGBOOT='%s' SNAGBOOT_TFTPY='%s'\n", src, tftpy)
	}
	image, err := sabreLite(ctx, filepath.Join(dir, "firmware"))
	if err != nil {
		return err
	}
	job.Script += fmt.Sprintf("bench -guest -boards %s -fip %d -stream %d -flash %d -runs %d -spl-window %v -delay %v '%s' '%s'\n", boards, fip, stream, flash, runs, window, delay, filepath.Join(dir, "firmware"), image)

	vm := filepath.Join(dir, "vm")
	if err := os.Mkdir(vm, 0o755); err != nil {
		return err
	}
	r, err := lab.Exec(ctx, vm, job)
	if errors.Is(err, lab.ErrUnavailable) {
		return fmt.Errorf("no VM: %w", err)
	}
	if err != nil {
		return err // it has the ends of the outputs
	}
	fmt.Fprint(os.Stderr, r.Stderr)
	if r.Status != 0 {
		return fmt.Errorf("the VM's script ended with %d\n%s", r.Status, r)
	}
	fmt.Printf("VM with %d processors, emulated; firmware: %s%s", cpus, kind, r.Stdout)
	return nil
}

// sabreLite writes U-Boot for an i.MX6Q board, Debian's if it can be had, and returns the file.
func sabreLite(ctx context.Context, dir string) (string, error) {
	const size = 551_936 // Debian's 2023.01
	file := filepath.Join(dir, "u-boot-dtb.imx")
	var image []byte
	dirs, err := lab.Fetch(ctx, "u-boot-imx:armhf")
	if err == nil {
		image, err = os.ReadFile(filepath.Join(dirs[0], "usr/lib/u-boot/mx6qsabrelite/u-boot-dtb.imx"))
	}
	if err != nil {
		log.Printf("an image for i.MX6Q is generated, because Debian's cannot be had: %v", err)
		image = imx.IVTImage{Self: 0x177ff400, Before: 0x400, DCD: imx.GenerateDCD(90, false), Size: size, Seed: 1}.Generate()
	}
	return file, os.WriteFile(file, image, 0o644)
}

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"snag/event"
	"snag/internal/ui"
	"snag/plan"
	"snag/plan/snagflash"
	"snag/recovery"
	"snag/usb"
	"snag/usb/usbfs"
)

// flashFlags are the flags of snag flash as they were typed.
type flashFlags struct {
	outputFlags
	usbPath, onWait string
	timeout         patience
	wait            time.Duration
	dry, reset      bool
	files           []string // -f: a plan, or with -P snagflash's commands

	flash   plan.Flash
	to      map[plan.Kind]*string
	sizes   map[string]*string // of flash.To
	network string

	snagflash snagflash.Flags
	logLevel  string
	logFile   string
}

func newFlash() *cobra.Command {
	f := flashFlags{to: map[plan.Kind]*string{}, sizes: map[string]*string{}}
	cmd := &cobra.Command{
		Use:   "flash [flags] IMAGE",
		Short: "Write a disk image to a board that U-Boot runs on",
		Long: `Writes an image to the storage of a board whose U-Boot offers fastboot, DFU or mass
storage. The two commands that most people need:

  snag flash --mmc 0 disk.img.zst                    U-Boot: fastboot usb 0
  snag flash --usb-path 1-2 --disk 0 disk.img.zst    U-Boot: ums 0 mmc 0

(The first wants --buffer ADDRESS, unless it is NXP's U-Boot, which tells it.)
IMAGE is a file, - or a URL; raw, Android sparse, compressed, with a block map
beside it (disk.img.zst.bmap, disk.img.bmap, disk.bmap) or named. The board is the
one that shows what is needed, or that of --usb-path; a disk's must be named.

snag flash -f PLAN.yaml does several steps, from the boot ROM to the last reset
(docs/plan.md). With -P the flags of Snagboot's snagflash are taken (docs/flash.md).`,
		Example: `  snag flash --usb-path 1-2.3 --fastboot rootfs rootfs.ext4.zst
  snag flash --mmc 0.boot0 --verify flash.bin
  snag flash --disk /dev/sdX --keyring release.gpg https://host/disk.img.zst
  snag flash --net udp:192.168.7.2 --mmc 0:root rootfs.img
  snag flash -f factory.yaml --dry-run
  snag flash -P fastboot-uboot -p 0483:0afb -I flash.cmd`,
		Args: arguments(0, 1),
		RunE: f.run,
	}
	fl := cmd.Flags()
	for _, k := range []struct {
		kind plan.Kind
		help string
	}{
		{plan.ToFastboot, "write the `partition` that the board's fastboot knows by this name"},
		{plan.ToMMC, "write `DEV[.HW][:PART]` of U-Boot's mmc: a device, its boot0 or boot1, a GPT partition"},
		{plan.ToMTD, "erase and write U-Boot's MTD `device` or partition"},
		{plan.ToSF, "erase and write U-Boot's SPI flash `BUS:CS` (usually 0), where it has no mtd command"},
		{plan.ToDFU, "write the DFU `alternate` setting of this name or number"},
		{plan.ToDisk, "write disk `LUN[:PART]` of the board's mass storage (usually 0), or a block device (/dev/sdX)"},
		{plan.ToFile, "write a `file`, on a mounted disk for instance; with --disk, in the file system on that"},
	} {
		f.to[k.kind] = fl.String(string(k.kind), "", k.help)
	}
	for _, s := range []struct{ name, help string }{
		{"offset", "begin behind so many `bytes` of the target (64k, 1M)"},
		{"address", "`address` on a DFU device with ST's DfuSe (default: where the setting begins)"},
		{"erase-block", "size of the MTD device's erase blocks, in `bytes` (default: U-Boot is asked)"},
		{"buffer", "`address` of U-Boot's fastboot buffer (default: U-Boot is asked)"},
		{"buffer-size", "use so many `bytes` of it at most"},
	} {
		f.sizes[s.name] = fl.String(s.name, "", s.help)
	}
	o := &f.flash.Options
	fl.StringVar(&o.Bmap, "bmap", "", "`file` or URL of the image's block map")
	fl.BoolVar(&o.NoBmap, "no-bmap", false, "write all of the image, though there is a block map")
	fl.StringVar(&o.Keyring, "keyring", "", "`file` of OpenPGP keys, one of which must have signed the block map")
	fl.StringVar(&o.Signature, "bmap-signature", "", "`file` or URL of the block map's signature")
	fl.BoolVar(&o.AsIs, "as-is", false, "write the file's own bytes, whatever its format")
	fl.BoolVar(&f.flash.Verify, "verify", false, "read back and compare what was written")
	fl.BoolVar(&f.flash.To.Force, "force", false, "write a disk that is not removable, or not the board's")
	fl.BoolVar(&f.flash.To.NOR, "nor", false, "the MTD device is NOR: erase only what is written")
	fl.BoolVar(&f.reset, "reset", false, "reset the board afterwards; with --disk: end its mass storage")

	fl.StringArrayVarP(&f.files, "plan", "f", nil, "a plan, a YAML `file`; with -P fastboot: one of snagflash's commands")
	fl.StringVarP(&f.usbPath, "usb-path", "p", "", "the board: its `port` (1-2.3), or the VID:PID it shows")
	fl.StringVar(&f.network, "net", "", "fastboot on a network: `udp:HOST[:PORT]` or tcp:HOST[:PORT]; or kernel, user: as recover's, for a plan")
	f.timeout.all = plan.DefaultTimeout
	fl.Var(&f.timeout, "timeout", "give up after this `time` in all")
	fl.DurationVar(&f.wait, "wait", 0, "give up if no board appears within this `time` (default 5m; a disk 30s)")
	fl.StringVar(&f.onWait, "on-wait", "", "shell `command` to run when the board is awaited: power relay, boot-mode switch")
	fl.BoolVar(&f.dry, "dry-run", false, "check everything, print what would be done, and touch no board")
	f.outputFlags.add(cmd)
	f.addSnagflash(fl)
	return cmd
}

// addSnagflash adds the flags that only snagflash has.
func (f *flashFlags) addSnagflash(fl *pflag.FlagSet) {
	s := &f.snagflash
	fl.StringVarP(&s.Protocol, "protocol", "P", "", "take snagflash's flags: `fastboot`, fastboot-uboot, dfu or ums")
	fl.StringVar(&f.usbPath, "port", "", "as --usb-path")
	fl.StringArrayVar(&f.files, "fastboot-cmd", nil, "as -f")
	fl.StringVarP(&s.File, "interactive-cmdfile", "I", "", "with -P fastboot-uboot: a `file` of commands")
	fl.BoolVarP(&s.Interactive, "interactive", "i", false, "with -P fastboot-uboot: take commands from standard input")
	fl.StringArrayVarP(&s.DFU, "dfu-config", "D", nil, "with -P dfu: `ALTERNATE:FILE` to write; may be given several times")
	fl.BoolVar(&s.Keep, "dfu-keep", false, "with -P dfu: do not detach")
	fl.BoolVar(&s.Detach, "dfu-detach", false, "with -P dfu: only detach")
	fl.BoolVar(&s.Reset, "dfu-reset", false, "with -P dfu: detach, and reset the device")
	fl.StringVarP(&s.Source, "src", "s", "", "with -P ums: the `file`")
	fl.StringVarP(&s.Dest, "dest", "d", "", "with -P ums: copy it to this `path`")
	fl.StringVarP(&s.Device, "blockdev", "b", "", "with -P ums: write it to this block `device`")
	fl.StringVar(&f.logLevel, "loglevel", "silent", "with -P: silent, info or debug; more than silent writes --logfile")
	fl.StringVar(&f.logFile, "logfile", "board_flashing.log", "with -P: a log's `file`")
	for _, name := range []string{
		"port", "fastboot-cmd", "interactive-cmdfile", "interactive", "dfu-config", "dfu-keep", "dfu-detach", "dfu-reset", "src", "dest", "blockdev", "loglevel", "logfile",
	} {
		fl.Lookup(name).Hidden = true // docs/flash.md has them
	}
}

// patience is --timeout: a time for all, or as snagflash has it, milliseconds for one answer.
type patience struct{ all, one time.Duration }

func (p *patience) String() string { return p.all.String() }
func (p *patience) Type() string   { return "duration" }
func (p *patience) Set(s string) error {
	if ms, err := strconv.ParseUint(s, 10, 31); err == nil && ms > 0 {
		p.one = time.Duration(ms) * time.Millisecond
		return nil
	}
	d, err := time.ParseDuration(s)
	if err == nil && d <= 0 {
		err = errors.New("expected more than nothing")
	}
	p.all = d
	return err
}

func (f *flashFlags) run(cmd *cobra.Command, args []string) error {
	if f.snagflash.Protocol != "" && f.logLevel != "silent" && f.LogFile == "" {
		f.LogFile = f.logFile
	}
	p, opt, err := f.plan(cmd, args)
	if f.dry {
		if err == nil {
			err = p.Check(cmd.Context())
		}
		return f.outputFlags.dryRun(cmd, p.DryRun, err)
	}
	return f.show(cmd, func(emit event.Sink, log *slog.Logger) error {
		if err != nil {
			emit(event.Event{Time: time.Now(), Body: failed(err)})
			return err
		}
		opt.Emit, opt.Log = emit, log
		return p.Run(cmd.Context(), opt)
	})
}

// plan is what the flags and arguments say.
func (f *flashFlags) plan(cmd *cobra.Command, args []string) (*plan.Plan, plan.Options, error) {
	opt := plan.Options{Timeout: f.timeout.all, Wait: f.wait, Patience: f.timeout.one, OnWait: f.onWait, USB: usbfs.Host{Quick: true}}
	p, err := await(cmd.Context(), func() (*plan.Plan, error) { return f.steps(cmd, args) })
	if err == nil && f.wait < 0 {
		err = fmt.Errorf("--wait %s: expected more than nothing", f.wait)
	}
	if err == nil && f.usbPath != "" {
		if opt.Port, opt.ID, err = usb.ParseBoard(f.usbPath); err != nil {
			err = fmt.Errorf("--usb-path: %w", err)
		}
	}
	switch adapter := recovery.Net(f.network); {
	case err != nil || f.network == "":
	case adapter == recovery.NetKernel || adapter == recovery.NetUser:
		opt.Adapter = adapter
	default:
		opt.Net = f.network
		if _, _, err = plan.ParseNet(f.network); err != nil {
			err = fmt.Errorf("--net: %w; or, for a plan that recovers, kernel or user", err)
		} else if f.usbPath != "" {
			err = errors.New("--net and --usb-path: the board is on one of them")
		}
	}
	if _, file := errors.AsType[*plan.Error](err); file {
		return nil, opt, &recovery.UsageError{Err: err}
	}
	return p, opt, usage(cmd, err)
}

// steps are those of snagflash's flags, of a plan, or of one image.
func (f *flashFlags) steps(cmd *cobra.Command, args []string) (*plan.Plan, error) {
	fl := cmd.Flags()
	own := false // a flag of one-off work
	for _, name := range []string{"offset", "address", "erase-block", "nor", "buffer", "buffer-size", "bmap", "no-bmap", "keyring", "bmap-signature", "as-is", "reset"} {
		own = own || fl.Changed(name)
	}
	var to []plan.Kind
	for _, k := range plan.Kinds {
		if *f.to[k] != "" {
			to = append(to, k)
		}
	}
	switch s := &f.snagflash; {
	case s.Protocol != "":
		if len(args) > 0 || own || len(to) > 0 {
			return nil, errors.New("-P takes snagflash's flags only")
		}
		if f.timeout.one == 0 {
			f.timeout.one = snagflash.Patience
		}
		s.Commands, s.Verify, s.Force = f.files, f.flash.Verify, f.flash.To.Force
		if s.Input = cmd.InOrStdin(); s.Interactive {
			if in, ok := s.Input.(*os.File); ok && ui.IsTerminal(in, os.Getenv) {
				s.Prompt = cmd.ErrOrStderr()
			}
		}
		return s.Plan()
	case s.Given():
		return nil, errors.New("flags of snagflash without -P")
	case len(f.files) > 0:
		if len(f.files) > 1 || len(args) > 0 || own || len(to) > 0 || f.flash.Verify || f.flash.To.Force {
			return nil, errors.New("-f PLAN: the plan says what is flashed, and where (for snagflash's commands: -P fastboot)")
		}
		return plan.Load(f.files[0])
	case len(args) == 0:
		return nil, errors.New("what is to be flashed? expected IMAGE, or -f PLAN.yaml")
	}
	a := f.flash
	a.Image = args[0]
	var err error
	if a.To, err = f.target(to); err != nil {
		return nil, err
	}
	if err := a.Check(); err != nil {
		return nil, fmt.Errorf("--%w", err)
	}
	return f.image(&a)
}

// target is where an image goes, by flags of the kinds to.
func (f *flashFlags) target(to []plan.Kind) (plan.Target, error) {
	var t plan.Target
	switch {
	case len(to) == 0:
		return t, errors.New("where to? expected one of --fastboot, --mmc, --mtd, --sf, --dfu, --disk and --file")
	case len(to) == 2 && to[0] == plan.ToDisk && to[1] == plan.ToFile: // a file on it
	case len(to) > 1:
		return t, fmt.Errorf("--%s and --%s: one target", to[0], to[1])
	}
	t, err := plan.ParseTarget(to[0], *f.to[to[0]])
	if err != nil {
		return t, fmt.Errorf("--%w", err)
	}
	if len(to) == 2 {
		t.File = *f.to[plan.ToFile]
	}
	t.Force, t.NOR = f.flash.To.Force, f.flash.To.NOR
	buffer := int64(0)
	for name, value := range map[string]*int64{"offset": &t.Offset, "address": &t.Address, "erase-block": &t.EraseBlock, "buffer": &buffer, "buffer-size": &t.BufferSize} {
		if s := *f.sizes[name]; s != "" {
			if *value, err = plan.ParseSize(s); err != nil {
				return t, fmt.Errorf("--%s: %w", name, err)
			}
		}
	}
	t.Buffer = uint64(buffer)
	return t, nil
}

// image is the plan of writing one image.
func (f *flashFlags) image(a *plan.Flash) (*plan.Plan, error) {
	file, path := a.To.Kind == plan.ToFile, a.To.Kind == plan.ToDisk && a.To.Device < 0
	switch nowhere := fmt.Sprintf("%s is on no board that snag waits for", a.To); {
	case file && f.usbPath != "":
		return nil, errors.New("--usb-path: " + nowhere)
	case (file || path) && f.network != "":
		return nil, errors.New("--net: " + nowhere)
	case (file || path) && f.onWait != "":
		return nil, errors.New("--on-wait: " + nowhere)
	case (file || path) && f.reset:
		return nil, fmt.Errorf("--reset: %s is on no board that snag knows", a.To)
	}
	p := &plan.Plan{Steps: []plan.Step{{Action: a}}}
	if f.reset {
		r := &plan.Reset{}
		if a.To.Kind == plan.ToDisk {
			r.How = plan.Detach // which is all that can be done
		}
		p.Steps = append(p.Steps, plan.Step{Action: r})
	}
	return p, nil
}

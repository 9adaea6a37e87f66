package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"snag/event"
	"snag/fuse"
	"snag/recovery"
	"snag/socs"
	"snag/usb"
	"snag/usb/usbfs"
)

func newFuse() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fuse",
		Short: "Burn MAC addresses into the fuses of i.MX SoCs",
		Args:  subcommands,
		RunE:  showHelp, DisableFlagsInUseLine: true,
	}
	cmd.AddCommand(newFuseMAC())
	return cmd
}

// fuseFlags are the flags of snag fuse mac as they were typed.
type fuseFlags struct {
	outputFlags
	soc, usbPath       string
	mac                [2]string
	burn, yes, offline bool
	dryRun             bool
	timeout, wait      time.Duration
}

func newFuseMAC() *cobra.Command {
	var f fuseFlags
	cmd := &cobra.Command{
		Use:   "mac --soc SOC --mac0 ADDRESS [--mac1 ADDRESS]",
		Short: "Burn a board's MAC addresses, or say what is burnt",
		Long: `Computes which bits of which fuses a board's MAC addresses are, and compares them with
what the fuses are: U-Boot must run on the board, in fastboot. Nothing is burnt
without --burn, and then only after a confirmation: fuses never become 0 again.

All is refused if a bit would have to become 0, if a word is burnt in part, if the
fuses are locked, or if they read differently when read twice. What is there already
is not burnt again. Each word is read back.

SOC is one of ` + strings.Join(fuse.Models(), ", ") + `.
docs/fuses.md has the rest.`,
		Example: `  snag fuse mac --soc imx8mp --mac0 00:04:9f:01:23:45 --mac1 00:04:9f:01:23:46
  snag fuse mac --soc imx8mp --mac0 00:04:9f:01:23:45 --mac1 00:04:9f:01:23:46 --burn
  snag fuse mac --soc imx6ull --mac0 00:04:9f:01:23:45 --offline`,
		Args: arguments(0, 0),
		RunE: f.run,
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.soc, "soc", "s", "", "SoC `model` or alias (snag list socs)")
	fl.StringVar(&f.mac[0], "mac0", "", "the first MAC `address`")
	fl.StringVar(&f.mac[1], "mac1", "", "the second MAC `address`, of SoCs that have two")
	fl.BoolVar(&f.burn, "burn", false, "burn them")
	fl.BoolVar(&f.dryRun, "dry-run", false, "burn nothing (the default)")
	fl.BoolVar(&f.yes, "yes", false, "with --burn: do not ask")
	fl.BoolVar(&f.offline, "offline", false, "only compute, and ask no board")
	fl.StringVar(&f.usbPath, "usb-path", "", "the board: its `port` (1-2.3), or the VID:PID it shows")
	fl.DurationVar(&f.timeout, "timeout", recovery.DefaultTimeout, "give up after this `time` in all")
	fl.DurationVar(&f.wait, "wait", 30*time.Second, "give up if no board appears within this `time`")
	f.outputFlags.add(cmd)
	cmd.MarkFlagsMutuallyExclusive("burn", "dry-run")
	cmd.MarkFlagsMutuallyExclusive("burn", "offline")
	return cmd
}

func (f *fuseFlags) run(cmd *cobra.Command, _ []string) error {
	opt, plan, err := f.options(cmd)
	switch {
	case !f.offline || err != nil:
		return f.recover(cmd, opt, err)
	case !f.JSON:
		return plan.Write(cmd.OutOrStdout())
	}
	return f.show(cmd, func(emit event.Sink, _ *slog.Logger) error {
		now := func(body event.Body) { emit(event.Event{Time: time.Now(), SoC: plan.SoC, Body: body}) }
		plan.Emit(now)
		now(event.Done{})
		return nil
	})
}

// options turns the flags into what the engine takes.
func (f *fuseFlags) options(cmd *cobra.Command) (recovery.Options, *fuse.Plan, error) {
	opt := recovery.Options{Timeout: f.timeout, Wait: f.wait, USB: usbfs.Host{Quick: true}}
	fail := func(err error) (recovery.Options, *fuse.Plan, error) { return opt, nil, usage(cmd, err) }
	switch {
	case f.soc == "" || f.mac[0] == "":
		return fail(errors.New("--soc and --mac0 are needed"))
	case f.timeout <= 0 || f.wait <= 0:
		return fail(fmt.Errorf("--timeout %s and --wait %s: expected more than nothing", f.timeout, f.wait))
	case f.yes && !f.burn:
		return fail(errors.New("--yes without --burn"))
	}
	var addresses []net.HardwareAddr
	for i, s := range f.mac {
		if s == "" {
			continue
		}
		a, err := fuse.Address(s)
		if err != nil {
			return fail(fmt.Errorf("--mac%d: %w", i, err))
		}
		addresses = append(addresses, a)
	}
	var err error
	if opt.Model, err = socs.Lookup(f.soc); err != nil {
		return opt, nil, err
	}
	plan, err := fuse.MAC(f.soc, addresses...)
	if err != nil {
		return fail(err)
	}
	if f.usbPath != "" {
		if opt.Port, opt.ID, err = usb.ParseBoard(f.usbPath); err != nil {
			return fail(fmt.Errorf("--usb-path: %w", err))
		}
	}
	backend := fuse.Backend{Plan: plan}
	switch {
	case f.burn && f.yes:
		backend.Confirm = func(context.Context, usb.Port) error { return nil }
	case f.burn:
		backend.Confirm = func(ctx context.Context, port usb.Port) error {
			return plan.Confirm(ctx, port, cmd.InOrStdin(), cmd.ErrOrStderr())
		}
	}
	opt.Backend = backend
	return opt, plan, nil
}

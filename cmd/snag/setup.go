package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"snag/internal/setup"
	"snag/netsetup"
	"snag/recovery"
	"snag/socs"
	"snag/usb"
)

func families() []socs.Family {
	var all []socs.Family
	for _, b := range recovery.Backends() {
		all = append(all, b.Family())
	}
	return all
}

func newSetup() *cobra.Command {
	var opt setup.Options
	var ids []string
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Allow recoveries without root (run once, as root)",
		Long: `Installs what recoveries by ordinary users need: the helper that moves a board's
network interface, with one capability; the udev rules; where the distribution
restricts user namespaces, an AppArmor profile. Prints what it does; may be
repeated; --remove takes it all back. docs/setup.md tells file by file.`,
		Example: "  sudo snag setup\n  sudo snag setup --usb 0525:a4a2   # an SPL with other USB IDs\n  snag setup --check",
		Args:    arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if opt.USB, err = parseIDs(ids); err != nil {
				return usage(cmd, err)
			}
			if !cmd.Flags().Changed("destdir") {
				opt.DestDir = os.Getenv("DESTDIR")
			}
			opt.Families, opt.Out = families(), cmd.OutOrStdout()
			return setupError(setup.Setup(cmd.Context(), opt))
		},
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&ids, "usb", nil, "allow this `VID:PID` too; may be given several times")
	fl.BoolVar(&opt.Check, "check", false, "change nothing; say what is missing and exit with 4 if anything is")
	fl.BoolVar(&opt.Remove, "remove", false, "take everything away again")
	fl.StringVar(&opt.DestDir, "destdir", "", "stage the files below this `directory`, for packages (default $DESTDIR)")
	fl.StringVar(&opt.Prefix, "prefix", "", "install below this `directory`, /usr or /usr/local (default: where snag runs from)")
	fl.StringVar(&opt.Group, "group", "", "the `group` that may use boards (default plugdev)")
	fl.BoolVar(&opt.AppArmor, "apparmor", false, "stage the AppArmor profile too (with --destdir)")
	cmd.MarkFlagsMutuallyExclusive("check", "remove")
	return cmd
}

// setupError gives setup's ends their exit codes.
func setupError(err error) error {
	switch {
	case errors.Is(err, setup.ErrIncomplete):
		return &exitError{recovery.ExitPermission, err}
	case errors.Is(err, setup.ErrNotRoot):
		return &exitError{recovery.ExitPermission, err}
	}
	return err
}

func parseIDs(words []string) ([]usb.ID, error) {
	var ids []usb.ID
	for _, w := range words {
		id, err := usb.ParseID(w)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func newUdev() *cobra.Command {
	return &cobra.Command{
		Use:   "udev",
		Short: "Print the udev rules that setup installs",
		Args:  arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprint(cmd.OutOrStdout(), setup.Rules(families(), nil, "plugdev"))
			return err
		},
	}
}

// probeNamespace tells doctor whether netsetup could make its namespace.
func probeNamespace(ctx context.Context) (mend string, err error) {
	err = netsetup.ProbeUserNamespaces(ctx)
	return recovery.Hint(err), err
}

func newDoctor() *cobra.Command {
	var json bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what is missing on this machine, and how to mend it",
		Long: `Looks at all that a recovery by you needs of this machine, changes nothing, and
prints a line for each: ok, warn (may be in the way), fail (is in the way), skip
(does not matter here), and below it what to type.

The exit code is 4 if anything fails.`,
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			checks, err := setup.Doctor(cmd.Context(), setup.Options{Families: families(), Namespace: probeNamespace})
			if err != nil {
				return err
			}
			show := setup.WriteTable
			if json {
				show = setup.WriteJSON
			}
			if err := show(cmd.OutOrStdout(), checks); err != nil {
				return err
			}
			failed := setup.Failed(checks)
			if !json {
				verdict := "Nothing keeps snag from recovering boards here."
				if failed {
					verdict = `What says "fail" keeps snag from recovering boards: do what stands behind ->, then run snag doctor again.`
				}
				fmt.Fprintf(cmd.OutOrStdout(), "\n%s\n", verdict)
			}
			if failed {
				return &shownError{&exitError{recovery.ExitPermission, errors.New("something is missing")}}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&json, "json", false, "print one JSON object for each line")
	return cmd
}

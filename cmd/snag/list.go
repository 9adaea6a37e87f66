package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"snag/internal/config"
	"snag/internal/ui"
	"snag/recovery"
	"snag/socs"
	"snag/usb/usbfs"
)

func newList() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List SoC models, attached boards, firmware templates",
		Args:  subcommands,
		RunE:  showHelp, DisableFlagsInUseLine: true,
	}
	cmd.AddCommand(
		&cobra.Command{Use: "socs", Short: "List the SoC models, and over what they are recovered", Long: listSoCsLong, Args: arguments(0, 0), RunE: listSoCs},
		&cobra.Command{Use: "boards", Short: "List the boards that are attached", Long: listBoardsLong, Args: arguments(0, 0), RunE: listBoards},
		&cobra.Command{Use: "templates", Short: "List the firmware files to start from", Args: arguments(0, 0), RunE: listTemplates},
	)
	return cmd
}

const listSoCsLong = `Lists the SoC models, and over what they are recovered. "unproven" are those whose
virtual board, on which snag is tested, no other program was seen to recover.`

const listBoardsLong = `Lists the USB devices that are boards in recovery, or gadgets that U-Boot shows: the
port, which --usb-path takes; which SoCs show this; whether you may open it (ACCESS).`

func listSoCs(cmd *cobra.Command, _ []string) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "MODEL\tFAMILY\tALIASES\tRECOVERY")
	for _, m := range socs.Models() {
		_, b, err := recovery.Lookup(m.Name)
		if err != nil {
			return err
		}
		f := b.Family()
		var over []string
		for _, c := range f.Carriers {
			over = append(over, c.String())
		}
		if slices.Contains(f.Unproven, m.Name) {
			over = append(over, "unproven")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", m.Name, m.Family, strings.Join(m.Aliases, " "), strings.Join(over, ", "))
	}
	return w.Flush()
}

func listBoards(cmd *cobra.Command, _ []string) error {
	devices, err := usbfs.Host{}.Devices()
	if err != nil {
		return err
	}
	boards := recovery.Boards(devices)
	if len(boards) == 0 {
		hint := "bring it into its boot ROM's USB mode (snag template says how), and try another cable: some have no data lines"
		if len(devices) == 0 {
			hint = "no USB device is attached at all; snag doctor says whether this machine has USB"
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "no known board is attached\nhint: %s\n", hint)
		return nil
	}
	locked := false
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "PORT\tID\tFAMILY\tMODELS\tSTAGE\tDRIVER\tINTERFACE\tACCESS\tPRODUCT")
	for _, b := range boards {
		access := "yes"
		if b.Access() != nil {
			access, locked = "no", true
		}
		var drivers, nets []string
		for _, i := range b.Interfaces {
			if i.Driver != "" && !slices.Contains(drivers, i.Driver) {
				drivers = append(drivers, i.Driver)
			}
			if i.Net != "" {
				nets = append(nets, i.Net)
			}
		}
		models := orDash(b.Models)
		if b.Family != "" && b.Models == nil {
			models = "all"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", b.Port, b.ID, orDash(strings.Fields(b.Family)), models, b.Stage,
			orDash(drivers), orDash(nets), access, ui.Printable(b.Product))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if locked {
		fmt.Fprintln(cmd.ErrOrStderr(), "hint: no access: snag doctor says why, and the line to type")
	}
	return nil
}

func orDash(s []string) string {
	if len(s) == 0 {
		return "-"
	}
	return strings.Join(s, ",")
}

func listTemplates(cmd *cobra.Command, _ []string) error {
	_, err := fmt.Fprintln(cmd.OutOrStdout(), strings.Join(config.Templates(), "\n"))
	return err
}

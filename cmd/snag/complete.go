package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"snag/internal/config"
	"snag/internal/ui"
	"snag/recovery"
	"snag/socs"
	"snag/usb"
	"snag/usb/usbfs"
	"snag/uuu"
)

// completeFlags has the shell complete the values of flags that bear the same names in all commands.
func completeFlags(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		completeFlags(c)
	}
	for name, complete := range map[string]func() []string{
		"soc": completeModels, "usb-path": func() []string { return completePorts(usbfs.Host{}) },
	} {
		if cmd.Flags().Lookup(name) == nil {
			continue
		}
		if err := cmd.RegisterFlagCompletionFunc(name, noFiles(complete)); err != nil {
			panic(err) // the flag is there
		}
	}
	if f := cmd.Flags().Lookup("net"); f != nil && f.DefValue == "auto" {
		_ = cmd.RegisterFlagCompletionFunc("net", cobra.FixedCompletions([]string{"auto", "kernel", "user"}, cobra.ShellCompDirectiveNoFileComp))
	}
	for _, name := range []string{"firmware-file", "plan"} { // ignored where there is no such flag
		_ = cmd.MarkFlagFilename(name, "yaml", "yml")
	}
}

// noFiles is a completion that depends on nothing that was typed: the shell picks what begins so.
func noFiles(words func() []string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return words(), cobra.ShellCompDirectiveNoFileComp
	}
}

func completeModels() (words []string) {
	for _, m := range socs.Models() {
		for _, name := range append([]string{m.Name}, m.Aliases...) {
			words = append(words, cobra.CompletionWithDesc(name, m.Family))
		}
	}
	return words
}

// completePorts offers the ports of boards that snag knows; if there are none, those of all devices.
func completePorts(host usb.Host) (words []string) {
	devices, err := host.Devices()
	if err != nil {
		return nil
	}
	var known []usb.Device
	for _, b := range recovery.Boards(devices) {
		known = append(known, b.Device)
	}
	if len(known) > 0 {
		devices = known
	}
	for _, d := range devices {
		words = append(words, cobra.CompletionWithDesc(string(d.Port), ui.Printable(strings.TrimSpace(fmt.Sprint(d.ID, " ", d.Product)))))
	}
	return slices.Compact(words)
}

func completeTemplates() (words []string) {
	for _, name := range config.Templates() {
		_, about := config.About(name)
		words = append(words, cobra.CompletionWithDesc(name, about))
	}
	return words
}

// completeCommand offers the commands that help can be had about.
func completeCommand(cmd *cobra.Command, args []string, _ string) (words []string, _ cobra.ShellCompDirective) {
	if c, rest, err := cmd.Root().Find(args); err == nil && len(rest) == 0 {
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				words = append(words, cobra.CompletionWithDesc(sub.Name(), sub.Short))
			}
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

// completeScript offers what uuu has built in, beside files.
func completeScript(_ *cobra.Command, args []string, _ string) (words []string, _ cobra.ShellCompDirective) {
	if len(args) == 0 {
		words = uuu.Builtins()
	}
	return words, cobra.ShellCompDirectiveDefault
}

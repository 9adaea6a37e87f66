package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"snag/recovery"
	"snag/socs"
)

// usage is a wrong command line: cobra's and pflag's errors with snag's exit code, and where help is.
func usage(cmd *cobra.Command, err error) error {
	if err == nil || errors.Is(err, recovery.ErrInterrupted) {
		return err
	}
	return &recovery.UsageError{Err: err, Hint: "see " + cmd.CommandPath() + " --help"}
}

// arguments is the check of a command that takes so many of them as cmd.Use shows; most is -1 if there is no end.
func arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch n := len(args); {
		case most == 0 && n > 0:
			return usage(cmd, fmt.Errorf("%q: %s takes flags only", args[0], cmd.CommandPath()))
		case n < least, most >= 0 && n > most:
			found := fmt.Sprint(n, " arguments")
			if n < 2 {
				found = [...]string{"no argument", "one"}[n]
			}
			return usage(cmd, fmt.Errorf("expected %q, found %s", strings.TrimSuffix(cmd.UseLine(), " [flags]"), found))
		}
		return nil
	}
}

// subcommands is the check of a command that has nothing but these.
func subcommands(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(append(names, c.Name()), c.Aliases...)
		}
	}
	return usage(cmd, fmt.Errorf("unknown command %q for %q%s", args[0], cmd.CommandPath(), meant(args[0], names)))
}

// namesBoard refuses flags that name the board and are empty, as of a script whose variable is not set: any other board
// would do then.
func namesBoard(cmd *cobra.Command, _ []string) error {
	for _, name := range []string{"usb-path", "port", "uart"} {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed && f.Value.String() == "" {
			return usage(cmd, fmt.Errorf("--%s is empty: name the board, or leave it out", name))
		}
	}
	return nil
}

// showHelp is what a command does that has nothing but subcommands.
func showHelp(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// newHelp is cobra's help command, but that it says so if there is no such command.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:               "help [COMMAND...]",
		Short:             "Help about any command",
		ValidArgsFunction: completeCommand,
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err == nil {
				err = subcommands(about, rest)
			}
			if err != nil {
				return err
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// flagError adds to what pflag finds wrong which flag may have been meant.
func flagError(cmd *cobra.Command, err error) error {
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok && len(unknown.GetSpecifiedName()) > 1 {
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				names = append(names, f.Name)
			}
		})
		if near := socs.Nearest(unknown.GetSpecifiedName(), names); len(near) > 0 {
			err = fmt.Errorf("%w: did you mean --%s?", err, near[0])
		}
	}
	return usage(cmd, err)
}

// meant is what a message says of the name that word may be a misspelling of, if there is one.
func meant(word string, names []string) string {
	if near := socs.Nearest(word, names); len(near) > 0 {
		return fmt.Sprintf(": did you mean %q?", near[0])
	}
	return ""
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"snag/firmware/inspect"
	"snag/internal/ui"
	"snag/recovery"
	"snag/socs"
)

func newInspect() *cobra.Command {
	var soc string
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Say what a firmware file is, and what snag would do with it",
		Long: `Says what a firmware file is, draws its parts with their offsets, sizes and
addresses, and verifies its checksums. With --soc it says too in which place of a
firmware configuration snag would use the file for that model, and if not, why.

The exit code is 5 if something in the file is wrong, or no place takes it.`,
		Example: `  snag inspect u-boot-dtb.imx
  snag inspect -v SPL                     the DCD command by command
  snag inspect --soc am335x MLO`,
		Args: arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return inspectFile(cmd, args[0], soc, asJSON, all) },
	}
	fl := cmd.Flags()
	fl.StringVarP(&soc, "soc", "s", "", "SoC `model`, alias or family (snag list socs)")
	fl.BoolVar(&asJSON, "json", false, "print one JSON object (docs/json.md)")
	fl.BoolVarP(&all, "verbose", "v", false, "write out the commands of DCD, CSF and boot streams")
	return cmd
}

func inspectFile(cmd *cobra.Command, path, soc string, asJSON, all bool) error {
	var model socs.Model
	var backend socs.Backend
	if soc != "" {
		var err error
		if model, backend, err = recovery.Lookup(soc); err != nil {
			return err
		}
	}
	r, err := await(cmd.Context(), func() (*inspect.Report, error) { return inspect.File(path) })
	if err != nil {
		return refused(err)
	}
	if backend != nil {
		r.For(backend, model)
	}
	out := cmd.OutOrStdout()
	if asJSON {
		enc := json.NewEncoder(out)
		enc.SetEscapeHTML(false)
		err = enc.Encode(r)
	} else {
		r.File = ui.Printable(r.File)
		err = r.Write(out, all)
	}
	switch {
	case err != nil:
		return err
	case backend != nil && !r.Usable():
		return &shownError{&exitError{recovery.ExitFirmware, fmt.Errorf("nothing that snag uses for %s", model.Name)}}
	case len(r.Problems) > 0:
		return &shownError{&exitError{recovery.ExitFirmware, errors.New("something is wrong in it")}}
	}
	return nil
}

// refused is the error of a file that is not as it should be, unless it is that of an interruption.
func refused(err error) error {
	if errors.Is(err, recovery.ErrInterrupted) {
		return err
	}
	return &exitError{recovery.ExitFirmware, err}
}

package main

import (
	"github.com/spf13/cobra"

	"snag/internal/config"
)

func newTemplate() *cobra.Command {
	return &cobra.Command{
		Use:               "template NAME",
		Short:             "Print a firmware file to start from",
		Example:           "  snag template am335x-beaglebone-black > board.yaml",
		Args:              arguments(1, 1),
		ValidArgsFunction: noFiles(completeTemplates),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := config.Template(args[0])
			if err != nil {
				return usage(cmd, err)
			}
			_, err = cmd.OutOrStdout().Write([]byte(text))
			return err
		},
	}
}

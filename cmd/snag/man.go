package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newMan() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "man",
		Short: "Write the manual pages into a directory",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			return doc.GenManTree(cmd.Root(), &doc.GenManHeader{Title: "SNAG", Section: "1", Source: "snag", Manual: "User Commands"}, dir)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "where to")
	return cmd
}

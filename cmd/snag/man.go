package main

import (
	"os"
	"regexp"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newMan() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "man",
		Short: "Write the manual pages into a directory",
		Args:  arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			asMarkdown(cmd.Root())
			return doc.GenManTree(cmd.Root(), &doc.GenManHeader{Title: "SNAG", Section: "1", Source: "snag", Manual: "User Commands"}, dir)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "write them into this `directory`")
	return cmd
}

// What the commands' help indents is to be typed, or a table.
var indented = regexp.MustCompile(`(?m)^  `)

// asMarkdown has what the help indents by two columns indented by as many as the manual pages' generator takes for
// verbatim text.
func asMarkdown(cmd *cobra.Command) {
	cmd.Long = indented.ReplaceAllString(cmd.Long, "    ")
	for _, c := range cmd.Commands() {
		asMarkdown(c)
	}
}

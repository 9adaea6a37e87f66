package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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
			return writeManual(dir, cmd.Root())
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "write them into this `directory`")
	return cmd
}

// writeManual writes the page of a command and those of its subcommands. (Cobra's own, in its package doc, come by way of
// Markdown, whose parser each start of snag would have to pay for.)
func writeManual(dir string, cmd *cobra.Command) error {
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			if err := writeManual(dir, c); err != nil {
				return err
			}
		}
	}
	return os.WriteFile(filepath.Join(dir, pageName(cmd)+".1"), []byte(manualPage(cmd)), 0o644)
}

func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// manualPage is a command's help in the macros of groff_man(7).
func manualPage(cmd *cobra.Command) string {
	cmd.InitDefaultHelpFlag()
	cmd.InitDefaultVersionFlag()
	var b strings.Builder
	name := roff(pageName(cmd))
	fmt.Fprintf(&b, ".TH %s 1 \"\" \"snag %s\" \"User Commands\"\n", strings.ToUpper(name), roff(version))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", name, roff(cmd.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n\\fB%s\\fP\n", roff(cmd.UseLine()))
	about := cmd.Long
	if about == "" {
		about = cmd.Short
	}
	manualText(&b, "DESCRIPTION", about)
	var related []string
	if cmd.HasParent() {
		related = append(related, pageName(cmd.Parent()))
	}
	if cmd.HasAvailableSubCommands() {
		b.WriteString(".SH COMMANDS\n")
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				fmt.Fprintf(&b, ".TP\n\\fB%s\\fP\n%s\n", roff(c.Name()), roff(c.Short))
				related = append(related, pageName(c))
			}
		}
	}
	b.WriteString(".SH OPTIONS\n") // there is --help at least
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		b.WriteString(".TP\n")
		if f.Shorthand != "" {
			fmt.Fprintf(&b, "\\fB\\-%s\\fP, ", f.Shorthand)
		}
		value, usage := pflag.UnquoteUsage(f)
		fmt.Fprintf(&b, "\\fB\\-\\-%s\\fP", roff(f.Name))
		if value != "" {
			fmt.Fprintf(&b, " \\fI%s\\fP", roff(value))
		}
		b.WriteString("\n" + roff(usage))
		switch f.DefValue {
		case "", "[]", "false", "0", "0s":
		default:
			fmt.Fprintf(&b, " (default %s)", roff(f.DefValue))
		}
		b.WriteByte('\n')
	})
	if cmd.HasExample() {
		manualText(&b, "EXAMPLES", cmd.Example)
	}
	for i, page := range related {
		related[i] = fmt.Sprintf("\\%%\\fB%s\\fP(1)", roff(page)) // the percent sign forbids to hyphenate it
	}
	if len(related) > 0 {
		fmt.Fprintf(&b, ".SH SEE ALSO\n%s\n", strings.Join(related, ",\n"))
	}
	return b.String()
}

// manualText writes a section. A paragraph that is indented is to be typed, or a table, and keeps its lines; one that
// begins with #### is a heading, as those of the help that cobra has of completion.
func manualText(b *strings.Builder, section, text string) {
	b.WriteString(".SH " + section + "\n")
	for i, paragraph := range strings.Split(strings.Trim(text, "\n"), "\n\n") {
		switch heading, isHeading := strings.CutPrefix(paragraph, "#### "); {
		case isHeading:
			b.WriteString(".SS " + roff(heading) + "\n")
		case strings.HasPrefix(paragraph, "  "), strings.HasPrefix(paragraph, "\t"):
			b.WriteString(".PP\n.RS\n.EX\n" + roff(unindent(paragraph)) + "\n.EE\n.RE\n")
		default:
			if i > 0 {
				b.WriteString(".PP\n")
			}
			b.WriteString(roff(paragraph) + "\n")
		}
	}
}

// unindent takes two columns, or a tab, from each line.
func unindent(text string) string {
	return strings.TrimPrefix(strings.NewReplacer("\n  ", "\n", "\n\t", "\n").Replace("\n"+text), "\n")
}

// roff escapes what roff would take for a request or an escape, or print as another character.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(text)
	return strings.TrimPrefix(strings.ReplaceAll("\n"+text, "\n.", "\n\\&."), "\n")
}

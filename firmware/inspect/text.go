package inspect

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Write writes the report for people: what the file is, its parts as a tree beside columns of where they lie and go to,
// what is wrong, and what a SoC would do with it. With all, the commands of DCD, CSF and boot streams are written out.
func (r *Report) Write(w io.Writer, all bool) error {
	fmt.Fprintf(w, "%s: %s\n%d bytes\n", r.File, r.Text, r.Size)
	if len(r.Parts) > 0 {
		fmt.Fprintln(w)
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		fmt.Fprintln(t, "OFFSET\tSIZE\tLOAD\tENTRY\tCHECK\tPART")
		for _, p := range r.Parts {
			row(t, p, "", "", all)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if len(r.Problems)+len(r.Notes) > 0 {
		fmt.Fprintln(w)
	}
	for _, s := range r.Problems {
		fmt.Fprintf(w, "wrong: %s\n", s)
	}
	for _, s := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", s)
	}
	if r.SoC != "" {
		return r.writeUses(w)
	}
	return nil
}

// row writes a part and what is in it. Branch is what stands before its text, trunk what stands before that of its
// parts.
func row(w io.Writer, p *Part, branch, trunk string, all bool) {
	var checks []string
	for _, c := range p.Checks {
		s := c.Algo + " " + string(c.Result)
		if c.Result == Bad {
			s = c.Algo + " BAD"
		}
		checks = append(checks, s)
	}
	fmt.Fprintf(w, "%#08x\t%d\t%s\t%s\t%s\t%s%s\n", p.Offset, p.Size, hex(p.Load), hex(p.Entry), orDash(strings.Join(checks, ", ")), branch, p.Text)
	n := len(p.Parts)
	if all {
		n += len(p.Commands)
	}
	next := func() (branch, below string) {
		if n--; n > 0 {
			return trunk + "├─ ", trunk + "│  "
		}
		return trunk + "└─ ", trunk + "   "
	}
	if all {
		for _, c := range p.Commands {
			branch, _ := next()
			fmt.Fprintf(w, "%#08x\t-\t-\t-\t-\t%s%s\n", c.Offset, branch, c.Text)
		}
	}
	for _, sub := range p.Parts {
		branch, below := next()
		row(w, sub, branch, below, all)
	}
}

func hex(a *uint64) string {
	if a == nil {
		return "-"
	}
	return fmt.Sprintf("%#08x", *a)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

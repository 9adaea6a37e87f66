package uuu

import (
	"fmt"
	"io"
)

// DryRun writes what the script would send, line by line, without a board. Which lines are run depends on what the
// board shows: those of protocols that it does not speak are left out.
func (s *Script) DryRun(w io.Writer) error {
	for _, l := range s.Lines {
		if _, err := fmt.Fprintf(w, "%4d  %s\n", l.N, l.Text); err != nil {
			return err
		}
		for _, line := range l.cmd.sends(s) {
			if _, err := fmt.Fprintf(w, "      > %s\n", line); err != nil {
				return err
			}
		}
	}
	return nil
}

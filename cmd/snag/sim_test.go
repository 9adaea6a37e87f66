package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"snag/socs"
)

// snag sim has a virtual board by every name of every model.
func TestSimNames(t *testing.T) {
	cmd := newSim()
	for _, m := range socs.Models() {
		for _, name := range append([]string{m.Name}, m.Aliases...) {
			// The family's name, what is started by "snag sim uboot", and what has another ROM than AM335x.
			if name == "sunxi" || name == "keembay" || strings.HasPrefix(name, "am43") {
				continue
			}
			found := slices.ContainsFunc(cmd.Commands(), func(c *cobra.Command) bool { return c.Name() == name || c.HasAlias(name) })
			if !found {
				t.Errorf("there is no virtual %s", name)
			}
		}
	}
}

package imx_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"snag/sim/imx"
	"snag/socs"
	soc "snag/socs/imx"
)

// The table of docs/imx.md has all models, their ROM's IDs, and which program has proved the virtual board; that is
// what internal/e2e finds, and what snag list socs says.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/imx.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{} // cells, by name of the model
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) != 9 || !strings.HasPrefix(line, "| `") {
			continue
		}
		for name := range strings.SplitSeq(cells[1], ",") {
			rows[strings.Trim(name, " `")] = cells
		}
	}
	family := soc.Backend{}.Family()
	for _, m := range socs.Models() {
		if m.Family != family.Name {
			continue
		}
		row, board := rows[m.Name], imx.Model{}
		delete(rows, m.Name)
		if board, err = imx.FindModel(m.Name); row == nil || err != nil {
			t.Errorf("%s: row %q, virtual board: %v", m.Name, row, err)
			continue
		}
		proven := board.ProvenBy
		if proven == "" {
			proven = "unproven"
		}
		if got := strings.TrimSpace(row[7]); got != proven {
			t.Errorf("%s: proved by %q, the virtual board's is %q", m.Name, got, proven)
		}
		if slices.Contains(family.Unproven, m.Name) != (board.ProvenBy == "") {
			t.Errorf("%s: proved by %q, and among the family's unproven: %t", m.Name, proven, board.ProvenBy != "")
		}
		if want := fmt.Sprintf("`%s`", board.ID); !strings.Contains(row[3], want) {
			t.Errorf("%s: the ROM's IDs are %q, the virtual board's is %s", m.Name, row[3], want)
		}
		for _, alias := range m.Aliases {
			if !strings.Contains(row[2], "`"+alias+"`") {
				t.Errorf("%s: the other names are %q, which lack %s", m.Name, row[2], alias)
			}
		}
	}
	for name := range rows {
		t.Errorf("%s: snag knows no such model", name)
	}
}

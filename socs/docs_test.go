package socs_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"snag/recovery"
	"snag/sim/amlogic"
	"snag/sim/bcm"
	"snag/sim/dfu"
	"snag/sim/fastboot"
	"snag/sim/qcom"
	"snag/sim/rockchip"
	"snag/sim/sama5"
	"snag/sim/sunxi"
	"snag/socs"
	"snag/usb"
)

// The pages of the families that boot over DFU, fastboot and Saharaprotocols of their ownthe SAM-BA monitorfastboot,
// and of Rockchip, have a table of all models, with their ROM's USB IDs where these differ, and with the program that
// has proved the virtual board; that is what internal/e2e finds, and what snag list socs says.
func TestDocs(t *testing.T) {
	for _, family := range []string{"stm32mp", "k3", "rzn1", "zynqmp", "keembay", "qcom", "sunxi", "amlogic", "sama5", "bcm", "rockchip"} {
		rows := models(t, "../docs/"+family+".md")
		for _, m := range socs.Models() {
			if m.Family != family || m.Name == "sunxi" { // whose ROM is asked
				continue
			}
			row := rows[m.Name]
			if row == nil {
				t.Errorf("docs/%s.md has no %s", family, m.Name)
				continue
			}
			delete(rows, m.Name)
			id, proven := board(t, m)
			unproven := proven == ""
			if unproven {
				proven = "unproven"
			}
			if row["proved by"] != proven {
				t.Errorf("docs/%s.md, %s: proved by %q, the virtual board's is %q", family, m.Name, row["proved by"], proven)
			}
			_, backend, err := recovery.Lookup(m.Name)
			if err != nil {
				t.Fatal(err)
			}
			if slices.Contains(backend.Family().Unproven, m.Name) != unproven {
				t.Errorf("%s: proved by %q, and among the family's unproven: %t", m.Name, proven, !unproven)
			}
			if cell, ok := row["ROM's USB ID"]; ok && cell != "`"+id.String()+"`" {
				t.Errorf("docs/%s.md, %s: the ROM's ID is %s, the virtual board's %s", family, m.Name, cell, id)
			}
			if cell, ok := row["other names"]; ok {
				for _, alias := range m.Aliases {
					if !strings.Contains(cell, "`"+alias+"`") {
						t.Errorf("docs/%s.md, %s: the other names are %q, which lack %s", family, m.Name, cell, alias)
					}
				}
			}
		}
		for name := range rows {
			t.Errorf("docs/%s.md: snag knows no model %s", family, name)
		}
	}
}

// What the model table has, Snagboot's models and aliases among it (TestLookupKnowsSnagbootsModels), can be recovered.
func TestEveryModelIsBuilt(t *testing.T) {
	for _, m := range socs.Models() {
		if _, _, err := recovery.Lookup(m.Name); err != nil {
			t.Error(err)
		}
	}
}

// board is what the virtual board of a model shows, and who has proved it.
func board(t *testing.T, m socs.Model) (id usb.ID, provenBy string) {
	t.Helper()
	if m.Name == "keembay" {
		return fastboot.KeemBayROM, fastboot.KeemBayProvenBy
	}
	if m.Family == "qcom" {
		return qcom.ID, qcom.ProvenBy
	}
	if m.Family == "sunxi" {
		b, err := sunxi.FindModel(m.Name)
		if err != nil {
			t.Fatal(err)
		}
		return sunxi.ID, b.ProvenBy
	}
	if b, err := amlogic.FindModel(m.Name); err == nil {
		return amlogic.ID, b.ProvenBy
	}
	if m.Family == "sama5" {
		if _, err := sama5.FindModel(m.Name); err != nil {
			t.Fatal(err)
		}
		return sama5.ID, sama5.ProvenBy
	}
	if m.Family == "bcm" {
		b, err := bcm.FindModel(m.Name)
		if err != nil {
			t.Fatal(err)
		}
		return b.ID, b.ProvenBy
	}
	if m.Family == "rockchip" {
		b, err := rockchip.FindModel(m.Name)
		if err != nil {
			t.Fatal(err)
		}
		return b.ID, b.ProvenBy
	}
	b, err := dfu.FindModel(m.Name)
	if err != nil {
		t.Fatal(err)
	}
	return b.ID, b.ProvenBy
}

// models reads the page's table of models: each one's cells by heading.
func models(t *testing.T, page string) map[string]map[string]string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]map[string]string{}
	var headings []string
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case !strings.HasPrefix(line, "|"):
			headings = nil
		case slices.Contains(cells, "model") && slices.Contains(cells, "proved by"):
			headings = cells
		case headings != nil && cells[0] != "---":
			row := map[string]string{}
			for i, c := range cells {
				row[headings[i]] = c
			}
			for name := range strings.SplitSeq(row["model"], ",") {
				rows[strings.Trim(name, " `")] = row
			}
		}
	}
	return rows
}

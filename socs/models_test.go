package socs

import (
	"bufio"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

// snagbootFamilies maps Snagboot's family names to ours where they differ.
var snagbootFamilies = map[string]string{"am6x": "k3", "am62lx": "k3"}

func TestLookupKnowsSnagbootsModels(t *testing.T) {
	f, err := os.Open("testdata/snagboot-models.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) == 0 || fields[0] == "#" {
			continue
		}
		n++
		name, family, model := fields[0], fields[1], fields[0]
		if len(fields) == 3 {
			model = fields[2]
		}
		if ours, ok := snagbootFamilies[family]; ok {
			family = ours
		}
		for _, spelling := range []string{name, strings.ToUpper(name), strings.ToLower(name)} {
			m, err := Lookup(spelling)
			if err != nil {
				t.Errorf("Lookup(%q): %v", spelling, err)
			} else if m.Name != strings.ToLower(model) || m.Family != family {
				t.Errorf("Lookup(%q) = %s of %s, want %s of %s", spelling, m.Name, m.Family, model, family)
			}
		}
	}
	if n != 126 {
		t.Errorf("the list has %d names, expected 126", n)
	}
}

func TestModelTable(t *testing.T) {
	seen := make(map[string]bool)
	for _, m := range Models() {
		for _, n := range append([]string{m.Name}, m.Aliases...) {
			if seen[n] {
				t.Errorf("%q stands twice in the table", n)
			}
			if n != strings.ToLower(n) {
				t.Errorf("%q is not in lower case", n)
			}
			seen[n] = true
		}
	}
}

func TestLookup(t *testing.T) {
	for name, want := range map[string]string{
		"am335x": "am335x am335x", "AM3358": "am3358 am335x", "AM33xx": "am335x am335x",
		"am43xx": "am437x am335x", "am4378": "am4378 am335x",
		"imx8mp": "imx865 imx", " h2+ ": "h2+ sunxi", "sunxi": "sunxi sunxi",
	} {
		m, err := Lookup(name)
		if got := m.Name + " " + m.Family; err != nil || got != want {
			t.Errorf("Lookup(%q) = %s, %v; want %s", name, got, err, want)
		}
	}
}

func TestLookupUnknown(t *testing.T) {
	for name, want := range map[string]string{
		"am3538":     "am3358", // two letters swapped
		"am335":      "am335x",
		"am3358bzcz": "am3358", // with the package's letters
		"stm32mp157": "stm32mp15",
		"imx8mpp":    "imx8mp",
		"bcm2709":    "bcm2711",
		"tda4":       "tda4vm",
	} {
		_, err := Lookup(name)
		var unknown *UnknownModelError
		if !errors.As(err, &unknown) || !slices.Contains(unknown.Near, want) {
			t.Errorf("Lookup(%q): %v; want a hint at %s", name, err, want)
		}
	}
	for _, name := range []string{"", "zzzzzz", strings.Repeat("am3358", 1000)} {
		_, err := Lookup(name)
		var unknown *UnknownModelError
		if !errors.As(err, &unknown) || len(unknown.Near) != 0 {
			t.Errorf("Lookup(%.20q): %v; want no hint", name, err)
		}
	}
	_, err := Lookup("imx")
	var unknown *UnknownModelError
	if !errors.As(err, &unknown) || unknown.Family != "imx" || !slices.Contains(unknown.Near, "imx7d") {
		t.Errorf("Lookup(imx): %v; want the family's models", err)
	}
}

package config

import (
	"embed"
	"errors"
	"fmt"
	"slices"
	"strings"

	"snag/socs"
)

//go:embed templates/*.yaml
var templates embed.FS

// Templates returns the names of the example configurations, sorted. A board that Snagboot has a
// template for bears its name there.
func Templates() []string {
	files, err := templates.ReadDir("templates")
	if err != nil {
		panic(err) // the files are part of the program
	}
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(f.Name(), ".yaml"))
	}
	slices.Sort(names)
	return names
}

// Template returns an example configuration, YAML with comments.
func Template(name string) (string, error) {
	names := Templates()
	if !slices.Contains(names, name) {
		if of := TemplatesFor(name); of != nil {
			return "", fmt.Errorf("no template %q: for this SoC start from %s", name, strings.Join(of, ", or "))
		}
		return "", fmt.Errorf("no template %q%s", name, suggest(socs.Nearest(name, names), names))
	}
	data, err := templates.ReadFile("templates/" + name + ".yaml")
	return string(data), err
}

// TemplatesFor are the templates for a model, by its name or an alias, or else those of its family, which may be named
// too. Each names a model in the command that it tells of.
func TemplatesFor(model string) []string {
	m, err := socs.Lookup(model)
	family := m.Family
	if unknown, ok := errors.AsType[*socs.UnknownModelError](err); ok {
		family = unknown.Family
	}
	if family == "" {
		return nil
	}
	var same, kin []string
	for _, name := range Templates() {
		word, _ := About(name)
		switch of, _ := socs.Lookup(word); {
		case m.Name != "" && of.Name == m.Name:
			same = append(same, name)
		case of.Family == family:
			kin = append(kin, name)
		}
	}
	if same != nil {
		return same
	}
	return kin
}

// About says of a template which model its comment names behind --soc, and what it says that it is for.
func About(name string) (model, about string) {
	text, err := Template(name)
	if err != nil {
		return "", ""
	}
	about, _, _ = strings.Cut(strings.TrimPrefix(text, "# "), "\n")
	if _, rest, ok := strings.Cut(text, "--soc "); ok {
		model, _, _ = strings.Cut(rest, " ")
	}
	return model, strings.TrimRight(about, ".,:")
}

// TemplateOf finds the template of a board by a word of its name, which users type in the place of a SoC's; empty if
// there is none.
func TemplateOf(word string) string {
	plain := func(s string) string {
		return strings.ToLower(strings.NewReplacer(" ", "", "-", "", "_", "").Replace(s))
	}
	word = plain(word)
	for _, name := range Templates() {
		if _, about := About(name); len(word) > 3 && strings.Contains(plain(name+about), word) {
			return name
		}
	}
	return ""
}

// Package config reads the firmware configuration: which file goes into which slot.
//
// A configuration is a mapping of slots, as in Snagboot's files, which work as they are:
//
//	paths-relative-to: THIS_FILE   # or CWD (as if it were not there), or a directory
//	spl:
//	  path: u-boot-spl.bin
//	u-boot:
//	  path: u-boot.img
//
// The keys beside "path" are the slot's own (socs.Slot.Keys). Sources are merged from the first to
// the last, a later one replacing whole slots: -f files, then -F arguments, each of which is
// "slot=path" or such a mapping as a Python dict ("{'spl': {'path': 'u-boot-spl.bin'}}").
//
// [Load] looks at everything before it gives up, so that all mistakes are reported at once, each
// with its place. Both notations become a yaml.Node tree, which one validator walks.
package config

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"snag/socs"
)

// Source is one place that configuration comes from: one of its fields is set.
type Source struct {
	File string // path of a YAML file (-f)
	Arg  string // text of an argument (-F): slot=path, or a Python dict
}

// Problem is one thing that is wrong, at a place in a source.
type Problem struct {
	File      string // as the user named it; "-F" for an argument; empty if no source is to blame
	Line, Col int    // from 1; 0 where unknown
	Msg       string

	// Firmware tells a mistake in a firmware file (missing, empty, a directory) from one in the
	// configuration itself.
	Firmware bool

	source int // index of the source, to sort by
}

func (p Problem) Error() string { return Place(p.File, p.Line, p.Col) + p.Msg }

// Place is what stands before a message: the file, and the line and column as far as they are known.
func Place(file string, line, col int) string {
	switch {
	case file == "":
		return ""
	case line == 0:
		return file + ": "
	case col == 0:
		return fmt.Sprintf("%s:%d: ", file, line)
	}
	return fmt.Sprintf("%s:%d:%d: ", file, line, col)
}

// Problems is everything that is wrong with a configuration, in the order of the sources.
type Problems []Problem

// Error has a line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Malformed reports whether the configuration itself is wrong (a usage error), and not just
// firmware files that it names (refused firmware).
func (ps Problems) Malformed() bool {
	return slices.ContainsFunc(ps, func(p Problem) bool { return !p.Firmware })
}

// Load merges the sources and reads the firmware files that remain, into memory. Relative paths start
// at the current directory, or where the source's paths-relative-to says. The error, if any, is
// Problems.
func Load(sources []Source, slots []socs.Slot) (socs.Firmware, error) {
	l := &loader{slots: slots, chosen: make(map[string]entry)}
	if len(sources) == 0 {
		l.fail(nil, "no firmware given: name it in a file (-f firmware.yaml) or as an argument (-F spl=u-boot-spl.bin)")
	}
	args, understood := 0, 0
	for i, src := range sources {
		l.source, l.dict = i, src.File == ""
		if l.file = src.File; l.dict {
			if l.file = "-F"; args > 0 {
				l.file = fmt.Sprintf("-F[%d]", args+1)
			}
			args++
		}
		if root := l.parse(src); root != nil && l.mapping(root) {
			understood++
		}
	}
	fw := l.read()
	l.source, l.file = len(sources), ""
	// A slot that seems to be missing may stand in what could not be understood.
	if understood == len(sources) && len(sources) > 0 {
		for _, slot := range slots {
			if _, ok := l.chosen[slot.Name]; slot.Required && !ok && !slices.Contains(l.tried, slot.Name) {
				l.fail(nil, "%q is missing from the configuration%s", slot.Name, described(slot.Doc))
			}
		}
	}
	if len(l.problems) > 0 {
		slices.SortStableFunc(l.problems, func(a, b Problem) int {
			return cmp.Or(cmp.Compare(a.source, b.source), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
		})
		return nil, l.problems
	}
	return fw, nil
}

// Set gives a key of the images' slots a value, as if the configuration had said so. It reports whether any of the
// slots has the key.
func Set(fw socs.Firmware, slots []socs.Slot, key string, value any) bool {
	found := false
	for _, slot := range slots {
		img, ok := fw[slot.Name]
		if !ok || !slices.Contains(slot.Keys, key) {
			continue
		}
		found = true
		img.Params = maps.Clone(img.Params)
		if img.Params == nil {
			img.Params = make(map[string]any)
		}
		img.Params[key] = value
		fw[slot.Name] = img
	}
	return found
}

func described(doc string) string {
	if doc == "" {
		return ""
	}
	return " (" + doc + ")"
}

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// documentedCommand compares the JSON lines in the standard output of the last command, field by field, with the tables
// of docs/json.md. The events that it is given must be among them.
func documentedCommand(ts *testscript.TestScript, neg bool, args []string) {
	page, err := os.ReadFile("../../docs/json.md")
	if neg || err != nil {
		ts.Fatalf("usage: documented EVENT... (%v)", err)
	}
	tables := fieldTables(string(page))
	seen := map[string]bool{}
	var last map[string]any
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		if !strings.HasPrefix(line, `{"time"`) { // the virtual board's
			continue
		}
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			ts.Fatalf("%s: %v", line, err)
		}
		if end, _ := last["event"].(string); end == "done" || end == "failed" {
			ts.Fatalf("behind the end: %s", line)
		}
		kind, _ := e["event"].(string)
		fields := maps.Clone(tables["Every event"])
		maps.Copy(fields, tables[kind])
		if err := hasFields(e, fields); err != nil || tables[kind] == nil {
			ts.Fatalf("%s: not as documented: %v", line, err)
		}
		if at, err := time.Parse("2006-01-02T15:04:05.000Z07:00", e["time"].(string)); err != nil || time.Since(at) > time.Hour {
			ts.Fatalf("%s: time: %v", line, err)
		}
		if total, ok := e["total"].(float64); ok && total >= 0 && e["bytes"].(float64) > total {
			ts.Fatalf("%s: more than all", line)
		}
		stages, _ := e["stages"].([]any)
		for _, s := range stages {
			if err := hasFields(s.(map[string]any), tables["An element of `stages"]); err != nil {
				ts.Fatalf("%s: an element of stages: %v", line, err)
			}
		}
		seen[kind], last = true, e
	}
	for _, kind := range args {
		if !seen[kind] {
			ts.Fatalf("no %s; there were %v", kind, slices.Sorted(maps.Keys(seen)))
		}
	}
}

// fieldTables are the tables of fields of a page: types by heading and field.
func fieldTables(page string) map[string]map[string]string {
	tables := map[string]map[string]string{}
	heading, row := "", regexp.MustCompile("^\\| `(\\w+)` \\| (\\w+) \\|")
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "#") {
			heading = strings.Trim(line, "#` \n")
		}
		if m := row.FindStringSubmatch(line); m != nil {
			if tables[heading] == nil {
				tables[heading] = map[string]string{}
			}
			tables[heading][m[1]] = m[2]
		}
	}
	return tables
}

// hasFields reports whether an object has these fields, of these types, and no others.
func hasFields(object map[string]any, types map[string]string) error {
	for field, value := range object {
		is := map[string]string{"string": "string", "float64": "number", "[]interface {}": "array"}[fmt.Sprintf("%T", value)]
		if is != types[field] {
			return fmt.Errorf("%s is a %s, documented as %q", field, is, types[field])
		}
	}
	for field := range types {
		if _, ok := object[field]; !ok {
			return fmt.Errorf("there is no %s", field)
		}
	}
	return nil
}

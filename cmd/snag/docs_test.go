package main

import (
	"bytes"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/spf13/cobra"

	"snag/internal/config"
	"snag/recovery"
)

// pages are the Markdown files of the repository, by path from its root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	root := os.DirFS("../..")
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (path == "bin" || strings.HasPrefix(path, ".git")):
			return fs.SkipDir
		case !strings.HasSuffix(path, ".md"):
			return nil
		}
		text, err := fs.ReadFile(root, path)
		pages[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(pages) < 20 {
		t.Fatalf("%d pages", len(pages))
	}
	return pages
}

// TestLinks follows the relative links of all pages, to headings too, and the pages that the help names.
func TestLinks(t *testing.T) {
	all := pages(t)
	anchors := map[string]map[string]bool{}
	for page, text := range all {
		anchors[page] = headings(text)
	}
	for page, text := range all {
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(withoutCode(text), -1) {
			target, anchor, hasAnchor := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			to := page
			if target != "" {
				to = filepath.Join(filepath.Dir(page), target)
				if _, err := os.Stat(filepath.Join("../..", to)); err != nil {
					t.Errorf("%s: link to %s: %v", page, m[1], err)
					continue
				}
			}
			if hasAnchor && !anchors[to][anchor] {
				t.Errorf("%s: link to %s: no such heading", page, m[1])
			}
		}
	}
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		for _, page := range regexp.MustCompile(`docs/[\w/-]+\.md`).FindAllString(c.Long+c.Flags().FlagUsages(), -1) {
			if all[page] == "" {
				t.Errorf("%s --help: there is no %s", c.CommandPath(), page)
			}
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(newRoot())
	// From the README one gets to every page of docs.
	for page := range all {
		if filepath.Dir(page) == "docs" && !strings.Contains(all["README.md"], "]("+page+")") {
			t.Errorf("README.md does not link to %s", page)
		}
	}
}

// TestFuzzTargets has docs/fuzzing.md name every fuzz target beside its package, and none that is not there.
func TestFuzzTargets(t *testing.T) {
	listed := map[string]bool{}
	for _, row := range regexp.MustCompile(`(?m)^\| (Fuzz.*?) \| (.*?) \|`).FindAllStringSubmatch(pages(t)["docs/fuzzing.md"], -1) {
		for name := range strings.SplitSeq(row[1], ", ") {
			for pkg := range strings.SplitSeq(row[2], ", ") {
				listed[pkg+" "+name] = true
			}
		}
	}
	target := regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)
	root := os.DirFS("../..")
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		src, err := fs.ReadFile(root, path)
		for _, m := range target.FindAllSubmatch(src, -1) {
			name := filepath.Dir(path) + " " + string(m[1])
			if !listed[name] {
				t.Errorf("docs/fuzzing.md does not name %s", name)
			}
			delete(listed, name)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	for name := range listed {
		t.Errorf("docs/fuzzing.md names %s, which is not there", name)
	}
}

// TestHouse compares the table of packages in CONTRIBUTING.md with the packages: each has a row, and imports only what
// stands there or further up. Programs import what they need.
func TestHouse(t *testing.T) {
	_, table, _ := strings.Cut(pages(t)["CONTRIBUTING.md"], "## The house")
	table, _, _ = strings.Cut(table, "\n## ")
	rows := map[string]int{}
	for i, row := range regexp.MustCompile(`(?m)^\| (`+"`"+`.*?) \|`).FindAllStringSubmatch(table, -1) {
		for _, m := range regexp.MustCompile("`(.*?)`").FindAllStringSubmatch(row[1], -1) {
			rows[m[1]] = i + 1
			if _, err := os.Stat("../../" + m[1]); err != nil {
				t.Error(err)
			}
		}
	}
	floor := func(pkg string) int { // of the package or what it is part of
		for ; pkg != "."; pkg = filepath.Dir(pkg) {
			if n := rows[pkg]; n > 0 {
				return n
			}
		}
		return 0
	}
	root := os.DirFS("../..")
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "testdata/") {
			return err
		}
		src, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, src, parser.ImportsOnly)
		if err != nil {
			return err
		}
		at := floor(filepath.Dir(path))
		if at == 0 && !strings.HasPrefix(path, "tools/") {
			t.Errorf("CONTRIBUTING.md has no room for %s", path)
		}
		for _, i := range file.Imports {
			if pkg, ours := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), "snag/"); ours && floor(pkg) > at && file.Name.Name != "main" {
				t.Errorf("%s imports %s, which stands below it in CONTRIBUTING.md", path, pkg)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// headings are the anchors of a page, as GitHub and GitLab make them.
func headings(text string) map[string]bool {
	anchors := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, m[1])
		for name, n := anchor, 1; ; n++ {
			if !anchors[name] {
				anchors[name] = true
				break
			}
			name = fmt.Sprint(anchor, "-", n)
		}
	}
	return anchors
}

// withoutCode is a page without what is shown as it is.
func withoutCode(text string) string {
	text = regexp.MustCompile("(?s)```.*?```").ReplaceAllString(text, "")
	return regexp.MustCompile("(?m)^ {4}.*$|`[^`\n]*`").ReplaceAllString(text, "")
}

// TestCommandLines parses the command lines of the pages, the templates and the help: every command, flag, model and
// template is one that there is.
func TestCommandLines(t *testing.T) {
	texts := pages(t)
	templates, err := filepath.Glob("../../internal/config/templates/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range templates {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[filepath.Base(path)] = string(bytes.ReplaceAll(text, []byte("\n#"), []byte("\n ")))
	}
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		texts[c.CommandPath()+" --help"] = "\n" + regexp.MustCompile(`(?m)^  `).ReplaceAllString(c.Long+"\n"+c.Example, "    ") + "\n"
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(newRoot())
	found := 0
	line := regexp.MustCompile("(?:\n {3,}(?:\\S+=\\S+ )?(?:sudo )?(?:bin/)?|`(?:sudo )?| -- (?:\\\\\n +)?)(snag [^`\n]*)")
	for where, text := range texts {
		for _, m := range line.FindAllStringSubmatch(strings.ReplaceAll(text, "\\\n", "\\"), -1) {
			if err := parses(m[1]); err != nil {
				t.Errorf("%s: %s: %v", where, m[1], err)
			}
			found++
		}
	}
	if found < 150 {
		t.Errorf("found %d command lines", found)
	}
}

// parses looks at a command line as a page shows it: behind it stands a comment, what the shell does with it, or what
// it prints.
func parses(line string) error {
	line = regexp.MustCompile(`(\s#|\s{3,}|[|;<>&…]|\s--\s|\)).*`).ReplaceAllString(line, "")
	var words []string
	for _, w := range regexp.MustCompile(`'[^']*'|"[^"]*"|\S+`).FindAllString(line, -1) {
		words = append(words, strings.Trim(w, `'"`))
	}
	cmd, rest, err := newRoot(words[1:]...).Find(words[1:])
	if err != nil {
		return err
	}
	cmd.InitDefaultHelpFlag()
	if cmd.HasSubCommands() && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		return subcommands(cmd, rest)
	}
	if err := cmd.ParseFlags(rest); err != nil && !strings.HasPrefix(err.Error(), "flag needs an argument") { // a flag is only named
		return err
	}
	if err := cmd.ValidateFlagGroups(); err != nil {
		return err
	}
	if soc, err := cmd.Flags().GetString("soc"); err == nil && soc != "" && soc != "MODEL" {
		if _, _, err := recovery.Lookup(soc); err != nil {
			return err
		}
	}
	args := cmd.Flags().Args()
	if len(args) == 0 { // the command is only named
		return nil
	}
	if cmd.Name() == "template" {
		if _, err := config.Template(args[0]); err != nil {
			return err
		}
	}
	return cmd.ValidateArgs(args)
}

// TestNamed looks up what the pages name of the source tree and of snag: targets of make, tests, files, and flags.
func TestNamed(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	tests := testNames(t)
	var flag func(c *cobra.Command, name string) bool
	flag = func(c *cobra.Command, name string) bool {
		return c.Flags().Lookup(name) != nil || slices.ContainsFunc(c.Commands(), func(sub *cobra.Command) bool { return flag(sub, name) })
	}
	root := newRoot()
	exists := func(path string) bool {
		_, err := os.Stat("../../" + path)
		return err == nil
	}
	others := []string{"network", "cap-add", "version", "firmware/bootfiles.bin"} // docker's, snagflash's, rpiboot's
	for _, kind := range []struct {
		what  string
		named string // the first submatch
		is    func(name string) bool
		least int
	}{
		{"target of make", `(?m)(?:^    (?:\S+=\S+ )?(?:sudo )?|` + "`" + `)make ([a-z-]+)\b`, func(name string) bool {
			return regexp.MustCompile(`(?m)^`+name+`:`).Match(makefile) || strings.HasSuffix(name, "config") // U-Boot's
		}, 20},
		{"test", `\b((?:Test|Fuzz|Benchmark)[A-Z]\w+)`, func(name string) bool { return tests[name] }, 100},
		{"package", `\./((?:\w+/)+\w+)`, exists, 10},
		{"file or folder", "`" + `((?:cmd|docs|event|firmware|flash|fuse|internal|netboot|netsetup|plan|recovery|scripts|sim|socs|tools|usb|uuu)/[\w./-]+)` + "`", func(name string) bool {
			return exists(name) || strings.HasSuffix(name, ".py") // Snagboot's
		}, 50},
		{"flag", "`--([a-z][a-z-]+)", func(name string) bool { return flag(root, name) }, 50},
	} {
		found := 0
		for page, text := range pages(t) {
			for _, m := range regexp.MustCompile(kind.named).FindAllStringSubmatch(text, -1) {
				if found++; !kind.is(m[1]) && !slices.Contains(others, m[1]) {
					t.Errorf("%s: there is no %s %s", page, kind.what, m[1])
				}
			}
		}
		if found < kind.least {
			t.Errorf("found %d times a %s", found, kind.what)
		}
	}
}

// testNames are the tests, fuzz targets and benchmarks of the repository.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		src, err := os.ReadFile(path)
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`).FindAllSubmatch(src, -1) {
			names[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

//go:build linux

package lab

import (
	"bufio"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// source is one entry of apt's configuration: archives that share suites, components
// and keys (sources.list(5)).
type source struct {
	uris, suites, components []string
	signedBy                 string // path of a keyring, or the key itself on several lines
}

// systemSources returns the entries of the distribution's main archives from apt's
// configuration in etc (/etc/apt). Sources of third parties are left out: one that
// fails would make every update fail, and nothing of theirs is wanted.
func systemSources(etc string) []source {
	var all []source
	lists, _ := filepath.Glob(filepath.Join(etc, "sources.list.d", "*.list"))
	for _, f := range append([]string{filepath.Join(etc, "sources.list")}, lists...) {
		if b, err := os.ReadFile(f); err == nil {
			all = append(all, parseList(string(b))...)
		}
	}
	deb822, _ := filepath.Glob(filepath.Join(etc, "sources.list.d", "*.sources"))
	for _, f := range deb822 {
		if b, err := os.ReadFile(f); err == nil {
			all = append(all, parseDeb822(string(b))...)
		}
	}
	return slices.DeleteFunc(all, func(s source) bool { return !s.main() })
}

// main reports whether s is a main archive of Debian or Ubuntu: signed with their
// keyring, served by their hosts, or a mirror that keeps their path.
func (s source) main() bool {
	switch path.Base(s.signedBy) {
	case "debian-archive-keyring.gpg", "debian-archive-keyring.pgp", "ubuntu-archive-keyring.gpg":
		return len(s.components) > 0
	}
	for _, uri := range s.uris {
		_, rest, ok := strings.Cut(uri, "://")
		if !ok {
			return false
		}
		host, dir, _ := strings.Cut(rest, "/")
		switch path.Base("/" + dir) {
		case "debian", "debian-security", "ubuntu", "ubuntu-ports":
			// ppa.launchpadcontent.net/NAME/ppa/ubuntu is a path of Ubuntu's, too
			if strings.Contains(host, "launchpad") {
				return false
			}
		default:
			return false
		}
	}
	return len(s.uris) > 0 && len(s.components) > 0
}

// parseList reads the one-line format: deb [option=value ...] uri suite component...
func parseList(text string) []source {
	var out []source
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		line, ok := strings.CutPrefix(strings.TrimSpace(line), "deb ")
		if !ok {
			continue
		}
		var s source
		line = strings.TrimSpace(line)
		if opts, rest, ok := strings.Cut(line, "]"); ok && strings.HasPrefix(line, "[") {
			for _, o := range strings.Fields(opts[1:]) {
				if name, v, ok := strings.Cut(o, "="); ok && strings.EqualFold(name, "signed-by") {
					s.signedBy = v
				}
			}
			line = rest
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		s.uris, s.suites, s.components = f[:1], f[1:2], f[2:]
		out = append(out, s)
	}
	return out
}

// parseDeb822 reads stanzas of "Field: value" lines with continuations.
func parseDeb822(text string) []source {
	var out []source
	stanza := map[string]string{}
	end := func() {
		if slices.Contains(strings.Fields(stanza["types"]), "deb") && stanza["enabled"] != "no" {
			out = append(out, source{
				uris:       strings.Fields(stanza["uris"]),
				suites:     strings.Fields(stanza["suites"]),
				components: strings.Fields(stanza["components"]),
				signedBy:   stanza["signed-by"],
			})
		}
		clear(stanza)
	}
	field := ""
	for sc := bufio.NewScanner(strings.NewReader(text)); sc.Scan(); {
		line := sc.Text()
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			end()
		case line[0] == ' ' || line[0] == '\t':
			stanza[field] += "\n" + line
		default:
			name, value, _ := strings.Cut(line, ":")
			field = strings.ToLower(strings.TrimSpace(name))
			stanza[field] = strings.TrimSpace(value)
		}
	}
	end()
	return out
}

// writeSources renders sources for apt, in deb822, for the architecture native and
// the foreign ones. Only the packages' indexes are asked for.
func writeSources(sources []source, native string, foreign []string) string {
	var b strings.Builder
	entry := func(s source, archs []string) {
		b.WriteString("Types: deb\nURIs: " + strings.Join(s.uris, " ") +
			"\nSuites: " + strings.Join(s.suites, " ") +
			"\nComponents: " + strings.Join(s.components, " ") +
			"\nArchitectures: " + strings.Join(archs, " ") +
			"\nTargets: Packages\n")
		if s.signedBy != "" {
			b.WriteString("Signed-By: " + s.signedBy + "\n")
		}
		b.WriteByte('\n')
	}
	for _, s := range sources {
		archs := append([]string{native}, foreign...)
		if native == "amd64" && strings.Contains(strings.Join(s.uris, " "), "ubuntu.com") {
			// Ubuntu keeps all but amd64 and i386 in another archive.
			entry(s, []string{native})
			s.uris, archs = []string{"http://ports.ubuntu.com/ubuntu-ports"}, foreign
			if len(foreign) == 0 {
				continue
			}
		}
		entry(s, archs)
	}
	return b.String()
}

//go:build linux

package lab

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
)

func TestSystemSources(t *testing.T) {
	const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
	debian := source{[]string{"http://deb.debian.org/debian"}, []string{"bookworm", "bookworm-updates"}, []string{"main"}, keyring}
	for _, c := range []struct {
		name, file, content string
		want                []source
	}{
		{"deb822", "sources.list.d/debian.sources",
			"# comment\nTypes: deb\nURIs: http://deb.debian.org/debian\nSuites: bookworm\n bookworm-updates\nComponents: main\nSigned-By: " + keyring + "\n",
			[]source{debian}},
		{"deb822 of a third party", "sources.list.d/node.sources",
			"Types: deb\nURIs: https://deb.nodesource.com/node_20.x\nSuites: nodistro\nComponents: main\n", nil},
		{"disabled", "sources.list.d/x.sources",
			"Types: deb\nEnabled: no\nURIs: http://deb.debian.org/debian\nSuites: sid\nComponents: main\n", nil},
		{"source packages only", "sources.list.d/x.sources",
			"Types: deb-src\nURIs: http://deb.debian.org/debian\nSuites: sid\nComponents: main\n", nil},
		{"one line", "sources.list",
			"deb http://archive.ubuntu.com/ubuntu/ noble main universe # all\ndeb-src http://archive.ubuntu.com/ubuntu noble main\n",
			[]source{{[]string{"http://archive.ubuntu.com/ubuntu/"}, []string{"noble"}, []string{"main", "universe"}, ""}}},
		{"one line with options", "sources.list.d/d.list",
			"deb [ arch=amd64 signed-by=" + keyring + " ] https://mirror.example/debian bookworm main\n",
			[]source{{[]string{"https://mirror.example/debian"}, []string{"bookworm"}, []string{"main"}, keyring}}},
		{"third party on one line", "sources.list.d/d.list",
			"deb https://download.docker.com/linux/debian/x bookworm stable\ndeb http://ppa.launchpadcontent.net/a/ppa/ubuntu noble main\n", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			etc := t.TempDir()
			file := filepath.Join(etc, c.file)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(c.content), 0o644); err != nil {
				t.Fatal(err)
			}
			if got := systemSources(etc); !(len(got) == 0 && len(c.want) == 0) && !reflect.DeepEqual(got, c.want) {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func TestWriteSources(t *testing.T) {
	ubuntu := []source{{[]string{"http://archive.ubuntu.com/ubuntu"}, []string{"noble"}, []string{"main"}, ""}}
	const want = "Types: deb\nURIs: http://archive.ubuntu.com/ubuntu\nSuites: noble\nComponents: main\n" +
		"Architectures: amd64\nTargets: Packages\n\n" +
		"Types: deb\nURIs: http://ports.ubuntu.com/ubuntu-ports\nSuites: noble\nComponents: main\n" +
		"Architectures: armhf\nTargets: Packages\n\n"
	if got := writeSources(ubuntu, "amd64", []string{"armhf"}); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func FuzzSources(f *testing.F) {
	f.Add("deb [signed-by=/k] http://deb.debian.org/debian bookworm main\n")
	f.Add("Types: deb\nURIs: http://deb.debian.org/debian\nSuites: a\n b\nComponents: main\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range append(parseList(text), parseDeb822(text)...) {
			s.main()
		}
	})
}

func TestBackports(t *testing.T) {
	debian := source{uris: []string{"http://deb.debian.org/debian"}, suites: []string{"bookworm", "bookworm-updates"}, components: []string{"main"}}
	security := source{uris: []string{"http://deb.debian.org/debian-security"}, suites: []string{"bookworm-security"}, components: []string{"main"}}
	got := backports([]source{security, debian})
	if len(got) != 3 || !slices.Equal(got[2].suites, []string{"bookworm-backports"}) || got[2].uris[0] != debian.uris[0] {
		t.Errorf("%+v", got)
	}
	if got := backports([]source{{uris: []string{"http://archive.ubuntu.com/ubuntu"}, suites: []string{"noble"}}}); got != nil {
		t.Errorf("%+v", got)
	}
}

package setup

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// process is what the kernel says of this process.
type process struct {
	uid       int   // effective
	groups    []int // effective and supplementary
	capEff    uint64
	noNewPriv bool
}

// readProcess reads /proc/self/status (proc(5)) below root.
func readProcess(root string) process {
	data, _ := os.ReadFile(filepath.Join(root, "/proc/self/status"))
	return parseStatus(data)
}

func parseStatus(data []byte) process {
	p := process{uid: -1}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, ":")
		f := strings.Fields(value)
		switch {
		case key == "Uid" && len(f) == 4: // real, effective, saved, file system
			if n, err := strconv.Atoi(f[1]); err == nil {
				p.uid = n
			}
		case key == "Gid" && len(f) == 4:
			f = f[1:2]
			fallthrough
		case key == "Groups":
			for _, g := range f {
				if n, err := strconv.Atoi(g); err == nil {
					p.groups = append(p.groups, n)
				}
			}
		case key == "CapEff" && len(f) == 1:
			p.capEff, _ = strconv.ParseUint(f[0], 16, 64)
		case key == "NoNewPrivs" && len(f) == 1:
			p.noNewPriv = f[0] == "1"
		}
	}
	return p
}

// container names the container that this process is in, as far as it can be told from inside.
func container(root string) string {
	if kind := readWord(filepath.Join(root, "/run/systemd/container")); kind != "" {
		return kind
	}
	for _, mark := range []struct{ path, kind string }{{"/run/.containerenv", "podman"}, {"/.dockerenv", "docker"}} {
		if _, err := os.Stat(filepath.Join(root, mark.path)); err == nil {
			return mark.kind
		}
	}
	return ""
}

// osRelease returns a value of os-release(5), without quotes.
func (d *doctor) osRelease(key string) string {
	for line := range strings.Lines(readWord(filepath.Join(d.root, "/etc/os-release"))) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && k == key {
			return strings.Trim(v, `"'`)
		}
	}
	return ""
}

// readArch is Debian's name of this architecture.
func readArch() string {
	if runtime.GOARCH == "arm" {
		return "armmp"
	}
	return runtime.GOARCH
}

//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// hostStatus is dpkg's list of what is installed on the host.
const hostStatus = "/var/lib/dpkg/status"

// apt is an apt state of its own in dir: its lists, its cache and its architectures
// have nothing to do with the host's. The caller holds the cache's lock.
type apt struct {
	dir    string
	native string   // "amd64"
	archs  []string // foreign architectures whose lists are kept
	choose func([]source) []source
	log    func(format string, args ...any)
}

// openApt prepares the state in dir for packages of the architectures archs, from those of the host's archives that are
// chosen, all if choose is nil.
func openApt(ctx context.Context, dir string, archs []string, choose func([]source) []source, log func(string, ...any)) (*apt, error) {
	for _, tool := range []string{"apt-get", "dpkg", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("%w: the host has no %s to fetch packages with", ErrUnavailable, tool)
		}
	}
	for _, d := range []string{"sources", "state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	native, err := exec.CommandContext(ctx, "dpkg", "--print-architecture").Output()
	if err != nil {
		return nil, fmt.Errorf("dpkg --print-architecture: %w", err)
	}
	a := &apt{dir: dir, native: string(bytes.TrimSpace(native)), choose: choose, log: log}
	known, err := os.ReadFile(a.path("architectures"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	a.archs = strings.Fields(string(known))
	for _, arch := range archs {
		if arch != a.native && arch != "all" && !slices.Contains(a.archs, arch) {
			a.archs = append(a.archs, arch)
		}
	}
	return a, a.configure()
}

func (a *apt) path(name string) string { return filepath.Join(a.dir, name) }

// configure writes the state's configuration. If that changed its sources or
// architectures, its lists count as never fetched.
func (a *apt) configure() error {
	sources := systemSources("/etc/apt")
	if a.choose != nil {
		sources = a.choose(sources)
	}
	if len(sources) == 0 {
		return fmt.Errorf("%w: no archive of Debian or Ubuntu among the sources in /etc/apt", ErrUnavailable)
	}
	conf := fmt.Sprintf(`Dir::State %[1]q;
Dir::State::status %[2]q;
Dir::Cache %[3]q;
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts %[4]q;
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::http::Timeout "20";
#clear APT::Update;
#clear DPkg::Post-Invoke;
#clear APT::Architectures;
APT::Architectures { "%[5]s"; };
`, a.path("state"), a.path("status"), a.path("cache"), a.path("sources"),
		strings.Join(append([]string{a.native}, a.archs...), `"; "`))
	for name, content := range map[string]string{
		"status":              "",
		"architectures":       strings.Join(a.archs, "\n"),
		"apt.conf":            conf,
		"sources/lab.sources": writeSources(sources, a.native, a.archs),
	} {
		old, err := os.ReadFile(a.path(name))
		if err == nil && string(old) == content {
			continue
		}
		if err := os.WriteFile(a.path(name), []byte(content), 0o644); err != nil {
			return err
		}
		os.Remove(a.path("updated"))
	}
	return nil
}

// run runs an apt program on the state and returns what it printed to stdout.
func (a *apt) run(ctx context.Context, dir, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, append([]string{"-c", a.path("apt.conf")}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, complaint(stderr.String()))
	}
	return stdout.String(), nil
}

// complaint is the first error among what apt printed.
func complaint(stderr string) string {
	for line := range strings.Lines(stderr) {
		if strings.HasPrefix(line, "E: ") {
			return strings.TrimSpace(line)
		}
	}
	return tail(stderr, 3)
}

// update fetches the archives' lists if those at hand are older than maxAge. If that
// fails although some lists are at hand, those serve for another maxAge.
func (a *apt) update(ctx context.Context, maxAge time.Duration) error {
	if age(a.path("updated")) < maxAge {
		return nil
	}
	a.log("fetching the archives' package lists")
	fetch := func() error {
		_, err := a.run(ctx, a.dir, "apt-get", "-qq", "--error-on=any", "update")
		return err
	}
	lists := func() bool {
		got, _ := filepath.Glob(a.path("state/lists/*_Packages*"))
		return len(got) > 0
	}
	err := fetch()
	if err != nil && !lists() {
		err = retry(ctx, fetch)
	}
	if err != nil {
		if !lists() || ctx.Err() != nil {
			return fmt.Errorf("%w: %w", errNetwork, err)
		}
		a.log("going on with the lists at hand: %v", err)
	}
	return touch(a.path("updated"))
}

// deb is one version of one package, as the archive has it.
type deb struct {
	name, version, arch string
}

// dir is the name of its directory in the cache. apt's escapes ("%3a") stay in the
// version: a colon would end a path in overlay's options and in LD_LIBRARY_PATH.
func (d deb) dir() string { return d.name + "_" + d.version + "_" + d.arch }

// spec is how apt is asked for exactly this version.
func (d deb) spec() string {
	return d.name + ":" + d.arch + "=" + strings.ReplaceAll(d.version, "%3a", ":")
}

// resolve returns the newest version of the package spec, "NAME" or "NAME:ARCH".
func (a *apt) resolve(ctx context.Context, spec string) ([]deb, error) {
	out, err := a.run(ctx, a.dir, "apt-get", "download", "--print-uris", spec)
	if err != nil {
		return nil, err
	}
	return parseURIs(out), nil
}

// resolveMissing returns the packages that the host lacks to run those of specs.
func (a *apt) resolveMissing(ctx context.Context, specs []string) ([]deb, error) {
	return a.install(ctx, append([]string{"--no-upgrade"}, specs...)...)
}

// resolveBackport returns pkg of the backports and the packages that the host lacks, or has too old, to run it.
func (a *apt) resolveBackport(ctx context.Context, pkg string) ([]deb, error) {
	return a.install(ctx, "--target-release", "/-backports$/", pkg)
}

// install returns what "apt-get install" would fetch on the host.
func (a *apt) install(ctx context.Context, args ...string) ([]deb, error) {
	out, err := a.run(ctx, a.dir, "apt-get", append([]string{"-o", "Dir::State::status=" + hostStatus, "install", "-y",
		"--no-install-recommends", "--print-uris"}, args...)...)
	if err != nil {
		return nil, err
	}
	return parseURIs(out), nil
}

// depends returns the names of the packages that the package spec depends on.
func (a *apt) depends(ctx context.Context, spec string) ([]string, error) {
	out, err := a.run(ctx, a.dir, "apt-cache", "depends", spec)
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(out) {
		line = strings.TrimLeft(strings.TrimSpace(line), "|")
		if name, ok := strings.CutPrefix(line, "Depends: "); ok {
			names = append(names, name)
		}
	}
	return names, nil
}

// uriLine is a line of --print-uris: 'URI' NAME_VERSION_ARCH.deb SIZE CHECKSUM.
var uriLine = regexp.MustCompile(`(?m)^'[^']+' ([^_ ]+)_([^_ ]+)_([^_ ]+)\.deb \d+`)

func parseURIs(out string) []deb {
	var debs []deb
	for _, m := range uriLine.FindAllStringSubmatch(out, -1) {
		debs = append(debs, deb{m[1], m[2], m[3]})
	}
	return debs
}

// unpack downloads d and unpacks it into a new directory under dir, complete or not
// at all.
func (a *apt) unpack(ctx context.Context, d deb, dir string) error {
	tmp, err := os.MkdirTemp(dir, "tmp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	a.log("fetching %s", d.dir())
	err = retry(ctx, func() error {
		_, err := a.run(ctx, tmp, "apt-get", "-qq", "download", d.spec())
		return err
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errNetwork, err)
	}
	debs, _ := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if len(debs) != 1 {
		return fmt.Errorf("apt-get download %s left %d packages, want 1", d.spec(), len(debs))
	}
	tree := filepath.Join(tmp, "tree")
	if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", debs[0], tree).CombinedOutput(); err != nil {
		return fmt.Errorf("dpkg-deb -x %s: %w: %s", filepath.Base(debs[0]), err, tail(string(out), 3))
	}
	if err := mergeUsr(ctx, tree); err != nil {
		return err
	}
	return os.Rename(tree, filepath.Join(dir, d.dir()))
}

// mergeUsr moves /bin, /lib and their like of an unpacked package under its /usr and
// leaves links, as they are in today's distributions: laid over a root that has the
// links, a real /lib would hide all of it.
func mergeUsr(ctx context.Context, tree string) error {
	for _, name := range []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"} {
		dir := filepath.Join(tree, name)
		if fi, err := os.Lstat(dir); err != nil || !fi.IsDir() {
			continue
		}
		if err := os.MkdirAll(filepath.Join(tree, "usr", name), 0o755); err != nil {
			return err
		}
		// cp merges directories, mv would not; hard links cost nothing.
		out, err := exec.CommandContext(ctx, "cp", "-al", dir+"/.", filepath.Join(tree, "usr", name)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("moving %s under usr: %w: %s", dir, err, tail(string(out), 3))
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		if err := os.Symlink("usr/"+name, dir); err != nil {
			return err
		}
	}
	return nil
}

// retry calls f until it succeeds, at most three times, waiting longer each time.
func retry(ctx context.Context, f func() error) error {
	err := f()
	for wait := time.Second; err != nil && wait <= 4*time.Second; wait *= 4 {
		select {
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		case <-time.After(wait):
		}
		err = f()
	}
	return err
}

// age is how long ago the file was written; ages if it is not there.
func age(file string) time.Duration {
	fi, err := os.Stat(file)
	if err != nil {
		return 1<<63 - 1
	}
	return time.Since(fi.ModTime())
}

func touch(file string) error { return os.WriteFile(file, nil, 0o644) }

// tail returns the last n lines of text.
func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

package libusb

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"snag/internal/lab"
)

// TestLibusb builds the module usb/libusb against Debian's gousb and libusb, of which nothing need be installed but a C
// compiler, and where SNAG_LIBUSB is set runs its tests in a VM, which takes an emulated one three minutes.
func TestLibusb(t *testing.T) {
	if testing.Short() || os.Getenv("SNAG_LAB") == "off" {
		t.Skip("lab: it builds with cgo and runs in a VM")
	}
	compiler := os.Getenv("CC")
	if compiler == "" {
		compiler = "gcc"
	}
	if _, err := exec.LookPath(compiler); err != nil {
		t.Skipf("no C compiler: %v", err)
	}
	module, err := filepath.Abs("../../../usb/libusb")
	if err != nil {
		t.Fatal(err)
	}
	flags, env := libusbBuild(t, module)
	build := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "go", append(args[:1:1], append(flags, args[1:]...)...)...)
		cmd.Dir, cmd.Env = module, append(os.Environ(), env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	dir := t.TempDir()
	build("vet", "./...")
	build("build", "-o", filepath.Join(dir, "snag-libusb"), "./cmd/snag-libusb")
	build("test", "-c", "-o", filepath.Join(dir, "test"), ".")
	if os.Getenv("SNAG_LIBUSB") == "" {
		t.Skip("built and vetted; \"make test-libusb\" runs it in a VM")
	}
	lab.RunTests(t, filepath.Join(dir, "test"), module, ".", lab.Job{
		Script:   "modprobe -a vhci-hcd usbhid",
		Files:    map[string]string{"/lab/bin/snag-libusb": filepath.Join(dir, "snag-libusb")},
		Packages: []string{"libusb-1.0-0"},
		Dirs:     []string{filepath.Dir(filepath.Dir(module))},
		Udev:     true,
		Timeout:  12 * time.Minute,
	})
}

// libusbBuild fetches what the module builds against, and returns go's flags and environment for it: a go.mod that
// replaces gousb with the fetched one, and the places of libusb's header and library instead of pkg-config's.
func libusbBuild(t *testing.T, module string) (flags, env []string) {
	t.Helper()
	pkgs := lab.Packages(t, "golang-github-google-gousb-dev", "libusb-1.0-0-dev", "libusb-1.0-0")
	dir := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	gousb := filepath.Join(pkgs[0], "usr/share/gocode/src/github.com/google/gousb")
	if out, err := exec.CommandContext(t.Context(), "go", "mod", "edit", "-replace", "github.com/google/gousb="+gousb, filepath.Join(dir, "go.mod")).CombinedOutput(); err != nil {
		t.Fatalf("go mod edit: %v\n%s", err, out)
	}
	libs, err := filepath.Glob(filepath.Join(pkgs[2], "usr/lib/*/libusb-1.0.so.0"))
	if err != nil || len(libs) != 1 {
		t.Fatalf("%d libraries in %s, %v", len(libs), pkgs[2], err)
	}
	return []string{"-modfile=" + filepath.Join(dir, "go.mod"), "-tags=netgo,osusergo"}, []string{
		"CGO_ENABLED=1", "PKG_CONFIG=true",
		"CGO_CFLAGS=-O2 -I" + filepath.Join(pkgs[1], "usr/include/libusb-1.0"),
		"CGO_LDFLAGS=" + libs[0], // the same each time, for go's cache
	}
}

package setup

import (
	"os"
	"path"
	"path/filepath"
	"strings"
)

// moduleState is where a part of the kernel is.
type moduleState string

const (
	loaded    moduleState = "loaded"
	builtIn   moduleState = "built in"
	available moduleState = "available" // the kernel loads it when it is needed
	missing   moduleState = "missing"
	unknown   moduleState = "unknown" // the modules of the running kernel are not to be seen here
)

// modules tells of each named module where the running kernel has it. It reads /sys/module and, in
// /lib/modules/RELEASE, modules.builtin and modules.dep (see depmod(8)).
func modules(root string, names ...string) map[string]moduleState {
	dir := filepath.Join(root, "/lib/modules", readWord(filepath.Join(root, "/proc/sys/kernel/osrelease")))
	dep, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	builtin, err2 := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	onDisk, inKernel := moduleNames(dep), moduleNames(builtin)

	states := map[string]moduleState{}
	for _, name := range names {
		_, statErr := os.Stat(filepath.Join(root, "/sys/module", name))
		switch {
		case inKernel[name]:
			states[name] = builtIn
		case statErr == nil:
			states[name] = loaded
		case onDisk[name]:
			states[name] = available
		case err != nil || err2 != nil:
			states[name] = unknown
		default:
			states[name] = missing
		}
	}
	return states
}

// moduleNames returns the modules that modules.dep ("kernel/a/b.ko.xz: kernel/c.ko ...") or modules.builtin
// ("kernel/a/b.ko") list, with _ for - as the kernel has it.
func moduleNames(list []byte) map[string]bool {
	names := map[string]bool{}
	for line := range strings.Lines(string(list)) {
		file, _, _ := strings.Cut(strings.TrimSpace(line), ":")
		name, _, ok := strings.Cut(path.Base(file), ".ko")
		if ok {
			names[strings.ReplaceAll(name, "-", "_")] = true
		}
	}
	return names
}

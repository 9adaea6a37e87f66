package setup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"snag/netsetup"
	"snag/socs"
	"snag/usb"
)

// Options say what to set up, for whom, and where.
type Options struct {
	Families []socs.Family // the families whose boards are to be recovered
	USB      []usb.ID      // further devices; those of netmove.conf are always added

	// DestDir is where a packager stages the files; empty for this system. With it nothing outside of it
	// is read or changed, root is not needed, and what only the package's postinst can do is printed.
	DestDir string
	// Prefix is /usr or /usr/local. Empty means /usr with DestDir or where snag itself runs from
	// /usr/bin, else /usr/local. The helper goes to Prefix/libexec/snag.
	Prefix string
	// Group may use the boards and the helper; empty means plugdev. On a system without it the rules name no
	// group, and anyone may start the helper: it is the device node that decides what it does.
	Group string

	// Program is snag's own path, HelperSource that of the helper to install; empty means the running
	// executable, and snag-netmove beside it.
	Program, HelperSource string
	// AppArmor stages the AppArmor profile too: for packages of distributions that restrict user
	// namespaces. Without DestDir the running system is asked.
	AppArmor bool

	Check  bool // change nothing, print the differences, return ErrIncomplete if there are any
	Remove bool // take everything away again

	Out io.Writer // what is done or found, in lines for people; nil for nothing

	// Namespace tries, for [Doctor], to make the namespace that a recovery needs. It returns nil, or why that
	// is refused and, if known, what mends it.
	Namespace func(context.Context) (mend string, err error)

	host *host // nil means the running system; tests have their own
}

// host is what a test replaces of the running system.
type host struct {
	root   string // of the file system
	euid   int
	user   string // who called sudo or doas; empty if nobody did
	run    func(ctx context.Context, name string, args ...string) error
	access func(path string) error // whether this process may read and write path
	nosuid func(path string) bool  // whether path is on a file system where capabilities do not count
}

// ErrIncomplete is returned when Check found that something is not as Setup would make it.
var ErrIncomplete = errors.New("the setup is not complete")

// ErrNotRoot is returned when the running system is to be changed by somebody who may not.
var ErrNotRoot = errors.New("setup changes the system and must be run as root, with sudo for instance")

// Where the rules and the helper go.
const (
	adminRules  = "/etc/udev/rules.d/" + RulesName
	vendorRules = "/usr/lib/udev/rules.d/" + RulesName
	helperName  = "snag-netmove"
)

// plan is what the system should look like.
type plan struct {
	Options
	root    string // below which the paths are
	staged  bool
	helper  *file // nil if there is neither a source nor an installed one
	rules   file
	conf    *file // nil without further IDs
	profile *file // nil where none is needed
	gid     int   // of Group, -1 if the system lacks it
	ids     []usb.ID
	bad     []string // lines of netmove.conf that are not understood
}

// Setup makes the system, or the staging directory, ready for recoveries without root, checks whether it is,
// or takes back what it made. Each thing that it does, and each that was so already, is a line on
// Out. It may be repeated at any time. Errors other than [ErrIncomplete] and [ErrNotRoot] name the file.
func Setup(ctx context.Context, o Options) error {
	if o.host == nil {
		o.host = thisHost()
	}
	if !o.Check && o.DestDir == "" && o.host.euid != 0 {
		return ErrNotRoot
	}
	p, err := newPlan(o)
	if err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	switch {
	case o.Check:
		return p.check()
	case o.Remove:
		err = p.remove(ctx)
	default:
		err = p.install(ctx)
	}
	if err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	return nil
}

func newPlan(o Options) (*plan, error) {
	if o.host == nil {
		o.host = thisHost()
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.Program == "" {
		exe, err := os.Executable() // the path without links: AppArmor attaches to that
		if err != nil {
			return nil, err
		}
		o.Program = exe
	}
	if o.HelperSource == "" {
		o.HelperSource = filepath.Join(filepath.Dir(o.Program), helperName)
	}
	if o.Prefix == "" {
		o.Prefix = "/usr/local"
		if o.DestDir != "" || filepath.Dir(o.Program) == "/usr/bin" {
			o.Prefix = "/usr"
		}
	}
	o.Prefix = filepath.Clean(o.Prefix)
	o.Group = cmp.Or(o.Group, "plugdev")
	p := &plan{Options: o, root: o.host.root, gid: -1}
	if o.DestDir != "" {
		dir, err := filepath.Abs(o.DestDir)
		if err != nil {
			return nil, err
		}
		p.root, p.staged = dir, true
	}

	if !p.staged {
		groups, err := readGroups(p.root)
		if err != nil {
			return nil, err
		}
		if g, ok := groups[p.Group]; ok {
			p.gid = g.gid
		}
	}

	old, err := readFile(filepath.Join(p.root, netmoveConf))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	p.ids, p.bad = parseNetmoveConf(old)
	p.ids = sortedIDs(append(p.ids, o.USB...))
	if old != nil || len(o.USB) > 0 {
		p.conf = &file{
			what: "list of further USB IDs", path: netmoveConf,
			data: mergeNetmoveConf(old, o.USB), mode: 0o644,
		}
	}

	if err := p.planHelper(); err != nil {
		return nil, err
	}
	p.planRules()
	return p, p.planProfile()
}

// planHelper decides on the helper. Its source is trusted as the running program is, which comes from the same
// directory and was started as root too.
func (p *plan) planHelper() error {
	f := &file{what: "helper", path: netsetup.HelperPath(p.Prefix), mode: 0o755, cap: netAdminEP()}
	if p.gid > 0 {
		f.mode, f.gid = 0o750, p.gid
	}
	data, err := readFile(p.HelperSource)
	switch {
	case err == nil:
		if !strings.HasPrefix(string(data), "\x7fELF") {
			return fmt.Errorf("%s is not a program", p.HelperSource)
		}
		f.data = data
	case !errors.Is(err, fs.ErrNotExist):
		return err
	default:
		// A package's helper stands in its place and nowhere else.
		if _, err := os.Lstat(filepath.Join(p.root, f.path)); errors.Is(err, fs.ErrNotExist) {
			p.helper = nil
			return nil
		}
	}
	p.helper = f
	return nil
}

func (p *plan) planRules() {
	group := p.Group
	if p.gid < 0 && !p.staged {
		group = ""
	}
	p.rules = file{
		what: "udev rules", path: adminRules, mode: 0o644,
		data: []byte(Rules(p.Families, p.ids, group)),
	}
	if p.staged && p.Prefix == "/usr" {
		p.rules.path = vendorRules
		return
	}
	// A package's rules do as long as they say the same; else a file in /etc of the same name replaces them.
	if _, err := os.Lstat(filepath.Join(p.root, adminRules)); errors.Is(err, fs.ErrNotExist) {
		vendor := p.rules
		vendor.path = vendorRules
		if diffs, err := vendor.differences(p.root, p.staged); err == nil && len(diffs) == 0 {
			p.rules = vendor
		}
	}
}

func (p *plan) planProfile() error {
	programs := []string{filepath.Join(p.Prefix, "bin/snag")}
	if !p.staged {
		if readWord(filepath.Join(p.root, apparmorRestriction)) != "1" {
			return nil
		}
		programs = append(programs, p.Program)
	} else if !p.AppArmor {
		return nil
	}
	text, err := profile(programs)
	p.profile = &file{what: "AppArmor profile", path: apparmorProfile, data: []byte(text), mode: 0o644}
	return err
}

// files returns the files of the plan in the order in which they are installed: what decides comes last.
func (p *plan) files() []file {
	var files []file
	for _, f := range []*file{p.conf, &p.rules, p.profile, p.helper} {
		if f != nil {
			files = append(files, *f)
		}
	}
	return files
}

func (p *plan) printf(format string, args ...any) { fmt.Fprintf(p.Out, format+"\n", args...) }

func (p *plan) check() error {
	complete := true
	for _, f := range p.files() {
		diffs, err := f.differences(p.root, p.staged)
		switch {
		case err != nil:
			return fmt.Errorf("setup: %w", err)
		case len(diffs) == 0:
			p.printf("in place: %s, %s", f.what, f.path)
		default:
			complete = false
			p.printf("not in place: %s, %s: %s", f.what, f.path, strings.Join(diffs, "; "))
		}
	}
	if p.helper == nil {
		complete = false
		p.printf("not in place: helper, %s: missing", netsetup.HelperPath(p.Prefix))
	}
	for _, b := range p.bad {
		complete = false
		p.printf("not in place: %s, %s", netmoveConf, b)
	}
	p.remarks()
	switch {
	case complete:
		return nil
	case p.staged:
		return ErrIncomplete
	}
	return fmt.Errorf("%w; to complete it: %s", ErrIncomplete, p.typeSetup())
}

func (p *plan) install(ctx context.Context) error {
	if p.helper == nil {
		return fmt.Errorf("%s is missing: it is built and shipped together with snag", p.HelperSource)
	}
	changed := map[string]bool{}
	for _, f := range p.files() {
		diffs, err := f.differences(p.root, p.staged)
		if err != nil {
			return err
		}
		if len(diffs) == 0 {
			p.printf("already so: %s, %s", f.what, f.path)
			continue
		}
		if f.data == nil { // the helper that a package installed: mend only what is not its contents
			if f.data, err = readFile(filepath.Join(p.root, f.path)); err != nil {
				return err
			}
		}
		if err := f.install(p.root, p.staged); err != nil {
			return fmt.Errorf("%s: %w", f.what, err)
		}
		changed[f.path] = true
		line := fmt.Sprintf("installed: %s, %s, mode %04o", f.what, f.path, uint32(f.mode))
		if !p.staged {
			line += ", owner root:" + p.groupName(f.gid)
			if f.cap != nil {
				line += ", capability cap_net_admin=ep"
			}
		}
		p.printf("%s (was: %s)", line, strings.Join(diffs, "; "))
	}
	if p.staged {
		p.postinst()
	} else {
		if changed[p.rules.path] {
			p.reloadUdev(ctx)
		}
		if p.profile != nil {
			p.command(ctx, "load the AppArmor profile", "apparmor_parser", "-r", apparmorProfile)
		}
	}
	p.remarks()
	if len(p.bad) > 0 {
		return fmt.Errorf("%s, %s: all else is done, but the helper refuses the whole list; mend the line by hand",
			netmoveConf, strings.Join(p.bad, "; "))
	}
	return nil
}

// reloadUdev makes udevd read the rules and apply them to the boards that are attached now. udevd reads
// changed rules by itself too, but not at once.
func (p *plan) reloadUdev(ctx context.Context) {
	if _, err := os.Stat(filepath.Join(p.root, "/run/udev/control")); err != nil {
		p.printf("note: udevd does not run here; the rules count where it does")
		return
	}
	if !p.command(ctx, "tell udevd", "udevadm", "control", "--reload") {
		return
	}
	var paths []string
	for _, d := range attached(p.root, p.known()) {
		paths = append(paths, d.sysfs)
		nets, _ := filepath.Glob(filepath.Join(p.root, d.sysfs, "*:*", "net", "*"))
		for _, n := range nets {
			paths = append(paths, strings.TrimPrefix(n, strings.TrimSuffix(p.root, "/")))
		}
	}
	if len(paths) > 0 {
		p.command(ctx, "apply the rules to the attached boards", "udevadm",
			append([]string{"trigger", "--action=change", "--settle"}, paths...)...)
	}
}

// known returns all IDs that the rules name.
func (p *plan) known() []usb.ID {
	ids := slices.Clone(p.ids)
	for _, f := range p.Families {
		ids = append(ids, f.IDs()...)
	}
	return ids
}

// command runs a command whose failure does not spoil the setup, and says how it went.
func (p *plan) command(ctx context.Context, what, name string, args ...string) bool {
	line := strings.Join(append([]string{name}, args...), " ")
	err := p.host.run(ctx, name, args...)
	if err != nil {
		p.printf("warning: could not %s: %s: %v", what, line, err)
		return false
	}
	p.printf("done: %s: %s", what, line)
	return true
}

// postinst prints what staging cannot do.
func (p *plan) postinst() {
	p.printf("to be done by the package's postinst, as root:")
	p.printf("  chgrp %s %s && chmod 0750 %[2]s   # where the group exists; before setcap", p.Group, p.helper.path)
	p.printf("  setcap cap_net_admin=ep %s", p.helper.path)
	p.printf("  udevadm control --reload")
	if p.profile != nil {
		p.printf("  apparmor_parser -r %s", apparmorProfile)
	}
}

// anyGadget are IDs that any Linux device may bear: linux/usb/gadget's defaults.
var anyGadget = []usb.ID{{Vendor: 0x0525, Product: 0xa4a2}, {Vendor: 0x1d6b, Product: 0x0104}}

// remarks prints what the user should know and setup does not do by itself.
func (p *plan) remarks() {
	for _, id := range p.ids {
		if slices.Contains(anyGadget, id) {
			p.printf("note: any Linux USB gadget may bear the ID %v; NetworkManager leaves all of them alone now", id)
		}
	}
	if p.staged {
		return
	}
	if p.profile != nil && rootsAlone(filepath.Dir(filepath.Join(p.root, p.Program))) != nil {
		p.printf("note: whoever can replace %s can use user namespaces; to narrow that: install -m 0755 %[1]s %s, and run setup from there",
			p.Program, filepath.Join(p.Prefix, "bin/snag"))
	}
	if p.gid < 0 {
		p.printf("note: no group %s here: the boards belong to whoever sits at the machine; for others: groupadd --system %[1]s, then setup again", p.Group)
		return
	}
	if p.host.user == "" || p.host.user == "root" {
		return
	}
	groups, _ := readGroups(p.root)
	if !groups[p.Group].has(p.root, p.host.user) {
		p.printf("to do: %s is not in the group %s: sudo usermod -aG %[2]s %[1]s, then log in again", p.host.user, p.Group)
	}
}

func (p *plan) groupName(gid int) string {
	if gid == p.gid {
		return p.Group
	}
	if gid == 0 {
		return "root"
	}
	return strconv.Itoa(gid)
}

// remove deletes what install made. The list of further IDs stays if somebody else wrote into it.
func (p *plan) remove(ctx context.Context) error {
	if _, err := os.Lstat(filepath.Join(p.root, apparmorProfile)); err == nil && !p.staged {
		p.command(ctx, "unload the AppArmor profile", "apparmor_parser", "-R", apparmorProfile)
	}
	rules := adminRules
	if p.staged {
		rules = p.rules.path
	}
	for _, path := range []string{netsetup.HelperPath(p.Prefix), rules, apparmorProfile, netmoveConf} {
		full := filepath.Join(p.root, path)
		switch path {
		case netsetup.HelperPath(p.Prefix):
			if p.helper != nil && p.helper.data == nil {
				p.printf("kept: %s, which a package brought: there is no %s beside snag", path, helperName)
				continue
			}
		case netmoveConf:
			if data, err := readFile(full); err == nil && !untouchedNetmoveConf(data) {
				p.printf("kept: %s, which holds lines that setup did not write", path)
				continue
			}
		}
		err := os.Remove(full)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			p.printf("already gone: %s", path)
			continue
		case err != nil:
			return err
		}
		p.printf("removed: %s", path)
		if path == rules && !p.staged {
			p.reloadUdev(ctx)
		}
	}
	for _, dir := range []string{filepath.Dir(netsetup.HelperPath(p.Prefix)), filepath.Dir(netmoveConf)} {
		os.Remove(filepath.Join(p.root, dir)) // if empty
	}
	return nil
}

// thisHost is the running system.
func thisHost() *host {
	return &host{
		root:   "/",
		euid:   os.Geteuid(),
		user:   cmp.Or(os.Getenv("SUDO_USER"), os.Getenv("DOAS_USER")),
		run:    runTool,
		access: mayReadWrite,
		nosuid: onNosuid,
	}
}

// runTool runs a tool of the system, found where the system has its tools and not in the caller's PATH.
func runTool(ctx context.Context, name string, args ...string) error {
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			continue
		}
		cmd := exec.CommandContext(ctx, path, args...)
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
		out, err := cmd.CombinedOutput()
		if text := strings.TrimSpace(string(out)); err != nil && text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
		return err
	}
	return fmt.Errorf("%s is not installed", name)
}

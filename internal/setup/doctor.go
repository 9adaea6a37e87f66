package setup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"snag/netsetup"
)

// Status is what a check came to.
type Status string

const (
	OK   Status = "ok"
	Warn Status = "warn" // may be in the way, or could not be told
	Fail Status = "fail" // keeps recoveries from working
	Skip Status = "skip" // does not matter here
)

// Check is one thing that Doctor looked at.
type Check struct {
	Name   string `json:"name"` // stable, lower case
	Status Status `json:"status"`
	Detail string `json:"detail"`         // what was found
	Mend   string `json:"mend,omitempty"` // what to type or to do, several commands a line each
}

// doctor is what the checks share.
type doctor struct {
	*plan
	process
	container string // its kind, empty outside of any
}

// Doctor looks at everything that a recovery by the calling user needs of this system. It changes nothing and
// needs no rights. The error says that the system could not be looked at at all; what is amiss is in
// the checks.
func Doctor(ctx context.Context, o Options) ([]Check, error) {
	o.DestDir = ""
	p, err := newPlan(o)
	if err != nil {
		return nil, fmt.Errorf("doctor: %w", err)
	}
	d := &doctor{plan: p, process: readProcess(p.root), container: container(p.root)}
	checks := []Check{
		d.user(),
		d.usbDrivers(),
		d.namespace(ctx),
		d.appArmor(),
		d.noNewPrivs(),
		d.helperInstalled(),
		d.furtherIDs(),
	}
	checks = append(checks, d.network(checks),
		d.nat(),
		d.usb(),
		d.deviceNodes(),
		d.group(),
		d.udevRules(),
		d.udevd(),
		d.keepsOff("NetworkManager"),
		d.keepsOff("ModemManager"),
	)
	return append(checks, d.boards()...), nil
}

// network tells which way "snag recover --net auto" takes to a board that is a network adapter. The checks are those of
// what the kernel's way needs. Where it is barred snag's own is there, so that none of them keeps a recovery from
// working.
func (d *doctor) network(checks []Check) Check {
	const name = "network"
	var barred []string
	for i, c := range checks {
		if c.Status == Fail {
			checks[i].Status = Warn
			barred = append(barred, c.Name)
		}
	}
	if barred == nil && !d.mayStartHelper() {
		barred = append(barred, "group")
	}
	if barred == nil {
		return Check{name, OK, "the kernel's, in a namespace of each board's own (--net kernel)", ""}
	}
	return Check{name, OK, "snag speaks to network adapters of boards itself (--net user): the kernel's way is barred by " + strings.Join(barred, ", "), ""}
}

// Failed tells whether one of the checks keeps recoveries from working.
func Failed(checks []Check) bool {
	return slices.ContainsFunc(checks, func(c Check) bool { return c.Status == Fail })
}

// WriteTable writes the checks for people, a line each and the mends below.
func WriteTable(w io.Writer, checks []Check) error {
	width := 0
	for _, c := range checks {
		width = max(width, len(c.Name))
	}
	for _, c := range checks {
		if _, err := fmt.Fprintf(w, "%-4s  %-*s  %s\n", c.Status, width, c.Name, c.Detail); err != nil {
			return err
		}
		for line := range strings.Lines(c.Mend) {
			if _, err := fmt.Fprintf(w, "%*s-> %s\n", width+8, "", strings.TrimSuffix(line, "\n")); err != nil {
				return err
			}
		}
	}
	return nil
}

// WriteJSON writes the checks as JSON, one object a line.
func WriteJSON(w io.Writer, checks []Check) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, c := range checks {
		if err := enc.Encode(c); err != nil {
			return err
		}
	}
	return nil
}

// typeSetup is the line that runs setup. sudo finds snag by its name only where programs usually are.
func (p *plan) typeSetup() string {
	switch filepath.Dir(p.Program) {
	case "/usr/bin", "/usr/local/bin":
		return "sudo snag setup"
	}
	return "sudo " + p.Program + " setup"
}

func (d *doctor) exists(path string) bool {
	_, err := os.Stat(filepath.Join(d.root, path))
	return err == nil
}

// asRoot is the check's result for root, who needs no setup.
func (d *doctor) asRoot(name string) Check {
	return Check{name, Skip, "root needs no setup", ""}
}

// user tells who asks and, of root in a container, whether it is root enough.
func (d *doctor) user() Check {
	const name = "user"
	where := ""
	if d.container != "" {
		where = ", in a container (" + d.container + ")"
	}
	if d.uid != 0 {
		who := strconv.Itoa(d.uid)
		if account, _, ok := findAccount(d.root, func(_ string, uid int) bool { return uid == d.uid }); ok {
			who = account
		}
		return Check{name, OK, "an ordinary user, " + who + where, ""}
	}
	if d.capEff>>unix.CAP_NET_ADMIN&1 == 0 {
		return Check{name, Fail, "root without the capability cap_net_admin" + where, "docker run --cap-add NET_ADMIN ..."}
	}
	return Check{name, OK, "root, who needs no setup" + where, ""}
}

func (d *doctor) usbDrivers() Check {
	return d.modules("usb network drivers", "boards that appear as network devices cannot be reached",
		"usbnet", "cdc_ether", "rndis_host")
}

func (d *doctor) nat() Check {
	// Without NAT the worker binds the ports themselves.
	c := d.modules("kernel nat", "snag does without", "nf_tables", "nft_chain_nat", "nft_nat", "nft_masq")
	if c.Status == Fail {
		c.Status, c.Mend = Warn, ""
	}
	return c
}

func (d *doctor) modules(name, without string, names ...string) Check {
	states := modules(d.root, names...)
	by := map[moduleState][]string{}
	for _, n := range names {
		by[states[n]] = append(by[states[n]], n)
	}
	var found []string
	for _, s := range []moduleState{builtIn, loaded, available, missing, unknown} {
		if len(by[s]) > 0 {
			found = append(found, strings.Join(by[s], ", ")+" "+string(s))
		}
	}
	detail := strings.Join(found, "; ")
	release := readWord(filepath.Join(d.root, "/proc/sys/kernel/osrelease"))
	switch {
	case len(by[missing]) > 0:
		mend := "install the full kernel of the distribution, or build one with these modules"
		switch {
		case d.container != "":
			mend = "on the host: sudo modprobe -a " + strings.Join(by[missing], " ")
		case strings.Contains(release, "cloud"): // Debian's kernel for virtual machines has no USB
			mend = "sudo apt install linux-image-" + readArch() + "   # in the place of the cloud kernel, then reboot"
		case d.osRelease("ID") == "ubuntu":
			mend = "sudo apt install linux-modules-extra-" + release
		}
		return Check{name, Fail, detail + ": " + without, mend}
	case len(by[unknown]) > 0:
		return Check{name, Warn, detail + ": no list of the modules of kernel " + release + " here",
			"on the host: sudo modprobe -a " + strings.Join(by[unknown], " ")}
	}
	return Check{name, OK, detail, ""}
}

func (d *doctor) usb() Check {
	const name = "usb"
	if !d.exists("/sys/bus/usb") {
		return Check{name, Fail, "this kernel has no USB, or /sys is not mounted",
			"sudo modprobe usbcore   # in a virtual machine, give it a USB controller; in a container, mount /sys"}
	}
	roots, _ := filepath.Glob(filepath.Join(d.root, "/sys/bus/usb/devices/usb*"))
	if len(roots) == 0 {
		return Check{name, Warn, "no USB controller found", "in a virtual machine: give it a USB controller and pass the board through"}
	}
	return Check{name, OK, fmt.Sprintf("buses: %d", len(roots)), ""}
}

func (d *doctor) deviceNodes() Check {
	const name = "usb device nodes"
	switch {
	case d.exists("/dev/bus/usb"):
		return Check{name, OK, "/dev/bus/usb", ""}
	case d.container != "":
		return Check{name, Fail, "no /dev/bus/usb in this container",
			"docker run -v /dev/bus/usb:/dev/bus/usb --device-cgroup-rule 'c 189:* rmw' --network host ..."}
	case !d.exists("/sys/bus/usb"):
		return Check{name, Skip, "no USB", ""}
	}
	return Check{name, Fail, "no /dev/bus/usb", "sudo mount -t devtmpfs devtmpfs /dev   # or start udevd"}
}

// namespace tells whether the worker can have a namespace of its own.
func (d *doctor) namespace(ctx context.Context) Check {
	const name = "namespaces"
	if d.Namespace == nil {
		return Check{name, Skip, "not tried", ""}
	}
	mend, err := d.Namespace(ctx)
	if err != nil {
		return Check{name, Fail, err.Error(), mend}
	}
	return Check{name, OK, "allowed", ""}
}

// appArmor tells whether snag has the profile that it needs where AppArmor restricts user namespaces.
func (d *doctor) appArmor() Check {
	const name = "apparmor"
	switch {
	case d.uid == 0:
		return d.asRoot(name)
	case d.profile == nil:
		return Check{name, OK, "does not restrict user namespaces", ""}
	}
	diffs, err := d.profile.differences(d.root, false)
	switch {
	case err != nil:
		return Check{name, Fail, err.Error(), d.typeSetup()}
	case len(diffs) > 0:
		return Check{name, Fail, "restricts user namespaces; profile " + d.profile.path + ": " + strings.Join(diffs, "; "), d.typeSetup()}
	}
	return Check{name, OK, "restricts user namespaces; snag's profile is " + d.profile.path, ""}
}

func (d *doctor) noNewPrivs() Check {
	const name = "no_new_privs"
	switch {
	case d.uid == 0:
		return d.asRoot(name)
	case d.noNewPriv:
		return Check{name, Fail, "this process may not gain privileges: the helper's capability would not count",
			"start snag outside of what sets it: systemd NoNewPrivileges=, docker --security-opt no-new-privileges, bwrap, flatpak"}
	}
	return Check{name, OK, "not set", ""}
}

func (d *doctor) helperInstalled() Check {
	const name = "helper"
	if d.uid == 0 {
		return d.asRoot(name)
	}
	path := netsetup.HelperPath(d.Prefix)
	if d.helper == nil {
		return Check{name, Fail, path + " is missing", d.typeSetup()}
	}
	diffs, err := d.helper.differences(d.root, false)
	switch {
	case err != nil:
		return Check{name, Fail, err.Error(), d.typeSetup()}
	case len(diffs) > 0:
		return Check{name, Fail, path + ": " + strings.Join(diffs, "; "), d.typeSetup()}
	case d.host.nosuid(filepath.Join(d.root, path)):
		return Check{name, Fail, path + " is on a file system mounted nosuid, where its capability does not count",
			"mount it without nosuid, or have root run snag"}
	}
	return Check{name, OK, path + ", cap_net_admin=ep", ""}
}

// mayStartHelper reports whether an ordinary user may execute the helper as it is to be installed.
func (d *doctor) mayStartHelper() bool {
	return d.uid == 0 || d.helper == nil || d.helper.mode&0o001 != 0 || slices.Contains(d.groups, d.helper.gid)
}

// furtherIDs looks at netmove.conf, which the helper reads only if it is whole and root's alone.
func (d *doctor) furtherIDs() Check {
	const name = "further ids"
	if d.uid == 0 {
		return d.asRoot(name)
	}
	if d.conf == nil {
		return Check{name, Skip, "none were added", ""}
	}
	diffs, err := d.conf.differences(d.root, false)
	switch {
	case err != nil:
		return Check{name, Fail, err.Error(), d.typeSetup()}
	case len(diffs) > 0:
		return Check{name, Fail, d.conf.path + ": " + strings.Join(diffs, "; "), d.typeSetup()}
	case len(d.bad) > 0:
		return Check{name, Fail, d.conf.path + ", " + strings.Join(d.bad, "; "), "sudo editor " + d.conf.path}
	}
	return Check{name, OK, fmt.Sprintf("%d in %s", len(d.ids), d.conf.path), ""}
}

// group tells whether the user may start the helper and open the nodes. Where the helper may be run by its
// group only, the seat alone does not suffice.
func (d *doctor) group() Check {
	const name = "group"
	switch {
	case d.uid == 0:
		return d.asRoot(name)
	case d.gid < 0:
		if d.atSeat() {
			return Check{name, OK, "no group " + d.Group + " here; you sit at the machine, which suffices", ""}
		}
		return Check{name, Warn, "no group " + d.Group + " here, and you do not sit at the machine",
			"sudo groupadd --system " + d.Group + "\n" + d.typeSetup()}
	case slices.Contains(d.groups, d.gid):
		return Check{name, OK, "member of " + d.Group, ""}
	}
	account, _, ok := findAccount(d.root, func(_ string, uid int) bool { return uid == d.uid })
	if !ok {
		account = "USER"
	}
	groups, err := readGroups(d.root)
	if err == nil && groups[d.Group].has(d.root, account) {
		return Check{name, Fail, account + " is in the group " + d.Group + ", but this session began before that",
			"log out and in again, or for now: newgrp " + d.Group}
	}
	if d.outside() {
		return Check{name, Warn, account + " is not in the group " + d.Group + "; the number that it has on the host counts", d.passGroup()}
	}
	return Check{name, Fail, account + " is not in the group " + d.Group,
		fmt.Sprintf("sudo usermod -aG %s %s   # then log in again", d.Group, account)}
}

// atSeat tells whether logind gives this user the devices at the seat.
func (d *doctor) atSeat() bool {
	for line := range strings.Lines(readWord(filepath.Join(d.root, "/run/systemd/seats/seat0"))) {
		if strings.TrimSpace(line) == "ACTIVE_UID="+strconv.Itoa(d.uid) {
			return true
		}
	}
	return false
}

// outside tells whether udevd, its rules and who is in the group are the host's business.
func (d *doctor) outside() bool { return d.container != "" && !d.exists("/run/udev/control") }

func (d *doctor) passGroup() string {
	return "pass the group's number, docker run --group-add $(getent group " + d.Group + " | cut -d: -f3) ..."
}

// rulesInPlace tells whether udevd reads the rules that belong to this snag.
func (d *doctor) rulesInPlace() ([]string, error) { return d.rules.differences(d.root, false) }

func (d *doctor) udevRules() Check {
	const name = "udev rules"
	diffs, err := d.rulesInPlace()
	switch {
	case err == nil && len(diffs) == 0:
		return Check{name, OK, d.rules.path, ""}
	case d.uid == 0:
		return Check{name, Skip, "not installed, which only keeps network managers from being told to keep off", d.typeSetup()}
	case d.outside():
		return Check{name, Warn, "those of the host count, which cannot be seen from this container", "on the host: " + d.typeSetup()}
	case err != nil:
		return Check{name, Fail, err.Error(), d.typeSetup()}
	}
	return Check{name, Fail, d.rules.path + ": " + strings.Join(diffs, "; "), d.typeSetup()}
}

func (d *doctor) udevd() Check {
	const name = "udevd"
	switch {
	case d.exists("/run/udev/control"):
		return Check{name, OK, "running", ""}
	case d.uid == 0:
		return Check{name, OK, "not running, which root does not need", ""}
	case d.container != "":
		return Check{name, Warn, "not running in this container: the rules count on the host",
			"on the host: " + d.typeSetup() + "; here: " + d.passGroup()}
	}
	return Check{name, Fail, "not running: nobody gives the boards to you", "sudo systemctl start systemd-udevd   # or have root run snag"}
}

// keepsOff tells whether a service that takes hold of network devices runs, and is told to leave the boards'.
func (d *doctor) keepsOff(service string) Check {
	name := strings.ToLower(service)
	if !d.runs(service) {
		return Check{name, OK, "not running", ""}
	}
	if diffs, err := d.rulesInPlace(); err != nil || len(diffs) > 0 {
		return Check{name, Warn, "running, and nothing tells it to leave the boards alone", d.typeSetup()}
	}
	return Check{name, OK, "running, told by the udev rules to leave the boards alone", ""}
}

// runs tells whether a process of that name can be seen.
func (d *doctor) runs(comm string) bool {
	paths, _ := filepath.Glob(filepath.Join(d.root, "/proc/[0-9]*/comm"))
	return slices.ContainsFunc(paths, func(p string) bool { return readWord(p) == comm })
}

// boards tells of each attached board whether this process may open it.
func (d *doctor) boards() []Check {
	devices := attached(d.root, d.known())
	if len(devices) == 0 {
		return []Check{{"board", Skip, "none attached now", ""}}
	}
	var checks []Check
	for _, dev := range devices {
		c := Check{"board " + string(dev.port), OK, fmt.Sprintf("%v, %s", dev.id, dev.node), ""}
		switch err := d.host.access(filepath.Join(d.root, dev.node)); {
		case errors.Is(err, os.ErrNotExist):
			c.Status, c.Detail = Fail, c.Detail+" does not exist"
			c.Mend = "in a container: mount /dev/bus/usb; else start udevd"
		case err != nil:
			c.Status, c.Detail = Fail, fmt.Sprintf("%s: %v", c.Detail, err)
			c.Mend = d.typeSetup() + "   # then plug the board in again"
		}
		checks = append(checks, c)
	}
	return checks
}

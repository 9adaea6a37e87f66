//go:build linux

package usbfs_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"snag/internal/lab"
	"snag/sim/usbtest"
	"snag/sim/vhci"
	"snag/usb"
	"snag/usb/usbfs"
)

// asUser names, in the environment, the port that this program opens as another user, when a device is plugged in.
const asUser = "SNAG_USBFS_OPEN"

func TestMain(m *testing.M) {
	if port := os.Getenv(asUser); port != "" {
		openOnce(usb.Port(port))
		return
	}
	runtime.GOMAXPROCS(max(2, runtime.GOMAXPROCS(0))) // for a leader (reap.go) in a VM with one processor, as cmd/snag does
	os.Exit(m.Run())
}

// openOnce waits for a device, opens it and says on its standard output what came of it.
func openOnce(port usb.Port) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	changes, err := usbfs.Host{}.Watch(ctx)
	if err != nil {
		fmt.Println("watch:", err)
		return
	}
	fmt.Println("watching")
	for range changes {
		devices, err := usbfs.Host{}.Devices()
		if err != nil {
			fmt.Println("list:", err)
			return
		}
		for _, d := range devices {
			if d.Port != port {
				continue
			}
			begin := time.Now()
			h, err := usbfs.Host{}.Open(ctx, d)
			fmt.Println(time.Since(begin).Milliseconds())
			var access *usb.AccessError
			switch {
			case errors.As(err, &access):
				fmt.Printf("denied: %v\n%s\n", err, access.Hint())
			case err != nil:
				fmt.Println("failed:", err)
			default:
				fmt.Println("opened", h.Close())
			}
			return
		}
	}
}

// userOpens runs openOnce as another user while a device is plugged in. It returns how long Open took, and what it
// said.
func userOpens(t *testing.T, attr *syscall.SysProcAttr) (took time.Duration, said string) {
	t.Helper()
	port, err := vhci.Open("")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), asUser+"="+string(port.Name()))
	cmd.SysProcAttr = attr
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "watching" {
		t.Fatalf("%q, expected it to watch", lines.Text())
	}
	if err := port.Attach(ctx, usbtest.NewDevice(usbtest.Options{})); err != nil {
		t.Fatal(err)
	}
	defer port.Detach()
	lines.Scan()
	var ms int
	if _, err := fmt.Sscan(lines.Text(), &ms); err != nil {
		t.Fatalf("%q, expected a number: %v", lines.Text(), err)
	}
	for lines.Scan() {
		said += lines.Text() + "\n"
	}
	t.Logf("after %d ms: %s", ms, said)
	return time.Duration(ms) * time.Millisecond, said
}

// labuser is the VM's ordinary user, in group plugdev.
var labuser = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1001, Gid: 1001, Groups: []uint32{46}}}

// TestKernelUser opens as an ordinary user: in vain, until the udev rule that the error proposes is installed.
func TestKernelUser(t *testing.T) {
	lab.Inside(t)
	took, said := userOpens(t, labuser)
	if !strings.HasPrefix(said, "denied: ") || !strings.Contains(said, "root:root 0664") || took > 8*time.Second {
		t.Errorf("expected a refusal that names the owner within seconds")
	}
	_, rule, ok := strings.Cut(said, "\nSUBSYSTEM")
	if !ok {
		t.Fatal("no udev rule is proposed")
	}
	if err := os.MkdirAll("/etc/udev/rules.d", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/etc/udev/rules.d/70-test.rules", []byte("SUBSYSTEM"+rule), 0o644); err != nil {
		t.Fatal(err)
	}
	defer os.Remove("/etc/udev/rules.d/70-test.rules")
	if out, err := exec.Command("udevadm", "control", "--reload").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for range 5 {
		if _, said := userOpens(t, labuser); !strings.HasPrefix(said, "opened <nil>") {
			t.Error("expected the device to be opened")
		}
	}
}

// TestKernelNamespace opens where no uevent arrives.
func TestKernelNamespace(t *testing.T) {
	lab.Inside(t)
	id := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
	_, said := userOpens(t, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET, UidMappings: id, GidMappings: id})
	if !strings.HasPrefix(said, "opened <nil>") {
		t.Error("expected the device to be opened")
	}
}

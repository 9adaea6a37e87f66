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
	// What was there before may be leaving still, and would be opened in vain.
	await(t, port.Name(), "nothing", func(_ usb.Device, there bool) bool { return !there })
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

// write writes a file of the kernel's, and has another text there when the test is over, unless that is empty.
func write(t *testing.T, file, text, after string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0); err != nil {
		t.Fatal(err)
	}
	if after != "" {
		t.Cleanup(func() { os.WriteFile(file, []byte(after), 0) })
	}
}

// TestKernelUnconfigured opens a device of which the kernel has told, and which it has not configured yet: for as long
// as it takes to call its driver, or because nobody has allowed the device.
func TestKernelUnconfigured(t *testing.T) {
	lab.Inside(t)
	port, err := vhci.Open("")
	if err != nil {
		t.Fatal(err)
	}
	const bus = "/sys/bus/usb/"
	hub, _, _ := strings.Cut(string(port.Name()), "-")
	for _, tc := range []struct {
		name   string
		hinder string    // a file that keeps the kernel from it, as long as it has a 0
		do     [2]string // the file that has it go on, and what to write there
	}{
		{"not probed", bus + "drivers_autoprobe", [2]string{bus + "drivers_probe", string(port.Name())}},
		{"not allowed", bus + "devices/usb" + hub + "/authorized_default", [2]string{bus + "devices/" + string(port.Name()) + "/authorized", "1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			await(t, port.Name(), "nothing", func(_ usb.Device, there bool) bool { return !there })
			write(t, tc.hinder, "0", "1")
			if err := port.Attach(t.Context(), usbtest.NewDevice(usbtest.Options{})); err != nil {
				t.Fatal(err)
			}
			defer port.Detach()
			listed := await(t, port.Name(), "a device", func(_ usb.Device, there bool) bool { return there })
			if listed.Config != 0 {
				t.Fatalf("it is configured already: %+v", listed)
			}
			// The kernel tells of the device, calls drivers, and then makes this (usb_new_device in drivers/usb/core/hub.c).
			done := bus + "devices/" + string(port.Name()) + "/ep_00"
			until(t, "there is "+done, func() bool { _, err := os.Stat(done); return err == nil })
			write(t, tc.hinder, "1", "")
			opened := make(chan usb.Handle, 1)
			go func() {
				defer close(opened)
				h, err := usbfs.Host{}.Open(t.Context(), listed)
				if err != nil {
					t.Error(err)
					return
				}
				opened <- h
			}()
			select {
			case h := <-opened:
				if h != nil {
					h.Close()
				}
				t.Fatal("it was opened without a configuration")
			case <-time.After(200 * time.Millisecond):
			}
			told := usbfs.Hear(t.Context(), port.Name())
			write(t, tc.do[0], tc.do[1], "")
			h := <-opened
			if h == nil {
				t.FailNow()
			}
			defer h.Close()
			if d := h.Device(); d.Config != 1 || len(d.Interfaces) == 0 || d.Address != listed.Address {
				t.Errorf("opened %+v", d)
			}
			if err := h.Claim(t.Context(), 0); err != nil {
				t.Error(err)
			}
			select {
			case <-told:
			case <-time.After(10 * time.Second):
				t.Error("no uevent told of it")
			}
		})
	}
}

// TestKernelNoConfiguration opens a device that remains without a configuration, and selects one.
func TestKernelNoConfiguration(t *testing.T) {
	lab.Inside(t)
	port, _ := plug(t, usbtest.NewDevice(usbtest.Options{}))
	write(t, "/sys/bus/usb/devices/"+string(port.Name())+"/bConfigurationValue", "0", "")
	d := await(t, port.Name(), "a device without configuration", func(d usb.Device, there bool) bool { return there && d.Config == 0 })
	begin := time.Now()
	h, err := usbfs.Host{}.Open(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("opened after %v", took)
	}
	if c := h.Device().Config; c != 0 {
		t.Errorf("it has configuration %d", c)
	}
	if _, err := usb.String(t.Context(), h, h.Descriptors().Product); err != nil {
		t.Errorf("control transfer: %v", err)
	}
	if err := h.Configure(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := h.Claim(t.Context(), 0); err != nil {
		t.Error(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	write(t, "/sys/bus/usb/devices/"+string(port.Name())+"/bConfigurationValue", "0", "")
	if h, err := (usbfs.Host{}).Open(ctx, d); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, expected the context's end", err)
		if err == nil {
			h.Close()
		}
	}
}

// TestKernelLeaving opens devices that are just leaving, until they are not listed any more.
func TestKernelLeaving(t *testing.T) {
	lab.Inside(t)
	seen := map[string]int{}
	for range 10 {
		port, d := plug(t, usbtest.NewDevice(usbtest.Options{}))
		if err := port.Detach(); err != nil {
			t.Fatal(err)
		}
		for there := true; there; {
			_, err := usbfs.Host{}.Device(port.Name())
			there = err == nil
			h, err := usbfs.Host{}.Open(t.Context(), d)
			if err == nil { // it is there still
				h.Close()
				continue
			}
			if !errors.Is(err, usb.ErrGone) {
				t.Fatalf("expected that it is gone: %v", err)
			}
			seen[err.Error()]++
		}
	}
	t.Log(seen)
}

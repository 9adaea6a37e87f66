package usbip

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"snag/sim/usbdev"
)

// TestStockClient lets the usbip tool import a device into the kernel.
func TestStockClient(t *testing.T) {
	if _, err := exec.LookPath("usbip"); err != nil {
		t.Skip(err)
	}
	f, err := os.OpenFile("/sys/devices/platform/vhci_hcd.0/attach", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	f.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var s Server
	go s.Serve(t.Context(), l)
	p, err := s.NewPort("1-1")
	if err != nil {
		t.Fatal(err)
	}
	g := usbdev.NewGadget(descriptors(), inert{})
	if err := p.Attach(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	port := "--tcp-port=" + strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	for _, args := range [][]string{{port, "list", "-r", "127.0.0.1"}, {port, "attach", "-r", "127.0.0.1", "-b", "1-1"}} {
		out, err := exec.CommandContext(t.Context(), "usbip", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("usbip %v: %v: %s", args, err, out)
		}
		if args[1] == "list" && !strings.Contains(string(out), "1234:5678") {
			t.Errorf("list: %s", out)
		}
	}
	imported := func() bool {
		files, _ := filepath.Glob("/sys/bus/usb/devices/*/idProduct")
		for _, f := range files {
			if b, _ := os.ReadFile(f); strings.TrimSpace(string(b)) == "5678" {
				return true
			}
		}
		return false
	}
	wait := func(want bool) {
		t.Helper()
		deadline := time.Now().Add(20 * time.Second)
		for imported() != want {
			if time.Now().After(deadline) {
				t.Fatalf("device in the kernel's list: %t, expected %t", !want, want)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	wait(true)
	p.Detach()
	wait(false)
}

package usb

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPeer(t *testing.T) {
	sys := t.TempDir()
	link := func(file, target string) {
		t.Helper()
		file = filepath.Join(sys, "bus/usb/devices", file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, file); err != nil {
			t.Fatal(err)
		}
	}
	link("usb1/1-0:1.0/usb1-port2/peer", "../../../usb2/2-0:1.0/usb2-port5")
	link("usb2/2-0:1.0/usb2-port5/peer", "../../../usb1/1-0:1.0/usb1-port2")
	link("1-2/1-2:1.0/1-2-port3/peer", "../../../../usb2/2-5/2-5:1.0/2-5-port3")
	link("1-2.3/1-2.3:2.0/1-2.3-port12/peer", "../2-5.3-port1") // a hub whose configuration is number 2
	link("usb1/1-0:1.0/usb1-port9/peer", "../../nonsense")
	link("usb1/1-0:1.0/usb1-port8/peer", "../../usb2-port0")
	for _, tc := range []struct {
		port, want Port
		fails      bool
	}{
		{port: "1-2", want: "2-5"},
		{port: "2-5", want: "1-2"},
		{port: "1-2.3", want: "2-5.3"},
		{port: "1-2.3.12", want: "2-5.3.1"},
		{port: "1-1"},
		{port: "3-1"},
		{port: "1-2.4"},
		{port: "1-9", fails: true},
		{port: "1-8", fails: true},
		{port: "../1-2", fails: true},
		{port: "*-2", fails: true},
		{port: "", fails: true},
	} {
		got, err := Sysfs{Sys: sys}.Peer(tc.port)
		if got != tc.want || (err != nil) != tc.fails {
			t.Errorf("peer of %q: %q, %v; expected %q, an error: %t", tc.port, got, err, tc.want, tc.fails)
		}
	}
}

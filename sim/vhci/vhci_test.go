package vhci

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"snag/sim/am335x"
	"snag/sim/virtual"
	"snag/usb"
)

func TestParseStatus(t *testing.T) {
	got := parseStatus("hub port sta spd dev      sockfd local_busid\n" +
		"hs  0000 006 003 00010001 000006 1-1\nhs  0001 004 000 00000000 000000 0-0\n\nss  0008 004 000 00000000 000000 0-0\nhs x\n")
	want := []row{{false, 0, false}, {false, 1, true}, {true, 8, true}}
	if len(got) != len(want) {
		t.Fatalf("%v, expected %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("row %d: %v, expected %v", i, got[i], want[i])
		}
	}
}

// serve is a host made of foreign programs: it moves the interfaces of a port to a namespace where
// dnsmasq serves them, until a device of ID 1234:5678 is on the port.
const serve = `
	unshare -n sleep 120 & NS=$!
	trap 'kill $NS $D' EXIT
	while [ "$(readlink /proc/$NS/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
	nsenter -t $NS -n dnsmasq -k -C /dev/null --port=0 --bind-dynamic --except-interface=lo --interface='*' --user=root --group=root \
		--dhcp-range=192.168.0.101,192.168.0.150,255.255.255.0,1h --bootp-dynamic --no-ping --leasefile-ro --pid-file= \
		--dhcp-vendorclass=set:rom,'AM335x ROM' --dhcp-boot=tag:rom,spl.bin --dhcp-boot=tag:!rom,u-boot.img \
		--enable-tftp --tftp-root="$DIR" --log-facility=/dev/null & D=$!
	for i in $(seq 1000); do
		for n in /sys/bus/usb/devices/$PORT:*/net/*; do
			[ -e $n ] || continue
			n=${n##*/}
			ip link set $n netns $NS && nsenter -t $NS -n ip addr add 192.168.0.100/24 dev $n && nsenter -t $NS -n ip link set $n up
		done
		[ "$(cat /sys/bus/usb/devices/$PORT/idProduct 2>/dev/null)" = 5678 ] && exit 0
		sleep 0.05
	done
	exit 1`

// TestBoot lets boards boot through the kernel's own drivers. It needs the controller, so that it
// runs in a virtual machine as a rule.
func TestBoot(t *testing.T) {
	if err := Available(); err != nil {
		t.Skip(err)
	}
	for _, tool := range []string{"dnsmasq", "ip", "nsenter", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	dir := t.TempDir()
	os.Chmod(dir, 0o755)
	spl, uboot := bytes.Repeat([]byte("spl!"), 10_000), bytes.Repeat([]byte("u-boot."), 30_000)
	for name, b := range map[string][]byte{"spl.bin": spl, "u-boot.img": uboot} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name string
		cfg  am335x.Config
	}{
		{"RNDIS and DHCP", am335x.Config{}},
		{"ECM and BOOTP", am335x.Config{ECM: true, BOOTP: true}},
		{"reset", am335x.Config{Faults: []am335x.Fault{{Kind: am335x.Reset, Stage: am335x.StageROM, At: 1000}, {Kind: am335x.Reset, Stage: am335x.StageSPL, At: 1000}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			port, err := Open("")
			if err != nil {
				t.Fatal(err)
			}
			tc.cfg.Gadget = usb.ID{Vendor: 0x1234, Product: 0x5678}
			tc.cfg.ROMRetries = []time.Duration{time.Second}
			tc.cfg.SPLWindow = 20 * time.Second // an emulated machine may be slow
			board, err := am335x.New(tc.cfg)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			done := make(chan error, 1)
			boardCtx, unplug := context.WithCancel(ctx)
			go func() { done <- board.Run(boardCtx, port) }()
			cmd := exec.CommandContext(ctx, "sh", "-c", serve)
			cmd.Env = append(os.Environ(), "DIR="+dir, "PORT="+string(port.Name()))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
			unplug()
			if err := <-done; err != nil {
				t.Error(err)
			}
			r := board.Report()
			for stage, want := range map[string][]byte{am335x.StageROM: spl, am335x.StageSPL: uboot} {
				if s := r.Last(stage); s == nil || !bytes.Equal(s.Data, want) || !s.Complete {
					t.Errorf("%s: not what was served, or not at all", stage)
				}
			}
			if r.Outcome != virtual.Booted || len(r.Violations) > 0 || r.Resets != len(tc.cfg.Faults) {
				t.Errorf("outcome %s, %s, %d resets, violations %v", r.Outcome, r.Error, r.Resets, r.Violations)
			}
		})
	}
}

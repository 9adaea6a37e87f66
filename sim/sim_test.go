package sim_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"snag/sim"
	"snag/sim/am335x"
	"snag/sim/sandbox"
	"snag/usb"
)

func TestMain(m *testing.M) {
	sandbox.Init()
	os.Exit(m.Run())
}

// usable skips a test where there can be no sandbox.
func usable(t *testing.T) {
	t.Helper()
	s, err := sandbox.Start(t.Context())
	if err != nil {
		t.Skip(err)
	}
	s.Close()
}

func TestCommand(t *testing.T) {
	usable(t)
	spl := filepath.Join(t.TempDir(), "spl.bin")
	if err := os.WriteFile(spl, []byte("spl"), 0o644); err != nil {
		t.Fatal(err)
	}
	o := sim.AM335x{Options: sim.Options{
		Carrier: sim.Veth, Ports: []usb.Port{"1-1", "1-2"}, JSON: true,
		Command: []string{"sh", "-c", "until [ -e /sys/bus/usb/devices/1-1/idProduct -a -e /sys/bus/usb/devices/1-2/idProduct ]; do sleep 0.05; done; cat /sys/bus/usb/devices/1-*/idProduct; exit 3"},
	}}
	var stdout, stderr bytes.Buffer
	err := o.Run(t.Context(), &stdout, &stderr)
	var status *sim.CommandError
	if !errors.As(err, &status) || status.Status != 3 {
		t.Errorf("%v, expected exit status 3; %s", err, stderr.String())
	}
	output, report, _ := strings.Cut(stdout.String(), "{")
	if output != "6141\n6141\n" {
		t.Errorf("output %q", output)
	}
	var got struct {
		Event  string
		Boards []struct {
			Port    string
			Outcome string
			Stages  []struct{ Name, ID string }
		}
	}
	if err := json.Unmarshal([]byte("{"+report), &got); err != nil {
		t.Fatalf("%v in %q", err, report)
	}
	if got.Event != "sim" || len(got.Boards) != 2 || got.Boards[1].Port != "1-2" || got.Boards[1].Outcome != "unplugged" || got.Boards[0].Stages[0].ID != "0451:6141" {
		t.Errorf("%+v", got)
	}

	o.Ports, o.JSON, o.ExpectSPL, o.Command = nil, false, spl, []string{"true"}
	o.Save = filepath.Join(t.TempDir(), "saved")
	stdout.Reset()
	if err := o.Run(t.Context(), &stdout, &stderr); err == nil || !strings.Contains(stdout.String(), "NOT AS EXPECTED: rom: received 0 bytes, expected the 3 of "+spl) {
		t.Errorf("%v; %s", err, stdout.String())
	}
	if _, err := os.Stat(filepath.Join(o.Save, "1-1-spl.bin")); err != nil {
		t.Error(err)
	}
}

func TestRefused(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	beside := sim.Options{Carrier: sim.Veth, Command: []string{"true"}}
	for _, o := range []sim.AM335x{
		{Options: sim.Options{Carrier: sim.Veth}},
		{Options: beside, ExpectSPL: "/nonexistent"},
		{Options: beside, Board: am335x.Config{BlockSize: 1}},
	} {
		if err := o.Run(ctx, &bytes.Buffer{}, &bytes.Buffer{}); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}

package inproc_test

import (
	"testing"

	"snag/sim/inproc"
	"snag/sim/usbtest"
	"snag/usb"
)

func TestSuite(t *testing.T) {
	host := inproc.New(inproc.Pair{High: 1, Super: 2})
	lab := usbtest.Lab{Host: host, Super: host.Port("2-1"), AtOnce: 5}
	for _, name := range []usb.Port{"1-1", "1-2.1", "1-2.2", "3-1", "3-2.4.1"} {
		lab.Ports = append(lab.Ports, host.Port(name))
	}
	usbtest.Run(t, lab)
}

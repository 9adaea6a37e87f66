package fastboot_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"snag/usb/fastboot"
)

// FuzzClient lets a device answer anything, over TCP and over UDP. A download ends in time, and without an error only
// if the device said OKAY.
func FuzzClient(f *testing.F) {
	f.Add(true, []byte("FB01\x00\x00\x00\x00\x00\x00\x00\x0cDATA00000003\x00\x00\x00\x00\x00\x00\x00\x04OKAY"))
	f.Add(true, []byte("FB01\xff\x00\x00\x00\x00\x00\x00\x0c"))
	f.Add(false, []byte("\x06\x01\x00\x00\x00\x00\x07\x08\x02\x00\x00\x07\x00\x01\x04\x00\x04\x03\x00\x00\x08\x10\x03\x00\x00\x09DATA00000003"))
	f.Fuzz(func(t *testing.T, tcp bool, b []byte) {
		if len(b) > 4096 {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := pipes(tcp, false)
			// What the client sends goes nowhere.
			go func() {
				for buf := make([]byte, 1<<20); ; {
					if _, err := theirs.Read(buf); err != nil {
						return
					}
				}
			}()
			go func() {
				for rest := b; len(rest) > 0; {
					n := len(rest)
					if !tcp { // a packet behind its length
						n = min(int(rest[0]), n-1)
						rest = rest[1:]
					}
					if _, err := theirs.Write(rest[:n]); err != nil {
						return
					}
					rest = rest[n:]
				}
			}()
			defer ours.Close()
			var tr fastboot.Transport
			var err error
			begun := time.Now()
			if tcp {
				tr, err = fastboot.NewTCP(t.Context(), ours)
			} else {
				tr, err = fastboot.NewUDP(t.Context(), ours)
			}
			if err == nil {
				err = fastboot.New(tr).Download(t.Context(), bytes.NewReader([]byte("abc")), 3, nil)
			}
			if err == nil && !bytes.Contains(b, []byte("OKAY")) {
				t.Error("done without an OKAY")
			}
			if took := time.Since(begun); took > 5*time.Minute {
				t.Errorf("it took %s", took)
			}
		})
	})
}

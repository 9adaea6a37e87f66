package imx

import (
	"context"
	"testing"
	"time"

	"snag/usb"
)

// FuzzImages reads images of every kind.
func FuzzImages(f *testing.F) {
	f.Add(IVTImage{Self: 0x7e0c00, Size: 300}.Generate())
	f.Add(GenerateFIT(1, 100, 20))
	f.Add(GenerateContainers(0, 1, []ContainerImage{{Size: 300}}, []ContainerImage{{Size: 300}}))
	f.Add(GenerateContainers(2, 1, []ContainerImage{{Size: 300}})[:0x800])
	f.Add(GenerateSB(300, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, header := range []string{"ivt", "container", "sb"} {
			if size, err := firstStage(header, b); err == nil && (size < 1 || size > 2*streamMax) {
				t.Errorf("%s of %d bytes", header, size)
			}
		}
		if end, err := fitEnd(b); err == nil && (end < 40 || end > streamMax) {
			t.Errorf("FIT of %d bytes", end)
		}
	})
}

func FuzzDCD(f *testing.F) {
	f.Add(GenerateDCD(3, false))
	f.Add(GenerateDCD(1, true))
	f.Fuzz(func(t *testing.T, b []byte) {
		var d DCD
		runDCD(t.Context(), new(Memory), b[:min(len(b), maxDCD)], &d)
		if d.Writes+d.Checks > maxDCD/8 {
			t.Errorf("%d writes and %d checks", d.Writes, d.Checks)
		}
	})
}

// FuzzHost sends a ROM and an SPL what no host would: reports cut from the input, each led by its ID and its
// length in words.
func FuzzHost(f *testing.F) {
	f.Add(uint8(0), append([]byte{1, 4}, encode("jump", 0, 0, 0, 0, 0)...))
	f.Add(uint8(1), append(append([]byte{1, 4}, encode("write-file", 0, 0, 8, 0, 0)...), 2, 2, 1, 2, 3, 4, 5, 6, 7, 8))
	f.Add(uint8(0), append(append([]byte{1, 4}, encode("dcd", ocram, 0, 8, 0, 0)...), 2, 2, 0xd2, 0, 8, 0x40, 0xc0, 0, 4, 0))
	f.Add(uint8(2), append(append([]byte{1, 8}, block(100)...), 0))
	f.Add(uint8(0), append([]byte{1, 4}, encode("read-register", 0, 0x20, 0xffffffff, 0, 0)...))
	f.Fuzz(func(t *testing.T, kind uint8, in []byte) {
		name := []string{"imx6q", "imx6q", "imx28"}[kind%3]
		b, err := New(Config{Model: model(t, name), Closed: kind&4 != 0, SPL: map[bool]SPLKind{true: SDPV}[name == "imx6q"]})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		stage, run := StageROM, (*session).sdp
		switch kind % 3 {
		case 1:
			stage, run = StageSPL, (*session).spl
		case 2:
			run = (*session).sdps
		}
		s := b.session(stage, new(Memory))
		b.board.Begin(stage, s.dev.Descriptors(), s.stage)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			run(s, ctx)
		}()
		read := make(chan struct{})
		go func() {
			defer close(read)
			for buf := make([]byte, 65); ; {
				if _, err := s.dev.In(ctx, epIn, buf); err != nil {
					return
				}
			}
		}()
		s.dev.Control(ctx, usb.Setup{Type: 0x81, Request: getDesc, Value: descReport << 8, Length: 255}, make([]byte, 255))
		for len(in) >= 2 && ctx.Err() == nil {
			id, n := in[0], min(4*int(in[1]), len(in)-2)
			select {
			case <-ended:
				in = nil
				continue
			default:
			}
			sent, stop := context.WithCancel(ctx)
			go func() {
				select {
				case <-ended:
					stop()
				case <-sent.Done():
				}
			}()
			s.dev.Control(sent, usb.Setup{Type: 0x21, Request: hidSetReport, Value: 0x0200 | uint16(id), Length: uint16(n + 1)}, append([]byte{id}, in[2:2+n]...))
			stop()
			in = in[2+n:]
		}
		cancel()
		<-ended
		<-read
	})
}

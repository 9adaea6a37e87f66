package qcom

import (
	"context"
	"fmt"
	"strings"

	"snag/sim/virtual"
)

// programmer is the program that writes storage, and that speaks Firehose (qdl, src/firehose.c): XML both ways. Here it
// accepts all that is short, and does nothing but end at "power".
func (s *session) programmer(ctx context.Context) error {
	s.report = &Stage{Images: []Transfer{}}
	s.b.board.Begin(StageProgrammer, s.Descriptors(), s.report)
	s.b.board.Booted()
	s.b.board.Settle()
	say := func(element string) error {
		_, err := s.InPipe(epIn).Write(ctx, []byte(`<?xml version="1.0" encoding="UTF-8" ?><data>`+element+`</data>`))
		return err
	}
	b := make([]byte, 4096)
	for {
		n, err := s.OutPipe(epOut).Read(ctx, b)
		if err != nil {
			return err
		}
		if n == 0 {
			continue
		}
		_, element, found := strings.Cut(string(b[:n]), "<data>")
		name, _, _ := strings.Cut(strings.TrimLeft(element, "< \n\r\t"), " ")
		if !found {
			s.violation("Firehose was sent % x", b[:min(n, 16)])
			if err := say(`<log value="ERROR: XML not formed correctly" />`); err != nil {
				return err
			}
			continue
		}
		s.edit(func(t *Stage) {
			if len(t.Firehose) < 1000 {
				t.Firehose = append(t.Firehose, name)
			}
		})
		if name == "configure" {
			err = say(`<log value="virtual programmer" />`)
			if err == nil {
				err = say(fmt.Sprintf(`<response value="ACK" MaxPayloadSizeToTargetInBytes="%d" MaxPayloadSizeToTargetInBytesSupported="%[1]d" />`, 1<<20))
			}
		} else {
			err = say(`<response value="ACK" />`)
		}
		if err != nil {
			return err
		}
		if name == "power" {
			return virtual.Sleep(ctx, s.b.cfg.Delay)
		}
	}
}

package imx

import (
	"context"
	"fmt"

	"snag/event"
	"snag/socs"
)

// SPLs whose release lies between these search for U-Boot in what they are given (SDPV); older ones jump to the very
// address (SDPU). uuu, config.cpp; Snagboot, recoveries/imx.py. 0x9999 is what old SPLs say that do not know their USB
// controller.
const (
	firstSDPV = 0x0500
	lastSDPV  = 0x9998
)

// serveSPL gives SPL U-Boot. SPL fetches its whole file in one command, since it searches no more than the last file,
// and neither knows nor needs the DCD. Its commands go one way, by the endpoint if there is one: after the first
// SET_REPORT it does not look at its endpoint again (U-Boot, f_sdp.c).
func (r *recovery) serveSPL(ctx context.Context, stage *socs.Stage) error {
	d := stage.USB.Device()
	second := r.plan.second
	if second == nil {
		return &socs.BoardError{Stage: stageSPL, Err: fmt.Errorf("on port %s is %s (%s), expected the boot ROM of %s: the firmware has nothing for another stage", stage.Port, d.ID, d.Product, r.chip.name),
			Hint: "reset the board into its boot ROM and run snag again"}
	}
	if second.search && (d.Release < firstSDPV || d.Release > lastSDPV) {
		r.board.Emit(stageSPL, event.Warning{Text: fmt.Sprintf("SPL (release %04x) does not search for U-Boot, and where that begins in %s is not known for certain", d.Release, second.path)})
	}
	s, err := r.openSDP(ctx, stage, stageSPL, fullReport)
	if err != nil {
		return err
	}
	t := r.begin(stage, stageSPL, second.path, len(second.data))
	if err := s.writeFile(ctx, second.addr, second.data, t.At); err != nil {
		return err
	}
	t.At(t.Total)
	if err := s.jump(ctx, second.addr); err != nil {
		return err
	}
	t.Done()
	return nil
}

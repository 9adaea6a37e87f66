package amlogic

import (
	"context"
	"fmt"

	"snag/event"
	"snag/socs"
)

// The sizes of blocks. The parameters are one; BL2 goes for the second time by 64 bytes, as both peers have it, and
// U-Boot by 16 KiB, as Snagboot has it.
const (
	bl2Block = 64
	fipBlock = 16 << 10
)

// serveGX gives the ROM BL2, has that set up the DRAM, and gives it U-Boot. GXBB's BL2 returns to the ROM after the
// first, so that it is started once more; the others stay, and tell to be at another stage.
func (r *recovery) serveGX(ctx context.Context, d *device, stage *socs.Stage) error {
	bl2, fip := r.job.Firmware[slotBL2], r.job.Firmware[slotUBoot]
	load, err := address(fip, keyLoad, r.fip)
	if err != nil {
		return err
	}
	p := r.begin(stageROM, bl2.Path, len(bl2.Data))
	// Not by a large write: Snagboot's author found that not to work, on an s905x.
	if err := d.write(ctx, r.bl2, bl2.Data, p.At); err != nil {
		return err
	}
	if err := d.large(ctx, r.parameters, initDRAM, len(initDRAM), nil); err != nil {
		return err
	}
	if err := d.run(ctx, r.bl2); err != nil {
		return err
	}
	p.Done()
	p = r.begin(stageBL2, fip.Path, len(fip.Data))
	if err := r.settle(ctx, stage, startTime); err != nil {
		return err
	}
	id, err := d.identify(ctx)
	if err != nil {
		return err
	}
	r.job.Board.Emit(stageBL2, event.Note{Text: id.String()})
	start := r.bl2
	switch id.stage {
	case stepROM:
	case stepBL2:
		start = r.parameters
		if err := d.run(ctx, start); err != nil {
			return err
		}
		if err := r.settle(ctx, stage, startTime); err != nil {
			return err
		}
	default:
		return r.fail("BL2 does not run: is it for this board?", "expected stage %d or %d after BL2 was started, got stage %d", stepROM, stepBL2, id.stage)
	}
	if err := d.large(ctx, r.bl2, bl2.Data, bl2Block, nil); err != nil {
		return fmt.Errorf("BL2 for the second time: %w", err)
	}
	if err := d.large(ctx, r.parameters, runFIP, len(runFIP), nil); err != nil {
		return err
	}
	if err := d.large(ctx, load, fip.Data, fipBlock, p.At); err != nil {
		return err
	}
	if err := d.run(ctx, start); err != nil {
		return err
	}
	p.Done()
	return nil
}

// Package virtual is what every virtual board does, whatever its chip: it is plugged into a port and powered, runs one
// stage after the other, leaves the bus and comes back between them, carries out faults, is power-cycled, and keeps a
// [Report].
//
// A new family is a package with a Config, a New that checks it, and a Board that has a [Board] in it:
//
//	// Stage is what the board saw in one enumeration, beyond what all boards see.
//	type Stage struct {
//		virtual.Stage
//		Commands []string `json:"commands"`
//	}
//
//	// Effects implements [virtual.Staged].
//	func (s *Stage) Effects() string { return fmt.Sprintf("  commands %q\n", s.Commands) }
//
//	type Report = virtual.Report[*Stage]
//
//	func (b *Board) Run(ctx context.Context, port usbdev.Port) error { // Report and Settled are forwarded as well
//		return b.board.Run(ctx, port, func(ctx context.Context) error { return b.boot(ctx, port) })
//	}
//
//	// boot takes the board from its ROM to U-Boot.
//	func (b *Board) boot(ctx context.Context, port usbdev.Port) error {
//		d := newDevice(b) // a usbdev.Gadget, which edits s by b.board.Edit, and calls Violation
//		s := &Stage{Commands: []string{}}
//		if err := b.board.Stage(ctx, port, virtual.StageROM, d, s, d.serve); err != nil {
//			return err
//		}
//		... // the next stages, with a [Sleep] before each
//		return b.board.Gadget(ctx, port, b.cfg.Gadget, "Manufacturer", b.cfg.GadgetDelay, &Stage{Commands: []string{}})
//	}
//
// What a stage serves it asks [Board.Due] about, which carries out the faults that are due; the others are the
// family's. The family's [Faults] say which there are. Package snag/socs/socstest recovers a board in a test.
package virtual

package evk

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"strings"

	"snag/sim/fastboot"
	"snag/sim/imx"
	"snag/sim/ocotp"
	"snag/sim/uboot"
	"snag/sim/usbdev"
	"snag/usb"
)

// Config is a board and its faults. All may be left out.
type Config struct {
	Model string // of imx.Models; empty: imx8mp

	ROM      imx.Config        // Model does not count; Gadget is what U-Boot's fastboot calls itself
	Fastboot fastboot.Config   // UBoot, Before and NXP do not count; its faults are those of U-Boot's stage
	Env      map[string]string // variables of U-Boot beside its own
}

// The sizes of the media, and what the board calls them.
const (
	EMMCSize = 64 << 20
	BootSize = 4 << 20
	CardSize = 32 << 20
	NANDSize = 32 << 20
	NORSize  = 32 << 20

	emmcDev  = 2
	cardDev  = 1
	loadAddr = 0x40400000
)

// Board is a virtual board. It lives from [New] to the end of one [Board.Run].
type Board struct {
	ROM      *imx.Board
	Fastboot *fastboot.Board
	UBoot    *uboot.Machine
	Fuses    *ocotp.Array // nil: a chip whose fuses nobody has modelled

	EMMC, Card *uboot.MMC
	NAND, NOR  *uboot.MTD
}

// New makes a board that is not plugged in yet.
func New(cfg Config) (*Board, error) {
	if cfg.Model == "" {
		cfg.Model = "imx8mp"
	}
	model, err := imx.FindModel(cfg.Model)
	if err != nil {
		return nil, err
	}
	b := &Board{
		EMMC: uboot.NewMMC(EMMCSize, BootSize), Card: uboot.NewMMC(CardSize, 0),
		NAND: uboot.NewMTD("nand0", true, NANDSize, 128<<10, 2048,
			uboot.MTDPart{Name: "nandboot", Size: 8 << 20}, uboot.MTDPart{Name: "nandfit", Off: 8 << 20, Size: 8 << 20}),
		NOR: uboot.NewMTD("nor0", false, NORSize, 64<<10, 1),
	}
	b.UBoot = &uboot.Machine{
		Env: map[string]string{
			"board": "imx8mp_evk", "emmc_dev": fmt.Sprint(emmcDev), "sd_dev": fmt.Sprint(cardDev), "mmcdev": fmt.Sprint(cardDev), "fastboot_dev": "mmc",
			"loadaddr": fmt.Sprintf("0x%x", loadAddr), "fastboot_buffer": fmt.Sprintf("0x%x", loadAddr), "nandfit_part": "yes", "soc": family(model.Name),
		},
		MMC: []*uboot.MMC{emmcDev: b.EMMC, cardDev: b.Card}, MTD: []*uboot.MTD{b.NOR, b.NAND},
		Commands: map[string]uboot.Command{"qspihdr": b.qspihdr, "nandbcb": b.nandbcb, "fspinand": b.nandbcb},
	}
	maps.Copy(b.UBoot.Env, cfg.Env)
	if fuses, err := ocotp.New(model.Name); err == nil {
		b.Fuses = fuses
		b.UBoot.Commands["fuse"], b.UBoot.Registers, b.UBoot.Reset = fuses.Command, fuses.Register, fuses.Power
	}
	cfg.ROM.Model = model
	if b.ROM, err = imx.New(cfg.ROM); err != nil {
		return nil, err
	}
	fb := cfg.Fastboot
	if fb.ID == (usb.ID{}) {
		fb.ID = cfg.ROM.Gadget
	}
	fb.UBoot, fb.Before, fb.NXP = b.UBoot, b.ROM.Start, &fastboot.NXP{Card: 0x8000}
	if strings.HasPrefix(model.Name, "imx8mm") || strings.HasPrefix(model.Name, "imx8mq") {
		fb.NXP = &fastboot.NXP{EMMC: 0x8400, Card: 0x8400}
	} else if strings.HasPrefix(model.Name, "imx6") || strings.HasPrefix(model.Name, "imx7") {
		fb.NXP = &fastboot.NXP{EMMC: 0x400, Card: 0x400}
	}
	if b.Fastboot, err = fastboot.New(fb); err != nil {
		return nil, err
	}
	b.NAND.Violation, b.NOR.Violation = b.UBoot.Violation, b.UBoot.Violation
	return b, nil
}

// family is U-Boot's CONFIG_SYS_SOC.
func family(model string) string {
	switch {
	case strings.HasPrefix(model, "imx6"):
		return "mx6"
	case strings.HasPrefix(model, "imx7"):
		return "mx7"
	case strings.HasPrefix(model, "imx8m"):
		return "imx8m"
	}
	return ""
}

// String says what the board has, for people.
func (b *Board) String() string {
	s := fmt.Sprintf("U-Boot's fastboot has an eMMC (mmc %d) of %d MiB, a card (mmc %d) of %d MiB, NAND and NOR flash", emmcDev, EMMCSize>>20, cardDev, CardSize>>20)
	if b.Fuses != nil {
		s += ", and fuses"
	}
	return s
}

// Run plugs the board into the port and powers it until the context ends, which unplugs it. The error is the carrier's.
func (b *Board) Run(ctx context.Context, port usbdev.Port) error { return b.Fastboot.Run(ctx, port) }

// Settled is closed when nothing more happens by itself: U-Boot's fastboot is there, or has been left, or the board is
// stuck or was unplugged.
func (b *Board) Settled() <-chan struct{} { return b.Fastboot.Settled() }

// Contents are SHA-256 of all that keeps its contents, of what is not blank there; what the eMMC boots from; and the
// fuses.
func (b *Board) Contents() map[string]string {
	all := map[string]string{"eMMC partconf": fmt.Sprint(b.EMMC.PartConf)}
	for name, medium := range map[string]interface{ Written(func(int64, []byte)) }{
		"eMMC": b.EMMC.Areas[0], "eMMC boot 0": b.EMMC.Areas[1], "eMMC boot 1": b.EMMC.Areas[2], "card": b.Card.Areas[0], "NAND": b.NAND, "NOR": b.NOR,
	} {
		h := sha256.New()
		medium.Written(func(off int64, page []byte) { fmt.Fprintf(h, "%d %s", off, page) })
		all[name] = fmt.Sprintf("%x", h.Sum(nil))
	}
	if b.Fuses != nil {
		for at, v := range b.Fuses.Fuses() {
			all[fmt.Sprintf("fuse %d %d", at.Bank, at.Word)] = fmt.Sprintf("0x%08x", v)
		}
	}
	return all
}

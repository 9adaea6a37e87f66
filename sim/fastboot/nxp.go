package fastboot

import (
	"strconv"

	"snag/sim/uboot"
)

// NXP is what NXP's U-Boot (uboot-imx, drivers/fastboot/fb_fsl) does otherwise: flash knows "all", which is the whole
// user area, and "bootloader", on the MMC that the environment names by fastboot_dev ("mmc") and mmcdev, which it looks
// at anew each time. What is downloaded goes to fastboot_buffer, and its size is in fastboot_bytes.
type NXP struct {
	EMMC, Card int64 // where the boot loader begins, in an eMMC's first boot partition and on a card
}

// downloadAddress is where in memory a download goes to.
func (s *stage) downloadAddress() uint64 {
	if s.b.cfg.NXP != nil {
		if n, err := strconv.ParseUint(s.b.cfg.UBoot.Getenv("fastboot_buffer"), 0, 64); err == nil {
			return n
		}
	}
	return s.b.cfg.Address
}

// flashMMC is the number of the MMC that flash is for; -1: none.
func (s *stage) flashMMC() int {
	if s.b.cfg.NXP == nil {
		return s.b.cfg.FlashMMC
	}
	m := s.b.cfg.UBoot
	n, err := strconv.ParseUint(m.Getenv("mmcdev"), 10, 8)
	if m.Getenv("fastboot_dev") != "mmc" || err != nil {
		return -1
	}
	return int(n)
}

// nxp finds what a name of NXP's stands for.
func (s *stage) nxp(d *uboot.MMC, name string, area func(n int, first, end int64) medium) (medium, bool) {
	end := d.Areas[0].Size() / uboot.BlockSize
	switch {
	case s.b.cfg.NXP == nil:
	case name == "all":
		return area(0, 0, end), true
	case name == "bootloader" && d.Areas[1] != nil:
		to := area(1, s.b.cfg.NXP.EMMC/uboot.BlockSize, d.Areas[1].Size()/uboot.BlockSize)
		to.only = true
		return to, true
	case name == "bootloader":
		to := area(0, s.b.cfg.NXP.Card/uboot.BlockSize, end)
		to.only = true
		return to, true
	}
	return medium{}, false
}

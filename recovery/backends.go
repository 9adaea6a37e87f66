package recovery

import (
	"snag/socs"
	"snag/socs/am335x"
	"snag/socs/imx"
	"snag/socs/k3"
	"snag/socs/keembay"
	"snag/socs/rockchip"
	"snag/socs/rzn1"
	"snag/socs/stm32mp"
	"snag/socs/zynqmp"
)

// Backends lists the families that are built. The model table (socs) knows more.
func Backends() []socs.Backend {
	return []socs.Backend{
		am335x.Backend{},
		imx.Backend{},
		keembay.Backend{},
		k3.Backend{},
		rockchip.Backend{},
		rzn1.Backend{},
		stm32mp.Backend{},
		zynqmp.Backend{},
	}
}

// BackendOf finds the backend of a family; nil if it is not built yet.
func BackendOf(family string) socs.Backend {
	for _, b := range Backends() {
		if b.Family().Name == family {
			return b
		}
	}
	return nil
}

package recovery

import (
	"snag/socs"
	"snag/socs/am335x"
	"snag/socs/amlogic"
	"snag/socs/bcm"
	"snag/socs/imx"
	"snag/socs/k3"
	"snag/socs/keembay"
	"snag/socs/qcom"
	"snag/socs/rockchip"
	"snag/socs/rzn1"
	"snag/socs/sama5"
	"snag/socs/stm32mp"
	"snag/socs/sunxi"
	"snag/socs/zynqmp"
)

// Backends lists the families that are built. The model table (socs) knows more.
func Backends() []socs.Backend {
	return []socs.Backend{
		am335x.Backend{},
		amlogic.Backend{},
		bcm.Backend{},
		imx.Backend{},
		keembay.Backend{},
		k3.Backend{},
		qcom.Backend{},
		rockchip.Backend{},
		rzn1.Backend{},
		sama5.Backend{},
		stm32mp.Backend{},
		sunxi.Backend{},
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

package recovery

import (
	"fmt"

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

// Backends lists the families.
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

// Lookup finds a model by its name or an alias of it, and the backend of its family.
func Lookup(name string) (socs.Model, socs.Backend, error) {
	model, err := socs.Lookup(name)
	if err != nil {
		return model, nil, err
	}
	for _, b := range Backends() {
		if b.Family().Name == model.Family {
			return model, b, nil
		}
	}
	return model, nil, fmt.Errorf("%s: the family %s has no backend", model.Name, model.Family)
}

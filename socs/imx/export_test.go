package imx

import "snag/socs"

// HasSPL tells whether a model's first stage may be an SPL that serves SDP.
func HasSPL(model string) bool {
	c, err := chipOf(socs.Model{Name: model})
	return err == nil && c.spl
}

package socs

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// families is the model table: every name and alias of Snagboot 3.0 (its supported_socs.yaml), and
// ours. Names are in lower case; an entry "a=b,c" has the aliases b and c. Families are grouped by
// backend: k3 is Snagboot's am6x and am62lx.
//
// Where one flow serves all models of a family, its own name is a model too: the backend asks the
// board what it is, or need not know.
var families = []struct {
	name   string
	models string
}{
	{"am335x", "am335x=am33xx am3352 am3354 am3356 am3357 am3358 am3359 am437x=am43xx am4372 am4376 am4377 am4378 am4379"},
	{"k3", "am623 am625 am62a7 am62d2 am62p am62l3 am6411 am6412 am6421 am6422 am6441 am6442 am6546 am6548 " +
		"j7200=dra821 j721e=dra829,tda4vm j721s2=am68,tda4al,tda4ve,tda4vl j722s=am67,tda4aen,tda4ven " +
		"j784s4=am69,tda4ah,tda4ap,tda4vh,tda4vp"},
	{"imx", "imx23 imx28 imx50 imx51 imx53 vf610=vybrid imx6d=imx6dl,imx6s imx6q imx6sl imx6sll imx6sx imx6ul imx6ull=imx6ulz imx7d imx7s imx7ulp " +
		"imx815=imx8mn imx865=imx8mp imx8dxl imx8mm imx8mq imx8qm imx8qxp imx8ulp imx91 imx93 imx943 imx95 imx952 imxrt106x=imxrt1060"},
	{"stm32mp", "stm32mp13 stm32mp15 stm32mp21 stm32mp23 stm32mp25"},
	{"sunxi", "sunxi a10 a10s a13 a20 a23 a31 a33 a63 a64 a80 a83t a133=a100 a523=a527,t527 af1c100s=f1c100s h2+ h3 h5 h6 h616=h313,h618,t507 " +
		"r8 r16 r329 r40 r528 t7 t113-s3 v3s v536 v5s=v5 v831 v853"},
	{"sama5", "sama5d2 sama5d3 sama5d4"},
	{"amlogic", "a113d a113x a311d s805x s805y s905 s905d s905d2 s905d3 s905h s905l s905m s905m2 s905w s905x s905x2 s905x3 " +
		"s905y2 s912 s922x"},
	{"bcm", "bcm2711 bcm2712 bcm2835 bcm2836 bcm2837=bcm2710"},
	{"rzn1", "rzn1 rzn1d rzn1s rzn1l"},
	{"zynqmp", "zynqmp"},
	{"keembay", "keembay"},
	{"qcom", "iq9075"},
	{"rockchip", "px30=rk3326 rk1808=rk1806 rk27 rk28 rk2818=rk281x rk2918=rk29 rk2928=rk292x rk3026 rk3036 rk3066 rk3066b rk3126 rk3128 rk3168 rk3188 " +
		"rk3228=rk3229,rk322x rk3288 rk3308 rk3328 rk3368 rk3399=rk3399pro rk3506 rk3528 rk3562 rk3568=rk3566 rk3576 rk3588=rk3582,rk3583,rk3588s " +
		"rkcayman rkcrown rknano rkpanda rksmart rv1106=rv1103 rv1108"},
}

// models is the table by row, in the order of families.
var models = sync.OnceValue(func() (rows []Model) {
	for _, f := range families {
		for entry := range strings.FieldsSeq(f.models) {
			name, aliases, _ := strings.Cut(entry, "=")
			m := Model{Name: name, Family: f.name}
			if aliases != "" {
				m.Aliases = strings.Split(aliases, ",")
			}
			rows = append(rows, m)
		}
	}
	return rows
})

// Models returns the model table, grouped by family.
func Models() []Model { return slices.Clone(models()) }

// Lookup finds a model by its name or an alias, in any case. The error is an *UnknownModelError.
func Lookup(name string) (Model, error) {
	key := strings.ToLower(strings.TrimSpace(name))
	for _, m := range models() {
		if m.Name == key || slices.Contains(m.Aliases, key) {
			return m, nil
		}
	}
	err := &UnknownModelError{Name: name}
	for _, m := range models() {
		if m.Family == key {
			err.Family = m.Family
			err.Near = append(err.Near, m.Name)
		}
	}
	if err.Family == "" {
		var known []string
		for _, m := range models() {
			known = append(append(known, m.Name), m.Aliases...)
		}
		err.Near = Nearest(key, known)
	}
	return Model{}, err
}

// UnknownModelError says that there is no such model, and what may have been meant.
type UnknownModelError struct {
	Name   string
	Family string   // set if Name is a family whose models need different treatment
	Near   []string // the nearest names, best first; all models of Family if that is set
}

func (e *UnknownModelError) Error() string {
	switch {
	case e.Family != "":
		return fmt.Sprintf("%q is a family of SoCs that differ: name the model, one of %s", e.Name, strings.Join(e.Near, ", "))
	case len(e.Near) > 0:
		return fmt.Sprintf("unknown SoC model %q: did you mean %s? (snag list socs shows all)", e.Name, strings.Join(e.Near, ", "))
	}
	return fmt.Sprintf("unknown SoC model %q (snag list socs shows all)", e.Name)
}

// Nearest returns up to eight of the names that word may be a misspelling or a beginning of, or that
// are a beginning of it; best first, nothing that is far off.
func Nearest(word string, names []string) []string {
	type hit struct {
		name string
		rank int // edit distance, less if one is a beginning of the other
	}
	const most, minPrefix = 8, 3
	if len(word) > 64 {
		return nil
	}
	var hits []hit
	for _, n := range names {
		d := editDistance(word, n)
		limit := 1 + min(len(word), len(n))/4
		prefix := len(word) >= minPrefix && strings.HasPrefix(n, word) || len(n) >= minPrefix && strings.HasPrefix(word, n)
		switch {
		case prefix:
			hits = append(hits, hit{n, d - 2})
		case d <= limit:
			hits = append(hits, hit{n, d})
		}
	}
	slices.SortStableFunc(hits, func(a, b hit) int { return cmp.Compare(a.rank, b.rank) })
	var out []string
	for _, h := range hits[:min(most, len(hits))] {
		out = append(out, h.name)
	}
	return out
}

// editDistance counts the bytes to insert, delete, replace or swap with their neighbour to make b of a
// (optimal string alignment).
func editDistance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, last, row = last, row, before
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}

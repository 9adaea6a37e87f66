package rockchip

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"snag/usb"
)

// Model is a SoC.
type Model struct {
	Name    string
	Aliases []string
	ID      usb.ID
	Chip    string // in containers, as rkbin's recipes name it
	Tag     string // that the ROM wants in front of what media have, and accepts in front of 471
	RC4     bool   // the ROM decrypts sections
	ARM64   bool
	SRAM    int // what a section for 471 may have; 0: not known
	// ProvenBy is the program, not made here, that has downloaded to the virtual board; empty: none.
	ProvenBy string
}

// What proves the boards: the first of each kind has been downloaded to by it in the VM tests, and its siblings differ
// by their ID and files only.
const (
	direct = "rkdeveloptool"
	like   = "rkdeveloptool (%s)"
)

// models follow rkdeveloptool's RKScan.cpp, xrock's rock.c and, for chips and encryption, the recipes of rkbin. SRAM is
// how much of it an image may have by U-Boot's tools/rkcommon.c, where that is more than a TPL's share.
var models = sync.OnceValue(func() []Model { return table(modelTable) })

const modelTable = `
	name     ID        chip      tag   rc4 arm64 SRAM    like       aliases
	rk3399   2207:330c RK330C    RK33  rc4 arm64 0x2e000 .          rk3399pro
	px30     2207:330d RKPX30    RK33  rc4 arm64 0       rk3399     rk3326
	rk1808   2207:180a RK180A    RK18   rc4 arm64 0       rk3399     rk1806
	rk3308   2207:330e RK3308    RK33  rc4 arm64 0x3f000 rk3399
	rk3328   2207:320c RK322H    RK32  rc4 arm64 0x7800  rk3399
	rk3368   2207:330a RK330A    RK33  rc4 arm64 0x7000  rk3399
	rk3288   2207:320a RK320A    RK32  rc4 -     0x8000  .
	rk3228   2207:320b RK322A    RK32  rc4 -     0x7000  rk3288     rk3229,rk322x
	rk3188   2207:310b RK31      RK31  rc4 -     0x7800  rk3288
	rk3168   2207:300b RK300B    -     rc4 -     0       rk3288
	rk3128   2207:310c RK312A    RK31  rc4 -     0       rk3288
	rk3126   2207:310d RK312A    RK31  rc4 -     0       rk3288
	rk3066   2207:300a RK30      RK30  rc4 -     0x7800  rk3288
	rk3066b  2207:310a RK30B     RK30  rc4 -     0       rk3288
	rk3036   2207:301a RK303A    RK30  rc4 -     0       rk3288
	rk3026   2207:292c RK302A    -     rc4 -     0       rk3288
	rk2928   2207:292a RK292X    -     rc4 -     0       rk3288     rk292x
	rk2918   2207:290a RK29      -     rc4 -     0       rk3288     rk29
	rk2818   2207:281a RK281X    -     rc4 -     0       rk3288     rk281x
	rkpanda  2207:282b RKPANDA   -     rc4 -     0       rk3288
	rkcayman 2207:273a RKCAYMAN  -     rc4 -     0       rk3288
	rksmart  2207:262c RKSMART   -     rc4 -     0       rk3288
	rkcrown  2207:261a RKCROWN   -     rc4 -     0       rk3288
	rk27     071b:3201 RK27      -     rc4 -     0       rk3288
	rk28     071b:3228 RK28      -     rc4 -     0       rk3288
	rknano   071b:3226 RKNANO    -     rc4 -     0       rk3288
	rv1108   2207:110a RK110A    RK11  rc4 -     0       rk3288
	rk3588   2207:350b RK3588    -     -   arm64 0xff000 .          rk3583,rk3588s,rk3582
	rk3568   2207:350a RK3568    -     -   arm64 0xf000  rk3588     rk3566
	rk3528   2207:350c RK3528    -     -   arm64 0xf000  rk3588
	rk3562   2207:350d RK3562    -     -   arm64 0xf000  rk3588
	rk3576   2207:350e RK3576    -     -   arm64 0x7f000 rk3588
	rk3506   2207:350f RK350F    -     -   -     0xb000  rk3588
	rv1106   2207:110c RV1106    -     -   -     0       rk3588     rv1103
`

func table(text string) (all []Model) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 8 || f[0] == "name" {
			continue
		}
		id, err := usb.ParseID(f[1])
		if err != nil {
			panic(err)
		}
		m := Model{Name: f[0], ID: id, Chip: f[2], Tag: strings.Trim(f[3], "-"), RC4: f[4] == "rc4", ARM64: f[5] == "arm64", ProvenBy: direct}
		sram, err := strconv.ParseInt(f[6], 0, 0)
		if err != nil {
			panic(err)
		}
		m.SRAM = int(sram)
		if f[7] != "." {
			m.ProvenBy = fmt.Sprintf(like, f[7])
		}
		if len(f) > 8 {
			m.Aliases = strings.Split(f[8], ",")
		}
		all = append(all, m)
	}
	return all
}

// Models returns the table.
func Models() []Model { return slices.Clone(models()) }

// Names are those of all models, with their aliases.
func Names() (all []string) {
	for _, m := range models() {
		all = append(append(all, m.Name), m.Aliases...)
	}
	return all
}

// FindModel finds a model by its name or an alias.
func FindModel(name string) (Model, error) {
	for _, m := range models() {
		if m.Name == name || slices.Contains(m.Aliases, name) {
			return m, nil
		}
	}
	return Model{}, fmt.Errorf("no virtual Rockchip board %q: there are %s", name, strings.Join(Names(), ", "))
}

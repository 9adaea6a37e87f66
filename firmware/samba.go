package firmware

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"sync"
)

// An applet of Microchip's SAM-BA is a bare program for one SoC that the monitor in the ROM of SAMA5 and SAM9 calls
// like a function (atmel-software-package, samba_applets/common: cstartup_gnu_v5te_v7a.S, applet.h). Little-endian:
//
//	offset size
//	0      4    a branch to the entry point
//	4      128  mailbox, zero in the file: command, status, 30 words of arguments and results
//	0x84   4    address of the entry point, as linked
//	0x88   4    1: it was not called yet
//
// What it is and knows is in its messages alone: "Applet 'External RAM' from softpack 2.17", "Preset 4 (2 x
// MT41K128M16)".
const (
	appletMailbox = 4
	appletEntry   = 0x84
	appletFirst   = 0x88
	appletHeader  = 0x8c
)

// What is looked for messages, and how many presets at most.
const (
	maxApplet  = 1 << 20
	maxPresets = 64
)

// SAMBAApplet is an applet of SAM-BA.
type SAMBAApplet struct {
	Load, Entry uint32
	Name        string         // "Low-Level", "External RAM"; empty if it does not say
	Version     string         // of the software package it was built from; empty if it does not say
	Presets     []AppletPreset // of the RAM applet, in the order of their numbers; none if it does not say
}

// AppletPreset is a memory that an applet can set up.
type AppletPreset struct {
	Number int
	Text   string // "2 x MT41K128M16"
}

var (
	appletName = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`Applet '([ -&(-~]{1,32})' from softpack ([0-9A-Za-z.\-]{0,15}[0-9A-Za-z])`)
	})
	appletPreset = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`Preset ([0-9]{1,4}) \(([ -'*-~]{1,48})\)`) })
)

// isApplet looks at the layout alone.
func isApplet(b []byte) bool {
	if len(b) < appletHeader || b[3] != armBranch {
		return false
	}
	word := func(off int) uint32 { return binary.LittleEndian.Uint32(b[off:]) }
	at := appletStart(b)
	return at >= appletHeader && at < int64(len(b)) && word(appletFirst) == 1 && len(bytes.Trim(b[appletMailbox:appletEntry], "\x00")) == 0 &&
		int64(word(appletEntry)) >= at && (int64(word(appletEntry))-at)%4 == 0
}

// appletStart is where in the file the first instruction branches to (ARM DDI 0406, "B").
func appletStart(b []byte) int64 {
	return int64(int32(binary.LittleEndian.Uint32(b)<<8)>>6) + 8
}

// ParseSAMBAApplet reads an applet. Nothing in it can be verified: it has no checksum, nor its length.
func ParseSAMBAApplet(b []byte) (*SAMBAApplet, error) {
	if !isApplet(b) {
		return nil, fmt.Errorf("no SAM-BA applet: expected a branch behind the mailbox at 4 to 0x84, which is zero, the entry point's address at %#x and 1 at %#x", appletEntry, appletFirst)
	}
	a := &SAMBAApplet{Entry: binary.LittleEndian.Uint32(b[appletEntry:])}
	a.Load = a.Entry - uint32(appletStart(b))
	b = b[:min(len(b), maxApplet)]
	if m := appletName().FindSubmatch(b); m != nil {
		a.Name, a.Version = string(m[1]), string(m[2])
	}
	for _, m := range appletPreset().FindAllSubmatch(b, maxPresets) {
		n, err := strconv.Atoi(string(m[1]))
		if err == nil && !slices.ContainsFunc(a.Presets, func(p AppletPreset) bool { return p.Number == n }) {
			a.Presets = append(a.Presets, AppletPreset{n, string(m[2])})
		}
	}
	slices.SortFunc(a.Presets, func(x, y AppletPreset) int { return x.Number - y.Number })
	return a, nil
}

// identifyApplet finds an applet, which looks like any ARM program otherwise.
func identifyApplet(b []byte) (Info, bool) {
	a, err := ParseSAMBAApplet(b)
	if err != nil {
		return Info{}, false
	}
	return Info{KindSAMBAApplet, fmt.Sprintf("a SAM-BA applet%s linked for %#x", quoted(a.Name), a.Load)}, true
}

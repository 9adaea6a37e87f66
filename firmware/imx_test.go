package firmware

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"snag/firmware/firmwaretest"
)

var plainIVT = firmwaretest.IVT{Version: 0x40, Self: 0x177ff400, Before: 0x400, Entry: 0xc00, DCD: firmwaretest.SomeDCD, Program: pattern(5000), CSF: firmwaretest.CSF(0x177ff400, 0x2000)}

func TestFindIVT(t *testing.T) {
	img := plainIVT.Bytes()
	data := append(append(pattern(0x400), img...), "behind"...)
	v, err := FindIVT(data, 0)
	if err != nil {
		t.Fatal(err)
	}
	if v.Offset != 0x400 || v.Version != 0x40 || v.Entry != 0x17800000 || v.Self != 0x177ff400 || v.DCD != 0x177ff42c ||
		v.BootData != (BootData{0x177ff000, 0x400 + uint32(len(img)), 0}) || v.IsPlugin() || v.IsHDMI() || v.Skipped != nil {
		t.Errorf("%+v", v)
	}
	if got, addr, err := v.Image(data); err != nil || addr != 0x177ff400 || !bytes.Equal(got, img) {
		t.Errorf("image of %d bytes for %#x, %v; want %d", len(got), addr, err, len(img))
	}
	if dcd, err := v.DCDBytes(data); err != nil || !bytes.Equal(dcd, firmwaretest.SomeDCD) {
		t.Errorf("DCD: % x, %v", dcd, err)
	}
	csf, err := v.CSFBytes(data)
	if err != nil || !bytes.Equal(csf, plainIVT.CSF) {
		t.Errorf("CSF: % x, %v", csf, err)
	}
	cmds, err := ParseCSF(csf)
	if err != nil || len(cmds) != 2 || cmds[0].Name != "install key" || cmds[1].Name != "authenticate data" || len(cmds[1].Blocks) != 1 || cmds[1].Blocks[0] != (CSFBlock{0x177ff400, 0x2000}) {
		t.Errorf("CSF: %+v, %v", cmds, err)
	}
	if _, err := FindIVT(data, v.Offset+4); err == nil || !strings.Contains(err.Error(), "no IVT") {
		t.Errorf("behind the only one: %v", err)
	}
}

// TestFindIVTVersions: 0x40 to 0x43 are tables, others are not.
func TestFindIVTVersions(t *testing.T) {
	for version := range 256 {
		i := plainIVT
		i.Version = byte(version)
		v, err := FindIVT(i.Bytes(), 0)
		if want := version >= 0x40 && version <= 0x43; (err == nil) != want {
			t.Errorf("version %#x: %+v, %v", version, v, err)
		}
	}
}

// TestFindIVTHDMI has the layout of an i.MX8MQ flash.bin: a KiB of zeros, HDMI firmware, SPL with its own table, a
// table for the authentication of U-Boot.
func TestFindIVTHDMI(t *testing.T) {
	hdmi := firmwaretest.IVT{Version: 0x41, Self: 0x7e0400, Before: 0x400, Entry: 0x40, Plugin: 2, Program: pattern(3000)}.Bytes()
	spl := firmwaretest.IVT{Version: 0x41, Self: 0x7e0fc0, Before: 0x400, Entry: 0x40, Program: pattern(2000)}.Bytes()
	auth := firmwaretest.IVT{Version: 0x41, Self: 0x40201000, Entry: 0x40, NoBootData: true}.Bytes()
	data := append(make([]byte, 0x400), hdmi...)
	at := (len(data) + 0xfff) &^ 0xfff
	data = append(append(firmwaretest.Pad(data, at), spl...), firmwaretest.Pad(auth, 64)...)
	v, err := FindIVT(data, 0)
	if err != nil || v.Offset != at || len(v.Skipped) != 1 || !v.Skipped[0].HDMI || v.Skipped[0].Offset != 0x400 {
		t.Fatalf("%+v, %v", v, err)
	}
	if _, err := FindIVT(data, v.End()); err == nil || !strings.Contains(err.Error(), "authentication only") {
		t.Errorf("the table for authentication: %v", err)
	}
	if _, err := FindIVT(data[:at], 0); err == nil || !strings.Contains(err.Error(), "only that of HDMI firmware at 0x400") {
		t.Errorf("HDMI firmware alone: %v", err)
	}
	spl[3] = 0x40 // other than 8M's tables have no such flag
	if v, err := FindIVT(append(firmwaretest.Pad(hdmi, at), spl...), 0); err != nil || v.Offset != at {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestFindIVTPlugin(t *testing.T) {
	plugin := firmwaretest.IVT{Version: 0x40, Self: 0x907400, Before: 0x400, Entry: 0x2c, Plugin: 1, Program: pattern(1000), Beyond: 0xf000}.Bytes()
	second := firmwaretest.IVT{Version: 0x40, Self: 0x17800400, Before: 0x400, Entry: 0x1000, Program: pattern(4000)}.Bytes()
	data := append(bytes.Clone(plugin), second...)
	v, err := FindIVT(data, 0)
	if err != nil || !v.IsPlugin() {
		t.Fatalf("%+v, %v", v, err)
	}
	if v, err = FindIVT(data, v.Offset+IVTSize); err != nil || v.IsPlugin() || v.Offset != len(plugin) {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestFindIVTRefuses(t *testing.T) {
	le := binary.LittleEndian
	img := plainIVT.Bytes()
	with := func(off int, v uint32) []byte {
		b := bytes.Clone(img)
		le.PutUint32(b[off:], v)
		return b
	}
	for name, tt := range map[string]struct {
		data      []byte
		truncated bool
		want      string
	}{
		"empty":             {nil, false, "no IVT"},
		"another format":    {pattern(4000), false, "no IVT"},
		"no self":           {with(20, 0), false, "does not say its own address"},
		"no boot data":      {with(16, 0), false, "no boot data"},
		"boot data before":  {with(16, 0x177fe000), false, "lies before the file's first byte"},
		"boot data behind":  {with(16, 0x178ff000), true, "truncated"},
		"boot data at 4 GB": {with(16, 0xffffffff), true, "truncated"},
		"start above":       {with(32, 0x17900000), false, "its own address 0x177ff400 lies outside"},
		"length 0":          {with(36, 0), false, "its own address 0x177ff400 lies outside"},
		"length 4 GB":       {with(36, 0xffffffff), false, "no such board"},
		"entry below":       {with(4, 0x17000000), false, "the entry point 0x17000000 lies outside"},
		"entry above":       {with(4, 0x1fffffff), false, "the entry point 0x1fffffff lies outside"},
		"cut in the table":  {img[:31], false, "no IVT"},
		"cut in boot data":  {img[:40], true, "truncated"},
	} {
		v, err := FindIVT(tt.data, 0)
		if err == nil || errors.Is(err, ErrTruncated) != tt.truncated || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %+v, %v; want %q", name, v, err, tt.want)
		}
	}
	// What the table refers to is looked at when it is asked for.
	for name, tt := range map[string]struct {
		data []byte
		want string
	}{
		"DCD behind":  {with(12, 0x27800000), "truncated"},
		"DCD before":  {with(12, 4), "lies before the file's first byte"},
		"no DCD tag":  {with(12, 0x17800000), "expected tag d2"},
		"DCD too far": {with(44, 0x40ffffd2), "truncated"},
	} {
		v, err := FindIVT(tt.data, 0)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if b, err := v.DCDBytes(tt.data); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %d bytes, %v; want %q", name, len(b), err, tt.want)
		}
	}
	v, err := FindIVT(img, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := v.Image(img[:0xc00]); !errors.Is(err, ErrTruncated) {
		t.Errorf("the file ends before the entry point: %v", err)
	}
	before := with(4, 0x177ff3fc)
	if v, err := FindIVT(before, 0); err != nil {
		t.Error(err)
	} else if _, _, err := v.Image(before); err == nil || !strings.Contains(err.Error(), "lies before the table") {
		t.Errorf("the entry point before the table: %v", err)
	}
	if got, _, err := v.Image(img[:0xc04]); err != nil || len(got) != 0xc04 || v.Announced() != len(img) {
		t.Errorf("a short file: %d bytes of %d, %v", len(got), v.Announced(), err)
	}
	if got := plainIVT; true {
		got.DCD, got.CSF = nil, nil
		b := got.Bytes()
		v, err := FindIVT(b, 0)
		if err != nil {
			t.Fatal(err)
		}
		dcd, err1 := v.DCDBytes(b)
		csf, err2 := v.CSFBytes(b)
		if dcd != nil || csf != nil || err1 != nil || err2 != nil {
			t.Errorf("% x, % x, %v, %v", dcd, csf, err1, err2)
		}
	}
}

// TestFindIVTWork: many tables that are none cost no more than the file's length.
func TestFindIVTWork(t *testing.T) {
	for _, word := range []string{"\xd1\x00\x20\x40", "\xb1\x00\x00\x00"} {
		data := bytes.Repeat([]byte(word), 1<<20)
		start := time.Now()
		if v, err := FindIVT(data, 0); err == nil {
			t.Errorf("%+v", v)
		}
		if h, err := FindFlashHeader(data, 0); err == nil {
			t.Errorf("%+v", h)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("4 MiB of % x took %s", word, d)
		}
	}
}

func TestParseDCD(t *testing.T) {
	cmds, err := ParseDCD(append(bytes.Clone(firmwaretest.SomeDCD), 1, 2, 3))
	if err != nil {
		t.Fatal(err)
	}
	want := []DCDCommand{
		{Offset: 8, Op: DCDWrite, Width: 4, Address: 0x020e05a8, Value: 0x30},
		{Offset: 16, Op: DCDWrite, Width: 4, Address: 0x020e05b0, Value: 0x31},
		{Offset: 28, Op: DCDClear, Width: 4, Address: 0x020e05a8, Value: 0xf},
		{Offset: 40, Op: DCDSet, Width: 4, Address: 0x020e05ac, Value: 1},
		{Offset: 48, Op: DCDCheck, Width: 4, Address: 0x020c8000, Value: 1 << 31, Condition: AllSet},
		{Offset: 60, Op: DCDCheck, Width: 2, Address: 0x020c8004, Value: 3, Condition: AnyClear, HasCount: true, Count: 5000},
		{Offset: 76, Op: DCDNOP},
		{Offset: 80, Op: DCDUnlock, Engine: 0x1d, Data: []byte{0, 0, 0, 7}},
		{Offset: 92, Op: DCDWrite, Width: 1, Address: 0x021b0000, Value: 0x55},
	}
	if got, want := fmt.Sprintf("%+v", cmds), fmt.Sprintf("%+v", want); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for name, tt := range map[string]struct {
		b    []byte
		n    int // commands before it
		want string
	}{
		"empty":        {nil, 0, "tag d2"},
		"version":      {[]byte{0xd2, 0, 4, 0x50}, 0, "version 0x50"},
		"short":        {[]byte{0xd2, 0, 3, 0x40}, 0, "its header alone has 4"},
		"truncated":    {firmwaretest.SomeDCD[:60], 0, "truncated"},
		"too long":     {firmwaretest.DCD(make([]byte, 1765)), 0, "take at most 1768"},
		"rest":         {firmwaretest.DCD(firmwaretest.DCDCommand(0xc0, 0), []byte{0xc0, 0}), 1, "2 bytes after the last"},
		"length 0":     {firmwaretest.DCD(firmwaretest.DCDCommand(0xc0, 0), []byte{0xc0, 0, 0, 0}), 1, "announces 0 bytes"},
		"beyond":       {firmwaretest.DCD(firmwaretest.DCDCommand(0xc0, 0), []byte{0xcc, 0, 12, 4}), 1, "announces 12 bytes of the 4"},
		"unknown tag":  {firmwaretest.DCD(firmwaretest.DCDCommand(0xcd, 4)), 0, "unknown tag 0xcd"},
		"width 3":      {firmwaretest.DCD(firmwaretest.DCDCommand(0xcc, 3, 1, 2)), 0, "access of 3 bytes"},
		"half a pair":  {firmwaretest.DCD(firmwaretest.DCDCommand(0xcc, 4, 1, 2, 3)), 0, "no whole pairs"},
		"check of 8":   {firmwaretest.DCD(firmwaretest.DCDCommand(0xcf, 4, 1)), 0, "a check of 8 bytes"},
		"check of 20":  {firmwaretest.DCD(firmwaretest.DCDCommand(0xcf, 4, 1, 2, 3, 4)), 0, "a check of 20 bytes"},
		"NOP of 8":     {firmwaretest.DCD(firmwaretest.DCDCommand(0xc0, 0, 1)), 0, "a NOP of 8 bytes"},
		"longest":      {firmwaretest.DCD(firmwaretest.DCDCommand(0xcc, 4, make([]uint32, 440)...)), 220, ""},
		"just longer":  {firmwaretest.DCD(firmwaretest.DCDCommand(0xcc, 4, make([]uint32, 440)...), firmwaretest.DCDCommand(0xc0, 0)), 0, "has 1772 bytes"},
		"empty is one": {firmwaretest.DCD(), 0, ""},
	} {
		cmds, err := ParseDCD(tt.b)
		if len(cmds) != tt.n || (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %d commands, %v; want %d, %q", name, len(cmds), err, tt.n, tt.want)
		}
	}
}

func TestDCDCondition(t *testing.T) {
	for _, tt := range []struct {
		c    DCDCondition
		yes  []uint32
		no   []uint32
		text string
	}{
		{AllClear, []uint32{0, 8}, []uint32{1, 2, 3}, "all clear"},
		{AllSet, []uint32{3, 11}, []uint32{0, 1, 2, 8}, "all set"},
		{AnyClear, []uint32{0, 1, 2}, []uint32{3, 7}, "any clear"},
		{AnySet, []uint32{1, 2, 3}, []uint32{0, 4}, "any set"},
	} {
		for _, v := range tt.yes {
			if !tt.c.Met(v, 3) {
				t.Errorf("%s is not met by %d", tt.c, v)
			}
		}
		for _, v := range tt.no {
			if tt.c.Met(v, 3) {
				t.Errorf("%s is met by %d", tt.c, v)
			}
		}
		if tt.c.String() != tt.text {
			t.Errorf("%s, want %s", tt.c, tt.text)
		}
	}
}

func TestFlashHeader(t *testing.T) {
	img := firmwaretest.FlashHeader(0x977ff000, pattern(3000), [3]uint32{4, 0x73fa88a0, 0x200}, [3]uint32{2, 0x73fa850c, 0x20c5}, [3]uint32{1, 0x73fa8510, 0x20})
	data := append(append(pattern(0x400), img...), "behind"...)
	h, err := FindFlashHeader(data, 0)
	if err != nil {
		t.Fatal(err)
	}
	if h.Offset != 0x400 || h.Self != 0x977ff400 || h.Entry != 0x97800000 || h.Start != 0x977ff000 || h.Length != uint32(0x400+len(img)) || len(h.Instructions) != 3 {
		t.Errorf("%+v", h)
	}
	if got, addr, err := h.Image(data); err != nil || addr != h.Self || !bytes.Equal(got, img) {
		t.Errorf("%d bytes for %#x, %v", len(got), addr, err)
	}
	if i := h.Instructions[1]; i.Op != DCDWrite || i.Width != 2 || i.Address != 0x73fa850c || i.Value != 0x20c5 {
		t.Errorf("%+v", i)
	}
	var many [61][3]uint32
	for i := range many {
		many[i] = [3]uint32{4, 1, 2}
	}
	set := func(off int, v uint32) []byte {
		b := bytes.Clone(img)
		binary.LittleEndian.PutUint32(b[off:], v)
		return b
	}
	for name, tt := range map[string]struct {
		b    []byte
		want string
	}{
		"none":      {pattern(3000), "no flash header"},
		"self":      {set(12, 3), "does not say its own address"},
		"order":     {set(24, 0x98000000), "not in this order"},
		"DCD":       {set(20, 0x98000000), "truncated"},
		"no DCD":    {set(28, 0), "e9 19 72 b1"},
		"entries":   {firmwaretest.FlashHeader(0x977ff000, nil, many[:]...), "61 entries"},
		"length":    {set(32, 13), "no whole entries"},
		"width":     {set(36, 3), "access of 3 bytes"},
		"truncated": {img[:60], "truncated"},
	} {
		if _, err := FindFlashHeader(tt.b, 0); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	h, err = FindFlashHeader(firmwaretest.FlashHeader(0x977ff000, pattern(9), many[:60]...), 0)
	if err != nil || len(h.Instructions) != 60 {
		t.Errorf("the longest: %v", err)
	}
	h, err = FindFlashHeader(img[:0xc00], 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.Image(img[:0xc00]); !errors.Is(err, ErrTruncated) {
		t.Errorf("the file ends before the entry point: %v", err)
	}
}

func TestParseContainers(t *testing.T) {
	data := firmwaretest.SomeSet()
	s, err := ParseContainers(data, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Containers) != 2 || s.Size != 0x3400 || s.Next != 0x3400 || s.Whole {
		t.Errorf("%+v", s)
	}
	c := s.Containers[0]
	if c.Length != 16+128+16 || c.SignedBy() != "NXP" || c.SWVersion != 3 || c.FuseVersion != 4 || c.Signature == nil || *c.Signature != (SignatureBlock{0x90, 16, 0, 16, 0x200, 0}) {
		t.Errorf("%+v", c)
	}
	i := s.Containers[1].Images[1]
	if i.Offset != 0x2800 || i.Size != 2222 || i.Load != 0x100000 || i.Entry != 0x100000 || i.Type() != 3 || i.Core() != 4 || i.Algo != "sha512" || !i.Verified || i.TypeName() != "executable" {
		t.Errorf("%+v", i)
	}
	if i := s.Containers[1].Images[0]; i.Algo != "sha384" && i.Algo != "sha256" || !i.Verified {
		t.Errorf("%+v", i)
	}
	if _, err := ParseContainers(damage(data, 0x2801), 0); err == nil || !strings.Contains(err.Error(), "container at 0x400: image 1 (executable): sha512 is") {
		t.Errorf("damaged: %v", err)
	}
	s, err = ParseContainers(data[:0x2900], 0)
	if !errors.Is(err, ErrTruncated) || s == nil || s.Size != 0x2900 {
		t.Errorf("truncated: %+v, %v", s, err)
	}
	for _, at := range []int{-1, 4, len(data), len(data) + 1} {
		if s, err := ParseContainers(data, at); s != nil || err == nil {
			t.Errorf("at %d: %+v, %v", at, s, err)
		}
	}
}

// TestContainerSetSize has a row for each branch of uuu's GetContainerActualSize.
func TestContainerSetSize(t *testing.T) {
	one := firmwaretest.Container{Tag: 0x87, Images: []firmwaretest.Image{{At: 0x2000, Data: pattern(100), Flags: 6}}}
	v2 := func(s firmwaretest.Container) firmwaretest.Container { s.Version = 2; return s }
	scu := firmwaretest.Container{At: 0x400, Tag: 0x87, Images: []firmwaretest.Image{{At: 0x3000, Data: pattern(1024), Flags: 3}, {At: 0x3800, Data: pattern(1025), Flags: 3}}}
	v2x := firmwaretest.Container{At: 0x400, Tag: 0x87, Images: []firmwaretest.Image{{At: 0x2400, Data: pattern(300), Flags: 0x9b}, {At: 0x2800, Data: pattern(300), Flags: 0xac}}}
	third := firmwaretest.Container{At: 0x800, Tag: 0x87, Images: scu.Images}
	fcb := scu
	fcb.Images = append(fcb.Images[:2:2], firmwaretest.Image{At: 0x4000, Data: pattern(512), Flags: 8})
	onlyFCB := scu
	onlyFCB.Images = []firmwaretest.Image{{At: 0x4000, Data: pattern(512), Flags: 8}}
	noImages := firmwaretest.Container{At: 0x400, Tag: 0x87}
	far := func(s firmwaretest.Container, at int) firmwaretest.Container { // another place; the images behind all headers of version 2
		s.At, s.Images = at, slices.Clone(s.Images)
		for i := range s.Images {
			s.Images[i].At += 0xa000
		}
		return s
	}
	for _, tt := range []struct {
		name       string
		set        []byte
		n          int
		size, next int
		whole      bool
	}{
		{"one container", firmwaretest.ContainerSet(one), 1, 0, 0, true},
		{"two", firmwaretest.ContainerSet(one, scu), 2, 0x3c00 + 0x400, 0x4000, false},
		{"V2X", firmwaretest.ContainerSet(one, v2x, third), 3, 0x4000, 0x4000, false},
		{"V2X without a third", firmwaretest.ContainerSet(one, v2x), 1, 0, 0, true},
		{"FCB", firmwaretest.ContainerSet(one, fcb), 2, 0x4000, 0x4200 + 0x200, false},
		{"nothing but FCB", firmwaretest.ContainerSet(one, onlyFCB), 2, 0x4400, 0x4400, false},
		{"no images", firmwaretest.ContainerSet(one, noImages), 2, 0, 0, false},
		{"version 2", firmwaretest.ContainerSet(v2(one), v2(far(scu, 0x4000))), 2, 0xe000, 0xe000, false},
		{"version 2 with V2X", firmwaretest.ContainerSet(v2(one), v2(firmwaretest.Container{At: 0x4000, Tag: 0x82, Images: far(v2x, 0).Images}), v2(far(scu, 0x8000))), 3, 0xe000, 0xe000, false},
		{"version 2 is not spaced as 0", firmwaretest.ContainerSet(v2(one), v2(scu)), 1, 0, 0, true},
		{"0x82 in version 0", firmwaretest.ContainerSet(one, firmwaretest.Container{At: 0x400, Tag: 0x82, Images: v2x.Images}), 1, 0, 0, true},
	} {
		data := append(make([]byte, 0x8000), tt.set...) // an SD card
		data = append(firmwaretest.Pad(data, 0x8000+0xf000), "behind"...)
		rest := len(data) - 0x8000
		if tt.size == 0 {
			tt.size, tt.next = rest, rest
		}
		s, err := FindContainers(data)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if s == nil || s.Offset != 0x8000 || len(s.Containers) != tt.n || s.Size != tt.size || s.Next != tt.next || s.Whole != tt.whole {
			t.Errorf("%s: %+v, want %d containers, size %#x, next %#x", tt.name, s, tt.n, tt.size, tt.next)
		}
	}
}

func TestContainerHashes(t *testing.T) {
	for _, tt := range []struct {
		name       string
		version    byte
		flags      uint32
		hash       []byte
		verified   bool
		unverified string
	}{
		{"sha256", 0, 0x003, nil, true, ""},
		{"sha384", 0, 0x103, nil, true, ""},
		{"sha512", 0, 0x203, nil, true, ""},
		{"sha512, version 2", 2, 0x203, nil, true, ""},
		{"sm3", 0, 0x303, pattern(64), false, "unknown hash algorithm"},
		{"none", 0, 0x003, make([]byte, 64), false, "no hash"},
		{"encrypted as U-Boot says", 0, 0x503, pattern(64), false, "encrypted"},
		{"encrypted as SPSDK says", 0, 0x803, pattern(64), false, "encrypted"},
		{"encrypted, version 2", 2, 0x1003, pattern(64), false, "encrypted"},
		{"shake, version 2", 2, 0x903, pattern(64), false, "unknown hash algorithm"},
	} {
		s, err := ParseContainers(firmwaretest.ContainerSet(firmwaretest.Container{Tag: 0x87, Version: tt.version, Images: []firmwaretest.Image{{At: 0x400, Data: pattern(99), Flags: tt.flags, Hash: tt.hash}}}), 0)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if i := s.Containers[0].Images[0]; i.Verified != tt.verified || i.Unverified != tt.unverified {
			t.Errorf("%s: %+v", tt.name, i)
		}
	}
	var overlap []firmwaretest.Image
	for range 32 {
		overlap = append(overlap, firmwaretest.Image{At: 0x2000, Data: pattern(100000), Flags: 3})
	}
	if _, err := ParseContainers(firmwaretest.ContainerSet(firmwaretest.Container{Tag: 0x87, Images: overlap}), 0); err == nil || !strings.Contains(err.Error(), "overlap too much") {
		t.Errorf("images that overlap: %v", err)
	}
}

func TestFlexSPIHeader(t *testing.T) {
	for _, at := range []int{0, 0x400, 0x1fc, 0x5fc} {
		for _, magic := range []string{"FCFB", "\x01\xee\xff\xc0"} {
			b := make([]byte, 0x1000)
			copy(b[at:], magic)
			b = append(b, plainIVT.Bytes()...)
			if off, ok := FlexSPIHeader(b, 0); !ok || off != at {
				t.Errorf("%q at %#x: %#x, %v", magic, at, off, ok)
			}
			if info := Identify(b); info.Kind != KindIVT || !strings.Contains(info.Text, "IVT at 0x1000") || !strings.Contains(info.Text, "FlexSPI") {
				t.Errorf("%q at %#x: %s", magic, at, info)
			}
		}
	}
	if off, ok := FlexSPIHeader(pattern(0x2000), 0); ok {
		t.Errorf("one at %#x", off)
	}
	FlexSPIHeader(nil, 3)
	if s, err := FindContainers(append(make([]byte, 0x1000), firmwaretest.SomeSet()...)); err != nil || s.Offset != 0x1000 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestFindBurnTag(t *testing.T) {
	img := firmwaretest.SomeSet()
	card := append(make([]byte, 0x8000), img...)
	copy(card[510:], "\x55\xaa")
	tagged := append(bytes.Clone(card), fmt.Sprintf("UUUBURNXXOEUZX7+A-XY5601QQWWZ%dEND and more", len(img))...)
	if start, size, ok := FindBurnTag(tagged); !ok || start != 0x8000 || size != len(img) {
		t.Errorf("%#x, %d, %v", start, size, ok)
	}
	if info := Identify(tagged); info.Kind != KindContainer || !strings.HasPrefix(info.Text, "an image of a disk with an NXP") {
		t.Error(info)
	}
	for _, tail := range []string{"", "UUUBURNXXOEUZX7+A-XY5601QQWWZ", "UUUBURNXXOEUZX7+A-XY5601QQWWZ12", "UUUBURNXXOEUZX7+A-XY5601QQWWZ0END", "UUUBURNXXOEUZX7+A-XY5601QQWWZ99999999END",
		"UUUBURNXXOEUZX7+A-XY5601QQWWZ-1END", "UUUBURNXXOEUZX7+A-XY5601QQWWZ99999999999999999999END"} {
		if start, size, ok := FindBurnTag(append(bytes.Clone(card), tail...)); ok {
			t.Errorf("%q: %#x, %d", tail, start, size)
		}
	}
}

func TestParseBootStream(t *testing.T) {
	for name, key := range map[string][]byte{"plain": nil, "zero": make([]byte, 16), "random": pattern(16)} {
		b := firmwaretest.SomeStream(key)
		s, err := ParseBootStream(append(bytes.Clone(b), "behind"...))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if s.Major != 1 || s.Minor != 1 || s.Size != len(b) || s.Product != "999.1.2" || s.Component != "3.4.5" || !s.Opened || len(s.Sections) != 1 ||
			s.Time.Format(time.DateOnly) != "2025-12-31" {
			t.Errorf("%s: %+v", name, s)
		}
		var got []string
		for _, c := range s.Sections[0].Commands {
			got = append(got, fmt.Sprintf("%s %#x %d %v", c.Name, c.Address, c.Count, c.HAB))
		}
		if want := "load 0x1000 500 false|load 0x8000 32 false|call 0x8000 0 true|fill 0x100 32 false|load 0x40002000 3000 false|jump 0x40002000 0 false"; strings.Join(got, "|") != want {
			t.Errorf("%s: %q", name, got)
		}
		if info := Identify(b); info.Kind != KindBootStream {
			t.Error(info)
		}
		for at, want := range map[int]string{30: "SHA-1 of the header", len(b) - 20: "SHA-1 of the image", len(b) / 2: "the CRC of the load"} {
			if _, err := ParseBootStream(damage(b, at)); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s, damaged at %d: %v, want %q", name, at, err, want)
			}
		}
		if key == nil {
			at := s.Sections[0].Commands[3].Offset + 4
			if _, err := ParseBootStream(damage(b, at)); err == nil || !strings.Contains(err.Error(), "has checksum") {
				t.Errorf("%s, a damaged command: %v", name, err)
			}
		}
		if _, err := ParseBootStream(b[:len(b)-16]); !errors.Is(err, ErrTruncated) {
			t.Errorf("%s, truncated: %v", name, err)
		}
	}
	// A stream for a device with a key of its own: nothing to see, nothing wrong.
	b := firmwaretest.SomeStream(pattern(16))
	b[7*16] ^= 1
	if s, err := ParseBootStream(b); err != nil || s.Opened || len(s.Sections) != 1 || s.Sections[0].Commands != nil {
		t.Errorf("%+v, %v", s, err)
	}
	for _, short := range [][]byte{nil, b[:20], b[:95], pattern(300)} {
		if _, err := ParseBootStream(short); err == nil {
			t.Errorf("%d bytes were taken", len(short))
		}
	}
}

func TestIdentifyIMX(t *testing.T) {
	spl := makeSPL(0x908000, "U-Boot SPL 2025.01 (x)", 9000)
	img := firmwaretest.IVT{Version: 0x40, Self: 0x907400, Before: 0x400, Entry: 0xc00, Program: spl}
	plugin, hdmi := img, img
	plugin.Plugin = 1
	hdmi.Version, hdmi.Plugin = 0x41, 2
	card := append(make([]byte, 0x400), img.Bytes()...)
	copy(card[510:], "\x55\xaa")
	keystone := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 1000), 0x0c100000)
	for _, tt := range []struct {
		b    []byte
		kind Kind
		want string
	}{
		{img.Bytes(), KindIVT, "an NXP i.MX image (IVT), U-Boot SPL 2025.01"},
		{plugin.Bytes(), KindIVT, "an NXP i.MX image (IVT of a plugin), U-Boot SPL 2025.01"},
		{hdmi.Bytes(), KindIVT, "an NXP i.MX image (IVT of HDMI firmware), U-Boot SPL 2025.01"},
		{append(make([]byte, 0x8400), img.Bytes()...), KindIVT, "an NXP i.MX image (IVT at 0x8400), U-Boot SPL 2025.01"},
		{card, KindIVT, "an image of a disk with an NXP i.MX image (IVT at 0x400), U-Boot SPL 2025.01"},
		{firmwaretest.FlashHeader(0x977ff000, pattern(999)), KindFlashHeader, "an NXP i.MX image (flash header of i.MX25 to i.MX51)"},
		{firmwaretest.SomeSet(), KindContainer, "an NXP i.MX8 or i.MX9 image (container)"},
		{firmwaretest.ContainerSet(firmwaretest.Container{Version: 2, Tag: 0x87}), KindContainer, "an NXP i.MX8 or i.MX9 image (container, version 2)"},
		{append(make([]byte, 0x8000), firmwaretest.SomeSet()...), KindContainer, "an NXP i.MX8 or i.MX9 image (container at 0x8000)"},
		{firmwaretest.SomeStream(nil), KindBootStream, "a boot stream (.sb) of i.MX23 or i.MX28"},
		{append(keystone, pattern(1000)...), KindOtherSoC, "a TI Keystone first stage (GP header)"},
	} {
		if got := Identify(tt.b); got.Kind != tt.kind || got.Text != tt.want {
			t.Errorf("kind %d, %q; want kind %d, %q", got.Kind, got, tt.kind, tt.want)
		}
	}
}

package firmwaretest

// EGON describes an SPL of U-Boot for Allwinner's SoCs.
type EGON struct {
	Minor      byte   // of the header's version 0.Minor
	DeviceTree string // at 44
	Program    []byte // from 96 on; filled up to a multiple of four
	UBoot      []byte // behind, at 32 KiB at least
}

// Bytes builds it.
func (e EGON) Bytes() []byte {
	b := Pad([]byte("\x16\x00\x00\xeaeGON.BT0"), 20)
	b = append(b, 'S', 'P', 'L', e.Minor)
	b = Pad(b, 44)
	if e.DeviceTree != "" {
		b[32] = 44
		b = append(b, e.DeviceTree...)
	}
	b = append(Pad(b, 96), e.Program...)
	b = Pad(b, (len(b)+3)/4*4)
	le.PutUint32(b[16:], uint32(len(b)))
	le.PutUint32(b[12:], 0x5f0a6c39)
	var sum uint32
	for i := 0; i < len(b); i += 4 {
		sum += le.Uint32(b[i:])
	}
	le.PutUint32(b[12:], sum)
	if e.UBoot != nil {
		b = append(Pad(b, max(len(b), 0x8000)), e.UBoot...)
	}
	return b
}

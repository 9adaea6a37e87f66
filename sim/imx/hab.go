package imx

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// word is a status or security word as it is on the wire.
type word [4]byte

func (w word) String() string { return fmt.Sprintf("% x", w[:]) }

// The security words (report 3) and the status words of success (report 4).
var (
	habOpen   = word{0x56, 0x78, 0x78, 0x56}
	habClosed = word{0x12, 0x34, 0x34, 0x12}
	habBroken = word{0xde, 0xad, 0xbe, 0xef}

	okFile     = word{0x88, 0x88, 0x88, 0x88}
	okRegister = word{0x12, 0x8a, 0x8a, 0x12}
	okSkip     = word{0x09, 0xd0, 0x0d, 0x90}
	// okStatus is what ERROR_STATUS says where there was no error, as logs of imx_usb from an i.MX6UL show.
	okStatus = word{0xf0, 0xf0, 0xf0, 0xf0}
)

// HAB's words for failures: status, reason, context, engine (NXP's HAB4 API reference; U-Boot,
// arch/arm/mach-imx/hab.c).
var (
	failIVT       = word{0x33, 0x05, 0x0a, 0x00} // invalid IVT, authenticate
	failAddress   = word{0x33, 0x22, 0x0a, 0x00} // invalid address
	failCSF       = word{0x33, 0x11, 0xcf, 0x00} // invalid CSF
	failSignature = word{0x33, 0x18, 0xcf, 0x00} // invalid signature
	failDCD       = word{0x33, 0x27, 0xdd, 0x00} // invalid DCD
	failSize      = word{0x33, 0x17, 0xdd, 0x00} // its size
	failCommand   = word{0x33, 0x06, 0xdd, 0x00} // a command in it
	failCheck     = word{0x33, 0x2b, 0xdd, 0x00} // a check's count overran
	failStaging   = word{0x33, 0x22, 0xdd, 0x00} // its address
)

// csfSize is the size of the command sequence file that generated images carry: the tag 0xd4, the
// length, the version, and in the signature's place the SHA-256 of all from the IVT to the CSF. It stands for a
// signature in that it breaks when a byte before it changes.
const csfSize = 4 + sha256.Size

// authenticate checks a signed image.
func authenticate(ctx context.Context, m Machine, at uint32, v ivt) (word, error) {
	if v.csf == 0 {
		return failCSF, fmt.Errorf("the image at %#x is not signed and the part is closed", at)
	}
	if v.csf <= at || v.csf-at > 64<<20 {
		return failCSF, fmt.Errorf("CSF at %#x of an image at %#x", v.csf, at)
	}
	b := make([]byte, int(v.csf-at)+csfSize)
	if err := m.ReadMemory(ctx, at, b); err != nil {
		return failCSF, err
	}
	csf := b[v.csf-at:]
	sum := sha256.Sum256(b[:v.csf-at])
	if csf[0] != 0xd4 || int(binary.BigEndian.Uint16(csf[1:])) != csfSize {
		return failCSF, fmt.Errorf("no CSF at %#x", v.csf)
	}
	if !bytes.Equal(csf[4:], sum[:]) {
		return failSignature, fmt.Errorf("the signature of the image at %#x does not fit what is in memory", at)
	}
	return word{}, nil
}

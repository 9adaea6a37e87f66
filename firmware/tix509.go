package firmware

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"strings"
)

// What the ROM and the system firmware of TI's K3 load: an X.509 certificate (RFC 5280) in DER, and behind it the data
// that it is about. The TRMs' chapter "Initialization", "X.509 Certificate" (SPRUIM2 for AM64x), and TISCI's "Security
// X509 Certificate Documentation" tell the extensions, whose identifiers begin with 1.3.6.1.4.1.294.1; U-Boot's
// tools/binman/btool/openssl.py makes such certificates. For the ROM:
//
//	.1   boot sequence: certificate type, core, its options, load address (octets), size of the image
//	.2   image integrity: digest's algorithm, digest
//	.3   software revision
//	.4   encryption
//	.8   debug: UID, type, cores, cores
//	.9   boot information of a combined image: size of all, number of components, and of each
//	     type, core, its options, load address, size, digest's algorithm, digest. They follow each other.
//
// For the system firmware:
//
//	.34  image integrity: digest's algorithm, digest, size of the image
//	.35  load address, and whether to verify the image in its place
//
// crypto/x509 is not used: the keys of general-purpose devices are degenerate, and who signed is not what this looks
// for.
const (
	tiMaxCert       = 1 << 16
	tiMaxExtensions = 32
	tiMaxComponents = 16
	tiMaxFields     = 16 // of a sequence
)

var tiArc = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 294, 1}

// TIImage is an image with a certificate in front.
type TIImage struct {
	CertSize   int
	Extensions []TIExtension // TI's
	Revision   int64         // against roll-back
	Combined   bool          // for the ROM, with several components
	Encrypted  bool
	Debug      *TIDebug
	Components []TIComponent
	Size       int // up to the end of the last component
}

// TIExtension is an extension below TI's arc.
type TIExtension struct {
	ID   int    // what follows the arc
	Name string // "boot sequence"
}

// TIDebug says whether debugging is to be opened.
type TIDebug struct {
	UID  []byte // of the device; zeros for any
	Type int64
}

// TIComponent is an image behind the certificate.
type TIComponent struct {
	Type     int64 // 0 if the certificate tells none, as those for the system firmware
	Core     int64 // 16 for the first R5, 0 for the system controller
	Options  int64
	HasLoad  bool
	Load     uint64
	Offset   int // in the file
	Size     int // what there is of it if the file is cut
	Algo     string
	Verified bool // the digest is right
	Known    bool // the digest's algorithm is known, and the digest is not of encrypted data
}

// TypeName names the type of a component.
func (c TIComponent) TypeName() string {
	switch c.Type {
	case 0:
		return "image"
	case 1:
		return "boot loader"
	case 2:
		return "system firmware"
	case 3:
		return "certificate of the system firmware"
	case 17:
		return "data of the boot loader"
	case 18:
		return "data of the system firmware"
	}
	return fmt.Sprintf("component of type %d", c.Type)
}

var tiExtensions = map[int]string{
	1: "boot sequence", 2: "image integrity", 3: "software revision", 4: "encryption", 5: "key derivation", 8: "debug",
	9: "combined boot information", 10: "combined encryption", 33: "system firmware boot", 34: "system firmware image integrity",
	35: "system firmware load", 36: "board configuration", 37: "firewall", 38: "key", 39: "key ring",
}

// derFields splits what is inside a DER value into its elements, max at most.
func derFields(b []byte, max int) (fields []asn1.RawValue, err error) {
	for len(b) > 0 {
		if len(fields) == max {
			return nil, fmt.Errorf("more than %d elements", max)
		}
		var v asn1.RawValue
		if b, err = asn1.Unmarshal(b, &v); err != nil {
			return nil, err
		}
		fields = append(fields, v)
	}
	return fields, nil
}

// derReader takes the elements of a sequence one by one; the first that is not as expected makes all others zero.
type derReader struct {
	fields []asn1.RawValue
	err    error
}

func derSequence(b []byte) *derReader {
	var v asn1.RawValue
	rest, err := asn1.Unmarshal(b, &v)
	switch {
	case err != nil:
	case v.Class != asn1.ClassUniversal || v.Tag != asn1.TagSequence || !v.IsCompound || len(rest) > 0:
		err = errors.New("no sequence")
	default:
		var fields []asn1.RawValue
		if fields, err = derFields(v.Bytes, tiMaxFields+tiMaxComponents); err == nil {
			return &derReader{fields: fields}
		}
	}
	return &derReader{err: err}
}

func (d *derReader) next(into any) {
	if d.err != nil {
		return
	}
	if len(d.fields) == 0 {
		d.err = errors.New("it ends too early")
		return
	}
	if _, err := asn1.Unmarshal(d.fields[0].FullBytes, into); err != nil {
		d.err = err
	}
	d.fields = d.fields[1:]
}

func (d *derReader) int() (n int64) {
	d.next(&n)
	return n
}

func (d *derReader) octets() (b []byte) {
	d.next(&b)
	return b
}

// address reads a load address, which is big-endian in as many octets as its author thought right.
func (d *derReader) address() uint64 {
	b := d.octets()
	if len(b) > 8 {
		if d.err == nil {
			d.err = fmt.Errorf("an address of %d bytes", len(b))
		}
		return 0
	}
	return binary.BigEndian.Uint64(append(make([]byte, 8-len(b), 8), b...))
}

func (d *derReader) id() (id asn1.ObjectIdentifier) {
	d.next(&id)
	return id
}

// tiCertificate returns the certificate's size and its extensions.
func tiCertificate(b []byte) (size int, extensions []asn1.RawValue, err error) {
	var cert asn1.RawValue
	rest, err := asn1.Unmarshal(b[:min(len(b), tiMaxCert)], &cert)
	switch {
	case err != nil && len(b) < tiMaxCert:
		return 0, nil, fmt.Errorf("%w: %w", ErrTruncated, err)
	case err != nil:
		return 0, nil, err
	case !cert.IsCompound || cert.Tag != asn1.TagSequence || cert.Class != asn1.ClassUniversal:
		return 0, nil, errors.New("it does not begin with a sequence")
	}
	size = min(len(b), tiMaxCert) - len(rest)
	outer, err := derFields(cert.Bytes, 3)
	if err != nil {
		return 0, nil, err
	}
	if len(outer) != 3 || outer[0].Tag != asn1.TagSequence || outer[2].Tag != asn1.TagBitString {
		return 0, nil, errors.New("no certificate: not a sequence of contents, algorithm and signature")
	}
	body, err := derFields(outer[0].Bytes, tiMaxFields)
	if err != nil {
		return 0, nil, err
	}
	for _, v := range body {
		if v.Class != asn1.ClassContextSpecific || v.Tag != 3 {
			continue
		}
		var list asn1.RawValue
		if _, err := asn1.Unmarshal(v.Bytes, &list); err != nil {
			return 0, nil, err
		}
		extensions, err = derFields(list.Bytes, tiMaxExtensions)
		return size, extensions, err
	}
	return 0, nil, errors.New("it has no extensions")
}

// isTIImage recognises a certificate that has extensions below TI's arc.
func isTIImage(b []byte) bool {
	return matches(b, 0, "\x30\x82") && len(b) >= 64 && bytes.Contains(b[:min(len(b), 4096)], []byte("\x2b\x06\x01\x04\x01\x82\x26\x01"))
}

// ParseTIImage reads the certificate's extensions and verifies the digests that they have of what follows. The
// signature is not verified. If only what follows is wrong, the image is returned with the error.
func ParseTIImage(b []byte) (*TIImage, error) {
	size, extensions, err := tiCertificate(b)
	if err != nil {
		return nil, fmt.Errorf("TI image: its X.509 certificate: %w", err)
	}
	t := &TIImage{CertSize: size, Size: size}
	var single TIComponent // what several extensions tell of it
	var digests []digest
	var length int64 = -1
	for _, e := range extensions {
		d := derSequence(e.FullBytes)
		id := d.id()
		if d.err != nil || len(id) <= len(tiArc) || !id[:len(tiArc)].Equal(tiArc) {
			continue
		}
		if len(d.fields) == 2 { // whether it is critical
			d.fields = d.fields[1:]
		}
		value := d.octets()
		if d.err != nil {
			return nil, fmt.Errorf("TI image: extension %s: %w", id, d.err)
		}
		n := id[len(tiArc)]
		name := tiExtensions[n]
		if name == "" || len(id) > len(tiArc)+1 {
			name = id.String()
		}
		t.Extensions = append(t.Extensions, TIExtension{n, name})
		if len(id) > len(tiArc)+1 {
			continue
		}
		d = derSequence(value)
		switch n {
		case 1:
			single.Type, single.Core, single.Options, single.Load, single.HasLoad = d.int(), d.int(), d.int(), d.address(), true
			length = d.int()
		case 2:
			digests = []digest{{d.id(), d.octets()}}
		case 3:
			t.Revision = d.int()
		case 4, 10:
			t.Encrypted = true
			d.err = nil
		case 8:
			t.Debug = debugExtension(value)
			d.err = nil
		case 9:
			t.Combined = true
			t.Components, digests = d.components()
		case 34:
			digests = []digest{{d.id(), d.octets()}}
			length = d.int()
		case 35:
			single.Load, single.HasLoad = d.address(), true
		}
		if d.err != nil {
			return nil, fmt.Errorf("TI image: extension %q: %w", name, d.err)
		}
	}
	switch {
	case len(t.Extensions) == 0:
		return nil, errors.New("no TI image: its X.509 certificate has none of TI's extensions")
	case t.Combined:
	case length > 1<<30 || length < -1:
		return nil, fmt.Errorf("TI image: it announces %d bytes", length)
	case length >= 0:
		single.Size = int(length)
		t.Components = []TIComponent{single}
	}
	return t, t.verify(b, digests)
}

// components reads those of a combined image, and the digests that they should have.
func (d *derReader) components() (list []TIComponent, digests []digest) {
	total, count := d.int(), d.int()
	if d.err == nil && (count < 0 || count > tiMaxComponents || int(count) != len(d.fields)) {
		d.err = fmt.Errorf("it announces %d components and has %d", count, len(d.fields))
	}
	for i := 0; d.err == nil && i < int(count); i++ {
		var part *derReader
		part, d.fields = derSequence(d.fields[0].FullBytes), d.fields[1:]
		c := TIComponent{Type: part.int(), Core: part.int(), Options: part.int(), Load: part.address(), HasLoad: true}
		size := part.int()
		digests = append(digests, digest{part.id(), part.octets()})
		if d.err = part.err; d.err == nil && (size < 0 || size > total || size > 1<<30) {
			d.err = fmt.Errorf("a component of %d bytes in %d", size, total)
		}
		c.Size = int(size)
		list = append(list, c)
	}
	return list, digests
}

// debugExtension reads what there is: older certificates have another order.
func debugExtension(value []byte) *TIDebug {
	d := derSequence(value)
	if uid, typ := d.octets(), d.int(); d.err == nil {
		return &TIDebug{uid, typ}
	}
	d = derSequence(value)
	typ := d.int()
	d.int()
	d.int()
	return &TIDebug{d.octets(), typ}
}

// digest is one as a certificate has it.
type digest struct {
	algo  asn1.ObjectIdentifier
	value []byte
}

func (d digest) hash() (name string, h hash.Hash) {
	switch d.algo.String() {
	case "2.16.840.1.101.3.4.2.1":
		return "sha256", sha256.New()
	case "2.16.840.1.101.3.4.2.2":
		return "sha384", sha512.New384()
	case "2.16.840.1.101.3.4.2.3":
		return "sha512", sha512.New()
	case "2.16.840.1.101.3.4.2.4":
		return "sha224", sha256.New224()
	}
	return d.algo.String(), nil
}

// verify finds the components in the file, one behind the other, and compares their digests.
func (t *TIImage) verify(b []byte, digests []digest) error {
	var errs []error
	off := t.CertSize
	for i := range t.Components {
		c := &t.Components[i]
		c.Offset = off
		have := len(b) - c.Offset
		cut := c.Size > have
		if cut {
			errs = append(errs, fmt.Errorf("TI image: %w: %s has %d bytes at %#x, the file has %#x bytes", ErrTruncated, c.TypeName(), c.Size, c.Offset, len(b)))
			c.Size = have
		}
		off += c.Size
		t.Size = off
		if i >= len(digests) {
			continue
		}
		var h hash.Hash
		c.Algo, h = digests[i].hash()
		// The ROM's older tools wrote SHA-512 whatever the algorithm's name.
		if h != nil && h.Size() != len(digests[i].value) && len(digests[i].value) == sha512.Size {
			c.Algo, h = "sha512", sha512.New()
		}
		if h == nil || cut {
			continue
		}
		h.Write(b[c.Offset:][:c.Size])
		c.Verified = bytes.Equal(h.Sum(nil), digests[i].value)
		c.Known = c.Verified || !t.Encrypted
		if c.Known && !c.Verified {
			errs = append(errs, fmt.Errorf("TI image: %s at %#x is damaged: its %s is not the certificate's", c.TypeName(), c.Offset, strings.ToUpper(c.Algo)))
		}
	}
	return errors.Join(errs...)
}

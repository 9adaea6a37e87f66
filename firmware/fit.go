package firmware

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"strings"
)

// Flattened image tree, U-Boot's doc/usage/fit/source_file_format.rst: a device tree with the images
// as nodes under /images and their combinations under /configurations. An image's bytes are its
// "data" property, or lie after the tree ("external data"): "data-size" bytes at "data-offset" from
// the tree's end rounded up to four, or at "data-position" from the file's start.

// FIT is a parsed image tree.
type FIT struct {
	Description string
	Images      []FITImage
	Configs     []FITConfig
	Default     string // name of the configuration to use
}

// FITImage is one image of the tree.
type FITImage struct {
	Name, Description           string
	OS, Arch, Type, Compression string // as mkimage names them; empty where the tree says nothing
	Load, Entry                 uint64
	HasLoad, HasEntry           bool

	External bool   // the data lies after the tree
	Data     []byte // part of the parsed slice; nil if missing
	Offset   int    // of the data in the parsed slice
	Hashes   []FITHash
	Signed   bool // it bears a signature, which nothing here can verify
}

// FITHash is one checksum of an image.
type FITHash struct {
	Algo  string
	Known bool // whether Algo is one that is computed here
	OK    bool // whether it was computed and agrees
}

// FITConfig is one configuration: names of images.
type FITConfig struct {
	Name, Description string
	Firmware, FDT     string
	Loadables         []string
	Signed            bool
}

// IsFIT reports whether a device tree is an image tree.
func (t *FDT) IsFIT() bool { return t.Root.Child("images") != nil }

// ParseFIT reads an image tree and verifies all that it can. The error joins everything that
// is wrong with it: data that lies outside the file (an [ErrTruncated]), checksums that
// differ. What could not be verified is told by [FIT.Unverified].
func ParseFIT(b []byte) (*FIT, error) {
	t, err := ParseFDT(b)
	if err != nil {
		return nil, fmt.Errorf("FIT: %w", err)
	}
	images := t.Root.Child("images")
	if images == nil {
		return nil, errors.New("FIT: a device tree without /images: a board description (.dtb), no boot image")
	}
	f := &FIT{Description: t.Root.Text("description")}
	var errs []error
	p := fitParser{b: b, treeSize: t.Size, budget: fitHashBudget * len(b)}
	for _, n := range images.Children {
		img, err := p.image(n)
		if err != nil {
			errs = append(errs, fmt.Errorf("FIT: image %q: %w", printable(n.Name), err))
		}
		f.Images = append(f.Images, img)
	}
	if len(f.Images) == 0 {
		errs = append(errs, errors.New("FIT: it holds no image"))
	}
	configs := t.Root.Child("configurations")
	f.Default = configs.Text("default")
	if configs != nil {
		for _, n := range configs.Children {
			f.Configs = append(f.Configs, FITConfig{
				Name:        printable(n.Name),
				Description: n.Text("description"),
				Firmware:    n.Text("firmware"),
				FDT:         n.Text("fdt"),
				Loadables:   n.Texts("loadables"),
				Signed:      n.hasChild("signature"),
			})
		}
	}
	return f, errors.Join(errs...)
}

// fitHashBudget bounds the work of verifying: images may overlap and may have several checksums,
// but the bytes that are hashed come to no more than this many times the file.
const fitHashBudget = 16

type fitParser struct {
	b        []byte
	treeSize int
	budget   int // bytes that may still be hashed
}

func (p *fitParser) image(n *Node) (FITImage, error) {
	img := FITImage{
		Name:        printable(n.Name),
		Description: n.Text("description"),
		OS:          n.Text("os"),
		Arch:        n.Text("arch"),
		Type:        n.Text("type"),
		Compression: n.Text("compression"),
		Signed:      n.hasChild("signature"),
	}
	img.Load, img.HasLoad = n.Uint("load")
	img.Entry, img.HasEntry = n.Uint("entry")
	var err error
	if img.Data, img.External, err = p.data(n); err != nil {
		return img, err
	}
	img.Offset = cap(p.b) - cap(img.Data) // both reach to the same end
	var errs []error
	for _, c := range n.Children {
		if !strings.HasPrefix(c.Name, "hash") {
			continue
		}
		if p.budget -= len(img.Data); p.budget < 0 {
			return img, errors.New("there are far more checksums than the file has data")
		}
		h := FITHash{Algo: c.Text("algo")}
		want, _ := c.Prop("value")
		var got []byte
		if got, h.Known = checksum(h.Algo, img.Data); h.Known {
			if h.OK = bytes.Equal(got, want); !h.OK {
				errs = append(errs, fmt.Errorf("%s is %x, the tree says %.64x", h.Algo, got, want))
			}
		}
		img.Hashes = append(img.Hashes, h)
	}
	return img, errors.Join(errs...)
}

// data finds an image's bytes, and tells whether they lie after the tree.
func (p *fitParser) data(n *Node) (data []byte, external bool, err error) {
	if v, ok := n.Prop("data"); ok {
		return v, false, nil
	}
	size, ok := n.Uint("data-size")
	if !ok {
		return nil, false, errors.New("it has no data")
	}
	base := uint64(p.treeSize+3) &^ 3
	off, ok := n.Uint("data-offset")
	if !ok {
		base = 0
		if off, ok = n.Uint("data-position"); !ok {
			return nil, true, errors.New("its data lies outside the tree, but the tree does not say where")
		}
	}
	if off > math.MaxUint32 || size > math.MaxUint32 {
		return nil, true, fmt.Errorf("impossible data of %d bytes at %d", size, off)
	}
	if end := base + off + size; end > uint64(len(p.b)) {
		return nil, true, fmt.Errorf("%w: its data ends at byte %d, the file has %d", ErrTruncated, end, len(p.b))
	}
	return p.b[base+off : base+off+size], true, nil
}

func (n *Node) hasChild(prefix string) bool {
	for _, c := range n.Children {
		if strings.HasPrefix(c.Name, prefix) {
			return true
		}
	}
	return false
}

// checksum computes a checksum by U-Boot's name for it, and reports whether it knows that name.
func checksum(algo string, b []byte) ([]byte, bool) {
	switch algo {
	case "crc32":
		return binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(b)), true
	case "md5":
		s := md5.Sum(b)
		return s[:], true
	case "sha1":
		s := sha1.Sum(b)
		return s[:], true
	case "sha256":
		s := sha256.Sum256(b)
		return s[:], true
	case "sha384":
		s := sha512.Sum384(b)
		return s[:], true
	case "sha512":
		s := sha512.Sum512(b)
		return s[:], true
	}
	return nil, false
}

// Below tells whether all images that say where they are loaded to go below an address, which is where DRAM begins: then
// none of them is U-Boot for such a SoC. load is where the first of them goes.
func (f *FIT) Below(dram uint64) (load uint64, ok bool) {
	for _, img := range f.Images {
		switch {
		case !img.HasLoad:
		case img.Load >= dram:
			return 0, false
		case !ok:
			load, ok = img.Load, true
		}
	}
	return load, ok
}

// Unverified tells, one phrase for each, which images no checksum vouches for and which signatures
// were not looked at.
func (f *FIT) Unverified() []string {
	var out []string
	for _, img := range f.Images {
		for _, h := range img.Hashes {
			if !h.Known {
				out = append(out, fmt.Sprintf("image %q has a %q checksum, which was not verified", img.Name, h.Algo))
			}
		}
		if len(img.Hashes) == 0 {
			out = append(out, fmt.Sprintf("image %q has no checksum", img.Name))
		}
		if img.Signed {
			out = append(out, fmt.Sprintf("image %q is signed; the signature was not verified", img.Name))
		}
	}
	for _, c := range f.Configs {
		if c.Signed {
			out = append(out, fmt.Sprintf("configuration %q is signed; the signature was not verified", c.Name))
		}
	}
	return out
}

package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"path"
	"strings"

	"snag/flash/bmap"
)

// MapNames returns where an image's block map may be, likeliest first: for image.ext1.ext2 that is image.ext1.ext2.bmap,
// image.ext1.bmap and image.bmap, as bmaptool has it. In a URL it is the path that counts.
func MapNames(name string) []string {
	if name == "-" {
		return nil
	}
	file, set := name, func(s string) string { return s }
	if isURL(name) {
		u, err := url.Parse(name)
		if err != nil {
			return nil
		}
		file = u.Path
		set = func(s string) string {
			v := *u
			v.Path, v.RawPath = s, ""
			return v.String()
		}
	}
	var names []string
	for range 3 {
		names = append(names, set(file+".bmap"))
		ext := path.Ext(file)
		if ext == "" || ext == path.Base(file) {
			break
		}
		file = strings.TrimSuffix(file, ext)
	}
	return names
}

// findMap reads the image's block map, if there is one or if one must be.
func (o *Options) findMap(ctx context.Context, im *Image, name string, in *input) error {
	var text []byte
	var err error
	from := o.Bmap
	if from != "" {
		text, err = o.readFile(ctx, from, bmap.MaxSize)
	} else {
		for _, from = range MapNames(name) {
			text, err = o.readFile(ctx, from, bmap.MaxSize)
			if isURL(from) && webPage(text) { // a server that has one for whatever it does not have
				text, err = nil, fs.ErrNotExist
			}
			if !errors.Is(err, fs.ErrNotExist) {
				break
			}
		}
		if text == nil && (err == nil || errors.Is(err, fs.ErrNotExist)) {
			if o.Keyring != "" {
				return fmt.Errorf("%s: there is no block map beside it, whose signature could be checked", im.Name)
			}
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("block map: %w", err)
	}
	im.MapName = from
	if u, err := url.Parse(from); isURL(from) && err == nil {
		im.MapName = u.Redacted()
	}
	if text, im.Signer, err = o.checkSignature(ctx, from, text); err == nil {
		im.Map, err = bmap.Parse(text)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", im.MapName, err)
	}
	return o.checkMap(im, in)
}

// checkMap finds what makes a block map one of another image.
func (o *Options) checkMap(im *Image, in *input) error {
	m := im.Map
	if o.Keyring != "" {
		for _, r := range m.Ranges {
			if r.Sum == nil {
				return fmt.Errorf("%s: it is signed, but range %d-%d has no checksum: that says nothing of the image", im.MapName, r.First, r.Last)
			}
		}
	}
	fits := im.Size < 0 || im.Size == m.ImageSize
	switch {
	case in.device && im.Format == "raw":
		fits = im.Size >= m.ImageSize
	case im.Format != "raw": // its size is rounded up to its blocks
		fits = im.Size >= m.ImageSize && im.Size-m.ImageSize < im.BlockSize
	}
	if !fits {
		return fmt.Errorf("%s: %w", im.Name, im.otherSize(im.Size))
	}
	im.Size = m.ImageSize
	a, b := im.BlockSize, m.BlockSize
	if a == 1 {
		a = b
	}
	for b != 0 {
		a, b = b, a%b
	}
	im.BlockSize = a // what divides both
	return nil
}

// checkSignature takes a clear-signed block map out of its signature, and checks the signature if there is a keyring.
func (o *Options) checkSignature(ctx context.Context, name string, text []byte) (plain []byte, signer string, err error) {
	plain, signed := bmap.Clearsigned(text)
	if o.Keyring == "" {
		if !signed {
			plain = text
		}
		return plain, "", nil
	}
	b, err := o.readFile(ctx, o.Keyring, 16<<20)
	if err != nil {
		return nil, "", err
	}
	keys, err := bmap.ParseKeyring(b)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", o.Keyring, err)
	}
	if signed && o.Signature == "" {
		return keys.VerifyClearsigned(text)
	}
	names := []string{o.Signature}
	if o.Signature == "" {
		names = []string{name + ".asc", name + ".sig"}
	}
	for _, from := range names {
		sig, err := o.readFile(ctx, from, 1<<20)
		if errors.Is(err, fs.ErrNotExist) && o.Signature == "" {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		if signer, err = keys.Verify(text, sig); err != nil {
			return nil, "", fmt.Errorf("%s: %w", from, err)
		}
		if !signed {
			plain = text
		}
		return plain, signer, nil
	}
	return nil, "", fmt.Errorf("it is not signed: neither %s is there", strings.Join(names, " nor "))
}

// readFile reads a file or URL of at most limit bytes.
func (o *Options) readFile(ctx context.Context, name string, limit int64) ([]byte, error) {
	in, err := o.open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	b, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: more than %d bytes", name, limit)
	}
	return b, err
}

package bmap

import (
	"bytes"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// file is what the elements of a block map say, before anything is checked.
type file struct {
	version  string
	numbers  map[string]int64 // ImageSize, BlockSize, BlocksCount, MappedBlocksCount
	checksum string           // ChecksumType
	fileSum  string           // BmapFileChecksum or BmapFileSHA1
	sumAt    [2]int64         // where the text of fileSum stands in the file, white space included
	ranges   []Range
	hashed   bool // some range has a checksum
	sha1     bool // and its attribute is sha1
}

// Parse reads a block map and checks it, by its own checksum if it has one. The file must be the bare XML: see
// [Clearsigned].
func Parse(b []byte) (*Map, error) {
	m, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("block map: %w", err)
	}
	return m, nil
}

func parse(b []byte) (*Map, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("%d bytes long; more than %d are not read", len(b), MaxSize)
	}
	f, err := decode(b)
	if err != nil {
		return nil, err
	}
	major, _, _ := strings.Cut(f.version, ".")
	if n, err := strconv.Atoi(major); err != nil || n < 1 || n > 2 {
		return nil, fmt.Errorf("version %.16q, expected 1.0 to 2.0", f.version)
	}
	m := &Map{Version: f.version, Checksum: f.checksum, Ranges: f.ranges}
	if m.Checksum == "" && (f.sha1 || f.fileSum != "" && major == "1") {
		m.Checksum = "sha1" // up to 1.3 there was no other, and no element to say so
	}
	for name, to := range map[string]*int64{"ImageSize": &m.ImageSize, "BlockSize": &m.BlockSize} {
		n, ok := f.numbers[name]
		if !ok {
			return nil, fmt.Errorf("%s is missing", name)
		}
		*to = n
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	mapped := int64(0)
	for _, r := range m.Ranges {
		mapped += r.Last - r.First + 1
	}
	for name, is := range map[string]int64{"BlocksCount": m.Blocks(), "MappedBlocksCount": mapped} {
		if n, ok := f.numbers[name]; !ok {
			return nil, fmt.Errorf("%s is missing", name)
		} else if n != is {
			return nil, fmt.Errorf("%s is %d, but there are %d", name, n, is)
		}
	}
	return m, m.checkSums(b, f)
}

// checkSums verifies the file's own checksum, and that the ranges' are hashes.
func (m *Map) checkSums(b []byte, f *file) error {
	if m.Checksum == "" {
		if f.hashed || f.fileSum != "" {
			return errors.New("checksums, but no ChecksumType")
		}
		return nil
	}
	h, err := NewHash(m.Checksum)
	if err != nil {
		return err
	}
	for _, r := range m.Ranges {
		if r.Sum != nil && len(r.Sum) != h.Size() {
			return fmt.Errorf("the checksum of range %d-%d has %d bytes, a %s has %d", r.First, r.Last, len(r.Sum), m.Checksum, h.Size())
		}
	}
	if f.fileSum == "" {
		if f.checksum != "" || m.Version == "1.3" {
			return errors.New("its own checksum is missing")
		}
		return nil // 1.1, 1.2
	}
	// The digits stand there once, whole, or else they were not what was decoded.
	text := b[f.sumAt[0]:f.sumAt[1]]
	i := bytes.Index(text, []byte(f.fileSum))
	if i < 0 {
		return errors.New("its own checksum is not plain text")
	}
	h.Write(b[:f.sumAt[0]+int64(i)])
	h.Write(bytes.Repeat([]byte("0"), len(f.fileSum)))
	h.Write(b[f.sumAt[0]+int64(i+len(f.fileSum)):])
	if sum := hex.EncodeToString(h.Sum(nil)); !strings.EqualFold(sum, f.fileSum) {
		return fmt.Errorf("its %s is %s, but it says %.128q: it was changed or damaged", m.Checksum, sum, f.fileSum)
	}
	return nil
}

// decode reads the XML. Elements it does not know are skipped.
func decode(b []byte) (*file, error) {
	f := &file{numbers: map[string]int64{}}
	d := xml.NewDecoder(bytes.NewReader(b))
	var path []string
	var attrs []xml.Attr
	var text strings.Builder
	for {
		start := d.InputOffset()
		tok, err := d.RawToken()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("no XML: %w", err)
		}
		switch tok := tok.(type) {
		case xml.Directive:
			return nil, errors.New("it has a DOCTYPE or another declaration, which a block map has no use for")
		case xml.StartElement:
			if len(path) == 0 {
				if tok.Name.Local != "bmap" || f.version != "" {
					return nil, fmt.Errorf("the root element is %.32q, expected one bmap", tok.Name.Local)
				}
				if f.version = attr(tok.Attr, "version"); f.version == "" {
					return nil, errors.New("no version")
				}
			}
			if len(path) >= 8 {
				return nil, errors.New("elements in elements in elements")
			}
			path, attrs = append(path, tok.Name.Local), tok.Attr
			text.Reset()
		case xml.CharData:
			if len(path) > 1 && text.Len()+len(tok) <= 512 {
				text.Write(tok)
				if name := path[len(path)-1]; (name == "BmapFileChecksum" || name == "BmapFileSHA1") && len(bytes.TrimSpace(tok)) > 0 {
					f.sumAt = [2]int64{start, d.InputOffset()}
				}
			}
		case xml.EndElement:
			if len(path) == 0 || path[len(path)-1] != tok.Name.Local {
				return nil, fmt.Errorf("no XML: </%.32s> ends nothing", tok.Name.Local)
			}
			if err := f.element(path, attrs, strings.TrimSpace(text.String())); err != nil {
				return nil, err
			}
			path = path[:len(path)-1]
			text.Reset()
		}
	}
	switch {
	case len(path) > 0:
		return nil, fmt.Errorf("it ends within <%.32s>", path[len(path)-1])
	case f.version == "":
		return nil, errors.New("no XML: it has no element")
	}
	return f, nil
}

// element takes what stands in the element that path leads to.
func (f *file) element(path []string, attrs []xml.Attr, text string) error {
	name := path[len(path)-1]
	switch {
	case len(path) == 3 && path[1] == "BlockMap" && name == "Range":
		return f.rangeElement(attrs, text)
	case len(path) != 2:
		return nil
	}
	switch name {
	case "ImageSize", "BlockSize", "BlocksCount", "MappedBlocksCount":
		if _, ok := f.numbers[name]; ok {
			return fmt.Errorf("%s is there twice", name)
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("%s is %.32q, no number", name, text)
		}
		f.numbers[name] = n
	case "ChecksumType":
		f.checksum = text
	case "BmapFileChecksum", "BmapFileSHA1":
		if f.fileSum != "" {
			return errors.New("its own checksum is there twice")
		}
		f.fileSum = text
	}
	return nil
}

func (f *file) rangeElement(attrs []xml.Attr, text string) error {
	var r Range
	from, to, span := strings.Cut(text, "-")
	first, err := strconv.ParseInt(strings.TrimSpace(from), 10, 64)
	last, err2 := first, error(nil)
	if span {
		last, err2 = strconv.ParseInt(strings.TrimSpace(to), 10, 64)
	}
	if err != nil || err2 != nil || first < 0 || last < 0 {
		return fmt.Errorf("range %.64q, expected \"first-last\" or one number", text)
	}
	r.First, r.Last = first, last
	sum := attr(attrs, "chksum")
	if sum == "" {
		if sum = attr(attrs, "sha1"); sum != "" {
			f.sha1 = true
		}
	}
	if sum != "" {
		if r.Sum, err = hex.DecodeString(strings.TrimSpace(sum)); err != nil {
			return fmt.Errorf("the checksum of range %d-%d is %.128q: %w", first, last, sum, err)
		}
		f.hashed = true
	}
	f.ranges = append(f.ranges, r)
	return nil
}

func attr(attrs []xml.Attr, name string) string {
	for _, a := range attrs {
		if a.Name.Local == name && a.Name.Space == "" {
			return a.Value
		}
	}
	return ""
}

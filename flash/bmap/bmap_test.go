package bmap

import (
	"bytes"
	"crypto"
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"hash"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/google/go-cmp/cmp"
)

// file renders a block map as bmaptool lays it out, in any version.
func render(version string, h func() hash.Hash, ranges string, mapped int) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "<?xml version=\"1.0\" ?>\n<!-- a comment -->\n<bmap version=%q>\n    <ImageSize> 40961 </ImageSize>\n    <BlockSize> 4096 </BlockSize>\n    <BlocksCount> 11 </BlocksCount>\n", version)
	count := fmt.Sprintf("    <MappedBlocksCount> %d     </MappedBlocksCount>\n", mapped)
	if version != "1.2" {
		b.WriteString(count)
	}
	zeros := ""
	if h != nil {
		zeros = strings.Repeat("0", 2*h().Size())
		if version == "1.3" {
			fmt.Fprintf(&b, "    <BmapFileSHA1> %s </BmapFileSHA1>\n", zeros)
		} else {
			fmt.Fprintf(&b, "    <ChecksumType> sha256 </ChecksumType>\n    <!-- another -->\n    <BmapFileChecksum> %s </BmapFileChecksum>\n", zeros)
		}
	}
	fmt.Fprintf(&b, "    <BlockMap>\n%s    </BlockMap>\n", ranges)
	if version == "1.2" {
		b.WriteString(count)
	}
	b.WriteString("</bmap>\n")
	if h == nil {
		return []byte(b.String())
	}
	sum := h()
	sum.Write([]byte(b.String()))
	return []byte(strings.Replace(b.String(), zeros, fmt.Sprintf("%x", sum.Sum(nil)), 1))
}

func TestParse(t *testing.T) {
	s1, s2 := sha1.Sum([]byte("1")), sha256.Sum256([]byte("2"))
	for _, v := range []struct {
		version string
		hash    func() hash.Hash
		ranges  string
		mapped  int
		want    Map
	}{
		{"1.2", nil, fmt.Sprintf("<Range sha1=\"%x\"> 0-2 </Range><Range> 10 </Range>", s1), 4,
			Map{Checksum: "sha1", Ranges: []Range{{0, 2, s1[:]}, {10, 10, nil}}}},
		{"1.3", sha1.New, fmt.Sprintf("<Range sha1=\"%x\"> 5 </Range>", s1), 1,
			Map{Checksum: "sha1", Ranges: []Range{{5, 5, s1[:]}}}},
		{"1.4", sha256.New, fmt.Sprintf("<Range chksum=\"%x\"> 0-10 </Range>", s2), 11,
			Map{Checksum: "sha256", Ranges: []Range{{0, 10, s2[:]}}}},
		{"2.0", sha256.New, fmt.Sprintf("<!-- c --><Range chksum=\"%x\">\n0 - 3 </Range>", s2), 4,
			Map{Checksum: "sha256", Ranges: []Range{{0, 3, s2[:]}}}},
		{"2.0", nil, "<Range> 1-2 </Range>", 2, Map{Ranges: []Range{{1, 2, nil}}}},
	} {
		v.want.Version, v.want.ImageSize, v.want.BlockSize = v.version, 40961, 4096
		m, err := Parse(render(v.version, v.hash, v.ranges, v.mapped))
		if err != nil {
			t.Errorf("%s: %v", v.version, err)
			continue
		}
		if diff := cmp.Diff(&v.want, m); diff != "" {
			t.Errorf("%s: %s", v.version, diff)
		}
	}
	m := &Map{ImageSize: 40961, BlockSize: 4096, Ranges: []Range{{0, 0, nil}, {10, 10, nil}}}
	if off, end := m.Extent(m.Ranges[1]); off != 40960 || end != 40961 || m.Mapped() != 4097 || m.Blocks() != 11 {
		t.Errorf("the last block is %d to %d, mapped are %d bytes of %d blocks", off, end, m.Mapped(), m.Blocks())
	}
}

func TestParseRefuses(t *testing.T) {
	good := string(render("2.0", sha256.New, fmt.Sprintf("<Range chksum=\"%x\"> 0-3 </Range>", sha256.Sum256(nil)), 4))
	plain := string(render("2.0", nil, "<Range> 0-3 </Range><Range> 5 </Range>", 5))
	for _, v := range []struct{ of, old, new, want string }{
		{good, "40961", "40962", "it was changed or damaged"},
		{good, "sha256", "md5", "unknown checksum type"},
		{good, "<ChecksumType> sha256 </ChecksumType>", "", "no ChecksumType"},
		{good, "<BmapFileChecksum>", "<Other></Other><BmapFileChecksum>&#32;<!-- -->", "damaged"},
		{plain, "version=\"2.0\"", "version=\"3.0\"", "version \"3.0\""},
		{plain, "<bmap ", "<!DOCTYPE bmap><bmap ", "DOCTYPE"},
		{plain, "40961", "0", "image of 0 bytes"},
		{plain, "<BlockSize> 4096", "<BlockSize> 4097", "power of two"},
		{plain, "<BlocksCount> 11", "<BlocksCount> 12", "BlocksCount is 12, but there are 11"},
		{plain, "<MappedBlocksCount> 5", "<MappedBlocksCount> 6", "MappedBlocksCount is 6, but there are 5"},
		{plain, "> 5 <", "> 3 <", "out of order"},
		{plain, "> 5 <", "> 11 <", "past the end"},
		{plain, "> 5 <", "> x <", "expected \"first-last\""},
		{plain, "</BlockMap>", "", "ends nothing"},
		{plain, "<BlockSize> 4096 </BlockSize>", "", "BlockSize is missing"},
		{plain, "<bmap version=\"2.0\">", "<other>", "root element"},
		{"\xed no xml", "no", "no", ""},
		{"", "", "", "no element"},
	} {
		if v.of != "" && !strings.Contains(v.of, v.old) {
			t.Fatalf("no %q to replace", v.old)
		}
		if _, err := Parse([]byte(strings.Replace(v.of, v.old, v.new, 1))); err == nil || !strings.Contains(err.Error(), v.want) {
			t.Errorf("%s for %s: %v, expected %q", v.new, v.old, err, v.want)
		}
	}
}

func TestEncode(t *testing.T) {
	a, b := sha256.Sum256([]byte("a")), sha256.Sum256([]byte("b"))
	for _, m := range []*Map{
		{Version: "2.0", ImageSize: 1, BlockSize: 512},
		{Version: "2.0", ImageSize: 13 << 30, BlockSize: 4096, Checksum: "sha256", Ranges: []Range{{0, 0, a[:]}, {7, 3000, b[:]}}},
		{Version: "2.0", ImageSize: 1 << 20, BlockSize: 4096, Ranges: []Range{{0, 255, nil}}},
	} {
		text, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse(text)
		if diff := cmp.Diff(m, got); err != nil || diff != "" {
			t.Errorf("%v, %s", err, diff)
		}
	}
	if _, err := (&Map{ImageSize: 1, BlockSize: 512, Ranges: []Range{{1, 1, nil}}}).Encode(); err == nil {
		t.Error("a range past the end was written")
	}
}

func TestSignatures(t *testing.T) {
	config := &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, DefaultHash: crypto.SHA256}
	key := func() *openpgp.Entity {
		e, err := openpgp.NewEntity("A Key", "", "key@example.org", config)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	mine, other := key(), key()
	var public bytes.Buffer
	if err := mine.Serialize(&public); err != nil {
		t.Fatal(err)
	}
	keys, err := ParseKeyring(public.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	text := render("2.0", nil, "<Range> 0-3 </Range>", 4)
	for _, v := range []struct {
		name string
		by   *openpgp.Entity
		of   []byte
		good bool
	}{{"signed", mine, text, true}, {"signed by another", other, text, false}, {"changed", mine, append([]byte(" "), text...), false}} {
		var armored, plain, clear bytes.Buffer
		if err := openpgp.ArmoredDetachSign(&armored, v.by, bytes.NewReader(v.of), config); err != nil {
			t.Fatal(err)
		}
		if err := openpgp.DetachSign(&plain, v.by, bytes.NewReader(v.of), config); err != nil {
			t.Fatal(err)
		}
		for _, sig := range [][]byte{armored.Bytes(), plain.Bytes()} {
			fingerprint, err := keys.Verify(text, sig)
			if (err == nil) != v.good || v.good && fingerprint != fmt.Sprintf("%X", mine.PrimaryKey.Fingerprint) {
				t.Errorf("%s: %q, %v", v.name, fingerprint, err)
			}
		}
		w, err := clearsign.Encode(&clear, v.by.PrivateKey, config)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(v.of)
		w.Close()
		b := bytes.Replace(clear.Bytes(), []byte("\n <"), []byte("\n<"), 1) // what was changed
		if _, ok := Clearsigned(b); !ok {
			t.Errorf("%s: no clear-signed text", v.name)
		}
		got, _, err := keys.VerifyClearsigned(b)
		if (err == nil) != v.good {
			t.Errorf("%s, clear-signed: %v", v.name, err)
		}
		if err == nil {
			if _, err := Parse(got); err != nil {
				t.Errorf("%s, clear-signed: %v", v.name, err)
			}
		}
	}
	if _, err := keys.Verify(text, nil); err == nil {
		t.Error("no signature was taken for one")
	}
	if _, err := ParseKeyring(nil); err == nil {
		t.Error("nothing was taken for keys")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(render("2.0", sha256.New, fmt.Sprintf("<Range chksum=\"%x\"> 0-3 </Range>", sha256.Sum256(nil)), 4))
	f.Add(render("1.3", sha1.New, fmt.Sprintf("<Range sha1=\"%x\"> 0-3 </Range>", sha1.Sum(nil)), 4))
	f.Add(render("1.2", nil, "<Range> 0-3 </Range><Range> 5 </Range>", 5))
	f.Fuzz(func(t *testing.T, b []byte) {
		Clearsigned(b)
		m, err := Parse(b)
		if err != nil {
			return
		}
		end := int64(0)
		for _, r := range m.Ranges {
			from, to := m.Extent(r)
			if from < end || to <= from || to > m.ImageSize {
				t.Fatalf("range %v is bytes %d to %d of %d", r, from, to, m.ImageSize)
			}
			end = to
		}
		if m.Checksum == "sha1" {
			return
		}
		text, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		m.Version = "2.0"
		if diff := cmp.Diff(m, again); diff != "" {
			t.Error(diff)
		}
	})
}

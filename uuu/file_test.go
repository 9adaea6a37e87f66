package uuu

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func tarred(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for name, b := range files {
		w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(b))})
		w.Write(b)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zippedFile(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for name, b := range files {
		f, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		f.Write(b)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// "hello\n", compressed.
const (
	zst  = "\x28\xb5\x2f\xfd\x04\x58\x31\x00\x00\x68\x65\x6c\x6c\x6f\x0a\x53\x88\xbd\x91"
	xzed = "\xfd\x37\x7a\x58\x5a\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01\x16\x00\x00\x00\x74\x2f\xe5\xa3\x01\x00\x05\x68\x65\x6c\x6c\x6f\x0a\x00\x00\x00\xa5\x60\x97\xf1\x94\xf6\xfd\xe0\x00\x01\x1e\x06\xc1\x2f\xa4\x1d\x1f\xb6\xf3\x7d\x01\x00\x00\x00\x00\x04\x59\x5a"
)

// bzip2 of the same.
const bz2 = "BZh91AY&SY\xc1\xc0\x80\xe2\x00\x00\x01\x41\x00\x00\x10\x02\x44\xa0\x00\x30\xcd\x00\xc3\x46\x29\x97\x17\x72\x45\x38\x50\x90\xc1\xc0\x80\xe2"

func TestPaths(t *testing.T) {
	dir := t.TempDir()
	hello := []byte("hello\n")
	for name, b := range map[string][]byte{
		"plain": hello, "x.gz": gzipped(t, hello), "x.bz2": []byte(bz2), "x.tar.gz": gzipped(t, tarred(t, map[string][]byte{"./d/f": hello})),
		"x.tar": tarred(t, map[string][]byte{"d/f": hello, "y.gz": gzipped(t, hello)}),
		"x.zip": zippedFile(t, map[string][]byte{"d/f": hello, "y.gz": gzipped(t, hello)}),
		"x.zst": []byte(zst), "x.xz": []byte(xzed),
		"card": append(make([]byte, 510), 0x55, 0xaa, 0),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		at, name string
		err      string
		missing  bool
	}{
		{name: "plain"}, {name: "x.gz/*"}, {name: "x.bz2/*"}, {name: "x.zst/*"}, {name: "x.xz/*"}, {name: "x.tar.gz/*/d/f"}, {name: "x.tar/d/f"}, {name: "x.tar/y.gz/*"},
		{name: "x.zip/d/f"}, {name: "x.zip/y.gz/*"}, {at: "x.zip", name: "d/f"}, {at: "x.zip/d", name: "f"}, {at: "x.zip", name: filepath.Join(dir, "plain")},
		{name: "no", missing: true}, {name: "no/way", missing: true}, {name: "x.zip/no", missing: true}, {name: "x.tar/no", missing: true},
		{name: "x.gz/hello", err: "contents are called *"}, {name: "plain/*", err: "neither zip, tar, gzip, bzip2, zstd nor xz"},
		{name: "card/f", err: "image of a card"}, {name: ".", err: "is a directory"},
		{name: "http://localhost/x", err: "addresses of the network"},
	} {
		b, err := files{filepath.Join(dir, tc.at)}.read(tc.name, 100)
		switch {
		case tc.missing:
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v, want that it does not exist", tc.name, err)
			}
		case tc.err != "":
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s: %v, want %s", tc.name, err, tc.err)
			}
		case err != nil || !bytes.Equal(b, hello):
			t.Errorf("%s %s: %q, %v", tc.at, tc.name, b, err)
		}
	}
	for _, name := range []string{"plain", "x.gz/*", "x.zip/d/f"} {
		if _, err := (files{dir}).read(name, 5); err == nil || !strings.Contains(err.Error(), "more than 5 bytes") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	put := func(name string, b []byte) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	script := []byte("uuu_version 1.0.1\nSDPS: boot -f boot.bin\nFB: done\n")
	put("boot.bin", []byte("\xd1\x00\x20\x41loader"))
	put("d/uuu.auto", script)
	put("d/boot.bin", []byte("d's"))
	put("x.zip", zippedFile(t, map[string][]byte{"uuu.auto": script, "boot.bin": []byte("the archive's")}))
	put("d/late.uuu", []byte("\n# uuu takes this for a boot loader\nSDPS: boot -f boot.bin\nFB: done\n"))
	put("d/args.lst", []byte("uuu_version 1.0.1\n# @_b | a file\nSDPS: boot -f _b\nFB: done\n"))
	put("d/bom.uuu", append([]byte("\xef\xbb\xbf"), script...))
	put("d/other.uuu", []byte("# for another tool\r\nHID: boot -f boot.bin\r\nFB: done\r\n"))
	put("d/typo.lst", []byte("SDPPS: boot -f boot.bin # für ein Board\n"))
	put("bomb.zip", zippedFile(t, map[string][]byte{"uuu.auto": make([]byte, 4<<20)}))
	put("none.zip", zippedFile(t, map[string][]byte{"boot.bin": script}))
	put("spl/x", nil) // a directory of a built-in script's name
	for _, tc := range []struct {
		name string
		args []string
		want string // how it goes on
		err  string
	}{
		{name: "d", want: "stream of 3 bytes"},
		{name: "d/late.uuu", want: "stream of 3 bytes"},
		{name: "d/bom.uuu", want: "stream of 3 bytes"},
		{name: "d/other.uuu", err: `d/other.uuu:2:1: protocol "HID": expected one of CFG`},
		{name: "d/typo.lst", err: `d/typo.lst:1:1: protocol "SDPPS": expected one of CFG`},
		{name: "bomb.zip", err: "uuu.auto: more than 1048576 bytes"},
		{name: "x.zip", want: "stream of 13 bytes"},
		{name: "d/args.lst", args: []string{"boot.bin"}, want: "stream of 10 bytes"},
		{name: "d/args.lst", err: "the script needs arguments: _b (a file)"},
		{name: "d/late.uuu", args: []string{"x"}, err: "1 arguments, of which the script takes 0"},
		{name: "boot.bin", want: "nothing: it has no IVT"},
		{name: "spl", args: []string{"boot.bin"}, want: "nothing: it has no IVT"},
		{name: "spl", err: "the script needs arguments: _flash.bin"},
		{name: "FB:", args: []string{"ucmd", "setenv", "a b"}, want: `UCmd:setenv "a b"`},
		{name: "FB:", args: []string{"ucmt"}, err: `command:1:5: FB has no command "ucmt"`},
		{name: "missing", err: "nor is it a built-in script: those are emmc, "},
		{name: "spl/", err: "spl/: expected a script called uuu.auto in it: "},
		{name: "none.zip", err: "none.zip: expected a script called uuu.auto in it: "},
	} {
		s, err := Load(tc.name, tc.args)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s %q: %v, want %s", tc.name, tc.args, err, tc.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s %q: %v", tc.name, tc.args, err)
			continue
		}
		if got := s.Lines[0].cmd.sends(s)[0]; !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s %q: %q, want %q", tc.name, tc.args, got, tc.want)
		}
	}
}

// Of the image of a card only the boot loader is read, however large it is.
func TestCard(t *testing.T) {
	dir := t.TempDir()
	card := make([]byte, 1<<20)
	card[510], card[511] = 0x55, 0xaa
	loader := strings.Repeat("loader", 1000)
	copy(card[0x8000:], loader+"UUUBURNXXOEUZX7+A-XY5601QQWWZ6000END")
	path := filepath.Join(dir, "card.wic")
	if err := os.WriteFile(path, card, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<40); err != nil {
		t.Skip(err)
	}
	for line, want := range map[string]string{
		"SDPS: boot -scanterm -f card.wic -scanlimited 0x800000":        "stream of 6000 bytes",
		"FB: flash -scanterm -scanlimited 0x800000 bootloader card.wic": "getvar:max-download-size download:00001770 and the bytes of the boot loader in card.wic flash:bootloader",
		"FB: flash -scanterm -scanlimited 0x8000 bootloader card.wic":   "getvar:max-download-size nothing: firmware \"file\" (card.wic): it is the image of a card, and no tag (UUUBURN...) in it ends a boot loader flash:bootloader",
		"FB: flash -raw2sparse all card.wic":                            "getvar:max-download-size for each piece: download: of Android sparse images of card.wic, of what its block map maps, if it has one flash:all",
	} {
		s, err := parse("test", line, nil, files{dir})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(s.Lines[0].cmd.sends(s), " "); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", line, got, want)
		}
	}
}

package firmware

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// archive makes a tar archive. Contents are data, or -> and where a link leads, or / for a directory.
func archive(t testing.TB, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: files[i], Mode: 0o644}
		data := files[i+1]
		if to, ok := strings.CutPrefix(data, "->"); ok {
			h.Typeflag, h.Linkname, data = tar.TypeSymlink, to, ""
			if to[0] == '=' {
				h.Typeflag, h.Linkname = tar.TypeLink, to[1:]
			}
		} else if data == "/" {
			h.Typeflag, data = tar.TypeDir, ""
		}
		h.Size = int64(len(data))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(data))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestBootfiles(t *testing.T) {
	b := archive(t, "./2711/", "/", "./2711/bootcode4.bin", "code", "../etc/passwd", "inside", "2711/mcb.bin", "old", "mcb.bin", "top", "2711/empty", "",
		"2711/mcb.bin", "new", "2711/again", "->mcb.bin", "2712/bootcode5.bin", "->=2711/bootcode4.bin", "2711/loop", "->loop", "2711/nowhere", "->../../x", "2711/out", "->/etc/passwd",
		strings.Repeat("long/", 40)+"name", "long")
	f, err := ParseBootfiles(b)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, file := range f.Files {
		got = append(got, fmt.Sprintf("%s=%s", file.Name, file.Data))
		if string(b[file.Offset:][:len(file.Data)]) != string(file.Data) {
			t.Errorf("%+v is not there", file)
		}
	}
	want := "2711/bootcode4.bin=code etc/passwd=inside mcb.bin=top 2711/empty= 2711/mcb.bin=new 2711/again=new 2712/bootcode5.bin=code " +
		strings.Repeat("long/", 40) + "name=long"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	for name, want := range map[string]string{"mcb.bin": "new", "MCB.BIN": "new", "etc/passwd": "inside", "again": "new"} {
		if file, ok := f.Find("2711", name); !ok || string(file.Data) != want {
			t.Errorf("%s: %q, %t", name, file.Data, ok)
		}
	}
	if file, ok := f.Find("2712", "mcb.bin"); !ok || string(file.Data) != "top" {
		t.Errorf("%q, %t", file.Data, ok)
	}
	if _, ok := f.Find("2711", "loop"); ok {
		t.Error("a link that leads to itself was found")
	}
	if f.Files[4].Again != 1 || f.Size > len(b) {
		t.Errorf("%+v, %d bytes", f.Files[4], f.Size)
	}
	if info := Identify(b); info.Kind != KindBootfiles {
		t.Error(info)
	}
	if info := Identify(archive(t, "etc/passwd", "x")); info.Kind != KindArchive {
		t.Error(info)
	}
}

func TestBootfilesDamaged(t *testing.T) {
	two := archive(t, "a", strings.Repeat("x", 1000), "b", strings.Repeat("y", 1000))
	var many []string
	for i := range bootfilesMax + 1 {
		many = append(many, fmt.Sprint(i), "")
	}
	for _, tc := range []struct {
		name  string
		b     []byte
		says  string
		files int // -1: no archive
	}{
		{"nothing", nil, "", 0},
		{"text", []byte(strings.Repeat("no archive\n", 100)), "no tar archive", -1},
		{"cut in a header", two[:1700], "tar: after 1 entries: truncated", 1},
		{"cut in a file", two[:2100], "tar: truncated: b has 1000 bytes, the archive ends after 52 of them", 1},
		{"sum", append(append(bytes.Clone(two[:1540]), 'q'), two[1541:]...), "tar: after 1 entries: archive/tar: invalid tar header", 1},
		{"too many", archive(t, many...), "it has more than 4096 entries", bootfilesMax},
	} {
		f, err := ParseBootfiles(tc.b)
		if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) || (f == nil) != (tc.files < 0) || f != nil && len(f.Files) != tc.files {
			t.Errorf("%s: %v", tc.name, err)
		}
		if strings.HasPrefix(tc.name, "cut") && !errors.Is(err, ErrTruncated) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// Sparse files, which GNU tar makes of what has holes, are refused: their length is no bound for what they take.
func TestBootfilesSparse(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "hole"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "hole"), 1<<30); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"gnu", "posix"} {
		b, err := exec.Command("tar", "-C", dir, "--format", format, "-S", "-cf", "-", "hole").Output()
		if err != nil {
			t.Skip("GNU tar: ", err)
		}
		if f, err := ParseBootfiles(b); f == nil || len(f.Files) != 0 {
			t.Errorf("%s: %+v, %v", format, f, err)
		}
	}
}

func FuzzBootfiles(f *testing.F) {
	f.Add(archive(f, "2711/bootcode4.bin", "code", "2711/mcb.bin", "->bootcode4.bin", "x", "->=2711/mcb.bin"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, _ := ParseBootfiles(b)
		if p == nil {
			return
		}
		if p.Size > len(b) || len(p.Files) > bootfilesMax {
			t.Errorf("%d files, %d bytes of %d", len(p.Files), p.Size, len(b))
		}
		for _, file := range p.Files {
			if !bytes.Equal(file.Data, b[file.Offset:][:len(file.Data)]) {
				t.Errorf("%+v", file)
			}
		}
	})
}

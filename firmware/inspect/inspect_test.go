package inspect

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"snag/firmware"
	"snag/internal/lab"
	"snag/socs"
	"snag/socs/am335x"
)

var update = flag.Bool("update", false, "write the golden files anew")

func unpacked(t *testing.T, pkg string) string {
	t.Helper()
	if testing.Short() {
		t.Skipf("short tests fetch no packages (%s)", pkg)
	}
	return lab.Packages(t, pkg)[0]
}

// debian returns the images of one of Debian's packages of U-Boot by their names in it, and the package's version.
func debian(t *testing.T, pkg string) (images map[string][]byte, version string) {
	t.Helper()
	dir := unpacked(t, pkg)
	root := filepath.Join(dir, "usr/lib/u-boot")
	images = make(map[string][]byte)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) == ".elf" {
			return err
		}
		b, err := os.ReadFile(path)
		images[strings.TrimPrefix(path, root+"/")] = b
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(images) < 2 {
		t.Fatalf("%d images in %s", len(images), root)
	}
	return images, filepath.Base(dir)
}

// TestDebian holds all of Debian's i.MX images against testdata/debian.txt, whose first line is the package's version.
// Of another version only what cannot change is compared.
func TestDebian(t *testing.T) {
	images, version := debian(t, "u-boot-imx:armhf")
	goldenDebian(t, "debian.txt", images, version)
	sabre := Data("u-boot-dtb.imx", images["mx6qsabrelite/u-boot-dtb.imx"]).Parts[0]
	if *sabre.Load != 0x177ff400 || *sabre.Entry != 0x17800000 || sabre.Offset != 0 || len(sabre.Parts) != 4 {
		t.Errorf("%+v", sabre)
	}
	if dcd := sabre.Parts[2]; dcd.Text != "DCD: 97 writes" || len(dcd.Commands) != 97 || dcd.Commands[0].Text != "write 0x020e05a8 = 0x00000030" {
		t.Errorf("%+v", dcd)
	}
}

// TestDebianSTM32 holds Debian's images for STM32MP15 against testdata/debian-stm32.txt.
func TestDebianSTM32(t *testing.T) {
	images, version := debian(t, "u-boot-stm32:armhf")
	goldenDebian(t, "debian-stm32.txt", images, version)

	spl := Data("u-boot-spl.stm32", images["stm32mp157c-dk2/u-boot-spl.stm32"]).Parts[0]
	if spl.Kind != kindSTM32 || *spl.Load != 0x2ffc2500 || *spl.Entry != 0x2ffc2500 || len(spl.Parts) != 2 || spl.Parts[0].Size != 256 {
		t.Errorf("%+v", spl)
	}
	if c := spl.Parts[1].Checks; len(c) != 1 || c[0] != (Check{"sum32", OK}) {
		t.Errorf("%+v", c)
	}
}

// TestDebianSunxi holds Debian's images for Allwinner's SoCs against testdata/debian-sunxi-*.txt.
func TestDebianSunxi(t *testing.T) {
	for arch, want := range map[string]struct {
		files map[string]string // its end, and the kind of its first part
		uboot string            // the kind of U-Boot behind SPL
		n     int
	}{
		"armhf": {map[string]string{"u-boot-sunxi-with-spl.bin": kindEGON}, kindUImage, 27},
		// From 2024 on the two files are one.
		"arm64": {map[string]string{"u-boot-sunxi-with-spl.bin": kindEGON, "sunxi-spl.bin": kindEGON, "u-boot-sunxi-with-spl.fit.itb": kindFIT, "u-boot.bin": kindProgram, "u-boot-nodtb.bin": kindProgram}, kindFIT, 52},
	} {
		images, version := debian(t, "u-boot-sunxi:"+arch)
		maps.DeleteFunc(images, func(name string, _ []byte) bool { return filepath.Ext(name) == ".dtb" })
		goldenDebian(t, "debian-sunxi-"+arch+".txt", images, version)
		n := 0
		for name, data := range images {
			r := Data(name, data)
			if r.Parts[0].Kind != want.files[filepath.Base(name)] {
				t.Errorf("%s is %s", name, r.Parts[0].Kind)
			}
			if whole := len(r.Parts) > 1; strings.HasSuffix(name, "-with-spl.bin") && (!whole || r.Parts[1].Kind != want.uboot || r.Parts[1].Offset != 0x8000) {
				t.Errorf("%s: %+v", name, r.Parts)
			}
			n++
		}
		if n < want.n {
			t.Errorf("%d files of %s, want %d", n, version, want.n)
		}
	}
}

// TestDebianRockchip holds Debian's images for Rockchip SoCs against testdata/debian-rockchip.txt and, for the board of
// 32 bits, -armhf.
func TestDebianRockchip(t *testing.T) {
	for arch, golden := range map[string]string{"arm64": "debian-rockchip.txt", "armhf": "debian-rockchip-armhf.txt"} {
		images, version := debian(t, "u-boot-rockchip:"+arch)
		for name, b := range images {
			if strings.HasSuffix(name, ".dtb") || bytes.HasPrefix(b, []byte("\x7fELF")) { // not what a ROM is sent
				delete(images, name)
			}
		}
		goldenDebian(t, golden, images, version)
	}
}

// goldenDebian compares what is found in images with a golden file.
func goldenDebian(t *testing.T, name string, images map[string][]byte, version string) {
	t.Helper()
	var got bytes.Buffer
	fmt.Fprintln(&got, version)
	for _, file := range slices.Sorted(mapKeys(images)) {
		r := Data(file, images[file])
		fmt.Fprintln(&got)
		if err := r.Write(&got, false); err != nil {
			t.Fatal(err)
		}
		if len(r.Problems) > 0 || len(r.Parts) == 0 || firmware.Identify(images[file]).Kind == firmware.KindUnknown {
			t.Errorf("%s: %q, %d parts", file, r.Problems, len(r.Parts))
		}
	}
	golden := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if was, _, _ := strings.Cut(string(want), "\n"); was != version {
		t.Logf("the golden file is of %s, the archive has %s: not compared", was, version)
	} else if got.String() != string(want) {
		t.Errorf("differs from %s (go test -update):\n%s", golden, diff(t, golden, got.Bytes()))
	}
}

func mapKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func diff(t *testing.T, golden string, got []byte) string {
	cmd := exec.CommandContext(t.Context(), "diff", "-u", golden, "-")
	cmd.Stdin = bytes.NewReader(got)
	out, err := cmd.Output()
	if _, ok := errors.AsType[*exec.ExitError](err); !ok {
		return err.Error()
	}
	return string(out)
}

// TestDebianDamaged cuts each image at 20 places, and flips 1,000 bits of it 20 times: whatever comes out, it comes,
// and soon.
func TestDebianDamaged(t *testing.T) {
	images, _ := debian(t, "u-boot-imx:armhf")
	stm32, _ := debian(t, "u-boot-stm32:armhf")
	maps.Copy(images, stm32)
	sunxi, _ := debian(t, "u-boot-sunxi:arm64")
	for _, name := range []string{"pine64_plus/sunxi-spl.bin", "pine64_plus/u-boot-sunxi-with-spl.fit.itb"} {
		images[name] = sunxi[name]
	}
	for _, g := range append(dfuImages(), rockchipImages()...) {
		images[g.name] = g.data
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	look := func(name string, data []byte) {
		start := time.Now()
		r := Data(name, data)
		if err := r.Write(io.Discard, true); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := json.Marshal(r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		inside(t, name, len(data), r.Parts)
		if d := time.Since(start); d > 10*time.Second {
			t.Errorf("%s took %s", name, d)
		}
	}
	for _, name := range slices.Sorted(mapKeys(images)) {
		data := images[name]
		for range 20 {
			n := rnd.IntN(len(data))
			look(fmt.Sprintf("%s cut at %d", name, n), data[:n:n])
		}
		// The headers are small: every second time they get all the flips.
		for i := range 20 {
			within := len(data)
			if i%2 == 1 {
				within = min(within, 2048)
			}
			b := bytes.Clone(data)
			for range 1000 {
				b[rnd.IntN(within)] ^= 1 << rnd.IntN(8)
			}
			look(fmt.Sprintf("%s flipped, %d", name, i), b)
			b = bytes.Clone(data)
			b[rnd.IntN(min(within, 64))] ^= 1 << rnd.IntN(8)
			look(fmt.Sprintf("%s with one bit flipped, %d", name, i), b)
		}
	}
}

// inside checks that no part lies outside of the file, but for what the file lacks.
func inside(t *testing.T, name string, size int, parts []*Part) {
	for _, p := range parts {
		if p.Offset < 0 || p.Size < 0 || p.Offset > size && len(p.Checks) == 0 && p.Kind != kindImage && p.Kind != kindSection && p.Kind != kindPartition && p.Kind != kindData {
			t.Errorf("%s: %s of %d bytes at %#x of %#x", name, p.Kind, p.Size, p.Offset, size)
		}
		inside(t, name, size, p.Parts)
	}
}

// TestUses asks the AM335x backend about Debian's files for the BeagleBone Black.
func TestUses(t *testing.T) {
	dir := filepath.Join(unpacked(t, "u-boot-omap:armhf"), "usr/lib/u-boot/am335x_boneblack")
	model, err := socs.Lookup("am335x")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		kind        string
		spl, uboot  bool
		why         string // of the slot that does not take it
		findingsFor string
	}{
		"MLO":        {kindMLO, true, false, "is a TI MLO for AM335x, not U-Boot itself", "spl"},
		"u-boot.img": {kindFIT, false, true, "not a first stage", ""},
	} {
		r, err := File(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Problems) > 0 || r.Parts[0].Kind != want.kind {
			t.Errorf("%s: %q, %s", name, r.Problems, r.Parts[0].Kind)
		}
		r.For(am335x.Backend{}, model)
		uses := r.Uses
		if len(uses) != 2 || uses[0].Slot != "spl" || uses[0].Takes != want.spl || uses[1].Takes != want.uboot || !r.Usable() {
			t.Fatalf("%s: %+v", name, uses)
		}
		for _, u := range uses {
			if !u.Takes && !strings.Contains(strings.Join(u.Errors, "\n"), want.why) {
				t.Errorf("%s as %s: %q", name, u.Slot, u.Errors)
			}
			if (len(u.Findings) > 0) != (u.Slot == want.findingsFor) {
				t.Errorf("%s as %s: findings %q", name, u.Slot, u.Findings)
			}
		}
		var text strings.Builder
		if err := r.Write(&text, false); err != nil || !strings.Contains(text.String(), "as spl") || !strings.Contains(text.String(), "hint: ") {
			t.Errorf("%s: %v\n%s", name, err, &text)
		}
	}
	none := Data("x.imx", []byte("nothing"))
	if none.For(am335x.Backend{}, model); none.Usable() {
		t.Errorf("%+v", none.Uses)
	}
}

// backend answers checks as a table says.
type backend struct {
	socs.Backend
	check func(socs.Firmware) error
}

func (backend) Family() socs.Family {
	return socs.Family{Slots: []socs.Slot{{Name: "a"}, {Name: "b"}, {Name: "c"}}}
}

func (b backend) Check(_ socs.Model, fw socs.Firmware) (socs.Firmware, []socs.Finding, error) {
	return fw, nil, b.check(fw)
}

// TestUsesOfOthers: what a backend wants beside a slot is supplied, errors about that are not the slot's.
func TestUsesOfOthers(t *testing.T) {
	missing := func(slot string) error { return &socs.FirmwareError{Slot: slot, Err: errors.New("missing")} }
	for name, tt := range map[string]struct {
		check func(socs.Firmware) error
		want  string
	}{
		"all": {func(socs.Firmware) error { return nil }, "true true true"},
		"a wants b and c, which wants a": {func(fw socs.Firmware) error {
			if _, ok := fw["a"]; ok && fw["b"].Data == nil {
				return missing("b")
			}
			if _, ok := fw["a"]; !ok {
				return errors.Join(missing("a"), missing("c"))
			}
			return &socs.FirmwareError{Slot: "c", Err: errors.New("bad")}
		}, "true true false"},
		"an error of no slot":   {func(socs.Firmware) error { return errors.New("oops") }, "false false false"},
		"wants what is no slot": {func(socs.Firmware) error { return missing("z") }, "true true true"},
	} {
		var got []string
		r := Data("x", []byte("data"))
		r.For(backend{check: tt.check}, socs.Model{})
		for _, u := range r.Uses {
			got = append(got, fmt.Sprint(u.Takes))
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: %q, want %s", name, got, tt.want)
		}
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "none")} {
		if r, err := File(path); err == nil {
			t.Errorf("%s: %s", path, r.Text)
		}
	}
	path := filepath.Join(dir, "empty")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := File(path)
	if err != nil || r.Text != "an empty file" || len(r.Parts) != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	b, err := json.Marshal(r)
	if want := fmt.Sprintf(`{"file":%q,"size":0,"text":"an empty file","parts":[],"problems":[],"notes":[]}`, path); err != nil || string(b) != want {
		t.Errorf("%s, want %s", b, want)
	}
	if testing.Short() {
		return
	}
	path = filepath.Join(dir, "card") // sparse
	if err := os.WriteFile(path, []byte("not much"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 8<<30); err != nil {
		t.Skip(err)
	}
	if r, err := File(path); err != nil || r.Size != 8<<30 || len(r.Notes) != 1 {
		t.Errorf("%d bytes, %q, %v", r.Size, r.Notes, err)
	}
}

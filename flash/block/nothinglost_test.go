//go:build linux

package block

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"snag/flash"
	"snag/flash/bmap"
	"snag/flash/image"
)

// cases is how many random cases are tried: SNAG_IMAGES, or n.
func cases(t testing.TB, n int) int {
	if s := os.Getenv("SNAG_IMAGES"); s != "" {
		if _, err := fmt.Sscan(s, &n); err != nil {
			t.Fatal("SNAG_IMAGES:", err)
		}
	}
	return n
}

// TestNothingLost lets something go wrong at a random byte: with the image, on its way, with the medium. What is
// reported as written and verified is on the medium, byte for byte; what is not says which bytes of the image are the
// matter, and leaves a medium that does not boot. SNAG_IMAGES=500 for more cases.
func TestNothingLost(t *testing.T) {
	outcomes := map[string]int{}
	for i := range cases(t, 60) {
		rng := rand.New(rand.NewPCG(uint64(i), 5))
		size := 1<<20 + rng.Int64N(3<<20)
		name, content := sample(t, rng, size)
		mapped := rng.IntN(3) > 0
		var m *bmap.Map
		o := image.Options{NoBmap: true}
		if mapped {
			writeMap(t, name)
			text, err := os.ReadFile(name + ".bmap")
			if err != nil {
				t.Fatal(err)
			}
			if m, err = bmap.Parse(text); err != nil {
				t.Fatal(err)
			}
			o = image.Options{Bmap: name + ".bmap"}
		}
		kind := []string{"raw", "gzip", "zstd"}[rng.IntN(3)]
		stored := compressed(t, kind, content)
		d, medium, tr := device(t)
		medium.block, medium.noZero = []int64{512, 4096}[rng.IntN(2)], rng.IntN(2) == 0
		old := make([]byte, 5<<20)
		for i := range old {
			old[i] = 0xa5
		}
		medium.each(old, 0, func(page, p []byte) { copy(page, p) })

		var in io.Reader = bytes.NewReader(stored)
		at := rng.Int64N(size)       // of the image
		in2 := rng.IntN(len(stored)) // of the file
		fault := []string{"none", "unplug", "full", "short", "corrupted", "checksum", "reader", "bad", "lost", "flip", "small", "wrap", "flush"}[rng.IntN(13)]
		must := true // it is certain that somebody notices
		switch fault {
		case "none":
			must = false
		case "unplug":
			medium.unplugAt = at + 1
			medium.onUnplug = func() {
				os.RemoveAll(tr.root + "/sys/block/sdb")
				os.RemoveAll(tr.root + "/sys/" + fmt.Sprintf(onUSB, 0))
			}
			must = false // less may have to be written
		case "full":
			d.Size = at / medium.block * medium.block
			medium.size = d.Size
		case "short":
			in = bytes.NewReader(stored[:in2])
			must = !mapped && kind != "raw" // else it may be behind the last of the map, or another image
		case "corrupted":
			damaged := bytes.Clone(stored)
			damaged[in2] ^= byte(1 + rng.IntN(255))
			in = bytes.NewReader(damaged)
			must = kind != "raw" && !mapped // the same
		case "checksum":
			if m == nil || len(m.Ranges) == 0 {
				must = false
				break
			}
			r := &m.Ranges[rng.IntN(len(m.Ranges))]
			r.Sum[rng.IntN(len(r.Sum))] ^= 1
			text, err := m.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name+".bmap", text, 0o644); err != nil {
				t.Fatal(err)
			}
		case "reader":
			in = io.MultiReader(bytes.NewReader(stored[:in2]), &broken{total: 6 << 20})
			must = !mapped
		case "bad":
			medium.badAt, must = at+1, false
		case "lost":
			medium.dropAt, must = at+1, false
		case "flip":
			medium.flip, must = at+1, false
		case "small":
			medium.real, must = (at/page+1)*page, false
		case "wrap":
			medium.real, medium.wrap, must = (at/page+1)*page, true, false
		case "flush":
			medium.syncErr = errors.New("made up")
		}
		what := fmt.Sprintf("case %d: %s at %d of %d, or %d of %d, %s, map %t", i, fault, at, size, in2, len(stored), kind, mapped)

		err := func() error {
			im, err := image.New(t.Context(), "board.img", in, o)
			if err != nil {
				return err
			}
			return d.Write(t.Context(), im, flash.Options{Verify: true})
		}()
		if err == nil {
			outcomes["written"]++
			if must {
				t.Errorf("%s: nobody noticed", what)
			}
			if fault == "flip" {
				medium.flip = 0
			}
			got := medium.content(len(old))
			want := bytes.Clone(old)
			if fault == "small" || fault == "wrap" {
				want = bytes.Clone(got) // what was not written is elsewhere than it seems
			}
			if m == nil {
				copy(want, content)
			} else {
				for _, r := range m.Ranges {
					off, end := m.Extent(r)
					copy(want[off:end], content[off:end])
				}
			}
			if kind == "raw" && !mapped && (fault == "short" || fault == "corrupted") {
				continue // it is another image, of which nobody can tell
			}
			if j := differ(got, want); j >= 0 {
				t.Errorf("%s: reported as written and verified, but byte %d is something else", what, j)
			}
			continue
		}
		outcomes[fault]++
		text := err.Error()
		at2, ranged := errors.AsType[*image.RangeError](err)
		_, refused := errors.AsType[*RefusedError](err)
		switch {
		case fault == "none":
			t.Errorf("%s: %v", what, err)
		case refused && medium.written == 0:
		case medium.written == 0 && strings.Contains(text, "board.img: "): // the image could not be opened
		case fault == "flush" && strings.Contains(text, "made up"):
		case !ranged || !strings.Contains(text, "board.img: ") || !strings.Contains(text, "byte"):
			t.Errorf("%s: %v", what, err)
		case (fault == "bad" || fault == "lost" || fault == "flip") && (at+1 < at2.Off || at+1 >= at2.End):
			t.Errorf("%s: %v", what, err)
		case fault == "unplug" && !strings.Contains(text, "has left the bus"):
			t.Errorf("%s: %v", what, err)
		}
		if errors.Is(err, ErrDiffers) || medium.written == 0 || ranged && at2.Off == 0 {
			continue // all was written, the begin was the last, or nothing was
		}
		if got := medium.content(512); !bytes.Equal(got, make([]byte, 512)) && !bytes.Equal(got, old[:512]) {
			t.Errorf("%s: the begin of the medium is that of the image: %v", what, err)
		}
	}
	t.Log(outcomes)
}

func differ(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

func compressed(t testing.TB, kind string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch kind {
	case "gzip":
		w = gzip.NewWriter(&out)
	case "zstd":
		w, err = zstd.NewWriter(&out, zstd.WithEncoderLevel(zstd.SpeedFastest))
	default:
		return b
	}
	if err == nil {
		_, err = w.Write(b)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

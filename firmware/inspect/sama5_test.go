package inspect

import (
	"bytes"
	"testing"

	"snag/sim/sama5"
)

// The applets of SAM-BA, and U-Boot for SAMA5.
func TestSAMA5(t *testing.T) {
	m, err := sama5.FindModel("sama5d3")
	if err != nil {
		t.Fatal(err)
	}
	files := sama5.Generate(m, 1000, 1)
	var got bytes.Buffer
	for _, name := range []string{"lowlevel", "extram", "u-boot"} {
		r := Data(name+".bin", files[name])
		if err := r.Write(&got, false); err != nil {
			t.Fatal(err)
		}
		inside(t, name, len(files[name]), r.Parts)
	}
	compare(t, "sama5.txt", got.Bytes())
}

func FuzzSAMA5(f *testing.F) {
	for _, m := range sama5.Models() {
		f.Add(sama5.Generate(m, 100, 1)["extram"])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		inside(t, "fuzz", len(b), Data("x", b).Parts)
	})
}

package plan

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestDryRun has every step.
func TestDryRun(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	text, err := os.ReadFile(golden("good.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	put(t, "disk.img", bytes.Repeat([]byte("an image"), 512))
	p, err := Parse("good.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := p.DryRun(&b); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(golden("good.golden"))
	if *update {
		err = os.WriteFile(golden("good.golden"), []byte(b.String()), 0o644)
		want = []byte(b.String())
	}
	if err != nil || b.String() != string(want) {
		t.Errorf("%v, got\n%s\nwant\n%s", err, b.String(), want)
	}
}

// testDir is where the tests were started.
var testDir, _ = os.Getwd()

func golden(name string) string { return filepath.Join(testDir, "testdata", name) }

func put(t testing.TB, name string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestMistakes(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"", "p: empty"},
		{"a: [", "p:1: not YAML: "},
		{"steps: []", "p:1:8: steps: there is none"},
		{"steps: [reset]\nstpes: []", `p:2:1: a plan: unknown key "stpes": did you mean steps?`},
		{"steps: [reset]\n---\na: 1", "p:2:1: a second YAML document"},
		{"steps: [reset]\nusb-path: 1-2-3", "p:2:11: usb-path: "},
		{"steps: &x [reset]\nusb-path: *x", "an alias, which plans do not have"},
		{"steps:\n- reset\n  - x", "p:"},
		{"steps:\n- flsh: {}", `p:2:3: unknown step "flsh": did you mean flash?`},
		{"steps:\n- 17", `p:2:3: unknown step "17"`},
		{"steps:\n- [reset]", "p:2:3: a step: expected one of"},
		{"steps:\n- flash:\n  image: x\n  mmc: 0", "p:2:3: a step has one of recover,"},
		{"steps:\n- flash:", "p:2:3: flash: expected more behind it"},
		{"steps:\n- flash: {image: x}", "p:2:10: flash: where? expected one of fastboot,"},
		{"steps:\n- flash: {image: x, mmc: 0, dfu: y}", "p:2:29: flash: mmc and dfu: one target"},
		{"steps:\n- flash: {image: x, fastboot: a, verify: true}", "p:2:10: flash: verify: what fastboot's flash has written cannot be read back"},
		{"steps:\n- verify: {image: x, fastboot: root}", "p:2:22: verify: what fastboot's flash has written cannot be read back; as mmc, mtd or sf it can"},
		{"steps:\n- verify: {image: x, file: y}", "p:2:22: verify: a file is not compared later: say verify: true when it is flashed"},
		{"steps:\n- verify: {image: x, disk: 0, file: y}", "p:2:22: verify: a file is not compared later"},
		{"steps:\n- flash: {mmc: 0}", "p:2:10: flash: image is missing"},
		{"steps:\n- flash: {image: x, mmc: zero}", `p:2:26: mmc "zero": expected DEVICE`},
		{"steps:\n- flash: {image: x, mmc: '0:a;reset'}", `p:2:26: mmc "0:a;reset": a partition's name of letters`},
		{"steps:\n- flash: {image: x, mmc: 0.9}", "hardware partitions 0 to 7"},
		{"steps:\n- flash: {image: x, mtd: 'a b'}", `p:2:26: mtd "a b"`},
		{"steps:\n- flash: {image: x, disk: sdb}", `p:2:27: disk "sdb": expected a block device`},
		{"steps:\n- flash: {image: x, mmc: 0, offset: 1000}", "p:2:10: flash: offset 0x3e8: expected whole blocks"},
		{"steps:\n- flash: {image: x, mmc: 0, offset: many}", `p:2:37: offset: "many": expected a number of bytes`},
		{"steps:\n- flash: {image: x, dfu: a, offset: 512}", "offset: dfu targets have none"},
		{"steps:\n- flash: {image: x, mmc: 0, verify: perhaps}", `p:2:37: verify: expected true or false, found "perhaps"`},
		{"steps:\n- flash: {image: x, image: y, mmc: 0}", "p:2:21: flash: image stands twice"},
		{"steps:\n- flash: {image: x, mmc: 0, no-bmap: true, keyring: y}", "no-bmap, and something of a block map"},
		{"steps:\n- flash: {image: '-', mmc: 0}\n- flash: {image: '-', mmc: 1}", "p:3:3: image: standard input cannot be read twice"},
		{"steps:\n- recover: {soc: keembai, firmware: x}", "did you mean keembay?"},
		{"steps:\n- recover: {soc: keembay}", "p:2:12: recover: firmware is missing"},
		{"steps:\n- wait: fastbot", `p:2:9: wait for "fastbot": expected fastboot, dfu, disk or anything`},
		{"steps:\n- wait: {for: dfu, timeout: soon}", `p:2:29: timeout: "soon"`},
		{"steps:\n- uboot: \"a\\nreset\"", "p:2:10: run: "},
		{"steps:\n- uboot: {run: ums 0 mmc 0, leave: true, timeout: 1m}", "p:2:42: timeout: nobody waits for a command that does not come back"},
		{"steps:\n- fastboot: download:00000010", "the step download does that"},
		{"steps:\n- reset: now", `p:2:10: reset: expected nothing more, or one of bootloader`},
		{"steps:\n- gpt: {mmc: 0, partitions: [{name: a, size: -}, {name: b, size: 1M}]}", "only the last partition has what is left"},
		{"steps:\n- gpt: {mmc: 0, partitions: [{name: a, size: 1M, start: 1M}, {name: b, size: 1M, start: 1536k}]}", "start: the partition before goes up to 0x200000"},
		{"steps:\n- gpt: {mmc: 0, partitions: [{name: a, size: 1M}, {name: a, size: 1M}]}", `name "a": there is one`},
		{"steps:\n- gpt: {mmc: 0, partitions: [{name: \"a'b\", size: 1M}]}", "expected up to 36 letters"},
		{"steps:\n- gpt: {mmc: '0:x', partitions: [{name: a, size: 1M}]}", "a table is of a whole device"},
	} {
		_, err := Parse("p", []byte(tc.text))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: got %v, want %q", tc.text, err, tc.want)
		}
	}
}

// TestAllMistakes are told at once.
func TestAllMistakes(t *testing.T) {
	_, err := Parse("p", []byte("steps:\n- flsh: 1\n- flash: {image: x, mmc: z, offset: 1}\n- reset: x\n"))
	var lines []int
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		at, ok := errors.AsType[*Error](e)
		if !ok {
			t.Fatalf("%v is no *Error", e)
		}
		lines = append(lines, at.Line)
	}
	if !slices.Equal(lines, []int{2, 3, 3, 4}) {
		t.Errorf("lines %v of\n%v", lines, err)
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "512": 512, "0x1000": 4096, "4k": 4096, "4K": 4096, "16M": 16 << 20, "2GiB": 2 << 30, "1T": 1 << 40, "010": 10, "00": 0,
		"": -1, "k": -1, "-1": -1, "1.5M": -1, "4kB": -1, "9999999T": -1, "1_000": -1, "0x1k": -1, "iB": -1, "5iB": -1, "0b1": -1, "0o7": -1, "+1": -1,
	} {
		got, err := ParseSize(text)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	text, err := os.ReadFile("testdata/good.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	for line := range strings.Lines(string(text)) {
		f.Add("steps:\n" + line)
	}
	f.Add("steps: &a [{flash: *a}]")
	f.Add("steps: [{? [a] : b}]\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse("dir/plan.yaml", []byte(text))
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Fatalf("%v is no *Error", err)
			}
			return
		}
		if len(p.Steps) == 0 {
			t.Fatal("a plan without steps")
		}
		for _, s := range p.Steps {
			if s.Action == nil || s.Line == 0 || s.Action.String() == "" {
				t.Fatalf("%+v", s)
			}
			s.Action.gadget()
			if g, ok := s.Action.(*GPT); ok && strings.ContainsAny(g.uboot(), "'\n\"$\\") {
				t.Fatalf("what U-Boot's shell would act upon: %q", g.uboot())
			}
		}
		p.legs(&Options{})
		identities(p.Steps)
	})
}

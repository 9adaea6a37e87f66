package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"snag/recovery"
	"snag/socs"
)

var update = flag.Bool("update", false, "write the golden files")

var slots = []socs.Slot{
	{Name: "spl", Required: true, Doc: "first stage"},
	{Name: "u-boot", Required: true, Keys: []string{"address", "verify", "preset"}},
	{Name: "extra"},
}

// inDir makes an empty current directory with these files.
func inDir(t *testing.T, files map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

var binaries = map[string]string{"spl.bin": "the spl", "u-boot.img": "the u-boot", "sub/spl.bin": "another spl"}

func with(files ...string) map[string]string {
	all := make(map[string]string)
	for name, text := range binaries {
		all[name] = text
	}
	for i := 0; i < len(files); i += 2 {
		all[files[i]] = files[i+1]
	}
	return all
}

func TestLoad(t *testing.T) {
	const both = "spl:\n  path: spl.bin\nu-boot:\n  path: u-boot.img\n"
	for _, tt := range []struct {
		name    string
		yaml    string // sub/fw.yaml
		sources []Source
		spl     string // contents of the image
		address any
	}{
		{name: "file", yaml: both, spl: "the spl"},
		{name: "CWD", yaml: "paths-relative-to: CWD\n" + both, spl: "the spl"},
		{name: "THIS_FILE", yaml: "paths-relative-to: THIS_FILE\nspl: {path: spl.bin}\nu-boot: {path: ../u-boot.img}\n", spl: "another spl"},
		{name: "directory, after the slots", yaml: "spl: {path: spl.bin}\nu-boot: {path: ../u-boot.img}\npaths-relative-to: sub", spl: "another spl"},
		{name: "hexadecimal", yaml: "spl: {path: spl.bin}\nu-boot: {path: u-boot.img, address: 0x4030_0000}", spl: "the spl", address: 0x40300000},
		{name: "anchors and merge", yaml: "extra: &e {path: u-boot.img}\nspl: {path: spl.bin}\nu-boot: {<<: *e, address: 7}", spl: "the spl", address: 7},
		{name: "argument replaces the slot", yaml: "u-boot: {path: u-boot.img, address: 1}\nspl: {path: missing}",
			sources: []Source{{File: "sub/fw.yaml"}, {Arg: "spl=sub/spl.bin"}}, spl: "another spl", address: 1},
		{name: "argument drops the slot's other keys", yaml: "u-boot: {path: u-boot.img, address: 1}\nspl: {path: spl.bin}",
			sources: []Source{{File: "sub/fw.yaml"}, {Arg: "u-boot=u-boot.img"}}, spl: "the spl"},
		{name: "dicts", sources: []Source{
			{Arg: `{'spl': {'path': 'spl.bin'}, "paths-relative-to": 'sub'}`},
			{Arg: `{"u-boot": {"path": r"u-boot.img", 'address': 0x1_00}}`},
		}, spl: "another spl", address: 0x100},
		{name: "a path with equal signs", sources: []Source{{Arg: "spl=a=b"}, {Arg: "u-boot=u-boot.img"}}, spl: "a=b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inDir(t, with("sub/fw.yaml", tt.yaml, "a=b", "a=b"))
			sources := tt.sources
			if sources == nil {
				sources = []Source{{File: "sub/fw.yaml"}}
			}
			fw, err := Load(sources, slots)
			if err != nil {
				t.Fatal(err)
			}
			if got := string(fw["spl"].Data); got != tt.spl {
				t.Errorf("spl is %q (%s), want %q", got, fw["spl"].Path, tt.spl)
			}
			if got := string(fw["u-boot"].Data); got != "the u-boot" {
				t.Errorf("u-boot is %q", got)
			}
			if got := fw["u-boot"].Params["address"]; got != tt.address {
				t.Errorf("address is %v, want %v", got, tt.address)
			}
		})
	}
}

// TestProblems compares what is reported with testdata/NAME.txt.
func TestProblems(t *testing.T) {
	golden, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name      string
		yaml      string
		sources   []Source
		malformed bool
	}{
		{"everything", `spl:
  pth: spl.bin
  path: 123
uboot:
  path: u-boot.img
extra: spl.bin
u-boot:
  path: missing.img
  adress: 0x100
  verify: [1]
  preset: null
extra:
  path: spl.bin
7: {}
`, nil, true},
		{"files", "spl: {path: sub}\nu-boot: {path: missing.img}\nextra: {path: empty}", nil, false},
		{"fifo", "spl: {path: fifo}\nu-boot: {path: u-boot.img}", nil, false},
		{"huge", "spl: {path: huge}\nu-boot: {path: u-boot.img}", nil, false},
		{"missing-slot", "u-boot:\n  path: u-boot.img\n", nil, true},
		{"syntax", "spl:\n  path: spl.bin\n u-boot:\n", nil, true},
		{"tab", "spl:\n\tpath: spl.bin\n", nil, true},
		{"empty", "# nothing\n", nil, true},
		{"list", "- spl\n- u-boot\n", nil, true},
		{"two-documents", "spl: {path: spl.bin}\n---\nu-boot: {path: u-boot.img}\n", nil, true},
		{"no-such-file", "", []Source{{File: "nowhere.yaml"}}, true},
		{"no-source", "", []Source{}, true},
		{"relative-to", "paths-relative-to: 7\nspl: {path: spl.bin}\nu-boot: {path: u-boot.img}", nil, true},
		{"arguments", "", []Source{{Arg: "spl"}, {Arg: "{'u-boot': {'path': 'u-boot.img', 'adress': 1}}"},
			{Arg: "{'spl': {'path': spl.bin}}"}, {Arg: "{'spl': {'path': 'spl.bin'}, 'paths-relative-to': 'THIS_FILE'}"}}, true},
		{"bomb", bomb(), nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inDir(t, with("fw.yaml", tt.yaml, "empty", ""))
			if err := syscall.Mkfifo("fifo", 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile("huge", nil, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate("huge", maxFirmware+1); err != nil {
				t.Fatal(err)
			}
			if tt.sources == nil {
				tt.sources = []Source{{File: "fw.yaml"}}
			}
			_, err := Load(tt.sources, slots)
			problems, ok := errors.AsType[Problems](err)
			if !ok {
				t.Fatalf("error %v, expected Problems", err)
			}
			if got := problems.Malformed(); got != tt.malformed {
				t.Errorf("Malformed is %v, want %v", got, tt.malformed)
			}
			wd, err := os.Getwd()
			if err != nil {
				t.Fatal(err)
			}
			got := strings.ReplaceAll(problems.Error(), wd, "DIR") + "\n"
			file := filepath.Join(golden, tt.name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%swant:\n%s", got, want)
			}
		})
	}
}

// bomb merges mappings that merge mappings: 9^9 keys if they were all visited.
func bomb() string {
	b := "m0: &m0 {path: spl.bin, address: 1}\n"
	for _, n := range "12345678" {
		from, to := "*m"+string(n-1), "m"+string(n)
		b += to + ": &" + to + " {<<: [" + strings.TrimSuffix(strings.Repeat(from+", ", 9), ", ") + "]}\n"
	}
	return b + "spl: *m8\nu-boot: {path: u-boot.img}\n"
}

// A key that is set on the command line is that of all slots that have it, and of no image that others hold.
func TestSet(t *testing.T) {
	slots := []socs.Slot{{Name: "a", Keys: []string{"dt"}}, {Name: "b", Keys: []string{"dt", "x"}}, {Name: "c"}}
	params := map[string]any{"dt": "file's"}
	fw := socs.Firmware{"a": {}, "b": {Params: params}, "c": {}}
	if !Set(fw, slots, "dt", "chosen") || fw["a"].Params["dt"] != "chosen" || fw["b"].Params["dt"] != "chosen" || fw["c"].Params != nil {
		t.Errorf("%v", fw)
	}
	if params["dt"] != "file's" {
		t.Error("the file's own mapping was changed")
	}
	delete(fw, "b")
	if Set(fw, slots, "x", true) {
		t.Error("x was set of no image")
	}
}

func TestTemplates(t *testing.T) {
	names := Templates()
	if len(names) == 0 {
		t.Fatal("no templates")
	}
	for _, name := range names {
		text, err := Template(name)
		if err != nil {
			t.Fatal(err)
		}
		files := map[string]string{"fw.yaml": text}
		for _, path := range regexp.MustCompile(`(?m)^  path: (.*)$`).FindAllStringSubmatch(text, -1) {
			files[path[1]] = "x"
		}
		inDir(t, files)
		// The example in its comment names the model.
		soc := regexp.MustCompile(`(?m)^#   snag recover --soc (\S+) .*-f ` + name + `\.yaml$`).FindStringSubmatch(text)
		if soc == nil {
			t.Errorf("%s: no example", name)
			continue
		}
		_, backend, err := recovery.Lookup(soc[1])
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := Load([]Source{{File: "fw.yaml"}}, backend.Family().Slots); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Template("beaglebone-black"); err == nil {
		t.Error("a template that does not exist was found")
	}
	if _, err := Template("am335x-beaglebone"); err == nil || !strings.Contains(err.Error(), "am335x-beaglebone-black") {
		t.Errorf("%v; want the nearest name", err)
	}
}

func FuzzYAML(f *testing.F) {
	f.Add("spl:\n  path: spl.bin\nu-boot: {path: u-boot.img, address: 0x100}\n")
	f.Add("paths-relative-to: THIS_FILE\nspl: &a {path: x}\nu-boot: {<<: *a}\nextra: *a")
	f.Add("a: &a [*a]\n")
	f.Add("? {spl: 1}\n: !!binary x\n<<: [1, {spl: ~}]\n--- x")
	f.Add(bomb())
	f.Fuzz(func(t *testing.T, text string) {
		l := &loader{slots: slots, chosen: make(map[string]entry), file: "fw.yaml"}
		if root := l.parseYAML([]byte(text)); root != nil {
			l.mapping(root)
		}
		checkLoader(t, l)
	})
}

func FuzzPyDict(f *testing.F) {
	f.Add("{'spl': {'path': 'x', 'address': 0x100}}")
	f.Add(`{"u-boot": {"path": r'a\b' 'c' """d"""  , 'address': -0x1_0, }, 'extra': ({'path': '\x41\u00e9\101'})}`)
	f.Add("{'spl': [1, 2.5e3, (), (1,), True, None] # comment\n}")
	f.Add(strings.Repeat("{1:", 100))
	f.Add("{1000E0001111111: 1}") // once took minutes
	f.Fuzz(func(t *testing.T, text string) {
		l := &loader{slots: slots, chosen: make(map[string]entry), file: "-F", dict: true}
		if root := l.parseArg(text); root != nil {
			l.mapping(root)
		}
		checkLoader(t, l)
	})
}

// checkLoader holds for any input: nothing chosen without a path, and every place inside the source.
func checkLoader(t *testing.T, l *loader) {
	for name, e := range l.chosen {
		if e.path == "" {
			t.Errorf("%s was chosen without a path", name)
		}
		for key, v := range e.params {
			switch v.(type) {
			case string, int, bool:
			default:
				t.Errorf("%s: %s is a %T", name, key, v)
			}
		}
	}
	for _, p := range l.problems {
		if p.Msg == "" || p.Line < 0 || p.Col < 0 {
			t.Errorf("problem %+v", p)
		}
	}
}

// Who asks for the template of a SoC is told those for it, or for its kin.
func TestTemplateOfSoC(t *testing.T) {
	for name, want := range map[string]string{
		"imx6q": "start from imx6-sabrelite, or imx6-var-som-mx6", "imx8mp": "start from imx8mp-evk", "am623": "am62x-beagle-play", "a64": "start from sunxi-orangepi-pc",
		"stm32mp": "stm32mp1-dk", "rockchip": "start from rockchip-rk3399", "am335x-evn": `did you mean "am335x-evm"?`, "nothing": "known: ",
	} {
		if _, err := Template(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

// The board that somebody took for a SoC is found by its template, as names are written, and as people write them.
func TestTemplateOf(t *testing.T) {
	for word, want := range map[string]string{
		"beaglebone": "am335x-beaglebone-black", "BeagleBone_Black": "am335x-beaglebone-black", "orange pi pc": "sunxi-orangepi-pc",
		"play": "am62x-beagle-play", "dk": "", "nothing": "", "-----": "",
	} {
		if got := TemplateOf(word); got != want {
			t.Errorf("%s: %q, want %q", word, got, want)
		}
	}
}
